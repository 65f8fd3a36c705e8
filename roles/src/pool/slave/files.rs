//! The files that a slave holds.
//!
//! ```text
//! pool/files/<name>.tsm      whole, durable
//! pool/parts/<name>          arriving, with <name>.journal
//! pool/rotten/<name>.tsm     were not what their name says
//! ```
//!
//! Owns: which files are here, their sizes and their open descriptors. Invariants: a name in `pool/files` stands for bytes
//! that were hashed to it and synced before they got it, and never changes; what is told of (`changed`) is on the disk
//! first.
//! Knows nothing of where files come from and who wants them.

use bytes::Bytes;
use std::{
    cell::{Cell, RefCell},
    collections::{BTreeMap, BTreeSet},
    io,
    rc::Rc,
};
use tidemill_disk::{BLOCK_BYTES, Disk, DiskFile, Purpose};
use tidemill_peer::lend;
use tidemill_pool::FileId;

pub const FILES_FOLDER: &str = "pool/files";
pub const PARTS_FOLDER: &str = "pool/parts";
const ROTTEN_FOLDER: &str = "pool/rotten";
/// Rotten files that are kept for whoever wants to look; more are removed.
const ROTTEN_MAX: usize = 8;
/// Files that stay open between two reads. The disk may have closed a descriptor meanwhile and opens it again.
const OPEN_MAX: usize = 128;

/// What a file is called in its folder.
pub fn name_of(file: &FileId) -> String {
    format!("{file}.tsm")
}

/// The file that a name in the folder stands for.
pub fn file_of_name(name: &str) -> Option<FileId> {
    name.strip_suffix(".tsm")?.parse().ok()
}

pub struct Files<D: Disk> {
    disk: D,
    sizes: RefCell<BTreeMap<FileId, u64>>,
    bytes: Cell<u64>,
    open: RefCell<BTreeMap<FileId, Opened<D::File>>>,
    uses: Cell<u64>,
    /// Came or went since somebody took this.
    changed: RefCell<BTreeSet<FileId>>,
    rotten: Cell<u64>,
}

struct Opened<F> {
    file: Rc<F>,
    /// The number of its last use.
    used: u64,
}

impl<D: Disk> Files<D> {
    /// Finds what is there.
    pub async fn open(disk: D) -> io::Result<Files<D>> {
        for folder in [FILES_FOLDER, PARTS_FOLDER, ROTTEN_FOLDER] {
            disk.create_dir(folder).await?;
        }
        let mut sizes = BTreeMap::new();
        for name in disk.list(FILES_FOLDER).await? {
            let Some(file) = file_of_name(&name) else {
                tracing::warn!(name, "not a file of the pool: left alone");
                continue;
            };
            let opened = disk.open(&format!("{FILES_FOLDER}/{name}"), Purpose::Data).await?;
            sizes.insert(file, opened.len().await?);
            opened.close().await?;
        }
        let changed = sizes.keys().copied().collect();
        let rotten = disk.list(ROTTEN_FOLDER).await?.len() as u64;
        Ok(Files {
            disk,
            bytes: Cell::new(sizes.values().sum()),
            sizes: RefCell::new(sizes),
            open: RefCell::default(),
            uses: Cell::new(0),
            changed: RefCell::new(changed),
            rotten: Cell::new(rotten),
        })
    }

    pub fn disk(&self) -> &D {
        &self.disk
    }

    pub fn size(&self, file: &FileId) -> Option<u64> {
        self.sizes.borrow().get(file).copied()
    }

    pub fn count(&self) -> usize {
        self.sizes.borrow().len()
    }

    pub fn bytes(&self) -> u64 {
        self.bytes.get()
    }

    /// Files that were found rotten and are still kept.
    pub fn rotten(&self) -> u64 {
        self.rotten.get()
    }

    /// At most so many behind a file, in order.
    pub fn list(&self, after: Option<FileId>, most: usize) -> Vec<(FileId, u64)> {
        use std::ops::Bound;
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let sizes = self.sizes.borrow();
        sizes.range((from, Bound::Unbounded)).take(most).map(|(file, size)| (*file, *size)).collect()
    }

    /// Files that came or went since the last call.
    pub fn take_changed(&self) -> BTreeSet<FileId> {
        self.changed.take()
    }

    /// The file is under its name, durably.
    pub(super) fn add(&self, file: FileId, size: u64) {
        if self.sizes.borrow_mut().insert(file, size).is_none() {
            self.bytes.set(self.bytes.get() + size);
            self.changed.borrow_mut().insert(file);
        }
    }

    fn forget(&self, file: &FileId) {
        self.open.borrow_mut().remove(file);
        if let Some(size) = self.sizes.borrow_mut().remove(file) {
            self.bytes.set(self.bytes.get() - size);
            self.changed.borrow_mut().insert(*file);
        }
    }

    /// Bytes of a file, as many as there are up to `length`; none if it is not here.
    ///
    /// # Errors
    /// The disk does not give what it should: the file is rotten.
    pub async fn read(&self, file: &FileId, offset: u64, length: usize) -> io::Result<Option<Bytes>> {
        let Some(size) = self.size(file) else { return Ok(None) };
        let end = offset.saturating_add(length as u64).min(size);
        if offset >= end {
            return Ok(Some(Bytes::new()));
        }
        let opened = self.opened(file).await?;
        let before = (offset % BLOCK_BYTES as u64) as usize;
        let wanted = before + (end - offset) as usize;
        let buffer = opened.read_at(offset - before as u64, wanted.next_multiple_of(BLOCK_BYTES)).await?;
        if buffer.as_ref().len() < wanted {
            let text = format!("{file} ends before byte {end} of {size}");
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, text));
        }
        Ok(Some(lend(buffer).slice(before..wanted)))
    }

    pub(super) async fn opened(&self, file: &FileId) -> io::Result<Rc<D::File>> {
        let now = self.uses.replace(self.uses.get() + 1);
        if let Some(opened) = self.open.borrow_mut().get_mut(file) {
            opened.used = now;
            return Ok(opened.file.clone());
        }
        let opened = self.disk.open(&format!("{FILES_FOLDER}/{}", name_of(file)), Purpose::Data).await?;
        let opened = Rc::new(opened);
        let mut open = self.open.borrow_mut();
        if open.len() >= OPEN_MAX
            && let Some(oldest) = open.iter().min_by_key(|(_, opened)| opened.used).map(|(file, _)| *file)
        {
            open.remove(&oldest);
        }
        // It may have gone while it was opened.
        if self.sizes.borrow().contains_key(file) {
            open.insert(*file, Opened { file: opened.clone(), used: now });
        }
        Ok(opened)
    }

    /// Removes files for good; those that are not here are no error.
    pub async fn remove(&self, files: &[FileId]) -> io::Result<()> {
        for file in files {
            if self.size(file).is_some() {
                // It is not told of any more before it is gone: nobody counts on it from here on.
                self.forget(file);
                self.unlink(&format!("{FILES_FOLDER}/{}", name_of(file))).await?;
            }
        }
        self.disk.sync_dir(FILES_FOLDER).await
    }

    async fn unlink(&self, path: &str) -> io::Result<()> {
        match self.disk.remove(path).await {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// The file is not what its name says, or cannot be read: it is none of the pool any more.
    pub async fn take_away(&self, file: &FileId) -> io::Result<()> {
        self.forget(file);
        let name = name_of(file);
        let path = format!("{FILES_FOLDER}/{name}");
        if self.disk.list(ROTTEN_FOLDER).await?.len() >= ROTTEN_MAX {
            self.unlink(&path).await?;
        } else {
            match self.disk.rename(&path, &format!("{ROTTEN_FOLDER}/{name}")).await {
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
                renamed => renamed?,
            }
            self.disk.sync_dir(ROTTEN_FOLDER).await?;
            self.rotten.set(self.rotten.get() + 1);
        }
        self.disk.sync_dir(FILES_FOLDER).await
    }

    /// Bytes that are taken by what has arrived of a file that is not whole.
    pub async fn part_bytes(&self, file: &FileId) -> io::Result<u64> {
        match self.disk.open(&format!("{PARTS_FOLDER}/{file}"), Purpose::Data).await {
            Ok(part) => part.len().await,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
            Err(error) => Err(error),
        }
    }

    /// Removes what has begun to arrive and nobody asks for any more: all parts but those of `wanted`.
    pub async fn clear_parts(&self, wanted: impl Fn(&FileId) -> bool) -> io::Result<()> {
        for name in self.disk.list(PARTS_FOLDER).await? {
            let file = name.strip_suffix(".journal").unwrap_or(&name).parse();
            if file.is_ok_and(|file| !wanted(&file)) {
                self.unlink(&format!("{PARTS_FOLDER}/{name}")).await?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use tidemill_disk::sim::{SimDisk, block_on};

    fn planted(contents: &[&[u8]]) -> (SimDisk, Vec<FileId>) {
        let disk = SimDisk::new(contents.len() as u64);
        let plant = |content: &&[u8]| {
            let file = FileId(*blake3::hash(content).as_bytes());
            disk.plant(&format!("{FILES_FOLDER}/{}", name_of(&file)), content.to_vec());
            file
        };
        let files = contents.iter().map(plant).collect();
        (disk, files)
    }

    proptest! {
        #[test]
        fn only_whole_names_are_files(name in "[0-9a-fA-F./t-]{0,70}") {
            prop_assert_eq!(file_of_name(&name).map(|file| name_of(&file)), file_of_name(&name).map(|_| name));
        }

        #[test]
        fn every_name_is_read_back(file: [u8; 32]) {
            prop_assert_eq!(file_of_name(&name_of(&FileId(file))), Some(FileId(file)));
            prop_assert!(crate::links::is_plain(&name_of(&FileId(file))));
        }
    }

    #[test]
    fn a_start_finds_the_files_and_their_bytes() {
        let long = vec![7; 3 * BLOCK_BYTES + 5];
        let (disk, names) = planted(&[b"short", &long]);
        disk.plant(&format!("{FILES_FOLDER}/notes.txt"), b"of somebody".to_vec());
        block_on(1, async {
            let files = Files::open(disk.clone()).await.unwrap();
            assert_eq!((files.count(), files.bytes()), (2, 5 + long.len() as u64));
            assert_eq!(files.take_changed().len(), 2);
            for (offset, length, expected) in [(0, 5, 5), (0, 900, 5), (4, 1, 1), (5, 9, 0), (u64::MAX, 9, 0)] {
                let read = files.read(&names[0], offset, length).await.unwrap().unwrap();
                assert_eq!(read.len(), expected, "{length} from {offset}");
            }
            let read = files.read(&names[1], BLOCK_BYTES as u64 - 1, 2 * BLOCK_BYTES).await.unwrap().unwrap();
            assert_eq!(read, long[BLOCK_BYTES - 1..][..2 * BLOCK_BYTES]);
            assert!(files.read(&FileId([9; 32]), 0, 1).await.unwrap().is_none());
            assert_eq!(files.list(None, 9).len(), 2);
            let first = files.list(None, 1)[0].0;
            assert_eq!(files.list(Some(first), 9).len(), 1);
        });
    }

    #[test]
    fn removed_and_rotten_files_are_gone_after_a_start_too() {
        let (disk, names) = planted(&[b"one", b"two", b"three"]);
        block_on(1, async {
            let files = Files::open(disk.clone()).await.unwrap();
            files.take_changed();
            files.remove(&[names[0], FileId([9; 32])]).await.unwrap();
            files.take_away(&names[1]).await.unwrap();
            assert_eq!((files.count(), files.rotten(), files.take_changed().len()), (1, 1, 2));
            let after = Files::open(disk.crash(tidemill_disk::sim::Crash::Drop, 3)).await.unwrap();
            assert_eq!((after.list(None, 9), after.rotten()), (vec![(names[2], 5)], 1));
        });
    }
}
