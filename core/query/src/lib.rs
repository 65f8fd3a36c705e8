//! Execution of InfluxQL: checks, plans, vectorised operators and the merge, all sans-IO.

mod result;

pub use result::{ResultColumn, ResultSeries};
