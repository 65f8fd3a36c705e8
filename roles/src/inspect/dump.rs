//! `inspect dump`: one TSM file, from its summary down to each block.

use super::{
    Output,
    table::{Table, key_text, size_text, time_text},
    tsm_source::{TsmSource, codecs},
};
use serde_json::json;
use std::{collections::BTreeMap, path::PathBuf};
use tidemill_tsm::{block, key, statistics::Summary};

/// Shows what a TSM file holds, upstream's or Tidemill's
#[derive(clap::Args, Debug)]
pub struct Dump {
    /// The file
    file: PathBuf,
    /// Every block: where it is, when, and how it is encoded
    #[arg(long)]
    blocks: bool,
    /// Every key with the number and the time range of its blocks
    #[arg(long)]
    index: bool,
    /// What is known of every block beside the index: count, sum, min, max, first, last
    #[arg(long)]
    statistics: bool,
    /// Only keys that match this regular expression
    #[arg(long, value_name = "PATTERN")]
    key: Option<String>,
    /// One JSON object a line, for scripts
    #[arg(long)]
    json: bool,
}

impl Dump {
    pub fn run(&self, out: &mut Output) -> anyhow::Result<()> {
        let mut file = TsmSource::open(&self.file)?;
        let pattern = self.key.as_deref().map(regex::bytes::Regex::new).transpose()?;
        let positions: Vec<usize> = (0..file.index.key_count())
            .filter(|position| {
                let key = file.index.key(*position);
                key.is_some_and(|key| pattern.as_ref().is_none_or(|pattern| pattern.is_match(key.key)))
            })
            .collect();
        self.summary(&file, out)?;
        if self.index {
            self.keys(&file, &positions, out)?;
        }
        if self.blocks {
            self.each_block(&mut file, &positions, out)?;
        }
        if self.statistics {
            self.each_statistics(&file, &positions, out)?;
        }
        Ok(())
    }

    fn summary(&self, file: &TsmSource, out: &mut Output) -> anyhow::Result<()> {
        let (min, max) = file.index.time_range();
        let series = file.index.iter().filter_map(|key| key::split(key.key).map(|(series, _)| series));
        let mut series: Vec<&[u8]> = series.collect();
        series.dedup();
        if self.json {
            let summary = json!({
                "file": self.file, "bytes": file.layout.file_size, "series": series.len(),
                "keys": file.index.key_count(), "blocks": file.index.block_count(), "min_time": min, "max_time": max,
                "statistics": file.statistics.is_some(),
            });
            return out.line(&summary);
        }
        out.line(format_args!("file        {}", self.file.display()))?;
        out.line(format_args!("size        {}", size_text(file.layout.file_size)))?;
        out.line(format_args!("times       {} to {}", time_text(min), time_text(max)))?;
        out.line(format_args!("series      {}", series.len()))?;
        out.line(format_args!("keys        {}", file.index.key_count()))?;
        out.line(format_args!("blocks      {}", file.index.block_count()))?;
        out.line(format_args!("index       {}", size_text(file.layout.index.end - file.layout.index.start)))?;
        out.line(format_args!("statistics  {}", if file.statistics.is_some() { "yes" } else { "no: upstream's" }))
    }

    fn keys(&self, file: &TsmSource, positions: &[usize], out: &mut Output) -> anyhow::Result<()> {
        let mut table = Table::new(&["blocks", "type", "first", "last", "key"]);
        for key in positions.iter().filter_map(|position| file.index.key(*position)) {
            let (min, max) = key.entries.time_range();
            if self.json {
                out.line(json!({
                    "key": key_text(key.key), "type": key.field_type.name(), "blocks": key.entries.len(),
                    "min_time": min, "max_time": max,
                }))?;
                continue;
            }
            table.push(vec![
                key.entries.len().to_string(),
                key.field_type.name().into(),
                time_text(min),
                time_text(max),
                key_text(key.key),
            ]);
        }
        if self.json { Ok(()) } else { out.line(format_args!("\n{table}")) }
    }

    fn each_block(&self, file: &mut TsmSource, positions: &[usize], out: &mut Output) -> anyhow::Result<()> {
        let mut by_codec: BTreeMap<String, (u64, u64, u64)> = BTreeMap::new();
        if !self.json {
            out.line(format_args!("\noffset        bytes  points  times    values    first  key"))?;
        }
        for position in positions {
            let Some(key) = file.index.key(*position) else { continue };
            let (name, entries) = (key_text(key.key), key.entries.iter().collect::<Vec<_>>());
            for entry in entries {
                let block = file.block(&entry)?.to_vec();
                let parts = block::Parts::of(&block).map_err(|error| file.damage_at(&entry, error))?;
                let points = block::point_count(&block).map_err(|error| file.damage_at(&entry, error))?;
                let (times, values) = codecs(&parts);
                let codec = by_codec.entry(format!("{} {values}", parts.field_type.name())).or_default();
                *codec = (codec.0 + 1, codec.1 + points as u64, codec.2 + parts.values.len() as u64);
                if self.json {
                    out.line(json!({
                        "key": name, "offset": entry.offset, "bytes": entry.size, "points": points,
                        "times": times, "values": values, "time_bytes": parts.times.len(),
                        "value_bytes": parts.values.len(), "min_time": entry.min_time, "max_time": entry.max_time,
                    }))?;
                    continue;
                }
                out.line(format_args!(
                    "{:<12}  {:>5}  {points:>6}  {times:<8} {values:<8}  {}  {name}",
                    entry.offset,
                    entry.size,
                    time_text(entry.min_time),
                ))?;
            }
        }
        if self.json {
            return Ok(());
        }
        let mut table = Table::new(&["values", "blocks", "points", "value bytes", "bits a value"]);
        for (codec, (blocks, points, bytes)) in by_codec {
            let bits = bytes as f64 * 8.0 / points.max(1) as f64;
            table.push(vec![codec, blocks.to_string(), points.to_string(), bytes.to_string(), format!("{bits:.2}")]);
        }
        out.line(format_args!("\n{table}"))
    }

    fn each_statistics(&self, file: &TsmSource, positions: &[usize], out: &mut Output) -> anyhow::Result<()> {
        let Some(statistics) = &file.statistics else { return Ok(()) };
        for position in positions {
            let Some(key) = file.index.key(*position) else { continue };
            for (block, known) in statistics.of_key(&file.index, *position).enumerate() {
                let Some(known) = known else { continue };
                let text = match known.summary {
                    Summary::Float(extent) => format!("{extent:?}"),
                    Summary::Integer(extent) => format!("{extent:?}"),
                    Summary::Boolean(extent) => format!("{extent:?}"),
                    Summary::Unsigned(extent) => format!("{extent:?}"),
                    Summary::String => "String".into(),
                };
                if self.json {
                    let count = known.count;
                    out.line(json!({ "key": key_text(key.key), "block": block, "count": count, "summary": text }))?;
                } else {
                    out.line(format_args!("{} block {block}: {} points, {text}", key_text(key.key), known.count))?;
                }
            }
        }
        Ok(())
    }
}
