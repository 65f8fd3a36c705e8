//! InfluxQL: text to statements, statements to text.

mod expression;
mod regex_literal;
mod select;
mod statement;
mod walk;

pub use expression::{BinaryOperator, Call, DataType, Expr, VarRef, WildcardKind};
pub use regex_literal::{RegexError, RegexLiteral};
pub use select::{Field, Fill, Measurement, MeasurementName, SelectStatement, SortOrder, Source};
pub use statement::{
    AlterRetentionPolicy, CreateContinuousQuery, CreateDatabase, CreateRetentionPolicy, CreateSubscription, CreateUser,
    DatabaseRetentionPolicy, Delete, DropSeries, Explain, Password, Privilege, Query, ShowCardinality, ShowFieldKeys,
    ShowMeasurements, ShowSeries, ShowTagKeys, ShowTagValues, ShowTagValuesCardinality, Statement, SubscriptionMode,
    TagKeyFilter,
};

/// How high an expression tree may be. A chain of `AND` or of `OR` is kept balanced, so that thousands of terms fit;
/// beyond that nobody writes such trees by hand, and at this height recursion needs less than a tenth of a
/// thread's default stack.
pub const EXPRESSION_HEIGHT_MAX: usize = 256;
