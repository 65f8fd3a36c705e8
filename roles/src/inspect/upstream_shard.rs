//! One shard of upstream, read in the order in which it took its points, as line protocol.
//!
//! TSM files come first, oldest first, each without what its tombstones delete; then the write-ahead log, without what
//! later entries of it delete. So the last line of a series and time is the one that upstream would show. What cannot be
//! read is named with file and range and counted, and everything else is read all the same.
//! Memory: the index of one file and a block for each field of one series; one segment of the log.

use super::tsm_source::{Damage, TsmSource};
use crate::line_text::{push_field, push_time};
use anyhow::Context;
use std::{
    collections::{BTreeMap, HashMap},
    fs,
    path::{Path, PathBuf},
};
use tidemill_column::{Value, Values};
use tidemill_tsm::{
    block,
    index::Entry,
    key,
    tombstone::{self, Tombstone},
    wal::{WalEntry, WalReader},
};

/// A body of line protocol is handed over once it is so long: enough for one durable write to be worth it.
const BODY_BYTES: usize = 4 << 20;

/// Where a shard lies.
#[derive(Clone, Debug)]
pub struct Shard {
    pub database: String,
    pub policy: String,
    pub id: u64,
    /// Oldest first.
    pub tsm_files: Vec<PathBuf>,
    pub segments: Vec<PathBuf>,
}

/// What reading a shard gave.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    pub rows: u64,
    pub damages: u64,
}

/// Takes the lines, and how many bytes of files were read for them.
pub trait Sink {
    async fn take(&mut self, lines: Vec<u8>, bytes_read: u64) -> anyhow::Result<()>;
    fn tell(&mut self, damage: &Damage);
}

impl Shard {
    /// The shards below upstream's data and log folders, in the order of their ids.
    pub fn find(data: &Path, wal: &Path) -> anyhow::Result<Vec<Shard>> {
        let mut shards: BTreeMap<(String, String, u64), Shard> = BTreeMap::new();
        for (root, extension) in [(data, "tsm"), (wal, "wal")] {
            for database in folders(root)? {
                for policy in folders(&database)? {
                    for folder in folders(&policy)? {
                        let (database, policy) = (name_of(&database), name_of(&policy));
                        let Ok(id) = name_of(&folder).parse() else { continue };
                        let shard = shards.entry((database.clone(), policy.clone(), id)).or_insert_with(|| Shard {
                            database,
                            policy,
                            id,
                            tsm_files: Vec::new(),
                            segments: Vec::new(),
                        });
                        let mut files: Vec<PathBuf> = super::tsm_source::files_below(&folder, extension)?;
                        files.sort_by_key(|path| numbers_of(path));
                        if extension == "tsm" { shard.tsm_files = files } else { shard.segments = files }
                    }
                }
            }
        }
        let mut found: Vec<Shard> = shards.into_values().collect();
        found.sort_by_key(|shard| shard.id);
        Ok(found)
    }

    /// Bytes of all files.
    pub fn byte_size(&self) -> u64 {
        let files = self.tsm_files.iter().chain(&self.segments);
        files.filter_map(|path| fs::metadata(path).ok()).map(|metadata| metadata.len()).sum()
    }

    /// Hands all points over.
    pub async fn read(&self, sink: &mut impl Sink) -> anyhow::Result<Tally> {
        let mut tally = Tally::default();
        for path in &self.tsm_files {
            let mut file = FileRead { tally: Tally::default(), lines: Vec::new(), bytes: 0 };
            file.run(path, sink).await?;
            tally.rows += file.tally.rows;
            tally.damages += file.tally.damages;
        }
        let deletions = self.log_deletions(sink, &mut tally)?;
        for (number, path) in self.segments.iter().enumerate() {
            let mut file = FileRead { tally: Tally::default(), lines: Vec::new(), bytes: 0 };
            file.segment(number, path, &deletions, sink).await?;
            tally.rows += file.tally.rows;
        }
        Ok(tally)
    }

    /// Deletions of the log by key: in which entry of which segment, and which times. Damage is told here, once.
    fn log_deletions(&self, sink: &mut impl Sink, tally: &mut Tally) -> anyhow::Result<Deletions> {
        let mut deletions = Deletions::new();
        for (number, path) in self.segments.iter().enumerate() {
            let bytes = fs::read(path).with_context(|| path.display().to_string())?;
            let mut reader = WalReader::new(&bytes);
            loop {
                let place = (number, reader.offset());
                match reader.next_entry() {
                    Ok(None) => break,
                    Ok(Some(WalEntry::Write(_))) => {}
                    Ok(Some(WalEntry::Delete { keys })) => {
                        keys.into_iter().for_each(|key| {
                            deletions.entry(key).or_default().push((place, i64::MIN, i64::MAX));
                        });
                    }
                    Ok(Some(WalEntry::DeleteRange { min_time, max_time, keys })) => {
                        keys.into_iter().for_each(|key| {
                            deletions.entry(key).or_default().push((place, min_time, max_time));
                        });
                    }
                    Err(error) => {
                        let range = place.1 as u64..bytes.len() as u64;
                        let what = format!("{error}; what follows in this segment is lost to upstream, too");
                        sink.tell(&Damage { path: path.clone(), range, what });
                        tally.damages += 1;
                        break;
                    }
                }
            }
        }
        Ok(deletions)
    }
}

type Place = (usize, usize);
type Deletions = HashMap<Vec<u8>, Vec<(Place, i64, i64)>>;
/// Deleted times of a file by key: first and last, inclusive.
type DeletedTimes = HashMap<Vec<u8>, Vec<(i64, i64)>>;
/// Values of a segment's entry by series and time, then by field.
type Rows<'a> = BTreeMap<(&'a [u8], i64), BTreeMap<&'a [u8], Value>>;

/// Reads one file.
struct FileRead {
    tally: Tally,
    lines: Vec<u8>,
    /// Read since lines were handed over.
    bytes: u64,
}

/// One field of a series in a TSM file, its next points decoded.
struct FieldRead {
    name: Vec<u8>,
    entries: std::vec::IntoIter<Entry>,
    deleted: Vec<(i64, i64)>,
    times: Vec<i64>,
    values: Values,
    next: usize,
}

impl FileRead {
    async fn run(&mut self, path: &Path, sink: &mut impl Sink) -> anyhow::Result<()> {
        let mut source = match TsmSource::open(path) {
            Ok(source) => source,
            Err(damage) => {
                self.damaged(&damage, sink);
                return Ok(());
            }
        };
        let deleted = self.tombstones(path, sink)?;
        let mut position = 0;
        while let Some(first) = source.index.key(position) {
            let Some((series, _)) = key::split(first.key).map(|(series, field)| (series.to_vec(), field)) else {
                let what = format!("the key {} has no field", first.key.escape_ascii());
                self.damaged(&Damage { path: path.into(), range: source.layout.index.clone(), what }, sink);
                position += 1;
                continue;
            };
            let mut fields = Vec::new();
            while let Some(found) = source.index.key(position) {
                let Some((_, name)) = key::split(found.key).filter(|(known, _)| *known == series) else { break };
                fields.push(FieldRead {
                    name: name.to_vec(),
                    entries: found.entries.iter().collect::<Vec<_>>().into_iter(),
                    deleted: deleted.get(found.key).cloned().unwrap_or_default(),
                    times: Vec::new(),
                    values: Values::new(found.field_type),
                    next: 0,
                });
                position += 1;
            }
            if let Some(what) = inexpressible_key(&series) {
                self.damaged(&Damage { path: path.into(), range: source.layout.index.clone(), what }, sink);
                continue;
            }
            self.series(&mut source, &series, &mut fields, sink).await?;
        }
        self.hand_over(sink).await
    }

    fn tombstones(&mut self, path: &Path, sink: &mut impl Sink) -> anyhow::Result<DeletedTimes> {
        let path = path.with_extension("tombstone");
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(HashMap::new()),
            Err(error) => return Err(error).with_context(|| path.display().to_string()),
        };
        let mut deleted: DeletedTimes = HashMap::new();
        match tombstone::read(&bytes) {
            Ok(tombstones) => {
                for Tombstone { key, min_time, max_time } in tombstones {
                    deleted.entry(key).or_default().push((min_time, max_time));
                }
            }
            Err(error) => {
                let what = format!("{error}; its deletions are not applied");
                self.damaged(&Damage { path, range: 0..bytes.len() as u64, what }, sink);
            }
        }
        Ok(deleted)
    }

    /// Merges the fields of a series into rows.
    async fn series(
        &mut self,
        source: &mut TsmSource,
        series: &[u8],
        fields: &mut [FieldRead],
        sink: &mut impl Sink,
    ) -> anyhow::Result<()> {
        loop {
            for field in fields.iter_mut() {
                while field.next == field.times.len() && self.next_block(source, field, sink) {}
            }
            let heads = fields.iter().filter_map(|field| field.times.get(field.next));
            let Some(time) = heads.min().copied() else { return Ok(()) };
            let start = self.lines.len();
            self.lines.extend_from_slice(series);
            let mut is_first = true;
            for field in fields.iter_mut().filter(|field| field.times.get(field.next) == Some(&time)) {
                let value = field.values.value(field.next);
                field.next += 1;
                self.push(&mut is_first, &field.name, &value, &source.path, series, sink);
            }
            self.end_line(start, is_first, time);
            if self.lines.len() >= BODY_BYTES {
                self.hand_over(sink).await?;
            }
        }
    }

    /// Decodes the next block of a field; `false` behind the last.
    fn next_block(&mut self, source: &mut TsmSource, field: &mut FieldRead, sink: &mut impl Sink) -> bool {
        let Some(entry) = field.entries.next() else { return false };
        self.bytes += u64::from(entry.size);
        field.next = 0;
        field.times.clear();
        field.values.truncate(0);
        let (times, values) = (&mut field.times, &mut field.values);
        let decoded = source.block(&entry).and_then(|bytes| {
            block::decode(bytes, times, values).map_err(|error| Damage {
                path: PathBuf::new(),
                range: entry.range(),
                what: error.to_string(),
            })
        });
        if let Err(mut damage) = decoded {
            damage.path.clone_from(&source.path);
            self.damaged(&damage, sink);
        } else if !field.deleted.is_empty() {
            let is_kept = |time: i64| !field.deleted.iter().any(|(min, max)| (*min..=*max).contains(&time));
            let mut kept = Values::new(values.field_type());
            let rows: Vec<usize> = (0..times.len()).filter(|row| is_kept(times[*row])).collect();
            rows.iter().for_each(|row| kept.push_from(values, *row));
            (*times, *values) = (rows.iter().map(|row| times[*row]).collect(), kept);
        }
        true
    }

    /// Hands over what a segment wrote and nothing deleted later.
    async fn segment(
        &mut self,
        number: usize,
        path: &Path,
        deletions: &Deletions,
        sink: &mut impl Sink,
    ) -> anyhow::Result<()> {
        let bytes = fs::read(path).with_context(|| path.display().to_string())?;
        let mut reader = WalReader::new(&bytes);
        loop {
            let place = (number, reader.offset());
            // Damage was told when deletions were looked for.
            let Ok(Some(entry)) = reader.next_entry() else { break };
            self.bytes += (reader.offset() - place.1) as u64;
            let WalEntry::Write(written) = entry else { continue };
            let mut rows: Rows = BTreeMap::new();
            for points in &written {
                let Some((series, field)) = key::split(&points.key) else { continue };
                let later = deletions.get(&points.key);
                let is_gone = |time: i64| {
                    let mut later = later.into_iter().flatten().filter(|(deleted, ..)| *deleted > place);
                    later.any(|(_, min, max)| (*min..=*max).contains(&time))
                };
                for (row, time) in points.times.iter().enumerate().filter(|(_, time)| !is_gone(**time)) {
                    rows.entry((series, *time)).or_default().insert(field, points.values.value(row));
                }
            }
            for ((series, time), fields) in rows {
                if let Some(what) = inexpressible_key(series) {
                    self.damaged(
                        &Damage { path: path.into(), range: place.1 as u64..reader.offset() as u64, what },
                        sink,
                    );
                    continue;
                }
                let start = self.lines.len();
                self.lines.extend_from_slice(series);
                let mut is_first = true;
                for (name, value) in fields {
                    self.push(&mut is_first, name, &value, path, series, sink);
                }
                self.end_line(start, is_first, time);
            }
            if self.lines.len() >= BODY_BYTES {
                self.hand_over(sink).await?;
            }
        }
        self.hand_over(sink).await
    }

    fn push(
        &mut self,
        is_first: &mut bool,
        name: &[u8],
        value: &Value,
        path: &Path,
        series: &[u8],
        sink: &mut impl Sink,
    ) {
        match push_field(&mut self.lines, *is_first, name, value) {
            Ok(()) => *is_first = false,
            Err(_) => {
                let what = format!(
                    "field {} of {} is {value:?}, which no line protocol has a text for",
                    name.escape_ascii(),
                    series.escape_ascii()
                );
                self.damaged(&Damage { path: path.into(), range: 0..0, what }, sink);
            }
        }
    }

    fn end_line(&mut self, start: usize, is_empty: bool, time: i64) {
        if is_empty {
            self.lines.truncate(start);
        } else {
            push_time(&mut self.lines, time);
            self.tally.rows += 1;
        }
    }

    async fn hand_over(&mut self, sink: &mut impl Sink) -> anyhow::Result<()> {
        let bytes = std::mem::take(&mut self.bytes);
        if self.lines.is_empty() && bytes == 0 {
            return Ok(());
        }
        sink.take(std::mem::take(&mut self.lines), bytes).await
    }

    fn damaged(&mut self, damage: &Damage, sink: &mut impl Sink) {
        self.tally.damages += 1;
        sink.tell(damage);
    }
}

/// Why a line cannot begin with this key: it would be a comment, or two lines.
fn inexpressible_key(series: &[u8]) -> Option<String> {
    let starts_badly = series.first().is_none_or(|first| *first == b'#' || first.is_ascii_whitespace());
    (starts_badly || series.contains(&b'\n'))
        .then(|| format!("the series {} cannot be written as line protocol", series.escape_ascii()))
}

fn folders(path: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(path).with_context(|| path.display().to_string())? {
        let path = entry?.path();
        // The series file of a database is no retention policy.
        if path.is_dir() && name_of(&path) != "_series" {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

fn name_of(path: &Path) -> String {
    path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

/// Generation and sequence, or the number of a segment: more than nine digits sort behind nine.
fn numbers_of(path: &Path) -> Vec<u64> {
    let stem = path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
    stem.trim_start_matches('_').split('-').filter_map(|part| part.parse().ok()).collect()
}
