//! Long lists of what the series indexes know, in order and a page at a time: SHOW SERIES and SHOW TAG VALUES.
//!
//! Owns: the way from the postings of all cores to sorted texts. A core sorts ids in short runs and answers with those,
//! four bytes a row; whoever asked merges the runs and asks for the texts of a page when it comes to it. So a list of
//! any length takes its ids and some pages, charged to the query, and no core is held up by sorting.
//! Invariants: a text comes once, however many partitions and databases have it; what is listed had points when the list
//! was begun. An id never changes its key, so that pages of one list fit together whatever happens in between.
//! Knows nothing of columns and limits of answers.

mod answer;
mod gather;
mod merge;
mod order;

pub(super) use answer::{SeriesKeys, TagValueTables};
pub(crate) use gather::{gather, gather_of, texts};
use merge::Merge;
pub(crate) use order::{List, ListOrder, Listed, PageOrder, Run, Source};
