//! `inspect cat-log`: what the log of a stopped server holds.
//!
//! Reads the segments as they lie there, one in memory at a time, and believes no byte before its checksum was
//! verified. What is behind the last commit of a segment (spares' old content, a torn write) is passed over: whether it
//! is damage, `inspect verify` decides, by the rules of a start.

use super::{Output, table::time_text};
use crate::data::{LOG_FOLDER, META_GROUP};
use crate::data_lock::DataLock;
use crate::line_text::{push_field, push_time};
use crate::links::POOL_GROUP;
use anyhow::Context;
use serde_json::json;
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};
use tidemill_column::Values;
use tidemill_disk::BLOCK_BYTES;
use tidemill_line::PartitionBatch;
use tidemill_log::{
    Record,
    format::{
        commit::{self, Claim},
        frame,
        segment_header::SegmentHeader,
    },
};
use tidemill_raft::{GroupId, LogIndex, Membership, Term};
use tidemill_store::{Entry, members_prefix};

/// Shows the log of a data folder: entries of each group, commands, and rows as line protocol
#[derive(clap::Args, Debug)]
pub struct CatLog {
    /// A Tidemill data folder, or a folder of log segments
    folder: PathBuf,
    /// Every frame, in the order of the log
    #[arg(long)]
    frames: bool,
    /// The rows of every write as line protocol
    #[arg(long)]
    rows: bool,
    /// Only this partition's group; `meta` for the metadata's, `pool` for that of the pool's masters
    #[arg(long, value_name = "N|meta|pool")]
    group: Option<String>,
    /// One JSON object a line, for scripts
    #[arg(long)]
    json: bool,
}

/// Entries of one group.
struct Group {
    entries: u64,
    first: LogIndex,
    last: LogIndex,
    terms: Vec<Term>,
    rows: u64,
    bytes: u64,
    commands: Vec<(LogIndex, String)>,
}

impl CatLog {
    pub fn run(&self, out: &mut Output) -> anyhow::Result<()> {
        let _lock = DataLock::shared(&self.folder)?;
        let only = match self.group.as_deref() {
            None => None,
            Some("meta") => Some(META_GROUP),
            Some("pool") => Some(POOL_GROUP),
            Some(text) => Some(GroupId(text.parse().with_context(|| format!("--group {text}"))?)),
        };
        let mut groups: BTreeMap<GroupId, Group> = BTreeMap::new();
        let below = self.folder.join(LOG_FOLDER);
        let root = if below.is_dir() { below } else { self.folder.clone() };
        for path in super::tsm_source::files_below(&root, "log")? {
            self.segment(&path, only, &mut groups, out)?;
        }
        for (id, group) in &groups {
            self.summary(*id, group, out)?;
        }
        Ok(())
    }

    fn segment(
        &self,
        path: &Path,
        only: Option<GroupId>,
        groups: &mut BTreeMap<GroupId, Group>,
        out: &mut Output,
    ) -> anyhow::Result<()> {
        let name = path.display();
        let bytes = fs::read(path).with_context(|| name.to_string())?;
        let header = SegmentHeader::decode(&bytes).map_err(|error| anyhow::anyhow!("{name}: {error:?}"))?;
        if self.frames && !self.json {
            out.line(format_args!("segment {name}: sequence {}, log {:016x}", header.sequence, header.log_id))?;
        }
        let mut at = BLOCK_BYTES;
        while let Some(block) = bytes.get(at..).filter(|rest| rest.len() >= BLOCK_BYTES) {
            let Claim::Commit(commit) = commit::claim(block, header.log_id, header.sequence, block.len()) else {
                break;
            };
            let whole = &block[..commit.commit_bytes()];
            if commit::verify(whole).is_none() {
                eprintln!("{name}: bytes {at}..{}: a commit that is torn or damaged", at + whole.len());
                break;
            }
            let mut frames = commit::frames(&commit, whole);
            while !frames.is_empty() {
                let (record, length) = frame::decode(frames)
                    .map_err(|error| anyhow::anyhow!("{name}: bytes {at}..{}: {error}", at + whole.len()))?;
                if only.is_none_or(|only| record.group() == only) {
                    self.record(&record, groups, out)?;
                }
                frames = &frames[length..];
            }
            at += whole.len();
            if commit.sealed {
                break;
            }
        }
        Ok(())
    }

    fn record(
        &self,
        record: &Record<'_>,
        groups: &mut BTreeMap<GroupId, Group>,
        out: &mut Output,
    ) -> anyhow::Result<()> {
        let Record::Entry { group, term, index, payload } = *record else {
            let Record::HardState { group, term, vote, committed } = *record else { return Ok(()) };
            return match (self.frames, self.json) {
                (false, _) => Ok(()),
                (_, true) => {
                    out.line(json!({ "group": group.0, "term": term.0, "vote": vote, "committed": committed.0 }))
                }
                (_, false) => out.line(format_args!("{} term {} votes for {vote:?}", name_of(group), term.0)),
            };
        };
        let known = groups.entry(group).or_insert_with(|| Group {
            entries: 0,
            first: index,
            last: index,
            terms: Vec::new(),
            rows: 0,
            bytes: 0,
            commands: Vec::new(),
        });
        known.entries += 1;
        known.bytes += payload.len() as u64;
        known.last = index;
        if known.terms.last() != Some(&term) {
            known.terms.push(term);
        }
        let text = match (payload, group) {
            ([], _) => "opens the term".to_string(),
            ([first, members @ ..], _) if *first == members_prefix() => match Membership::decode(members) {
                Ok(members) => format!("{members:?}"),
                Err(error) => format!("{} bytes of members: {error}", members.len()),
            },
            (bytes, META_GROUP) => match tidemill_meta::Command::decode(bytes) {
                Ok(command) => format!("{command:?}"),
                Err(error) => format!("{} bytes that are no command: {error}", bytes.len()),
            },
            (bytes, POOL_GROUP) => match tidemill_pool::Command::decode(bytes) {
                Ok(command) => format!("{command:?}"),
                Err(error) => format!("{} bytes that are no command: {error}", bytes.len()),
            },
            (bytes, _) => match Entry::parse(bytes) {
                Ok(Entry::Command(command)) => format!("{command:?}"),
                Ok(Entry::Write(image)) => {
                    let batch = PartitionBatch::parse(image)?;
                    let rows = batch.header().row_count;
                    known.rows += u64::from(rows);
                    if self.rows {
                        push_rows(&batch, out)?;
                    }
                    if self.frames { write_text(&batch) } else { String::new() }
                }
                Ok(Entry::Members(_)) => unreachable!("they are told above"),
                Err(error) => format!("{} bytes that are no entry: {error}", bytes.len()),
            },
        };
        if self.frames && self.json {
            out.line(json!({ "group": group.0, "term": term.0, "index": index.0, "entry": text }))?;
        } else if self.frames {
            out.line(format_args!("{} term {} index {}: {text}", name_of(group), term.0, index.0))?;
        } else if !text.is_empty() && !payload.is_empty() {
            known.commands.push((index, text));
        }
        Ok(())
    }

    fn summary(&self, id: GroupId, group: &Group, out: &mut Output) -> anyhow::Result<()> {
        let terms: Vec<u64> = group.terms.iter().map(|term| term.0).collect();
        if self.json {
            return out.line(json!({
                "group": id.0, "entries": group.entries, "first": group.first.0, "last": group.last.0, "terms": terms,
                "rows": group.rows, "bytes": group.bytes,
                "commands": group.commands.iter().map(|(index, text)| json!([index.0, text])).collect::<Vec<_>>(),
            }));
        }
        let Group { entries, first, last, rows, bytes, .. } = group;
        let name = name_of(id);
        out.line(format_args!(
            "{name}: {entries} entries {first} to {last}, terms {terms:?}, {rows} rows, {bytes} bytes"
        ))?;
        for (index, text) in &group.commands {
            out.line(format_args!("    {index}  {text}"))?;
        }
        Ok(())
    }
}

fn name_of(group: GroupId) -> String {
    match group {
        META_GROUP => "metadata".into(),
        POOL_GROUP => "pool".into(),
        group => format!("partition {group}"),
    }
}

fn write_text(batch: &PartitionBatch<'_>) -> String {
    let header = batch.header();
    format!(
        "{} rows of {} series, database {}, shard group {}, {} to {}",
        header.row_count,
        header.series_count,
        header.database,
        header.shard_group,
        time_text(header.time_min),
        time_text(header.time_max),
    )
}

fn push_rows(batch: &PartitionBatch<'_>, out: &mut Output) -> anyhow::Result<()> {
    let mut lines = Vec::new();
    for series in batch.series() {
        for group in series.groups() {
            let columns: Vec<(&[u8], Values)> = group
                .columns()
                .map(|(field, column)| {
                    let mut values = Values::new(column.field_type());
                    let taken = column.append_to(&mut values);
                    assert!(taken, "a column takes values of its own type");
                    (field.name, values)
                })
                .collect();
            for (row, time) in group.times().enumerate() {
                let start = lines.len();
                lines.extend_from_slice(series.key);
                let mut is_first = true;
                for (name, values) in &columns {
                    is_first &= push_field(&mut lines, is_first, name, &values.value(row)).is_err();
                }
                if is_first {
                    lines.truncate(start);
                } else {
                    push_time(&mut lines, time);
                }
            }
        }
    }
    std::io::Write::write_all(&mut out.0, &lines)?;
    Ok(())
}
