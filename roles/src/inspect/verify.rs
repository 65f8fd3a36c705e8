//! `inspect verify`: reads everything and says what is damaged.

use super::{
    Damaged, Output,
    folder::{Folder, Kind},
    stopped::Stopped,
    tsm_source::{Damage, TsmSource, files_below},
};
use serde_json::json;
use std::{
    fs,
    path::{Path, PathBuf},
    time::Instant,
};
use tidemill_column::Values;
use tidemill_tsm::{block, fields_idx, key, meta_db, statistics::BlockStatistics, tombstone, wal::WalReader};

/// Reads every byte of a data folder and verifies it: blocks, order of the index, statistics, manifests, metadata, log
///
/// Of upstream's folders also tombstones, write-ahead logs, fields.idx and meta.db. Ends with a failure if anything is
/// damaged.
#[derive(clap::Args, Debug)]
pub struct Verify {
    /// A Tidemill data folder, any folder of upstream, or a TSM file
    folder: PathBuf,
    /// One JSON object for each file, for scripts
    #[arg(long)]
    json: bool,
    /// Also names what is healthy
    #[arg(long)]
    all: bool,
}

#[derive(Default)]
struct Tally {
    files: u64,
    blocks: u64,
    values: u64,
    bytes: u64,
    damages: u64,
}

impl Verify {
    pub fn run(&self, out: &mut Output) -> anyhow::Result<()> {
        let started = Instant::now();
        let mut tally = Tally::default();
        let folder = Folder::open(&self.folder)?;
        for file in &folder.files {
            let damages = verify_tsm(&file.path, folder.kind == Kind::Tidemill, &mut tally);
            self.tell(&file.path, &damages, out)?;
            tally.damages += damages.len() as u64;
        }
        let is_upstream = folder.kind == Kind::Upstream;
        // Its lock is shared: this one may be taken beside it.
        if is_upstream {
            self.upstream_files(&mut tally, out)?;
        } else if let Err(error) = futures_lite::future::block_on(Stopped::open(&self.folder)) {
            let what = format!("{error:#}");
            self.tell(&self.folder, &[Damage { path: self.folder.clone(), range: 0..0, what }], out)?;
            tally.damages += 1;
        } else {
            self.tell(&self.folder.join("meta, manifests, log"), &[], out)?;
        }
        let Tally { files, blocks, values, bytes, damages } = tally;
        let seconds = started.elapsed().as_secs_f64();
        if self.json {
            out.line(
                json!({ "files": files, "blocks": blocks, "points": values, "bytes": bytes, "damaged": damages }),
            )?;
        } else {
            out.line(format_args!(
                "{damages} damages in {files} files, {blocks} blocks, {values} points, in {seconds:.1} s"
            ))?;
            if let Some(note) = folder.pool_note() {
                out.line(note)?;
            }
        }
        match damages {
            0 => Ok(()),
            _ => Err(Damaged(format!("{damages} damages")).into()),
        }
    }

    fn tell(&self, path: &Path, damages: &[Damage], out: &mut Output) -> anyhow::Result<()> {
        if self.json {
            let found: Vec<_> = damages
                .iter()
                .map(|damage| json!({ "start": damage.range.start, "end": damage.range.end, "what": damage.what }))
                .collect();
            return out.line(json!({ "file": path, "damages": found }));
        }
        if damages.is_empty() && self.all {
            out.line(format_args!("{}: healthy", path.display()))?;
        }
        damages.iter().try_for_each(|damage| out.line(damage))
    }

    fn upstream_files(&self, tally: &mut Tally, out: &mut Output) -> anyhow::Result<()> {
        type Check = fn(&[u8]) -> Result<(), (u64, String)>;
        let checks: [(&str, Check); 4] = [
            ("tombstone", |bytes| tombstone::read(bytes).map(drop).map_err(|error| (0, error.to_string()))),
            ("idx", |bytes| fields_idx::read(bytes).map(drop).map_err(|error| (0, error.to_string()))),
            ("db", |bytes| meta_db::read(bytes).map(drop).map_err(|error| (0, error.to_string()))),
            ("wal", |bytes| {
                let mut reader = WalReader::new(bytes);
                while let Some(_entry) =
                    reader.next_entry().map_err(|error| (reader.offset() as u64, error.to_string()))?
                {}
                Ok(())
            }),
        ];
        for (extension, check) in checks {
            for path in files_below(&self.folder, extension)? {
                let named = path.file_name().is_some_and(|name| name == "fields.idx" || name == "meta.db");
                if matches!(extension, "idx" | "db") && !named {
                    continue;
                }
                let bytes = fs::read(&path)?;
                let damage = check(&bytes).err().map(|(start, what)| Damage {
                    path: path.clone(),
                    range: start..bytes.len() as u64,
                    what,
                });
                tally.files += 1;
                tally.bytes += bytes.len() as u64;
                tally.damages += u64::from(damage.is_some());
                self.tell(&path, damage.as_slice(), out)?;
            }
        }
        Ok(())
    }
}

/// Everything that is wrong with a file.
fn verify_tsm(path: &Path, is_ours: bool, tally: &mut Tally) -> Vec<Damage> {
    tally.files += 1;
    let mut source = match TsmSource::open(path) {
        Ok(source) => source,
        Err(damage) => return vec![damage],
    };
    tally.bytes += source.layout.file_size;
    let mut damages = Vec::new();
    if is_ours && source.statistics.is_none() {
        let range = source.layout.index.clone();
        damages.push(Damage {
            path: path.into(),
            range,
            what: "no statistics, and so no checksum of the index".into(),
        });
    }
    for position in 0..source.index.key_count() {
        let Some(found) = source.index.key(position) else { continue };
        if key::split(found.key).is_none() {
            let (range, name) = (source.layout.index.clone(), found.key.escape_ascii());
            damages.push(Damage { path: path.into(), range, what: format!("the key {name} has no field") });
        }
        let entries: Vec<_> = found.entries.iter().collect();
        let known: Vec<_> =
            source.statistics.iter().flat_map(|statistics| statistics.of_key(&source.index, position)).collect();
        let field_type = found.field_type;
        for (number, entry) in entries.iter().enumerate() {
            tally.blocks += 1;
            let (mut times, mut values) = (Vec::new(), Values::new(field_type));
            let decoded = source.block(entry).and_then(|block| {
                block::decode(block, &mut times, &mut values).map_err(|error| Damage {
                    path: path.into(),
                    range: entry.range(),
                    what: error.to_string(),
                })
            });
            if let Err(damage) = decoded {
                damages.push(damage);
                continue;
            }
            tally.values += times.len() as u64;
            if times.first() != Some(&entry.min_time) || times.last() != Some(&entry.max_time) {
                damages.push(source.damage_at(entry, "the block's times are not those of the index"));
            } else if let Some(Some(known)) = known.get(number)
                && *known != BlockStatistics::of(&times, &values, 0..times.len())
            {
                damages.push(source.damage_at(entry, "the block's statistics are not those of its points"));
            }
        }
    }
    damages
}
