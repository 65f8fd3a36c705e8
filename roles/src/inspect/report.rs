//! `inspect report`: how much there is, of what, and how it is encoded.

use super::{
    Output,
    folder::{DataFile, Folder},
    table::{Table, size_text, time_text},
    tsm_source::{TsmSource, codecs},
};
use serde_json::json;
use std::{
    collections::{BTreeMap, HashSet},
    path::PathBuf,
};
use tidemill_tsm::{block, key};
use xxhash_rust::xxh3::xxh3_128;

/// Counts files, series, points and bytes of a data folder, or of any folder of TSM files
#[derive(clap::Args, Debug)]
pub struct Report {
    /// A Tidemill data folder, an upstream data folder, or a folder of TSM files
    folder: PathBuf,
    /// One JSON object, for scripts
    #[arg(long)]
    json: bool,
}

#[derive(Default)]
struct Sum {
    files: u64,
    bytes: u64,
    keys: u64,
    blocks: u64,
    points: u64,
    min_time: Option<i64>,
    max_time: Option<i64>,
    /// Keys as 128 bits of their hash: two of a billion series collide once in 10^20 reports.
    series: HashSet<u128>,
}

impl Report {
    pub fn run(&self, out: &mut Output) -> anyhow::Result<()> {
        let folder = Folder::open(&self.folder)?;
        let mut groups: BTreeMap<(String, String, u64), Sum> = BTreeMap::new();
        // Of a database: the same series lies in many shard groups.
        let mut of_databases: BTreeMap<String, HashSet<u128>> = BTreeMap::new();
        let mut by_codec: BTreeMap<String, (u64, u64, u64)> = BTreeMap::new();
        for file in &folder.files {
            let sum = groups.entry((file.database.clone(), file.policy.clone(), file.group)).or_default();
            take_in(file, sum, &mut by_codec)?;
            of_databases.entry(file.database.clone()).or_default().extend(&sum.series);
        }
        if self.json {
            self.as_json(&groups, &of_databases, &by_codec, out)
        } else {
            as_tables(&groups, &of_databases, &by_codec, out)?;
            out.line(folder.note())?;
            Ok(())
        }
    }

    fn as_json(
        &self,
        groups: &BTreeMap<(String, String, u64), Sum>,
        of_databases: &BTreeMap<String, HashSet<u128>>,
        by_codec: &BTreeMap<String, (u64, u64, u64)>,
        out: &mut Output,
    ) -> anyhow::Result<()> {
        let groups: Vec<_> = groups
            .iter()
            .map(|((database, policy, group), sum)| {
                json!({
                    "database": database, "retention_policy": policy, "shard_group": group, "files": sum.files,
                    "bytes": sum.bytes, "keys": sum.keys, "blocks": sum.blocks, "points": sum.points,
                    "series": sum.series.len(), "min_time": sum.min_time, "max_time": sum.max_time,
                })
            })
            .collect();
        let series: BTreeMap<_, _> = of_databases.iter().map(|(name, series)| (name, series.len())).collect();
        let codecs: Vec<_> = by_codec
            .iter()
            .map(|(codec, (blocks, points, bytes))| {
                json!({ "codec": codec, "blocks": blocks, "points": points, "bytes": bytes })
            })
            .collect();
        out.line(json!({ "shard_groups": groups, "series": series, "codecs": codecs }))
    }
}

fn take_in(file: &DataFile, sum: &mut Sum, by_codec: &mut BTreeMap<String, (u64, u64, u64)>) -> anyhow::Result<()> {
    let mut source = TsmSource::open(&file.path)?;
    let (min, max) = source.index.time_range();
    sum.files += 1;
    sum.bytes += source.layout.file_size;
    sum.keys += source.index.key_count() as u64;
    sum.blocks += source.index.block_count();
    sum.min_time = Some(sum.min_time.map_or(min, |known| known.min(min)));
    sum.max_time = Some(sum.max_time.map_or(max, |known| known.max(max)));
    let mut last: Vec<u8> = Vec::new();
    for position in 0..source.index.key_count() {
        let Some(found) = source.index.key(position) else { continue };
        let series = key::split(found.key).map_or(found.key, |(series, _)| series);
        if series != last {
            last = series.to_vec();
            sum.series.insert(xxh3_128(series));
        }
        let entries: Vec<_> = found.entries.iter().collect();
        for entry in entries {
            let size = u64::from(entry.size);
            let block = source.block(&entry)?;
            let parts = block::Parts::of(block);
            let counted = parts.and_then(|parts| Ok((parts, block::point_count(block)?)));
            let (parts, points) = match counted {
                Ok(counted) => counted,
                Err(error) => return Err(source.damage_at(&entry, error).into()),
            };
            let (times, values) = codecs(&parts);
            let (times, values) = (format!("times {times}"), format!("{} {values}", parts.field_type.name()));
            let (time_bytes, value_bytes) = (parts.times.len() as u64, parts.values.len() as u64);
            sum.points += points as u64;
            for (codec, bytes) in [
                (times, time_bytes),
                (values, value_bytes),
                ("heads of blocks".into(), size - time_bytes - value_bytes),
            ] {
                let known = by_codec.entry(codec).or_default();
                *known = (known.0 + 1, known.1 + points as u64, known.2 + bytes);
            }
        }
    }
    Ok(())
}

fn as_tables(
    groups: &BTreeMap<(String, String, u64), Sum>,
    of_databases: &BTreeMap<String, HashSet<u128>>,
    by_codec: &BTreeMap<String, (u64, u64, u64)>,
    out: &mut Output,
) -> anyhow::Result<()> {
    let mut table = Table::new(&[
        "database",
        "retention policy",
        "shard group",
        "files",
        "size",
        "series",
        "keys",
        "points",
        "first",
        "last",
    ]);
    for ((database, policy, group), sum) in groups {
        let time = |time: Option<i64>| time.map(time_text).unwrap_or_default();
        table.push(vec![
            database.clone(),
            policy.clone(),
            group.to_string(),
            sum.files.to_string(),
            size_text(sum.bytes),
            sum.series.len().to_string(),
            sum.keys.to_string(),
            sum.points.to_string(),
            time(sum.min_time),
            time(sum.max_time),
        ]);
    }
    out.line(&table)?;
    let mut table = Table::new(&["database", "series"]);
    for (database, series) in of_databases {
        table.push(vec![database.clone(), series.len().to_string()]);
    }
    out.line(&table)?;
    let mut table = Table::new(&["encoding", "blocks", "points", "bytes", "bits a point"]);
    for (codec, (blocks, points, bytes)) in by_codec {
        let bits = *bytes as f64 * 8.0 / (*points).max(1) as f64;
        table.push(vec![
            codec.clone(),
            blocks.to_string(),
            points.to_string(),
            bytes.to_string(),
            format!("{bits:.2}"),
        ]);
    }
    out.line(&table)
}
