//! What each kind of entry does to a partition.

use crate::{
    cells::StringHeap,
    copy::PendingCopy,
    deletion::Deletion,
    entry::{CopyOrder, EntryError, Floats, Measurements},
    id::{DatabaseId, FieldId, ShardGroupId},
    index::SeriesIndex,
    maintenance::{FlushPoint, Job, Publication},
    manifest::{GroupRecord, HandedFile, PolicyRecord, Tier, Tombstone},
    memtable::IncomingRows,
    partition::State,
    sessions::Verdict,
    settle::Unsettled,
    shard_group::ShardGroup,
    tsm_file::TsmFile,
};
use std::{collections::BTreeMap, rc::Rc};
use tidemill_column::FieldType;
use tidemill_disk::Disk;
use tidemill_line::{FieldDefinition, FormatError, PartitionBatch, RowGroup};
use tidemill_raft::{LogIndex, Term};
use tidemill_tsm::key;

/// What an entry did.
#[derive(Clone, Debug, PartialEq)]
pub enum Applied {
    Nothing,
    /// Rows went into the memtable; zero for a batch that was there before.
    Written {
        rows: u64,
    },
    /// Nothing: a batch of which it is not remembered whether it was there before. Sessions up to this one are forgotten.
    Forgotten {
        through: u64,
    },
    /// Memtables were frozen; [`crate::Partition::maintain`] writes them.
    Flush,
    /// Files are to move to the next level; [`crate::Partition::copy`] does it.
    Copy,
    /// Points are gone; [`crate::Partition::settle`] takes the series without any out of the index.
    Deleted,
    Dropped,
    /// Blocks of files belong to the pool; [`crate::Partition::maintain`] removes them here.
    HandedOver,
}

/// An entry that cannot be applied.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    #[error(transparent)]
    Entry(#[from] EntryError),
    #[error(transparent)]
    Batch(#[from] FormatError),
}

impl<D: Disk> State<D> {
    pub(crate) fn apply_write(&mut self, batch: &[u8]) -> Result<Applied, ApplyError> {
        let batch = PartitionBatch::parse(batch)?;
        let header = batch.header();
        match self.sessions.note(header.session, header.sequence, header.behind) {
            Verdict::New => {}
            Verdict::Repeated => return Ok(Applied::Written { rows: 0 }),
            Verdict::Forgotten { through } => return Ok(Applied::Forgotten { through }),
        }
        let database = DatabaseId(header.database);
        let born = self.applied.next().0;
        let index = self.databases.entry(database).or_insert_with(|| SeriesIndex::born_at(born));
        let group = self.groups.entry(ShardGroupId(header.shard_group));
        let group = group.or_insert_with(|| ShardGroup::new(database, header.retention_policy));
        let schemas: Vec<Vec<FieldId>> = batch
            .schemas()
            .map(|schema| {
                let define =
                    |field: FieldDefinition<'_>| index.insert_field(schema.measurement, field.name, field.field_type);
                schema.fields().map(define).collect()
            })
            .collect();
        let floor = self.floors.get(&(database, group.policy)).copied();
        let mut memtable = group.active.borrow_mut();
        let mut rows = 0;
        for series in batch.series() {
            let id = match index.find(series.hash, series.key).filter(|id| index.is_alive(*id)) {
                Some(id) => id,
                None if is_storable(series.key) => index.insert(series.hash, series.key),
                None => {
                    // Such lines are to be rejected with a reason before they are proposed; here they must not stop the
                    // flush of everything else.
                    tracing::error!(key = %series.key.escape_ascii(), "a series key that no TSM file can hold");
                    continue;
                }
            };
            for row_group in series.groups() {
                self.scratch.clear();
                words(&batch, &row_group, memtable.strings_mut(), &mut self.scratch);
                let incoming = IncomingRows {
                    series: id,
                    key: series.key,
                    fields: &schemas[row_group.schema_index],
                    rows: row_group.row_count,
                    cells: &self.scratch,
                };
                memtable.append(&incoming, index.watermarks_mut(group.policy), floor);
                rows += row_group.row_count as u64;
            }
        }
        Ok(Applied::Written { rows })
    }

    pub(crate) fn apply_flush(&mut self, term: Term, index: LogIndex, floats: Floats) -> Applied {
        for group in self.groups.values_mut() {
            if let Some(dictionary) = self.databases.get(&group.database) {
                group.freeze(index.0, floats, dictionary);
            }
        }
        let record = |(id, group): (&ShardGroupId, &ShardGroup<D::File>)| GroupRecord {
            shard_group: id.0,
            database: group.database.0,
            policy: group.policy,
            newest: group.newest_frozen,
        };
        let groups = self.groups.iter().map(record).collect();
        let policy = |((database, policy), floor): (&(DatabaseId, u32), &i64)| PolicyRecord {
            database: database.0,
            policy: *policy,
            floor: *floor,
        };
        let policies = self.floors.iter().map(policy).collect();
        let marks = Rc::new(self.databases.iter_mut().map(|(id, index)| (*id, index.mark())).collect());
        let point = Rc::new(FlushPoint {
            index,
            term,
            sessions: self.sessions.clone(),
            groups,
            policies,
            members: self.members.clone(),
        });
        self.jobs.push_back(Job::Flush { point, marks, publication: Publication::None });
        self.unsettled.extend(self.unreadable.drain(..));
        Applied::Flush
    }

    /// Only notes what is to be done. An entry that the manifest knows already is being replayed.
    pub(crate) fn apply_copy(&mut self, index: LogIndex, order: CopyOrder) -> Applied {
        if index.0 <= self.copies_index {
            return Applied::Nothing;
        }
        self.copies_index = index.0;
        if !self.groups.contains_key(&ShardGroupId(order.shard_group)) {
            return Applied::Nothing;
        }
        self.copies.insert(index.0, PendingCopy { order, handed: Vec::new(), publication: Publication::None });
        Applied::Copy
    }

    /// A file that a copy is yet to make here gets its tier when it is made: elsewhere it was there.
    pub(crate) fn apply_hand_over(&mut self, group: u64, files: &[HandedFile], tier: Tier) -> Applied {
        let id = ShardGroupId(group);
        for handed in files {
            if let Some(copy) = self.copies.get_mut(&handed.generation).filter(|copy| copy.order.shard_group == group) {
                match copy.handed.iter_mut().find(|(known, _)| known == handed) {
                    Some((_, known)) => *known = tier.max(*known),
                    None => copy.handed.push((*handed, tier)),
                }
                continue;
            }
            let Some(known) = self.groups.get(&id) else { continue };
            let file = known.files.iter().find(|file| {
                let record = file.record();
                record.level == 2 && record.handed() == *handed
            });
            if let Some(file) = file.filter(|file| file.tier() < tier) {
                file.set_tier(tier);
                self.note_leaving(id, file.clone());
            }
        }
        Applied::HandedOver
    }

    /// If the blocks of a file are the pool's and still here, they are to go.
    pub(crate) fn note_leaving(&mut self, group: ShardGroupId, file: Rc<TsmFile<D::File>>) {
        if file.tier() == Tier::Pool && !file.reads_pool() {
            self.leaving.push_back((group, file));
        }
    }

    /// Deleted rows may leave the files, and with them the newest time that their series had there. What takes their place
    /// must not be ordered on a node that was started since and late on another: up to the deleted time it is late
    /// everywhere. Depends on the log alone, and so not on which series have points.
    fn raise_floors(&mut self, database: DatabaseId, (min_time, max_time): (i64, i64)) {
        let mut newest: BTreeMap<(DatabaseId, u32), i64> = BTreeMap::new();
        for group in self.groups.values().filter(|group| group.database == database) {
            let known = newest.entry((database, group.policy)).or_insert(i64::MIN);
            *known = group.newest().max(*known);
        }
        for (policy, newest) in newest.into_iter().filter(|(_, newest)| min_time <= *newest) {
            self.raise_floor(policy, max_time.min(newest));
        }
    }

    pub(crate) fn raise_floor(&mut self, policy: (DatabaseId, u32), time: i64) {
        let floor = self.floors.entry(policy).or_insert(time);
        *floor = time.max(*floor);
    }

    /// The work is a few steps for each file, however many series are covered: see [`Deletion`].
    pub(crate) fn apply_delete(&mut self, database: DatabaseId, tombstone: Tombstone) -> Result<Applied, ApplyError> {
        let deletion = Rc::new(Deletion::new(tombstone)?);
        self.raise_floors(database, deletion.range());
        let Some(index) = self.databases.get_mut(&database) else { return Ok(Applied::Deleted) };
        let fields = match (&deletion.tombstone().measurements, deletion.field()) {
            (Measurements::Named(names), Some(field)) => {
                // A field that has rows in a memtable is written.
                let fields = names.iter().flat_map(|name| index.field_ids(name, field)).collect();
                names.iter().for_each(|name| index.unwrite_field(name, field, None));
                fields
            }
            _ => Vec::new(),
        };
        let groups = self.groups.values_mut().filter(|group| group.database == database);
        for group in groups.filter(|group| deletion.covers_policy(group.policy)) {
            group.delete(&deletion, &fields);
        }
        self.unsettled.push_back(Unsettled::Deleted { database, deletion });
        Ok(Applied::Deleted)
    }
}

/// Whether a TSM index can hold the key: with any field behind it, it is split where it was joined.
fn is_storable(series_key: &[u8]) -> bool {
    let mut joined = Vec::with_capacity(series_key.len() + key::SEPARATOR.len());
    key::join(series_key, b"", &mut joined).is_ok()
}

/// The row group as the memtable's words: times, then one column after the other.
fn words<'a>(batch: &PartitionBatch<'a>, rows: &RowGroup<'a>, strings: &mut StringHeap, words: &mut Vec<u64>) {
    words.extend(rows.times().map(|time| time as u64));
    for column in batch.columns_of(rows) {
        match column.field_type() {
            FieldType::Float => words.extend(column.floats().map(f64::to_bits)),
            FieldType::Integer => words.extend(column.integers().map(|value| value as u64)),
            FieldType::Unsigned => words.extend(column.unsigneds()),
            FieldType::Boolean => words.extend(column.booleans().map(u64::from)),
            FieldType::String => words.extend(column.strings().map(|value| strings.push(value))),
        }
    }
}
