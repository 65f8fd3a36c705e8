//! The WHERE of one measurement, with names resolved.
//!
//! Owns the three steps of a condition: what the index can decide ([`Condition::tag_filter`], which may let too much
//! through), what is left once the tags of a series are known ([`Condition::fold`]), and which rows satisfy that
//! ([`Condition::rows`]). Time was taken out before.

use crate::evaluate::{self, EvalExpr, Leaves};
use crate::tag_filter::{TagFilter, TagTest};
use tidemill_influxql::{BinaryOperator, RegexLiteral};

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Condition {
    Constant(bool),
    And(Box<Condition>, Box<Condition>),
    Or(Box<Condition>, Box<Condition>),
    Tag {
        tag: String,
        test: TagTest,
    },
    /// Leaves are columns of the plan.
    Compare {
        operator: BinaryOperator,
        left: EvalExpr,
        right: EvalExpr,
    },
    Match {
        field: EvalExpr,
        regex: RegexLiteral,
        negated: bool,
    },
    /// An expression that is boolean by itself.
    Truth(EvalExpr),
}

impl Condition {
    pub(crate) fn and(self, other: Condition) -> Condition {
        match (self, other) {
            (Condition::Constant(false), _) | (_, Condition::Constant(false)) => Condition::Constant(false),
            (Condition::Constant(true), other) | (other, Condition::Constant(true)) => other,
            (left, right) => Condition::And(Box::new(left), Box::new(right)),
        }
    }

    pub(crate) fn or(self, other: Condition) -> Condition {
        match (self, other) {
            (Condition::Constant(true), _) | (_, Condition::Constant(true)) => Condition::Constant(true),
            (Condition::Constant(false), other) | (other, Condition::Constant(false)) => other,
            (left, right) => Condition::Or(Box::new(left), Box::new(right)),
        }
    }

    /// The series that may satisfy the condition.
    pub(crate) fn tag_filter(&self) -> TagFilter {
        match self {
            Condition::Constant(true) => TagFilter::All,
            Condition::Constant(false) => TagFilter::None,
            Condition::And(left, right) => left.tag_filter().and(right.tag_filter()),
            Condition::Or(left, right) => left.tag_filter().or(right.tag_filter()),
            Condition::Tag { tag, test } => TagFilter::test(tag, test),
            Condition::Compare { .. } | Condition::Match { .. } | Condition::Truth(_) => TagFilter::All,
        }
    }

    /// What is left of the condition for a series. `tag` gives a tag's value, if the series has the tag.
    pub(crate) fn fold<'a>(&self, tag: &impl Fn(&str) -> Option<&'a str>) -> Condition {
        match self {
            Condition::And(left, right) => left.fold(tag).and(right.fold(tag)),
            Condition::Or(left, right) => left.fold(tag).or(right.fold(tag)),
            Condition::Tag { tag: name, test } => Condition::Constant(test.accepts(tag(name).unwrap_or(""))),
            other => other.clone(),
        }
    }

    /// Which rows satisfy the condition, whose tags are folded.
    pub(crate) fn rows(&self, leaves: &impl Leaves) -> Vec<bool> {
        let rows = leaves.row_count();
        match self {
            Condition::Constant(satisfied) => vec![*satisfied; rows],
            Condition::And(left, right) => {
                let mut mask = left.rows(leaves);
                if mask.contains(&true) {
                    let other = right.rows(leaves);
                    mask.iter_mut().zip(other).for_each(|(set, other)| *set = *set && other);
                }
                mask
            }
            Condition::Or(left, right) => {
                let mut mask = left.rows(leaves);
                if mask.contains(&false) {
                    let other = right.rows(leaves);
                    mask.iter_mut().zip(other).for_each(|(set, other)| *set = *set || other);
                }
                mask
            }
            Condition::Tag { .. } => panic!("a condition is folded before rows are looked at"),
            Condition::Compare { operator, left, right } => {
                evaluate::compare(*operator, &left.evaluate(leaves), &right.evaluate(leaves), rows)
            }
            Condition::Match { field, regex, negated } => {
                evaluate::matches(&field.evaluate(leaves), regex, *negated, rows)
            }
            Condition::Truth(expr) => evaluate::truth(&expr.evaluate(leaves), rows),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidemill_column::Value;

    fn host(value: &str) -> Condition {
        Condition::Tag { tag: "host".to_owned(), test: TagTest::Equal(value.to_owned()) }
    }

    fn field() -> Condition {
        Condition::Compare {
            operator: BinaryOperator::Greater,
            left: EvalExpr::Leaf(0),
            right: EvalExpr::Literal(Value::Integer(1)),
        }
    }

    #[test]
    fn the_index_gets_a_superset() {
        let equal = |value: &str| TagFilter::Equal { tag: "host".to_owned(), value: value.to_owned() };
        assert_eq!(host("a").and(field()).tag_filter(), equal("a"));
        assert_eq!(host("a").or(field()).tag_filter(), TagFilter::All);
        assert_eq!(host("a").or(host("b")).and(field()).tag_filter(), equal("a").or(equal("b")));
    }

    #[test]
    fn known_tags_leave_only_what_rows_must_say() {
        let a = |name: &str| (name == "host").then_some("a");
        assert_eq!(host("a").and(field()).fold(&a), field());
        assert_eq!(host("b").and(field()).fold(&a), Condition::Constant(false));
        assert_eq!(host("a").or(field()).fold(&a), Condition::Constant(true));
        assert_eq!(host("b").or(field()).fold(&a), field());
    }
}
