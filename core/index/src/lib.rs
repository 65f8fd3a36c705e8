//! The series index of one database in one partition.
//!
//! Owns: canonical series keys and their ids, for each tag value the set of series that have it, the fields that each
//! measurement has been written with, the conditions on tags that it answers, and how many there are of everything.
//! Invariants: an id never changes its key; a series that lost all of its points keeps its id and is only taken out of
//! the postings, so that an entry of the log that names it stays true. Fields keep their ids in the same way: when a
//! measurement is found empty differs from replica to replica, and what a flush writes must not. No step of a growing
//! index copies or builds anew what grows with the series.
//! Knows nothing of points, of the log and of I/O: its file is bytes that others write and read (see the module `image`).
//! It is derived: files and log rebuild it.

mod chunked;
mod dictionary;
mod id;
mod id_table;
mod image;
mod measurement;
mod posting;
mod postings_builder;
mod predicate;
mod series_index;
mod tag_column;
mod tag_values;
mod watermark;

pub use chunked::ChunkedVec;
pub use id::{FieldId, SeriesId};
pub use image::{Delta, ImageError, ImageReader, ImageWriter, Restored, RestoredIndex, Written};
pub use measurement::distinct_tags;
pub use posting::PostingRef;
pub use predicate::TagPredicate;
pub use series_index::{Field, IndexMark, SeriesIndex};
pub use watermark::WatermarkColumn;
