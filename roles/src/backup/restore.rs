//! `tidemill restore`: a backup becomes a data folder again.

use super::{
    contents::{self, Contents},
    copy::{bar, fetch, is_whole, sync_folders},
};
use anyhow::{Context, bail};
use std::{
    fs::{self, File},
    path::{Path, PathBuf},
};

/// What to restore, and where to.
#[derive(Clone, Debug)]
pub struct RestoreOptions {
    pub source: PathBuf,
    /// A new or empty folder, or one that an interrupted restore of this backup left.
    pub data_dir: PathBuf,
}

/// Marks a folder that a restore has begun to fill.
const UNFINISHED: &str = "restore-unfinished";

/// Copies the backup, every file hashed on its way, into a data folder that a server can be started on.
pub fn restore(options: &RestoreOptions) -> anyhow::Result<Contents> {
    let (source, target) = (&options.source, &options.data_dir);
    let contents = read_list(source)?;
    fs::create_dir_all(target).with_context(|| target.display().to_string())?;
    let is_empty = fs::read_dir(target)?.next().is_none();
    if !is_empty && !target.join(UNFINISHED).exists() {
        bail!("{} is not empty: a restore needs a folder of its own", target.display());
    }
    File::create(target.join(UNFINISHED))?.sync_all()?;
    File::open(target)?.sync_all()?;
    let bar = bar(contents.byte_count(), "restore");
    // The identity makes it a data folder, and so is the last.
    let (first, last): (Vec<_>, Vec<_>) = contents.entries.iter().partition(|entry| entry.path != "identity");
    for entry in first.into_iter().chain(last) {
        let path = target.join(&entry.path);
        if is_whole(&path, entry) {
            bar.inc(entry.size);
            continue;
        }
        fetch(&path, entry, &bar, |offset| {
            use std::io::{Seek, SeekFrom};
            let mut file = File::open(source.join(&entry.path))?;
            file.seek(SeekFrom::Start(offset))?;
            Ok(file)
        })?;
    }
    sync_folders(target)?;
    fs::remove_file(target.join(UNFINISHED))?;
    File::open(target)?.sync_all()?;
    bar.finish_and_clear();
    Ok(contents)
}

/// Whether a folder is one that a restore did not finish.
pub fn is_unfinished(data_dir: &Path) -> bool {
    data_dir.join(UNFINISHED).exists()
}

/// Reads every file of a backup.
///
/// # Errors
/// The first file that is not what the list says.
pub fn verify(source: &Path) -> anyhow::Result<Contents> {
    let contents = read_list(source)?;
    let bar = bar(contents.byte_count(), "verify");
    for entry in &contents.entries {
        if !is_whole(&source.join(&entry.path), entry) {
            bail!("{}: missing, or its content is not what its hash says", source.join(&entry.path).display());
        }
        bar.inc(entry.size);
    }
    bar.finish_and_clear();
    Ok(contents)
}

fn read_list(source: &Path) -> anyhow::Result<Contents> {
    let path = source.join(contents::FILE);
    let list = fs::read_to_string(&path)
        .with_context(|| format!("{}: not a backup, or one that was not finished", source.display()))?;
    Contents::parse(&list).with_context(|| path.display().to_string())
}

#[cfg(test)]
mod tests {
    use super::super::Entry;
    use super::*;

    fn backup(folder: &Path) -> Contents {
        let files = [("identity", "i"), ("partitions/000/g1/1.tsm", "one"), ("meta/snapshot", "m")];
        let mut contents = Contents::default();
        for (path, text) in files {
            let file = folder.join(path);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, text).unwrap();
            let hash = *blake3::hash(text.as_bytes()).as_bytes();
            contents.entries.push(Entry { path: path.into(), size: text.len() as u64, hash });
        }
        fs::write(folder.join(contents::FILE), contents.text()).unwrap();
        contents
    }

    #[test]
    fn a_backup_becomes_a_folder_and_nothing_is_written_over() {
        let folder = tempfile::tempdir().unwrap();
        let (source, data_dir) = (folder.path().join("b"), folder.path().join("d"));
        let contents = backup(&source);
        assert_eq!(verify(&source).unwrap(), contents);
        let options = RestoreOptions { source: source.clone(), data_dir: data_dir.clone() };
        restore(&options).unwrap();
        assert_eq!(fs::read_to_string(data_dir.join("partitions/000/g1/1.tsm")).unwrap(), "one");
        assert!(!is_unfinished(&data_dir));
        let again = restore(&options).unwrap_err().to_string();
        assert!(again.contains("is not empty"), "{again}");
    }

    #[test]
    fn damage_is_found_and_an_interrupted_restore_goes_on() {
        let folder = tempfile::tempdir().unwrap();
        let (source, data_dir) = (folder.path().join("b"), folder.path().join("d"));
        backup(&source);
        let file = source.join("partitions/000/g1/1.tsm");
        fs::write(&file, "oen").unwrap();
        assert!(verify(&source).is_err());
        let options = RestoreOptions { source: source.clone(), data_dir: data_dir.clone() };
        assert!(restore(&options).is_err());
        assert!(is_unfinished(&data_dir) && !data_dir.join("identity").exists());
        fs::write(&file, "one").unwrap();
        restore(&options).unwrap();
        assert!(data_dir.join("identity").exists());
        fs::remove_file(source.join(contents::FILE)).unwrap();
        assert!(verify(&source).unwrap_err().to_string().contains("not finished"));
    }
}
