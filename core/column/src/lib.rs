//! Typed columns of points in memory: what the TSM decoder produces, the memtable hands out and the query operators
//! read.
//!
//! Owns: [`FieldType`], [`Value`], [`Values`] (dense typed vectors), [`Column`] (values with a validity bitmap) and
//! [`Points`] (one series: ascending times, one column per asked field).
//! Invariants: all columns of a [`Points`] are as long as its `times`; an absent bitmap means that every row is valid.
//! Knows nothing of series keys, files, shard groups or queries.

mod bitmap;
mod column;
mod field_type;
mod points;
mod strings;

pub use bitmap::Bitmap;
pub use column::{Column, Values};
pub use field_type::{FieldType, Value};
pub use points::Points;
pub use strings::Strings;

/// Smallest storable instant, ns since the epoch (upstream keeps the two smallest int64 values for itself).
pub const TIME_MIN: i64 = i64::MIN + 2;
/// Largest storable instant, ns since the epoch.
pub const TIME_MAX: i64 = i64::MAX - 1;
