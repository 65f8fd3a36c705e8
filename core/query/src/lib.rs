//! Execution of InfluxQL's SELECT: checks, plans, vectorised operators and the merge, all sans-IO.
//!
//! Owns the way from a parsed statement to rows: [`compile`] checks what needs no schema, [`Compiled::plan`] resolves
//! names, [`PartExec`] runs one partition's part of a scan over batches of points that it is given, and [`Merge`] joins
//! the parts' outputs into the answer. A statement whose calls work on rows has a plan a call, whose answers [`Join`]
//! joins. The driver reads series, moves outputs between cores, and charges
//! [`PartExec::bytes_held`] and [`Merge::bytes_held`] to the query's budget.
//!
//! Invariants: memory is bounded by groups and windows at hand, never by rows read or answered; the answer depends on
//! the points and the partitions, not on timing, cores or the order of supplies.
//!
//! It knows nothing of files, shard groups, partitions' places, protocols or clocks: `now()` comes in as an argument.

mod accumulator;
mod arithmetic_type;
mod compile;
mod condition;
mod continuous;
mod error;
mod evaluate;
mod fill;
mod finish;
mod functions;
mod join;
mod limit;
mod math;
mod merge;
mod names;
mod part;
mod plan;
mod planner;
mod resolve;
mod result;
mod rows;
mod schema;
mod sort;
mod stream;
mod subquery;
mod tag_filter;
mod window;
mod zone;

pub use accumulator::BlockSummary;
pub use compile::{CompileOptions, Compiled, MeasurementSelector, SourceRequest, compile};
pub use continuous::{ContinuousSchedule, ContinuousTurn};
pub use error::QueryError;
pub use join::{Join, JoinDemand};
pub use limit::{RowLimit, SelectLimits, SeriesLimit};
pub use merge::{Merge, MergeDemand};
pub use part::{
    PART_OUTPUT_BYTES_MAX, PART_OUTPUT_ROWS_MAX, PART_OUTPUT_WINDOWS_MAX, PartDecoder, PartDemand, PartEncoder,
    PartExec, PartImageError, PartOutput, ScanSeries,
};
pub use plan::{Plan, PlanExplanation, ScanPlan};
pub use result::{ResultColumn, ResultSeries};
pub use schema::{SourceIndex, SourceSchema, winner};
pub use sort::{Sort, SortStep};
pub use subquery::{SubqueryPart, SubqueryRows, SubqueryStep};
pub use tag_filter::{TagFilter, TagTest};
pub use window::Windows;
pub use zone::TimeZone;
