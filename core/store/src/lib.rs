//! The store: what a partition's log makes of its entries.
//!
//! Owns: series index, memtables, flush to TSM files, manifest, deletes, and the reading of points from all of them.
//! Invariants: see [`Partition`]; a byte that was read is verified before it is believed (I5); files follow from the
//! log alone (I7); a reader pins what it reads, so that no move between memory and files loses or doubles a row (I8).
//! Knows nothing of raft, HTTP, InfluxQL and the clock.

mod apply;
mod block_lane;
mod block_reader;
mod cache;
mod cells;
mod copy;
mod copy_merge;
mod copy_output;
mod copy_plan;
mod copy_source;
mod cost;
mod cursor;
mod deletion;
mod entry;
mod file_place;
mod file_run;
mod flush;
mod group_files;
mod hand_over;
mod id;
mod index_file;
mod install;
mod key_scan;
mod maintenance;
mod manifest;
mod memtable;
mod mend;
mod pace;
mod partition;
mod pool_blocks;
mod publication;
mod read_error;
mod restore;
mod scrub;
mod sessions;
mod settle;
mod shard_group;
mod sim_pool;
mod slots;
mod sorted;
mod spare;
mod tsm_file;
mod turn;

use tidemill_index as index;

pub use apply::{Applied, ApplyError};
pub use cache::{CacheFigures, ReadCache};
pub use copy::CopyFigures;
pub use cost::{CostCount, ReadCost};
pub use cursor::{Batch, ScanField, SeriesCursor};
pub use deletion::{Deletion, ranges_of};
pub use entry::{
    Command, CopyOrder, Entry, EntryError, Floats, Measurements, SeriesTimes, TagCondition, members_prefix,
    write_prefix,
};
pub use file_run::FlushError;
pub use group_files::{GroupFiles, RunFiles};
pub use id::{DatabaseId, ShardGroupId};
pub use install::{ArrivingFile, InstallError, Installation, WantedFile};
pub use maintenance::MaintainError;
pub use manifest::{
    CopyRecord, FileRecord, GroupRecord, HandedFile, IndexRecord, Manifest, ManifestError, PolicyRecord, Tier,
    Tombstone,
};
pub use pace::breathe;
pub use partition::{OpenError, Partition, PartitionFigures, PartitionView};
pub use pool_blocks::{LocalFuture, NoPool, PoolBlocks};
pub use read_error::ReadError;
pub use scrub::Scrubbed;
pub use sessions::{SESSIONS_MAX, Sessions, Verdict, WINDOW};
pub use sim_pool::{SimPool, SimPoolFigures};
pub use tidemill_index::{FieldId, PostingRef, SeriesId, SeriesIndex, TagPredicate, distinct_tags};
pub use turn::Turn;
