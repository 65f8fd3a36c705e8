//! `SELECT` and what it reads from: fields, sources, dimensions, fill, order and limits.
//!
//! Owns the statement as written. It does not know whether fields exist, nor whether functions may be combined:
//! those checks need a schema or belong to the planner.

use crate::expression::{Expr, WildcardKind};
use crate::regex_literal::RegexLiteral;
use crate::statement::{Query, Statement};

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
    /// `ORDER BY` by anything but time alone, the weightiest first: an extension. `order` is then `None`.
    pub sort: Vec<SortKey>,
    pub limit: u64,
    pub offset: u64,
    pub slimit: u64,
    pub soffset: u64,
    /// The name inside `TZ('..')`. Whether such a zone exists is for the caller to check.
    pub time_zone: Option<String>,
}

/// One of several things by which rows are ordered: `time`, a column of the answer by its name, or a selected expression.
#[derive(Clone, Debug, PartialEq)]
pub struct SortKey {
    pub expr: Expr,
    pub order: SortOrder,
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

impl SelectStatement {
    /// Writes out the database and the retention policy of every measurement that leaves them to the default, in
    /// subqueries and in the target as well, as the stored text of a continuous query has them.
    /// `default_policy` gives the default policy of a database; where it gives none, the policy stays open.
    pub fn qualify_measurements(&mut self, database: &str, default_policy: &dyn Fn(&str) -> Option<String>) {
        let qualify = |measurement: &mut Measurement| {
            let database = measurement.database.get_or_insert_with(|| database.to_owned());
            if measurement.retention_policy.is_none() {
                measurement.retention_policy = default_policy(database);
            }
        };
        self.target.iter_mut().for_each(qualify);
        for source in &mut self.sources {
            match source {
                Source::Measurement(measurement) => qualify(measurement),
                Source::Subquery(select) => select.qualify_measurements(database, default_policy),
            }
        }
    }

    /// The names of all time zones, those of subqueries included. A request with an unknown one is refused as a
    /// whole, see [`ParseError::unknown_time_zone`](crate::ParseError::unknown_time_zone).
    pub fn time_zones(&self) -> Vec<&str> {
        let mut names: Vec<&str> = self.time_zone.as_deref().into_iter().collect();
        for source in &self.sources {
            if let Source::Subquery(select) = source {
                names.extend(select.time_zones());
            }
        }
        names
    }
}

impl Query {
    /// The names of all time zones of the request.
    pub fn time_zones(&self) -> Vec<&str> {
        let selects = self.statements.iter().filter_map(|statement| match statement {
            Statement::Select(select) => Some(select),
            Statement::Explain(explain) => Some(&explain.statement),
            Statement::CreateContinuousQuery(create) => Some(&create.source),
            _ => None,
        });
        selects.flat_map(SelectStatement::time_zones).collect()
    }
}

#[cfg(test)]
mod tests {
    use crate::parser::{parse_query, parse_statement};
    use crate::statement::Statement;

    #[test]
    fn measurements_are_written_out() {
        let text = "SELECT v INTO x FROM n, other..m, rp.n, (SELECT v FROM /a/)";
        let Statement::Select(mut select) = parse_statement(text).unwrap() else { panic!("a SELECT") };
        select.qualify_measurements("d", &|database| (database == "d").then(|| "autogen".to_owned()));
        assert_eq!(
            select.to_string(),
            "SELECT v INTO d.autogen.x FROM d.autogen.n, other..m, d.rp.n, (SELECT v FROM d.autogen./a/)"
        );
    }

    #[test]
    fn zones_are_found_everywhere() {
        let query = parse_query(
            "SELECT v FROM (SELECT v FROM n tz('A/B')) tz('UTC'); EXPLAIN SELECT v FROM n tz('C'); SHOW USERS",
        )
        .unwrap();
        assert_eq!(query.time_zones(), ["UTC", "A/B", "C"]);
    }
}
