//! A disk that reads a data folder and keeps what is written in memory.
//!
//! Bringing a stopped server's state up wants to change its folder: the end of the log is written again, files that no
//! manifest names go. A tool that only looks does all of that, and none of it reaches the folder.
//! Every call is done when it returns: nothing here waits.

use std::{
    cell::RefCell,
    collections::BTreeMap,
    fs::File,
    io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    rc::Rc,
};
use tidemill_disk::{AlignedBuf, BLOCK_BYTES, Disk, DiskFile, Purpose};

/// A folder and what was changed since. Clones share it.
#[derive(Clone)]
pub struct ScratchDisk {
    root: Rc<Path>,
    /// What became of paths; `None`: it was removed.
    changed: Rc<RefCell<BTreeMap<String, Option<Rc<Content>>>>>,
}

struct Content {
    /// Bytes that were not written since come from here.
    base: Option<File>,
    state: RefCell<ContentState>,
}

struct ContentState {
    len: u64,
    written: BTreeMap<u64, Box<[u8]>>,
}

/// An open file.
pub struct ScratchFile(Rc<Content>);

impl ScratchDisk {
    pub fn new(root: &Path) -> ScratchDisk {
        ScratchDisk { root: root.into(), changed: Rc::default() }
    }

    fn path(&self, path: &str) -> PathBuf {
        self.root.join(path)
    }

    fn find(&self, path: &str) -> io::Result<Rc<Content>> {
        if let Some(known) = self.changed.borrow().get(path) {
            return known.clone().ok_or_else(|| named(io::ErrorKind::NotFound.into(), "opening", path));
        }
        let open = || {
            let file = File::open(self.path(path))?;
            let len = file.metadata()?.len();
            Ok(Rc::new(Content {
                base: Some(file),
                state: RefCell::new(ContentState { len, written: BTreeMap::new() }),
            }))
        };
        open().map_err(|error| named(error, "opening", path))
    }
}

fn named(error: io::Error, doing: &str, path: &str) -> io::Error {
    io::Error::new(error.kind(), format!("{doing} {path}: {error}"))
}

impl Disk for ScratchDisk {
    type File = ScratchFile;

    async fn open(&self, path: &str, _: Purpose) -> io::Result<ScratchFile> {
        let content = self.find(path)?;
        // What is written through one opening is seen by the next.
        self.changed.borrow_mut().insert(path.into(), Some(content.clone()));
        Ok(ScratchFile(content))
    }

    async fn create(&self, path: &str, _: Purpose) -> io::Result<ScratchFile> {
        if self.find(path).is_ok() {
            return Err(named(io::ErrorKind::AlreadyExists.into(), "making", path));
        }
        let state = RefCell::new(ContentState { len: 0, written: BTreeMap::new() });
        let content = Rc::new(Content { base: None, state });
        self.changed.borrow_mut().insert(path.into(), Some(content.clone()));
        Ok(ScratchFile(content))
    }

    async fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let content = self.find(from)?;
        let mut changed = self.changed.borrow_mut();
        changed.insert(from.into(), None);
        changed.insert(to.into(), Some(content));
        Ok(())
    }

    async fn remove(&self, path: &str) -> io::Result<()> {
        self.find(path)?;
        self.changed.borrow_mut().insert(path.into(), None);
        Ok(())
    }

    async fn create_dir(&self, _: &str) -> io::Result<()> {
        Ok(())
    }

    async fn list(&self, path: &str) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        match std::fs::read_dir(self.path(path)) {
            Ok(entries) => {
                for entry in entries {
                    names.extend(entry?.file_name().to_str().map(str::to_owned));
                }
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(named(error, "listing", path)),
        }
        let inside = |known: &str| known.strip_prefix(path)?.strip_prefix('/').map(str::to_owned);
        for (known, content) in self.changed.borrow().iter() {
            let Some(name) = inside(known).filter(|name| !name.contains('/')) else { continue };
            names.retain(|other| *other != name);
            names.extend(content.is_some().then_some(name));
        }
        names.sort();
        Ok(names)
    }

    async fn sync_dir(&self, _: &str) -> io::Result<()> {
        Ok(())
    }
}

impl DiskFile for ScratchFile {
    type Buf = AlignedBuf;

    fn alloc(&self, len: usize) -> AlignedBuf {
        AlignedBuf::new(len)
    }

    async fn read_at(&self, offset: u64, len: usize) -> io::Result<AlignedBuf> {
        let state = self.0.state.borrow();
        let len = usize::try_from(state.len.saturating_sub(offset)).unwrap_or(len).min(len);
        let mut buf = AlignedBuf::new(len.next_multiple_of(BLOCK_BYTES).max(BLOCK_BYTES));
        buf.set_len(len);
        if let Some(base) = &self.0.base {
            let mut filled = 0;
            // Past the end of the base lie zeros or what was written.
            while filled < len {
                match base.read_at(&mut buf.as_mut()[filled..], offset + filled as u64)? {
                    0 => break,
                    read => filled += read,
                }
            }
        }
        let blocks = state.written.range(offset..offset + len as u64);
        for (at, block) in blocks {
            let start = (at - offset) as usize;
            let end = (start + BLOCK_BYTES).min(len);
            buf.as_mut()[start..end].copy_from_slice(&block[..end - start]);
        }
        Ok(buf)
    }

    async fn write_at(&self, buf: AlignedBuf, offset: u64) -> io::Result<AlignedBuf> {
        let mut state = self.0.state.borrow_mut();
        for (number, block) in buf.as_ref().chunks(BLOCK_BYTES).enumerate() {
            let at = offset + (number * BLOCK_BYTES) as u64;
            let is_new = self.0.base.is_none() && !state.written.contains_key(&at);
            // Segments are written with zeros first, which need no room here.
            if !is_new || block.iter().any(|byte| *byte != 0) {
                state.written.insert(at, block.into());
            }
        }
        state.len = state.len.max(offset + buf.as_ref().len() as u64);
        drop(state);
        Ok(buf)
    }

    async fn write_durable(&self, buf: AlignedBuf, offset: u64) -> io::Result<AlignedBuf> {
        self.write_at(buf, offset).await
    }

    async fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    async fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.state.borrow_mut().len = len;
        Ok(())
    }

    async fn len(&self) -> io::Result<u64> {
        Ok(self.0.state.borrow().len)
    }

    async fn close(self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_lite::future::block_on;

    #[test]
    fn changes_are_seen_and_the_folder_stays_as_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let content: Vec<u8> = (0..3 * BLOCK_BYTES + 5).map(|at| at as u8).collect();
        std::fs::create_dir(folder.path().join("d")).unwrap();
        std::fs::write(folder.path().join("d/a"), &content).unwrap();
        let disk = ScratchDisk::new(folder.path());
        block_on(async {
            let file = disk.open("d/a", Purpose::Data).await.unwrap();
            let mut buf = file.alloc(BLOCK_BYTES);
            buf.as_mut().fill(7);
            file.write_at(buf, BLOCK_BYTES as u64).await.unwrap();
            let again = disk.open("d/a", Purpose::Data).await.unwrap();
            let mut expected = content.clone();
            expected[BLOCK_BYTES..2 * BLOCK_BYTES].fill(7);
            assert_eq!(again.read_at(0, 8 * BLOCK_BYTES).await.unwrap().as_ref(), expected);
            disk.rename("d/a", "d/b").await.unwrap();
            disk.create("d/c", Purpose::Data).await.unwrap().set_len(5).await.unwrap();
            assert_eq!(disk.list("d").await.unwrap(), ["b", "c"]);
            disk.remove("d/b").await.unwrap();
            assert!(disk.open("d/b", Purpose::Data).await.is_err() && disk.create("d/c", Purpose::Data).await.is_err());
            assert_eq!(disk.list("d").await.unwrap(), ["c"]);
            assert!(disk.list("nowhere").await.unwrap().is_empty());
        });
        assert_eq!(std::fs::read(folder.path().join("d/a")).unwrap(), content);
        assert_eq!(std::fs::read_dir(folder.path().join("d")).unwrap().count(), 1);
    }
}
