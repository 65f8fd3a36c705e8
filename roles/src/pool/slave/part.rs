//! A file while it arrives.
//!
//! Owns: the part and its journal, and the step from there to a file of the pool. Invariants: a chunk counts as arrived
//! only with the value of the bytes that were written; after a start it is read again before it counts. The file gets its
//! name when all values together give that name, the bytes are synced, and then the folder is synced: in this order, or a
//! crash could leave a name without its bytes.
//! Knows nothing of where chunks come from.

use super::files::{FILES_FOLDER, PARTS_FOLDER, name_of};
use std::{
    cell::{Cell, RefCell},
    collections::BTreeSet,
    io,
    rc::Rc,
};
use tidemill_disk::{Disk, DiskFile, Purpose, ReadAhead};
use tidemill_pool::{CHUNK_BYTES, ChunkValue, FileId, JOURNAL_BLOCK_BYTES, Journal, chunk_value};

/// Chunks that are noted before the journal is written: so many may arrive twice around a crash.
const NOTES_MAX: u32 = 16;
/// Reads under way while a part is looked through.
const READS_MAX: usize = 2;

pub struct Part<D: Disk> {
    disk: D,
    pub file: Rc<D::File>,
    journal_file: D::File,
    pub journal: RefCell<Journal>,
    /// Blocks of the journal that are not as the journal is.
    stale: RefCell<BTreeSet<u32>>,
    noted: Cell<u32>,
    arrived_bytes: Cell<u64>,
}

fn part_path(file: &FileId) -> String {
    format!("{PARTS_FOLDER}/{file}")
}

fn journal_path(file: &FileId) -> String {
    format!("{PARTS_FOLDER}/{file}.journal")
}

impl<D: Disk> Part<D> {
    /// Goes on with what is there of a file, or begins it.
    pub async fn open(disk: D, file: FileId, size: u64) -> io::Result<Part<D>> {
        let names = disk.list(PARTS_FOLDER).await?;
        let has = |path: String| names.iter().any(|name| path.ends_with(&format!("/{name}")));
        if has(part_path(&file))
            && has(journal_path(&file))
            && let Some(part) = Part::resume(&disk, file, size).await?
        {
            return Ok(part);
        }
        discard(&disk, &file).await?;
        let part = Part {
            file: Rc::new(disk.create(&part_path(&file), Purpose::Data).await?),
            journal_file: disk.create(&journal_path(&file), Purpose::Data).await?,
            journal: RefCell::new(Journal::new(file, size)),
            disk,
            stale: RefCell::default(),
            noted: Cell::new(0),
            arrived_bytes: Cell::new(0),
        };
        let blocks = part.journal.borrow().block_count();
        part.stale.borrow_mut().extend(0..blocks);
        part.save().await?;
        Ok(part)
    }

    /// What was noted is read again. None if the journal is none of this file.
    async fn resume(disk: &D, file: FileId, size: u64) -> io::Result<Option<Part<D>>> {
        let journal_file = disk.open(&journal_path(&file), Purpose::Data).await?;
        let length = journal_file.len().await?;
        // A journal of another size was not written to its end, or is none.
        let blocks = Journal::new(file, size).block_count();
        if length != u64::from(blocks) * JOURNAL_BLOCK_BYTES as u64 {
            return Ok(None);
        }
        let read = journal_file.read_at(0, blocks as usize * JOURNAL_BLOCK_BYTES).await?;
        let journal = Journal::read(read.as_ref());
        let Some(journal) = journal.ok().filter(|journal| (journal.file(), journal.size()) == (file, size)) else {
            return Ok(None);
        };
        let part = Part {
            disk: disk.clone(),
            file: Rc::new(disk.open(&part_path(&file), Purpose::Data).await?),
            journal_file,
            journal: RefCell::new(journal),
            stale: RefCell::default(),
            noted: Cell::new(0),
            arrived_bytes: Cell::new(0),
        };
        let length = part.file.len().await?;
        let count = part.journal.borrow().count();
        let mut next = 0;
        while next < count {
            let run = part.noted_run(next, length);
            next = run.end + 1;
            if run.is_empty() {
                continue;
            }
            let begin = u64::from(run.start) * CHUNK_BYTES as u64;
            let (last, last_bytes) = part.journal.borrow().place(run.end - 1);
            let mut reading =
                ReadAhead::new(part.file.clone(), begin..last + last_bytes as u64, CHUNK_BYTES, READS_MAX);
            for number in run {
                let read = reading.next().await?;
                let value = read.map(|(buffer, bytes)| chunk_value(number, count, &buffer.as_ref()[bytes]));
                let is_right = value.is_some() && value == part.journal.borrow().value(number);
                if is_right {
                    part.count(number);
                } else {
                    part.journal.borrow_mut().note(number, None);
                }
            }
        }
        Ok(Some(part))
    }

    /// The chunks from here on that are noted and, as far as the file's length goes, there; those that are not there are
    /// noted no more.
    fn noted_run(&self, from: u32, length: u64) -> std::ops::Range<u32> {
        let mut journal = self.journal.borrow_mut();
        let mut end = from;
        while journal.value(end).is_some() {
            let (begin, bytes) = journal.place(end);
            if begin + bytes as u64 > length {
                journal.note(end, None);
                break;
            }
            end += 1;
        }
        from..end
    }

    fn count(&self, number: u32) {
        let (_, bytes) = self.journal.borrow().place(number);
        self.arrived_bytes.set(self.arrived_bytes.get() + bytes as u64);
    }

    pub fn arrived_bytes(&self) -> u64 {
        self.arrived_bytes.get()
    }

    /// The chunk was written.
    pub async fn note(&self, number: u32, value: ChunkValue) -> io::Result<()> {
        self.journal.borrow_mut().note(number, Some(value));
        self.count(number);
        self.stale.borrow_mut().insert(Journal::block_of(number));
        self.noted.set(self.noted.get() + 1);
        if self.noted.get() < NOTES_MAX {
            return Ok(());
        }
        self.noted.set(0);
        self.save().await
    }

    /// The chunk has not arrived after all.
    pub fn forget(&self, number: u32) {
        if self.journal.borrow().value(number).is_some() {
            let (_, bytes) = self.journal.borrow().place(number);
            self.journal.borrow_mut().note(number, None);
            self.arrived_bytes.set(self.arrived_bytes.get() - bytes as u64);
            self.stale.borrow_mut().insert(Journal::block_of(number));
        }
    }

    /// Writes the journal as it is now. Two of these at a time may leave the older one's block: it has fewer chunks, all
    /// of them right.
    pub async fn save(&self) -> io::Result<()> {
        let stale = self.stale.take();
        for block in stale {
            let mut buffer = self.journal_file.alloc(JOURNAL_BLOCK_BYTES);
            if let Ok(out) = buffer.as_mut().try_into() {
                self.journal.borrow().write_block(block, out);
            }
            self.journal_file.write_at(buffer, u64::from(block) * JOURNAL_BLOCK_BYTES as u64).await?;
        }
        Ok(())
    }

    /// Whether everything is here and is what was asked for.
    pub fn is_right(&self) -> bool {
        let journal = self.journal.borrow();
        journal.whole() == Some(journal.file())
    }

    /// Gives the file its name.
    ///
    /// # Panics
    /// If it is not right.
    pub async fn finish(self) -> io::Result<()> {
        assert!(self.is_right(), "a name is given to the bytes that it is of");
        let (file, size) = (self.journal.borrow().file(), self.journal.borrow().size());
        self.file.set_len(size).await?;
        let opened = Rc::into_inner(self.file).ok_or_else(|| io::Error::other("the file is still being written"))?;
        let path = format!("{FILES_FOLDER}/{}", name_of(&file));
        self.disk.publish(opened, &part_path(&file), &path).await?;
        // A journal without its part is cleared away later; the file is there all the same.
        if let Err(error) = self.disk.remove(&journal_path(&file)).await {
            tracing::debug!(%error, "the journal of a file that has arrived");
        }
        Ok(())
    }
}

/// Removes what is there of a file.
pub async fn discard<D: Disk>(disk: &D, file: &FileId) -> io::Result<()> {
    for path in [part_path(file), journal_path(file)] {
        match disk.remove(&path).await {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}
