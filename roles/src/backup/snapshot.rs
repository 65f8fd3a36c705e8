//! The server's side: making a snapshot, reading from it, letting it go.
//!
//! Every core flushes its partitions and links their files; then the metadata follow, so that they know whatever the
//! files hold. Files whose blocks are in the storage pool are read from there: a backup is whole without a pool. What is dropped meanwhile is in neither or in the files alone, and a start drops it from those too.

use super::contents::{self, Contents, Entry};
use crate::{
    data::{DataCore, message::CallError},
    identity::Identity,
};
use std::{
    fs::{self, File},
    future::Future,
    io::{self, Read, Write},
    path::{Path, PathBuf},
    pin::Pin,
    rc::Rc,
};
use tidemill_disk::{BLOCK_BYTES, Disk, DiskFile, Purpose};
use tidemill_http::{ByteSource, Refusal, SnapshotOutcome, SnapshotRequest};
use tidemill_reactor::{RingDisk, RingFile};
use tidemill_store::{FileRecord, Manifest, Partition, Tier};

/// Folder of all snapshots, in the data folder.
pub const FOLDER: &str = "snapshots";
/// One read of a file on its way to a client.
const READ_BYTES: usize = 512 * 1024;
/// A file that was removed while it was to be linked asks for a new look at the manifest; so often.
const LINK_TRIES: usize = 8;

/// Carries out what is asked of snapshots.
pub async fn answer(core: &Rc<DataCore>, request: SnapshotRequest) -> Result<SnapshotOutcome, Refusal> {
    match request {
        SnapshotRequest::Take => {
            let taken = take(core).await;
            let (name, contents) = taken.map_err(|text| Refusal::new(500, format!("no snapshot: {text}")))?;
            let json = serde_json::json!({ "name": name, "contents": contents.text() });
            Ok(SnapshotOutcome::Taken(json.to_string()))
        }
        SnapshotRequest::Read { name, path, offset } => {
            let unknown = || Refusal::new(404, format!("no file \"{path}\" in a snapshot \"{name}\""));
            if !is_name(&name) || !contents::is_plain(&path) {
                return Err(unknown());
            }
            let disk = &core.context().disk;
            let file = disk.open(&format!("{FOLDER}/{name}/{path}"), Purpose::Data).await;
            let file = file.map_err(|error| match error.kind() {
                io::ErrorKind::NotFound => unknown(),
                _ => Refusal::new(500, error.to_string()),
            })?;
            Ok(SnapshotOutcome::Bytes(Box::new(FileBytes { file, path, offset })))
        }
        SnapshotRequest::Drop { name } => {
            if !is_name(&name) {
                return Err(Refusal::new(404, format!("no snapshot \"{name}\"")));
            }
            let folder = core.data_dir().join(FOLDER).join(&name);
            let removed = core.context().offload(move || fs::remove_dir_all(folder)).await;
            match removed {
                Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Refusal::new(500, error.to_string())),
                _ => Ok(SnapshotOutcome::Dropped),
            }
        }
    }
}

/// Lets go what an earlier run of the server left: nobody can finish it.
pub fn remove_all(data_dir: &Path) -> io::Result<()> {
    match fs::remove_dir_all(data_dir.join(FOLDER)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

/// Digits only: the time of its making, and a random number.
fn is_name(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-')
}

async fn take(core: &Rc<DataCore>) -> Result<(String, Contents), String> {
    let now_s = core.context().clock.now_ns() / 1_000_000_000;
    let name = format!("{now_s}-{}", core.context().seed.random_u64() % 1_000_000);
    let folder = core.data_dir().join(FOLDER).join(&name);
    let made = fill(core, &name, &folder).await;
    if made.is_err() {
        let folder = folder.clone();
        let _ = core.context().offload(move || fs::remove_dir_all(folder)).await;
    }
    made.map(|contents| (name, contents))
}

async fn fill(core: &Rc<DataCore>, name: &str, folder: &Path) -> Result<Contents, String> {
    core.catch_up().await.map_err(|error| error.to_string())?;
    let mut contents = Contents::default();
    for entries in core.snapshot_partitions(name).await.map_err(|error| error.to_string())? {
        contents.entries.extend(entries);
    }
    let meta = core.snapshot_of_meta().await.map_err(|error| error.to_string())?;
    let (folder, data_dir) = (folder.to_owned(), core.data_dir().to_owned());
    let finished = core.context().offload(move || -> io::Result<Contents> {
        contents.entries.push(put(&folder, "meta/snapshot", &meta)?);
        let identity = Identity::read(&data_dir).map_err(io::Error::other)?;
        contents.entries.push(put(&folder, "identity", identity.text_of_copy().as_bytes())?);
        contents.entries.sort_by(|a, b| a.path.cmp(&b.path));
        fs::write(folder.join(contents::FILE), contents.text())?;
        Ok(contents)
    });
    finished.await.map_err(|error| error.to_string())
}

/// Links the files of one partition into a snapshot.
pub async fn link_partition(
    core: &DataCore,
    name: &str,
    id: u32,
    partition: &Partition<RingDisk>,
) -> Result<Vec<Entry>, CallError> {
    let data_dir = core.data_dir().to_owned();
    let (source, snapshot) = (format!("partitions/{id:03}"), data_dir.join(FOLDER).join(name));
    let failed = |error: io::Error| CallError::Unknown(format!("{source}: {error}"));
    for _ in 0..LINK_TRIES {
        let manifest = partition.snapshot().await;
        let (data_dir, snapshot, folder) = (data_dir.clone(), snapshot.clone(), source.clone());
        let linked = core.context().offload(move || link_files(&data_dir, &snapshot, &folder, manifest)).await;
        let (entries, pooled) = match linked {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            linked => linked.map_err(failed)?,
        };
        match fetch_files(core, &format!("{FOLDER}/{name}/{source}"), partition, &pooled).await {
            Ok(()) => return Ok(entries),
            // Copied away or dropped meanwhile.
            Err(_) if !pooled.iter().all(|record| partition.has_file(record)) => {}
            Err(text) => return Err(CallError::Unknown(format!("{source}: {text}"))),
        }
    }
    Err(CallError::Unknown(format!("{source}: its files change faster than they can be linked")))
}

/// What of a manifest is there now, and the files that are still to come from the pool.
fn link_files(
    data_dir: &Path,
    snapshot: &Path,
    folder: &str,
    mut manifest: Manifest,
) -> io::Result<(Vec<Entry>, Vec<FileRecord>)> {
    // What an earlier try linked may be gone from the manifest since.
    match fs::remove_dir_all(snapshot.join(folder)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let (mut entries, mut pooled) = (Vec::new(), Vec::new());
    for record in &mut manifest.files {
        let path = format!("{folder}/g{}/{}", record.shard_group, record.name());
        let link = snapshot.join(&path);
        fs::create_dir_all(link.parent().unwrap_or(snapshot))?;
        match fs::hard_link(data_dir.join(&path), &link) {
            Err(error) if error.kind() == io::ErrorKind::NotFound && record.tier == Tier::Pool => {
                pooled.push(record.clone());
            }
            linked => linked?,
        }
        entries.push(Entry { path, size: record.size, hash: record.hash });
        record.tier = Tier::Local;
    }
    entries.push(put(snapshot, &format!("{folder}/manifest"), &manifest.encode())?);
    Ok((entries, pooled))
}

/// Reads files from the pool into a folder.
async fn fetch_files(
    core: &DataCore,
    folder: &str,
    partition: &Partition<RingDisk>,
    records: &[FileRecord],
) -> Result<(), String> {
    let disk = &core.context().disk;
    for record in records {
        let path = format!("{folder}/g{}/{}", record.shard_group, record.name());
        let file = disk.create(&path, Purpose::Data).await.map_err(|error| error.to_string())?;
        let mut written = 0;
        // Comes in pieces of the same size, which is one of whole blocks, but for the last.
        let mut take = async |bytes: &[u8]| -> io::Result<()> {
            let mut buffer = file.alloc(bytes.len().next_multiple_of(BLOCK_BYTES));
            buffer.as_mut()[..bytes.len()].copy_from_slice(bytes);
            buffer.as_mut()[bytes.len()..].fill(0);
            file.write_at(buffer, written).await?;
            written += bytes.len() as u64;
            Ok(())
        };
        partition.read_whole(record, &mut take).await.map_err(|error| error.to_string())?;
        file.set_len(record.size).await.map_err(|error| error.to_string())?;
        file.close().await.map_err(|error| error.to_string())?;
    }
    Ok(())
}

/// Writes a small file of a snapshot.
fn put(snapshot: &Path, path: &str, bytes: &[u8]) -> io::Result<Entry> {
    let target: PathBuf = snapshot.join(path);
    fs::create_dir_all(target.parent().unwrap_or(snapshot))?;
    File::create(&target)?.write_all(bytes)?;
    Ok(Entry { path: path.to_owned(), size: bytes.len() as u64, hash: *blake3::hash(bytes).as_bytes() })
}

/// The BLAKE3 hash of a file.
pub fn hash_file(path: &Path) -> io::Result<[u8; 32]> {
    let mut hasher = blake3::Hasher::new();
    let mut file = File::open(path)?;
    let mut buffer = vec![0; READ_BYTES];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(*hasher.finalize().as_bytes()),
            count => hasher.update(&buffer[..count]),
        };
    }
}

/// The bytes of a snapshot's file from an offset on.
struct FileBytes {
    file: RingFile,
    path: String,
    offset: u64,
}

impl ByteSource for FileBytes {
    fn next(&mut self) -> Pin<Box<dyn Future<Output = Option<Vec<u8>>> + '_>> {
        Box::pin(async move {
            let start = self.offset / BLOCK_BYTES as u64 * BLOCK_BYTES as u64;
            let read = match self.file.read_at(start, READ_BYTES).await {
                Ok(read) => read,
                Err(error) => {
                    tracing::error!(%error, path = self.path, "a snapshot cannot be read");
                    return None;
                }
            };
            let bytes = read.as_ref().get((self.offset - start) as usize..).unwrap_or_default();
            self.offset += bytes.len() as u64;
            (!bytes.is_empty()).then(|| bytes.to_vec())
        })
    }
}
