//! InfluxQL: text to statements, statements to text, and what planners ask about them.
//!
//! Owns the language as upstream 1.8 speaks it: the grammar with its error texts and positions, the syntax tree, the
//! normalised text, bound parameters, the constant parts of expressions, the time bounds of a condition, and which
//! privileges a statement takes.
//!
//! Invariants: no text makes the parser panic or recurse deeper than [`NESTING_MAX`]; no tree it makes is higher than
//! [`EXPRESSION_HEIGHT_MAX`] between two subqueries; the text `{:#}` of a tree that it made parses back to the same
//! tree, passwords and carriage returns in bound strings aside; `now()` and time zones come in as arguments.
//!
//! It knows nothing of schemas, data or users: whether a field exists, which functions there are and how they may be
//! combined is the planner's to say.

#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic))]

mod dimension;
mod duration;
mod error;
mod expression;
mod parameters;
mod parser;
mod print;
mod print_statement;
mod privilege;
mod re2;
mod reduce;
mod regex_literal;
mod scanner;
mod select;
mod statement;
mod time_range;
mod timestamp;
mod token;
mod walk;

pub use dimension::{DimensionError, TimeDimension, TimeOffset};
pub use duration::{DurationText, GoDurationText, MonthsText, parse_duration};
pub use error::{ParseError, Position};
pub use expression::{BinaryOperator, Call, DataType, Expr, VarRef, WildcardKind};
pub use parameters::{ParameterValue, Parameters};
pub use parser::{NESTING_MAX, parse_expr, parse_query, parse_query_with, parse_statement};
pub use print::{QuotedIdent, QuotedString};
pub use privilege::RequiredPrivilege;
pub use reduce::TimeContext;
pub use regex_literal::{RegexError, RegexLiteral};
pub use select::{Field, Fill, Measurement, MeasurementName, SelectStatement, SortKey, SortOrder, Source};
pub use statement::{
    AlterRetentionPolicy, CreateContinuousQuery, CreateDatabase, CreateRetentionPolicy, CreateSubscription, CreateUser,
    DatabaseRetentionPolicy, Delete, DropSeries, Explain, Password, Privilege, Query, ShowCardinality, ShowFieldKeys,
    ShowMeasurements, ShowSeries, ShowTagKeys, ShowTagValues, ShowTagValuesCardinality, Statement, SubscriptionMode,
    TagKeyFilter,
};
pub use time_range::{ConditionError, TIME_MAX_NS, TIME_MIN_NS, TimeRange, split_time};
pub use timestamp::{TimeText, TimestampText, parse_time_text};

/// How high an expression tree may be. A chain of `AND` or of `OR` is kept balanced, so that thousands of terms fit;
/// beyond that nobody writes such trees by hand, and at this height recursion needs less than a tenth of a
/// thread's default stack.
pub const EXPRESSION_HEIGHT_MAX: usize = 256;
