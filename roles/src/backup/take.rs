//! `tidemill backup`: copies a snapshot of a running server into a folder.

use super::{
    contents::{self, Contents, Entry},
    copy::{bar, fetch, is_whole, partial_path, sync_folders},
    server::Server,
};
use crate::http_agent::Trust;
use anyhow::{Context, bail};
use indicatif::ProgressBar;
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::{self, Read},
    path::{Path, PathBuf},
    time::Instant,
};

/// What to back up, and where to.
#[derive(Clone, Debug)]
pub struct TakeOptions {
    /// Folder of the backup; an earlier one in it is brought up to date.
    pub target: PathBuf,
    /// Of the server, such as `http://127.0.0.1:8086`.
    pub url: String,
    /// Where the server asks who calls.
    pub user: Option<(String, String)>,
    /// Whom it trusts where the URL says `https`.
    pub trust: Trust,
    /// Another backup whose files need not be copied again: they are linked, or copied where they cannot be.
    pub base: Option<PathBuf>,
}

/// What a backup took.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Taken {
    pub files: usize,
    pub bytes: u64,
    /// Of these, files that were there already or came from the base.
    pub files_reused: usize,
    pub bytes_reused: u64,
}

/// A transfer that is cut off is taken up again; so often for each file.
const TRIES: usize = 5;

/// Takes a backup.
pub fn take(options: &TakeOptions) -> anyhow::Result<Taken> {
    let server = Server::new(&options.url, options.user.as_ref(), &options.trust)?;
    let begun = Instant::now();
    let (name, contents) = server.make_snapshot()?;
    eprintln!(
        "snapshot {name}: {} files, {} bytes, made in {:.1} s",
        contents.entries.len(),
        contents.byte_count(),
        begun.elapsed().as_secs_f64()
    );
    let taken = copy(options, &contents, |path, offset| server.read(&name, path, offset));
    if let Err(error) = server.drop_snapshot(&name) {
        eprintln!("the server keeps snapshot {name} until its next start: {error:#}");
    }
    taken
}

/// Brings the folder up to the contents. Until the new list is there, the folder is an incomplete backup.
fn copy<R: Read>(
    options: &TakeOptions,
    contents: &Contents,
    read: impl Fn(&str, u64) -> io::Result<R>,
) -> anyhow::Result<Taken> {
    let target = &options.target;
    fs::create_dir_all(target).with_context(|| target.display().to_string())?;
    let mut reusable = Reusable::default();
    reusable.add(target);
    if let Some(base) = &options.base {
        let list = fs::read_to_string(base.join(contents::FILE)).with_context(|| base.display().to_string())?;
        Contents::parse(&list).with_context(|| base.join(contents::FILE).display().to_string())?;
        reusable.add(base);
    }
    let mut taken = Taken { files: contents.entries.len(), bytes: contents.byte_count(), ..Taken::default() };
    let bar = bar(taken.bytes, "backup");
    // Files that never change first. The small ones of one name and changing content are gathered beside their older
    // versions and take their place at the end.
    let (fixed, changing): (Vec<&Entry>, Vec<&Entry>) =
        contents.entries.iter().partition(|entry| entry.path.ends_with(".tsm"));
    for entry in fixed {
        let path = target.join(&entry.path);
        if is_whole(&path, entry) || reusable.bring(entry, &path) {
            taken.files_reused += 1;
            taken.bytes_reused += entry.size;
            bar.inc(entry.size);
            continue;
        }
        fetch_with_patience(&path, entry, &bar, &read)?;
    }
    let mut gathered = Vec::new();
    for entry in changing {
        let beside = target.join(format!("{}.new", entry.path));
        let _ = fs::remove_file(partial_path(&beside));
        fetch_with_patience(&beside, entry, &bar, &read)?;
        gathered.push((beside, target.join(&entry.path)));
    }
    let list = target.join(contents::FILE);
    match fs::remove_file(&list) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error).context("the old list"),
        _ => {}
    }
    for (from, to) in gathered {
        fs::rename(&from, &to).with_context(|| to.display().to_string())?;
    }
    remove_others(target, contents)?;
    let beside = target.join(format!("{}.new", contents::FILE));
    fs::write(&beside, contents.text())?;
    fs::File::open(&beside)?.sync_all()?;
    sync_folders(target)?;
    fs::rename(&beside, &list)?;
    fs::File::open(target)?.sync_all()?;
    bar.finish_and_clear();
    Ok(taken)
}

fn fetch_with_patience<R: Read>(
    target: &Path,
    entry: &Entry,
    bar: &ProgressBar,
    read: &impl Fn(&str, u64) -> io::Result<R>,
) -> anyhow::Result<()> {
    let mut last = None;
    for _ in 0..TRIES {
        let before = bar.position();
        match fetch(target, entry, bar, |offset| read(&entry.path, offset)) {
            Ok(()) => return Ok(()),
            Err(error) => {
                bar.set_position(before);
                last = Some(error);
            }
        }
    }
    match last {
        Some(error) => Err(error.into()),
        None => bail!("{} was not tried", entry.path),
    }
}

/// Files of complete backups, by hash.
#[derive(Default)]
struct Reusable(BTreeMap<[u8; 32], PathBuf>);

impl Reusable {
    fn add(&mut self, folder: &Path) {
        let list = fs::read_to_string(folder.join(contents::FILE)).ok();
        let contents = list.and_then(|list| Contents::parse(&list).ok()).unwrap_or_default();
        let files = contents.entries.into_iter().map(|entry| (entry.hash, folder.join(entry.path)));
        self.0.extend(files);
    }

    /// Puts a file with this content at `path`, if there is one.
    fn bring(&self, entry: &Entry, path: &Path) -> bool {
        let Some(known) = self.0.get(&entry.hash).filter(|known| is_whole(known, entry)) else { return false };
        let folder = path.parent().is_none_or(|folder| fs::create_dir_all(folder).is_ok());
        let _ = fs::remove_file(path);
        folder && (fs::hard_link(known, path).is_ok() || fs::copy(known, path).is_ok())
    }
}

/// Removes what is not in the backup any more.
fn remove_others(target: &Path, contents: &Contents) -> anyhow::Result<()> {
    let known: BTreeSet<PathBuf> = contents.entries.iter().map(|entry| target.join(&entry.path)).collect();
    let partitions = target.join("partitions");
    if partitions.exists() {
        remove_unknown(&partitions, &known).with_context(|| partitions.display().to_string())?;
    }
    Ok(())
}

fn remove_unknown(folder: &Path, known: &BTreeSet<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            remove_unknown(&path, known)?;
            // It stays where it is not empty.
            let _ = fs::remove_dir(&path);
        } else if !known.contains(&path) {
            fs::remove_file(&path)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(target: &Path, base: Option<&Path>) -> TakeOptions {
        let (url, base) = (String::new(), base.map(Path::to_owned));
        TakeOptions { target: target.to_owned(), url, user: None, trust: Trust::default(), base }
    }

    fn contents_of(files: &[(&str, &str)]) -> Contents {
        let entry = |(path, text): &(&str, &str)| Entry {
            path: (*path).into(),
            size: text.len() as u64,
            hash: *blake3::hash(text.as_bytes()).as_bytes(),
        };
        Contents { entries: files.iter().map(entry).collect() }
    }

    fn source(files: &[(&str, &str)]) -> impl Fn(&str, u64) -> io::Result<io::Cursor<Vec<u8>>> {
        let files: BTreeMap<String, Vec<u8>> =
            files.iter().map(|(path, text)| ((*path).to_owned(), text.as_bytes().to_vec())).collect();
        move |path, offset| {
            let bytes = files.get(path).ok_or_else(|| io::Error::other("asked for again"))?;
            Ok(io::Cursor::new(bytes[offset as usize..].to_vec()))
        }
    }

    #[test]
    fn a_second_backup_copies_only_what_is_new_and_forgets_what_is_gone() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("b");
        let first = [("partitions/000/g1/1.tsm", "one"), ("partitions/000/g1/2.tsm", "two"), ("identity", "i")];
        let taken = copy(&options(&target, None), &contents_of(&first), source(&first)).unwrap();
        assert_eq!((taken.files, taken.files_reused), (3, 0));
        let second = [("partitions/000/g1/1.tsm", "one"), ("partitions/000/g1/3.tsm", "three"), ("identity", "j")];
        let taken = copy(&options(&target, None), &contents_of(&second), source(&second[1..])).unwrap();
        assert_eq!((taken.files_reused, taken.bytes_reused), (1, 3));
        assert!(!target.join("partitions/000/g1/2.tsm").exists());
        assert_eq!(fs::read_to_string(target.join("identity")).unwrap(), "j");
        let list = fs::read_to_string(target.join(contents::FILE)).unwrap();
        assert_eq!(Contents::parse(&list), Ok(contents_of(&second)));
    }

    #[test]
    fn a_base_lends_its_files_unless_they_are_damaged() {
        let folder = tempfile::tempdir().unwrap();
        let (base, target) = (folder.path().join("base"), folder.path().join("b"));
        let files = [("partitions/000/g1/1.tsm", "one"), ("partitions/000/g1/2.tsm", "two")];
        copy(&options(&base, None), &contents_of(&files), source(&files)).unwrap();
        fs::write(base.join("partitions/000/g1/2.tsm"), "twx").unwrap();
        let taken = copy(&options(&target, Some(&base)), &contents_of(&files), source(&files[1..])).unwrap();
        assert_eq!(taken.files_reused, 1);
        assert_eq!(fs::read_to_string(target.join("partitions/000/g1/2.tsm")).unwrap(), "two");
        let unlisted = options(&target, Some(folder.path()));
        assert!(copy(&unlisted, &contents_of(&files), source(&files)).is_err(), "a base must be a whole backup");
    }

    #[test]
    fn a_backup_that_was_cut_off_has_no_list() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("b");
        let files = [("partitions/000/g1/1.tsm", "one"), ("identity", "i")];
        assert!(copy(&options(&target, None), &contents_of(&files), source(&files[..1])).is_err());
        assert!(!target.join(contents::FILE).exists());
        copy(&options(&target, None), &contents_of(&files), source(&files[1..])).unwrap();
        assert!(target.join(contents::FILE).exists());
    }
}
