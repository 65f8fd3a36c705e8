//! Which TSM files a folder holds, and of what: a Tidemill data folder, or upstream's.

use super::{scratch_disk::ScratchDisk, tsm_source::files_below};
use crate::{
    data::MetaMachine,
    data_lock::DataLock,
    identity::{self, Identity},
};
use anyhow::Context;
use std::path::{Path, PathBuf};
use tidemill_meta::Meta;
use tidemill_store::{Manifest, Tier};

/// One TSM file.
pub struct DataFile {
    pub path: PathBuf,
    pub database: String,
    pub policy: String,
    /// Of upstream: the id of the shard.
    pub group: u64,
}

/// Whose folder it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Tidemill,
    Upstream,
}

/// A folder with TSM files in it. No server uses it while this lives.
pub struct Folder {
    pub kind: Kind,
    pub files: Vec<DataFile>,
    /// Files of which only the tail is here.
    pooled: usize,
    _lock: DataLock,
}

impl Folder {
    pub fn open(root: &Path) -> anyhow::Result<Folder> {
        anyhow::ensure!(root.exists(), "{} does not exist", root.display());
        if !identity::is_in(root) {
            let files = files_below(root, "tsm").with_context(|| root.display().to_string())?;
            let files = files.into_iter().map(upstream_file).collect();
            return Ok(Folder { kind: Kind::Upstream, files, pooled: 0, _lock: DataLock::shared(root)? });
        }
        let lock = DataLock::shared(root)?;
        let identity = Identity::read(root)?;
        let meta = futures_lite::future::block_on(MetaMachine::load(ScratchDisk::new(root)))?.state();
        let (mut files, mut pooled) = (Vec::new(), 0);
        for partition in 0..identity.partitions {
            let folder = root.join(partition_folder(partition));
            let Some(manifest) = read_manifest(&folder)? else { continue };
            for record in &manifest.files {
                let (database, policy) = names(&meta, record.database, record.policy);
                let path = folder.join(format!("g{}", record.shard_group)).join(record.name());
                if record.tier == Tier::Pool && !path.exists() {
                    pooled += 1;
                    continue;
                }
                files.push(DataFile { path, database, policy, group: record.shard_group });
            }
        }
        Ok(Folder { kind: Kind::Tidemill, files, pooled, _lock: lock })
    }

    /// What the files do not show.
    pub fn note(&self) -> String {
        let note = match self.kind {
            Kind::Tidemill => "Rows that are only in the log are not counted: see `inspect cat-log`.",
            Kind::Upstream => "Points in write-ahead logs are not counted, and tombstones not applied.",
        };
        self.pool_note().map_or(note.to_owned(), |pooled| format!("{note} {pooled}"))
    }

    /// What is elsewhere.
    pub fn pool_note(&self) -> Option<String> {
        let pooled = self.pooled;
        (pooled > 0).then(|| format!("{pooled} files have their blocks in the storage pool and are not counted."))
    }
}

pub fn partition_folder(partition: u32) -> String {
    format!("partitions/{partition:03}")
}

/// The manifest of a partition's folder; a partition that never wrote a file has none.
pub fn read_manifest(folder: &Path) -> anyhow::Result<Option<Manifest>> {
    let path = folder.join("manifest");
    match std::fs::read(&path) {
        Ok(bytes) => Ok(Some(Manifest::decode(&bytes, &path.display().to_string())?)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| path.display().to_string()),
    }
}

/// Names of a database and its policy; their numbers where the snapshot of the metadata does not know them yet.
fn names(meta: &Meta, database: u32, policy: u32) -> (String, String) {
    let known = meta.database_by_id(tidemill_meta::DatabaseId(database));
    let of_policy = known.and_then(|known| known.policies.iter().find(|known| known.id.0 == policy));
    (
        known.map_or_else(|| format!("#{database}"), |known| known.name.clone()),
        of_policy.map_or_else(|| format!("#{policy}"), |policy| policy.name.clone()),
    )
}

/// Upstream's folders name everything: `<database>/<policy>/<shard>/<file>`.
fn upstream_file(path: PathBuf) -> DataFile {
    let above = |levels: usize| {
        let folder = path.ancestors().nth(levels).and_then(Path::file_name);
        folder.map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
    };
    let (database, policy, group) = (above(3), above(2), above(1).parse().unwrap_or(0));
    DataFile { path, database, policy, group }
}
