//! `SELECT` and what it reads from: fields, sources, dimensions, fill, order and limits.
//!
//! Owns the statement as written. It does not know whether fields exist, nor whether functions may be combined:
//! those checks need a schema or belong to the planner.

use crate::expression::{Expr, WildcardKind};
use crate::regex_literal::RegexLiteral;

/// `SELECT`. Limits and offsets of 0 mean "not set".
#[derive(Clone, Debug, PartialEq, Default)]
pub struct SelectStatement {
    pub fields: Vec<Field>,
    pub target: Option<Measurement>,
    pub sources: Vec<Source>,
    pub condition: Option<Expr>,
    /// `GROUP BY` items as written: `time(..)` calls, names, wildcards, regular expressions.
    pub dimensions: Vec<Expr>,
    pub fill: Fill,
    /// `None` when there is no `ORDER BY`, which means ascending.
    pub order: Option<SortOrder>,
    pub limit: u64,
    pub offset: u64,
    pub slimit: u64,
    pub soffset: u64,
    /// The name inside `TZ('..')`. Whether such a zone exists is for the caller to check.
    pub time_zone: Option<String>,
}

/// A selected expression and the name after `AS`.
#[derive(Clone, Debug, PartialEq)]
pub struct Field {
    pub expr: Expr,
    pub alias: Option<String>,
}

/// What a select reads.
#[derive(Clone, Debug, PartialEq)]
pub enum Source {
    Measurement(Measurement),
    Subquery(Box<SelectStatement>),
}

/// A measurement, or several by regular expression, perhaps with its database and retention policy.
/// `db..name` has a database and no retention policy.
#[derive(Clone, Debug, PartialEq)]
pub struct Measurement {
    pub database: Option<String>,
    pub retention_policy: Option<String>,
    pub name: MeasurementName,
}

/// The last part of a measurement path.
#[derive(Clone, Debug, PartialEq)]
pub enum MeasurementName {
    Name(String),
    Regex(RegexLiteral),
    /// `:MEASUREMENT`, only in `INTO`: the name of the measurement that the row came from.
    OfSource,
}

/// What empty windows give.
#[derive(Clone, Copy, Debug, PartialEq, Default)]
pub enum Fill {
    /// Not written, or `fill(null)`.
    #[default]
    Null,
    /// `fill(none)`
    None,
    Previous,
    Linear,
    Integer(i64),
    Number(f64),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum SortOrder {
    #[default]
    Ascending,
    Descending,
}

impl SelectStatement {
    /// True unless `ORDER BY time DESC`.
    pub fn is_ascending(&self) -> bool {
        self.order != Some(SortOrder::Descending)
    }

    /// True when a field is `*` or a regular expression, so that its columns depend on the schema.
    pub fn has_field_wildcard(&self) -> bool {
        self.fields.iter().any(|field| field.expr.any(&mut |expr| matches!(expr, Expr::Wildcard(_) | Expr::Regex(_))))
    }

    /// True when a dimension is `*` or a regular expression.
    pub fn has_dimension_wildcard(&self) -> bool {
        self.dimensions.iter().any(|expr| matches!(expr, Expr::Wildcard(WildcardKind::All) | Expr::Regex(_)))
    }
}

impl Field {
    pub fn new(expr: Expr) -> Self {
        Self { expr, alias: None }
    }
}

impl Measurement {
    /// An unqualified measurement.
    pub fn named(name: impl Into<String>) -> Self {
        Self { database: None, retention_policy: None, name: MeasurementName::Name(name.into()) }
    }

    /// The plain name, unless it is a regular expression or `:MEASUREMENT`.
    pub fn plain_name(&self) -> Option<&str> {
        match &self.name {
            MeasurementName::Name(name) => Some(name),
            MeasurementName::Regex(_) | MeasurementName::OfSource => None,
        }
    }
}
