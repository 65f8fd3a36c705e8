//! Line protocol into columns, and columns into the batches that partitions store.
//!
//! Owns: the parser ([`Batch::parse`]), the texts of its rejections ([`LineError`], [`DroppedPoint`]), the split of a
//! parsed body by shard group and partition ([`Splitter`]), the split of a body that is not
//! parsed ([`LineRouter`]) and the identities of its parts ([`BatchClaim`]), the byte image of one such part ([`PartitionBatch`]) and
//! the form of a series key ([`series_key`]).
//!
//! Invariants:
//! - a line is stored whole or rejected whole, with a reason, and never changes what happens to its neighbours;
//! - parsing allocates nothing per point once the buffers of a [`Batch`] have grown to the size of the traffic;
//! - rows of one series keep their order of arrival through parse, split and read, because the later of two rows with
//!   equal times wins;
//! - equality of series, schemas and measurements is decided by bytes; hashes only find candidates;
//! - neither the parser nor the reader of images panics, whatever bytes it is given.
//!
//! Knows nothing of HTTP, of databases by name, of field types that were stored before, of retention, of clocks: the
//! time of lines without one, the shard groups and the rows to leave out come in as arguments.

mod batch;
mod claim;
mod image;
mod key;
mod line_end;
mod line_error;
mod number;
mod parser;
mod partition_batch;
mod partition_map;
mod precision;
mod reason;
mod route;
mod schema_table;
pub mod series_key;
mod series_table;
mod slots;
mod split;
mod text;
mod value;

pub use batch::{
    Batch, INPUT_BYTES_MAX, InputTooLong, ParseOptions, Parsed, RETAINED_BYTES_MAX, Row, SchemaView, SeriesView,
    ValueRef,
};
pub use claim::{BatchClaim, CLAIM_GROUPS_MAX, NoClaim};
pub use image::{FORMAT_VERSION, Identity, PartitionHeader};
pub use line_error::{
    DROPPED_MAX, DropReason, DroppedPoint, ERROR_TEXT_BYTES_MAX, ERRORS_MAX, LineError, Reason, Span,
};
pub use partition_batch::{
    BatchSchema, BatchSeries, ColumnSlice, Columns, FieldDefinition, FormatError, PartitionBatch, RowGroup, RowGroups,
    SeriesIter,
};
pub use partition_map::{PARTITIONS_MAX, PartitionMap, PartitionMapError};
pub use precision::Precision;
pub use route::LineRouter;
pub use split::{PartitionImage, SHARD_GROUPS_MAX, ShardGroupRange, SplitError, SplitPlan, Splitter};

/// Longest series key, and longest series key + 4 + field name, in bytes. Index entries of TSM files hold key lengths in
/// 16 bits.
pub const KEY_BYTES_MAX: usize = 65_535;
