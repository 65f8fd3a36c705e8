//! WHERE of SHOW MEASUREMENTS: a condition on measurements, not on series.
//!
//! A comparison passes the measurements that have the tag at all and of which some series (`=`, `=~`) or no series
//! (`!=`, `!~`) has such a value; AND and OR join the measurements that passed. So `a = 'x' AND b = 'y'` needs no series
//! that has both.

use crate::{
    data::question::{About, Filter, Finding, MeasurementTest},
    query::{StatementError, sources::Session},
};
use std::collections::{BTreeMap, BTreeSet};
use tidemill_influxql::{BinaryOperator, Expr};
use tidemill_query::{TagFilter, TagTest};
use tidemill_store::DatabaseId;

/// What a condition says of measurements.
#[derive(Debug, PartialEq)]
pub(super) enum MeasurementFilter {
    Name(TagTest),
    /// Some series has a value of the tag that passes; or, negated, none has.
    Tag {
        tag: String,
        filter: TagFilter,
        negated: bool,
    },
    And(Box<(MeasurementFilter, MeasurementFilter)>),
    Or(Box<(MeasurementFilter, MeasurementFilter)>),
}

impl MeasurementFilter {
    /// # Errors
    /// Something else than comparisons of tags; the texts are upstream's.
    pub fn new(condition: &Expr) -> Result<MeasurementFilter, StatementError> {
        let invalid = |text: String| Err(StatementError::Invalid(text));
        let (operator, left, right) = match condition {
            Expr::Paren(inner) => return MeasurementFilter::new(inner),
            Expr::Binary { operator, left, right } => (*operator, &**left, &**right),
            Expr::Boolean(value) => return invalid(format!("&influxql.BooleanLiteral{{Val:{value}}}")),
            other => return invalid(format!("invalid condition expression: {other}")),
        };
        let sides = || Ok::<_, StatementError>((MeasurementFilter::new(left)?, MeasurementFilter::new(right)?));
        let (positive, negated) = match operator {
            BinaryOperator::And => return Ok(MeasurementFilter::And(Box::new(sides()?))),
            BinaryOperator::Or => return Ok(MeasurementFilter::Or(Box::new(sides()?))),
            BinaryOperator::Equal | BinaryOperator::RegexMatch => (operator, false),
            BinaryOperator::NotEqual => (BinaryOperator::Equal, true),
            BinaryOperator::RegexNotMatch => (BinaryOperator::RegexMatch, true),
            _ => return invalid("invalid tag comparison operator".to_owned()),
        };
        let symbol = operator.symbol();
        let Expr::VarRef(name) = left else { return invalid(format!("left side of '{symbol}' must be a tag key")) };
        let Some(test) = TagTest::new(positive, right) else {
            let kind = if positive == BinaryOperator::Equal { "tag value string" } else { "regular expression" };
            return invalid(format!("right side of '{symbol}' must be a {kind}"));
        };
        if name.name == "_name" {
            let test = TagTest::new(operator, right).unwrap_or(test);
            return Ok(MeasurementFilter::Name(test));
        }
        let has_tag = TagFilter::NotEqual { tag: name.name.clone(), value: String::new() };
        let filter = has_tag.and(TagFilter::test(&name.name, &test));
        Ok(MeasurementFilter::Tag { tag: name.name.clone(), filter, negated })
    }

    /// The measurements of a database that pass.
    pub async fn measurements(
        &self,
        session: &Session,
        database: DatabaseId,
        tests: Option<Vec<MeasurementTest>>,
    ) -> Result<BTreeSet<String>, StatementError> {
        let tag_keys = match session.ask(database, tests, Filter::All, About::TagKeys).await? {
            Finding::Names(names) => names,
            _ => unreachable!("tag keys are found by name"),
        };
        let mut matches = Vec::new();
        let mut leaves = Vec::new();
        self.push_leaves(&mut leaves);
        for filter in leaves {
            let filter = filter.clone();
            match session.ask(database, None, Filter::Same(filter), About::Measurements).await? {
                Finding::Names(names) => matches.push(names.into_keys().collect()),
                _ => unreachable!("measurements are found by name"),
            }
        }
        Ok(self.select(&tag_keys, &mut matches.into_iter()))
    }

    fn push_leaves<'a>(&'a self, leaves: &mut Vec<&'a TagFilter>) {
        match self {
            MeasurementFilter::Name(_) => {}
            MeasurementFilter::Tag { filter, .. } => leaves.push(filter),
            MeasurementFilter::And(sides) | MeasurementFilter::Or(sides) => {
                sides.0.push_leaves(leaves);
                sides.1.push_leaves(leaves);
            }
        }
    }

    /// The measurements that pass, given the tag keys of all and, leaf by leaf, those with a matching series.
    fn select(
        &self,
        tag_keys: &BTreeMap<String, BTreeSet<String>>,
        matches: &mut impl Iterator<Item = BTreeSet<String>>,
    ) -> BTreeSet<String> {
        match self {
            MeasurementFilter::Name(test) => tag_keys.keys().filter(|name| test.accepts(name)).cloned().collect(),
            MeasurementFilter::Tag { tag, negated, .. } => {
                let matching = matches.next().unwrap_or_default();
                let having = tag_keys.iter().filter(|(_, keys)| keys.contains(tag)).map(|(name, _)| name);
                having.filter(|name| matching.contains(*name) != *negated).cloned().collect()
            }
            MeasurementFilter::And(sides) => &sides.0.select(tag_keys, matches) & &sides.1.select(tag_keys, matches),
            MeasurementFilter::Or(sides) => &sides.0.select(tag_keys, matches) | &sides.1.select(tag_keys, matches),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidemill_influxql::parse_expr;

    fn filter(text: &str) -> Result<MeasurementFilter, String> {
        MeasurementFilter::new(&parse_expr(text).unwrap()).map_err(|error| error.to_string())
    }

    #[test]
    fn what_is_no_comparison_of_tags_is_refused() {
        for (text, expected) in [
            ("host > 'a'", "invalid tag comparison operator"),
            ("host = 'a' OR v > 1", "invalid tag comparison operator"),
            ("v = 1", "right side of '=' must be a tag value string"),
            ("'a' != host", "left side of '!=' must be a tag key"),
            ("true", "&influxql.BooleanLiteral{Val:true}"),
        ] {
            assert_eq!(filter(text), Err(expected.to_owned()), "{text}");
        }
    }

    #[test]
    fn measurements_pass_as_wholes() {
        let keys = |keys: &[&str]| keys.iter().map(|key| (*key).to_owned()).collect::<BTreeSet<String>>();
        let tag_keys = BTreeMap::from([
            ("k".to_owned(), keys(&["dc", "host"])),
            ("n".to_owned(), keys(&[])),
            ("only".to_owned(), keys(&["host"])),
        ]);
        let select = |text: &str, matches: &[&[&str]]| {
            let mut matches = matches.iter().map(|names| keys(names));
            let selected = filter(text).unwrap().select(&tag_keys, &mut matches);
            assert!(matches.next().is_none(), "{text}");
            selected
        };
        assert_eq!(select("host = 'a'", &[&["k"]]), keys(&["k"]));
        assert_eq!(select("host != 'a'", &[&["k"]]), keys(&["only"]));
        assert_eq!(select("nope != 'a'", &[&[]]), keys(&[]));
        assert_eq!(select("host = 'a' AND dc = 'x'", &[&["k"], &["k"]]), keys(&["k"]));
        assert_eq!(select("(dc = 'x' OR _name =~ /n/) AND _name != 'only'", &[&["k"]]), keys(&["k", "n"]));
    }
}
