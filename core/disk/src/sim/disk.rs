//! The simulated disk behind the seam.

use super::{
    Crash, Fault, FaultCounts, OPERATIONS, Operation, SECTOR_BYTES,
    crash::after_power_loss,
    executor::yield_now,
    fault::PowerLoss,
    state::{Change, Inode, NameChange, Plan, State, folder_of},
};
use crate::{AlignedBuf, BLOCK_BYTES, Disk, DiskFile, Purpose};
use std::{cell::RefCell, io, rc::Rc};

/// Content of a fresh buffer: the seam promises nothing about it, so nothing may depend on zeros.
const FRESH_BYTE: u8 = 0xdb;

/// Clones share the disk.
#[derive(Clone)]
pub struct SimDisk {
    state: Rc<RefCell<State>>,
    observer: Rc<RefCell<Option<Observer>>>,
}

/// Sees the disk at each point where the power could fail.
type Observer = Rc<dyn Fn(&SimDisk, Operation)>;

/// An open file of a [`SimDisk`].
pub struct SimFile {
    disk: SimDisk,
    inode: u64,
    path: String,
}

impl SimDisk {
    /// An empty disk without a capacity limit.
    pub fn new(seed: u64) -> SimDisk {
        SimDisk::with(State::new(seed))
    }

    fn with(state: State) -> SimDisk {
        SimDisk { state: Rc::new(RefCell::new(state)), observer: Rc::default() }
    }

    /// The disk as found after the power was lost now. This one stays as it is, so that a test can look at many
    /// outcomes of one moment; the outcome shares nothing with it.
    pub fn crash(&self, crash: Crash, seed: u64) -> SimDisk {
        let mut faults = self.state.borrow().faults;
        faults.power_losses += 1;
        let after = after_power_loss(&self.state.borrow(), crash, seed, &mut faults);
        self.state.borrow_mut().faults = faults;
        SimDisk::with(after)
    }

    /// The process was killed, and with it the calls that were under way: what they wrote is there, and a later sync
    /// covers it. Nothing becomes durable by that.
    pub fn end_calls(&self) {
        let mut state = self.state.borrow_mut();
        state.plans.clear();
        for inode in state.inodes.values_mut() {
            inode.changes.iter_mut().for_each(|logged| logged.completed = true);
        }
    }

    /// The power fails at the `nth` operation from now (from 1): its effect is as un-synced as the others', and it
    /// and all later ones fail so that [`super::is_power_loss`] holds.
    pub fn crash_at(&self, nth: u64) {
        assert!(nth > 0, "operations count from 1");
        self.state.borrow_mut().crash_in = Some(nth);
    }

    /// The `nth` operation from now (from 1), of this kind or of any, fails. Several plans can run at once.
    pub fn fail_at(&self, operation: Option<Operation>, nth: u64, fault: Fault) {
        assert!(nth > 0, "operations count from 1");
        self.state.borrow_mut().plans.push(Plan { operation, remaining: nth, fault });
    }

    /// Bytes that files may occupy; growing past it fails with `StorageFull`. `None`: no limit.
    pub fn set_capacity(&self, capacity_bytes: Option<u64>) {
        self.state.borrow_mut().capacity_bytes = capacity_bytes;
    }

    /// Bytes that files occupy, in whole blocks.
    pub fn used_bytes(&self) -> u64 {
        self.state.borrow().used_bytes()
    }

    /// Whether operations let other tasks run in between (they do from the start).
    pub fn set_yields(&self, yields: bool) {
        self.state.borrow_mut().yields = yields;
    }

    /// Calls `observer` before each operation and in the middle of each one that changes something: all the points at
    /// which a power loss can make a difference.
    pub fn observe(&self, observer: impl Fn(&SimDisk, Operation) + 'static) {
        *self.observer.borrow_mut() = Some(Rc::new(observer));
    }

    pub fn stop_observing(&self) {
        self.observer.borrow_mut().take();
    }

    pub fn faults(&self) -> FaultCounts {
        self.state.borrow().faults
    }

    pub fn operations(&self, operation: Operation) -> u64 {
        self.state.borrow().operations[operation as usize]
    }

    pub fn operations_total(&self) -> u64 {
        OPERATIONS.iter().map(|operation| self.operations(*operation)).sum()
    }

    /// Rot: flips one bit of a file, durably.
    ///
    /// # Panics
    /// If there is no such file or byte.
    pub fn flip_bit(&self, path: &str, byte: usize, bit: u8) {
        let mut state = self.state.borrow_mut();
        state.faults.bits_flipped += 1;
        let inode = *state.names.get(path).expect("the file to damage");
        state.inode(inode).flip_bit(byte, bit);
    }

    /// What a read of the whole file would see, without being an operation.
    pub fn content(&self, path: &str) -> Option<Vec<u8>> {
        let state = self.state.borrow();
        state.names.get(path).map(|inode| state.inodes[inode].current.clone())
    }

    /// Puts a file there, durably, without being an operation.
    pub fn plant(&self, path: &str, content: Vec<u8>) {
        let mut state = self.state.borrow_mut();
        let inode = state.next_inode;
        state.next_inode += 1;
        state.inodes.insert(inode, Inode::holding(content));
        state.names.insert(path.to_owned(), inode);
        state.durable_names.insert(path.to_owned(), inode);
    }

    /// Takes a name away, durably, without being an operation.
    pub fn lose(&self, path: &str) {
        let mut state = self.state.borrow_mut();
        state.names.remove(path);
        state.durable_names.remove(path);
    }

    /// Names of all files, with their folders.
    pub fn paths(&self) -> Vec<String> {
        self.state.borrow().names.keys().cloned().collect()
    }

    fn look(&self, operation: Operation) {
        let observer = self.observer.borrow().clone();
        if let Some(observer) = observer {
            observer(self, operation);
        }
    }

    async fn pause(&self) {
        let yields = {
            let mut state = self.state.borrow_mut();
            if state.yields { state.prng.below(3) } else { 0 }
        };
        for _ in 0..yields {
            yield_now().await;
        }
    }

    /// Counts the call; says how it is to fail. A power loss that strikes now lets the call take its volatile effect.
    fn begin(&self, operation: Operation, path: &str) -> io::Result<Begun> {
        check_path(path);
        self.look(operation);
        let mut state = self.state.borrow_mut();
        let off = || io::Error::other(PowerLoss { operation, path: path.to_owned() });
        if state.power_is_off {
            return Err(off());
        }
        state.operations[operation as usize] += 1;
        if let Some(left) = state.crash_in {
            state.crash_in = Some(left - 1);
            if left == 1 {
                state.crash_in = None;
                state.power_is_off = true;
                return Ok(Begun { fails: Some((off(), None)) });
            }
        }
        let fails = state.planned(operation).map(|fault| {
            match fault {
                Fault::Eio => state.faults.eio += 1,
                Fault::StorageFull => state.faults.storage_full += 1,
                Fault::ShortWrite if matches!(operation, Operation::Write | Operation::WriteDurable) => {
                    state.faults.short_writes += 1
                }
                Fault::ShortWrite => state.faults.eio += 1,
            }
            (fault.error(operation, path), Some(fault))
        });
        Ok(Begun { fails })
    }

    /// A call whose effect is a change of names.
    async fn name_call(
        &self,
        operation: Operation,
        path: &str,
        effect: impl FnOnce(&mut State) -> io::Result<()>,
    ) -> io::Result<()> {
        let begun = self.begin(operation, path)?;
        self.pause().await;
        match begun.fails {
            Some((error, Some(_))) => return Err(error),
            Some((error, None)) => {
                effect(&mut self.state.borrow_mut())?;
                return Err(error);
            }
            None => effect(&mut self.state.borrow_mut())?,
        }
        self.look(operation);
        self.pause().await;
        Ok(())
    }

    fn open_inode(&self, inode: u64, path: &str) -> SimFile {
        self.state.borrow_mut().inode(inode).handles += 1;
        SimFile { disk: self.clone(), inode, path: path.to_owned() }
    }
}

struct Begun {
    /// The error to answer, and the planned fault (`None`: the power failed).
    fails: Option<(io::Error, Option<Fault>)>,
}

impl Begun {
    fn check(self) -> io::Result<()> {
        self.fails.map_or(Ok(()), |(error, _)| Err(error))
    }
}

/// # Panics
/// If the path is absolute, leaves the data folder or has empty parts.
fn check_path(path: &str) {
    let fine = path.is_empty() || path.split('/').all(|part| !matches!(part, "" | "." | ".."));
    assert!(fine, "{path:?} is no path below the data folder");
}

fn not_found(operation: Operation, path: &str) -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, format!("{operation:?} {path}: no such file or folder"))
}

impl Disk for SimDisk {
    type File = SimFile;

    async fn open(&self, path: &str, _purpose: Purpose) -> io::Result<SimFile> {
        self.begin(Operation::Open, path)?.check()?;
        self.pause().await;
        let inode = self.state.borrow().names.get(path).copied();
        inode.map(|inode| self.open_inode(inode, path)).ok_or_else(|| not_found(Operation::Open, path))
    }

    async fn create(&self, path: &str, _purpose: Purpose) -> io::Result<SimFile> {
        let operation = Operation::Create;
        self.name_call(operation, path, |state| {
            if !state.folders.contains(folder_of(path)) {
                return Err(not_found(operation, folder_of(path)));
            }
            if state.names.contains_key(path) || state.folders.contains(path) {
                return Err(io::Error::new(io::ErrorKind::AlreadyExists, format!("{operation:?} {path}: it exists")));
            }
            let inode = state.next_inode;
            state.next_inode += 1;
            state.inodes.insert(inode, Inode::default());
            state.change_name(folder_of(path), NameChange::Link { path: path.to_owned(), inode });
            Ok(())
        })
        .await?;
        let inode = self.state.borrow().names.get(path).copied();
        inode.map(|inode| self.open_inode(inode, path)).ok_or_else(|| not_found(operation, path))
    }

    async fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        check_path(to);
        self.name_call(Operation::Rename, from, |state| {
            let inode = *state.names.get(from).ok_or_else(|| not_found(Operation::Rename, from))?;
            if !state.folders.contains(folder_of(to)) {
                return Err(not_found(Operation::Rename, to));
            }
            state.change_name(folder_of(to), NameChange::Rename { from: from.to_owned(), to: to.to_owned(), inode });
            state.forget_unreachable();
            Ok(())
        })
        .await
    }

    async fn remove(&self, path: &str) -> io::Result<()> {
        self.name_call(Operation::Remove, path, |state| {
            let inode = *state.names.get(path).ok_or_else(|| not_found(Operation::Remove, path))?;
            state.change_name(folder_of(path), NameChange::Unlink { path: path.to_owned(), inode });
            Ok(())
        })
        .await
    }

    async fn create_dir(&self, path: &str) -> io::Result<()> {
        self.name_call(Operation::CreateDir, path, |state| {
            let mut folder = path;
            while !folder.is_empty() {
                if state.names.contains_key(folder) {
                    let text = format!("CreateDir {folder}: a file has that name");
                    return Err(io::Error::new(io::ErrorKind::AlreadyExists, text));
                }
                state.folders.insert(folder.to_owned());
                folder = folder_of(folder);
            }
            Ok(())
        })
        .await
    }

    async fn list(&self, path: &str) -> io::Result<Vec<String>> {
        self.begin(Operation::List, path)?.check()?;
        self.pause().await;
        let state = self.state.borrow();
        let inside =
            state.names.keys().chain(state.folders.iter()).filter(|name| !name.is_empty() && folder_of(name) == path);
        let mut names: Vec<String> =
            inside.map(|name| name.rsplit_once('/').map_or(name.as_str(), |(_, name)| name).to_owned()).collect();
        names.sort();
        Ok(names)
    }

    async fn sync_dir(&self, path: &str) -> io::Result<()> {
        let begun = self.begin(Operation::SyncDir, path)?;
        self.pause().await;
        if let Some((error, fault)) = begun.fails {
            self.state.borrow_mut().faults.failed_syncs += u64::from(fault.is_some());
            return Err(error);
        }
        if !self.state.borrow().folders.contains(path) {
            return Err(not_found(Operation::SyncDir, path));
        }
        self.state.borrow_mut().sync_folder(path);
        self.state.borrow_mut().forget_unreachable();
        self.pause().await;
        Ok(())
    }
}

impl SimFile {
    /// # Panics
    /// If offset or length are no multiples of the block.
    fn check_aligned(&self, offset: u64, len: usize) {
        let aligned = offset.is_multiple_of(BLOCK_BYTES as u64) && len.is_multiple_of(BLOCK_BYTES) && len > 0;
        assert!(aligned, "direct I/O of {len} bytes at {offset} in {}", self.path);
    }

    async fn write(&self, operation: Operation, buf: AlignedBuf, offset: u64) -> io::Result<AlignedBuf> {
        let bytes = buf.as_ref();
        self.check_aligned(offset, bytes.len());
        let begun = self.disk.begin(operation, &self.path)?;
        let offset = offset as usize;
        let state = || self.disk.state.borrow_mut();
        if begun.fails.is_none() && !state().has_room(self.inode, offset + bytes.len()) {
            state().faults.storage_full += 1;
            return Err(Fault::StorageFull.error(operation, &self.path));
        }
        // How much of a failing write reached the device.
        let reached = match &begun.fails {
            None | Some((_, None)) => bytes.len(),
            Some((_, Some(Fault::StorageFull))) => 0,
            Some(_) => state().prng.below((bytes.len() / SECTOR_BYTES) as u64) as usize * SECTOR_BYTES,
        };
        // In flight from here on: a power loss finds all, some or nothing of it.
        let change = (reached > 0)
            .then(|| state().change(self.inode, Change::Write { offset, bytes: bytes[..reached].to_vec() }));
        if let Some((error, _)) = begun.fails {
            self.disk.pause().await;
            if let Some(change) = change {
                state().complete(self.inode, change);
            }
            return Err(error);
        }
        self.disk.look(operation);
        self.disk.pause().await;
        if let Some(change) = change {
            let mut state = state();
            state.complete(self.inode, change);
            if operation == Operation::WriteDurable && !state.power_is_off {
                state.make_durable(self.inode, |logged| logged.id == change);
            }
        }
        self.power_on(operation)?;
        Ok(buf)
    }

    /// A call that was under way when the power failed does not return successfully.
    fn power_on(&self, operation: Operation) -> io::Result<()> {
        if self.disk.state.borrow().power_is_off {
            return Err(io::Error::other(PowerLoss { operation, path: self.path.clone() }));
        }
        Ok(())
    }
}

impl DiskFile for SimFile {
    type Buf = AlignedBuf;

    fn alloc(&self, len: usize) -> AlignedBuf {
        let mut buf = AlignedBuf::new(len);
        buf.as_mut().fill(FRESH_BYTE);
        buf
    }

    async fn read_at(&self, offset: u64, len: usize) -> io::Result<AlignedBuf> {
        self.check_aligned(offset, len);
        self.disk.begin(Operation::Read, &self.path)?.check()?;
        self.disk.pause().await;
        let state = self.disk.state.borrow();
        let content = &state.inodes[&self.inode].current;
        let from = (offset as usize).min(content.len());
        let until = (offset as usize + len).min(content.len());
        Ok(AlignedBuf::copy_of(&content[from..until]))
    }

    async fn write_at(&self, buf: AlignedBuf, offset: u64) -> io::Result<AlignedBuf> {
        self.write(Operation::Write, buf, offset).await
    }

    async fn write_durable(&self, buf: AlignedBuf, offset: u64) -> io::Result<AlignedBuf> {
        self.write(Operation::WriteDurable, buf, offset).await
    }

    async fn sync_data(&self) -> io::Result<()> {
        let begun = self.disk.begin(Operation::SyncData, &self.path)?;
        // Only what had returned before the sync began is covered by it.
        let newest = self.disk.state.borrow().next_change;
        let started: Vec<u64> = {
            let state = self.disk.state.borrow();
            let changes = state.inodes[&self.inode].changes.iter();
            changes.filter(|logged| !logged.completed).map(|logged| logged.id).collect()
        };
        self.disk.pause().await;
        if let Some((error, fault)) = begun.fails {
            if fault.is_some() {
                self.disk.state.borrow_mut().fail_sync(self.inode);
            }
            return Err(error);
        }
        self.power_on(Operation::SyncData)?;
        self.disk
            .state
            .borrow_mut()
            .make_durable(self.inode, |logged| logged.id < newest && !started.contains(&logged.id));
        self.disk.pause().await;
        Ok(())
    }

    async fn set_len(&self, len: u64) -> io::Result<()> {
        let begun = self.disk.begin(Operation::SetLen, &self.path)?;
        let state = || self.disk.state.borrow_mut();
        if begun.fails.is_none() && !state().has_room(self.inode, len as usize) {
            state().faults.storage_full += 1;
            return Err(Fault::StorageFull.error(Operation::SetLen, &self.path));
        }
        let change = match &begun.fails {
            Some((_, Some(_))) => None,
            _ => Some(state().change(self.inode, Change::SetLen(len as usize))),
        };
        self.disk.look(Operation::SetLen);
        self.disk.pause().await;
        begun.check()?;
        if let Some(change) = change {
            state().complete(self.inode, change);
        }
        Ok(())
    }

    async fn len(&self) -> io::Result<u64> {
        self.disk.begin(Operation::Len, &self.path)?.check()?;
        Ok(self.disk.state.borrow().inodes[&self.inode].current.len() as u64)
    }

    async fn close(self) -> io::Result<()> {
        self.disk.begin(Operation::Close, &self.path)?.check()
    }
}

impl Drop for SimFile {
    fn drop(&mut self) {
        // A panic elsewhere may hold the state; then there is nothing left to keep right.
        if let Ok(mut state) = self.disk.state.try_borrow_mut() {
            if let Some(inode) = state.inodes.get_mut(&self.inode) {
                inode.handles -= 1;
            }
            state.forget_unreachable();
        }
    }
}
