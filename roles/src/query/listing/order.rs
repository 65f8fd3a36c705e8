//! What cores ask each other for, and what a core answers.

use crate::{
    data::question::Wanted,
    query::account::{Charge, RunningQuery},
};
use std::sync::Arc;
use tidemill_influxql::TagKeyFilter;
use tidemill_store::DatabaseId;

/// Something to be listed, asked of a core.
pub struct ListOrder {
    pub database: DatabaseId,
    pub wanted: Wanted,
    pub listed: Listed,
    /// No more than so many of the smallest rows of each list are of interest.
    pub rows_max: Option<u64>,
    pub query: Arc<RunningQuery>,
}

/// What is listed.
pub enum Listed {
    /// Canonical series keys.
    Series,
    /// Values of the tags that pass, by measurement and tag.
    TagValues(TagKeyFilter),
}

/// Rows of one list, sorted by their texts, in one partition.
pub struct Run {
    pub list: List,
    pub source: Source,
    /// Series by whose keys the texts are known.
    pub ids: Vec<u32>,
    /// For the ids.
    pub charge: Charge,
}

/// Of which list rows are.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum List {
    Series,
    TagValues { measurement: Arc<str>, tag: Arc<str> },
}

/// Whose ids they are.
#[derive(Clone, Debug)]
pub struct Source {
    pub database: DatabaseId,
    pub partition: u32,
    /// When the index began: ids of another one mean other series.
    pub born: u64,
    /// The tag whose values are listed.
    pub tag: Option<Arc<[u8]>>,
}

/// The texts of some rows, asked of the core of their partition.
pub struct PageOrder {
    pub source: Source,
    pub ids: Vec<u32>,
}
