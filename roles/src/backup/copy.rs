//! Copying files by hash, with progress.

use super::{contents::Entry, snapshot::hash_file};
use indicatif::{ProgressBar, ProgressStyle};
use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    path::{Path, PathBuf},
};

/// Stands behind the name of a file that is not whole yet.
pub const PARTIAL: &str = "partial";
const BUFFER_BYTES: usize = 1 << 20;

/// Why a file did not arrive.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    #[error("{path}: {error}")]
    Io { path: String, error: io::Error },
    #[error("{path}: {found} bytes came, {expected} expected")]
    Short { path: String, found: u64, expected: u64 },
    #[error("{path}: its content is not what its hash says")]
    Hash { path: String },
}

/// A bar on a terminal, nothing elsewhere.
pub fn bar(bytes: u64, what: &'static str) -> ProgressBar {
    let bar = ProgressBar::new(bytes);
    let style = ProgressStyle::with_template("{msg} [{wide_bar}] {bytes}/{total_bytes} {bytes_per_sec} {eta}");
    if let Ok(style) = style {
        bar.set_style(style.progress_chars("=> "));
    }
    bar.set_message(what);
    bar
}

/// Where a file is gathered until it is whole.
pub fn partial_path(target: &Path) -> PathBuf {
    let mut name = target.as_os_str().to_owned();
    name.push(".");
    name.push(PARTIAL);
    name.into()
}

/// Brings a file to `target`, hashed on its way and durable: behind what an earlier try left, `open` is asked for the
/// bytes from there on.
pub fn fetch<R: Read>(
    target: &Path,
    entry: &Entry,
    bar: &ProgressBar,
    open: impl FnOnce(u64) -> io::Result<R>,
) -> Result<(), CopyError> {
    let io_error = |error| CopyError::Io { path: entry.path.clone(), error };
    if let Some(folder) = target.parent() {
        fs::create_dir_all(folder).map_err(io_error)?;
    }
    let partial = partial_path(target);
    let (mut hasher, mut have) = (blake3::Hasher::new(), 0);
    let mut file = OpenOptions::new().create(true).read(true).append(true).open(&partial).map_err(io_error)?;
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        match file.read(&mut buffer).map_err(io_error)? {
            0 => break,
            count => {
                hasher.update(&buffer[..count]);
                have += count as u64;
            }
        }
    }
    bar.inc(have.min(entry.size));
    if have < entry.size {
        let mut source = open(have).map_err(io_error)?;
        loop {
            match source.read(&mut buffer).map_err(io_error)? {
                0 => break,
                count => {
                    hasher.update(&buffer[..count]);
                    file.write_all(&buffer[..count]).map_err(io_error)?;
                    have += count as u64;
                    bar.inc(count as u64);
                }
            }
        }
    }
    if have < entry.size {
        return Err(CopyError::Short { path: entry.path.clone(), found: have, expected: entry.size });
    }
    if have > entry.size || hasher.finalize() != entry.hash {
        // It would stand in the way of the next try.
        fs::remove_file(&partial).map_err(io_error)?;
        return Err(CopyError::Hash { path: entry.path.clone() });
    }
    file.sync_all().map_err(io_error)?;
    fs::rename(&partial, target).map_err(io_error)
}

/// Whether the file is there and is what its entry says.
pub fn is_whole(path: &Path, entry: &Entry) -> bool {
    fs::metadata(path).is_ok_and(|found| found.len() == entry.size)
        && hash_file(path).is_ok_and(|hash| hash == entry.hash)
}

/// Makes the names in a folder and in those below it durable.
pub fn sync_folders(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            sync_folders(&entry.path())?;
        }
    }
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(bytes: &[u8]) -> Entry {
        Entry { path: "a/b".into(), size: bytes.len() as u64, hash: *blake3::hash(bytes).as_bytes() }
    }

    #[test]
    fn a_copy_goes_on_where_it_was_cut_off() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("a/b");
        let bytes: Vec<u8> = (0..3_000_000u32).map(|byte| byte as u8).collect();
        let bar = ProgressBar::hidden();
        let cut = fetch(&target, &entry(&bytes), &bar, |offset| Ok(&bytes[offset as usize..1_500_000]));
        assert!(matches!(cut, Err(CopyError::Short { found: 1_500_000, .. })), "{cut:?}");
        assert!(!target.exists());
        let mut asked = None;
        fetch(&target, &entry(&bytes), &bar, |offset| {
            asked = Some(offset);
            Ok(&bytes[offset as usize..])
        })
        .unwrap();
        assert_eq!(asked, Some(1_500_000));
        assert!(is_whole(&target, &entry(&bytes)));
        fs::write(&target, b"other").unwrap();
        assert!(!is_whole(&target, &entry(&bytes)));
    }

    #[test]
    fn a_wrong_byte_is_noticed_and_does_not_stay() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("b");
        let bar = ProgressBar::hidden();
        let wrong = fetch(&target, &entry(b"right"), &bar, |_| Ok(&b"wrong"[..]));
        assert!(matches!(wrong, Err(CopyError::Hash { .. })));
        let longer = fetch(&target, &entry(b"right"), &bar, |_| Ok(&b"right and more"[..]));
        assert!(matches!(longer, Err(CopyError::Hash { .. })));
        fetch(&target, &entry(b"right"), &bar, |_| Ok(&b"right"[..])).unwrap();
        assert_eq!(fs::read(&target).unwrap(), b"right");
    }
}
