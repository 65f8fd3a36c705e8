//! Conditions on tags alone, as the index understands them.
//!
//! A series that lacks a tag has the value "" for it. A filter made for a SELECT may let through more series than the
//! whole condition does; the part checks the rest row by row. A filter made from the WHERE of a SHOW statement is exact.

use tidemill_influxql::{BinaryOperator, Expr, RegexLiteral};

/// Which series may hold rows of interest.
#[derive(Clone, Debug, PartialEq)]
pub enum TagFilter {
    /// Every series.
    All,
    /// No series.
    None,
    And(Vec<TagFilter>),
    Or(Vec<TagFilter>),
    Equal {
        tag: String,
        value: String,
    },
    NotEqual {
        tag: String,
        value: String,
    },
    Match {
        tag: String,
        regex: RegexLiteral,
    },
    NotMatch {
        tag: String,
        regex: RegexLiteral,
    },
}

/// A regular expression with more alternatives than this stays one.
const ALTERNATIVES_MAX: usize = 100;

impl TagFilter {
    /// Both, without the levels that decide nothing.
    pub fn and(self, other: TagFilter) -> TagFilter {
        match (self, other) {
            (TagFilter::None, _) | (_, TagFilter::None) => TagFilter::None,
            (TagFilter::All, other) | (other, TagFilter::All) => other,
            (TagFilter::And(mut left), TagFilter::And(right)) => {
                left.extend(right);
                TagFilter::And(left)
            }
            (TagFilter::And(mut parts), part) => {
                parts.push(part);
                TagFilter::And(parts)
            }
            (left, right) => TagFilter::And(vec![left, right]),
        }
    }

    /// Either, without the levels that decide nothing.
    pub fn or(self, other: TagFilter) -> TagFilter {
        match (self, other) {
            (TagFilter::All, _) | (_, TagFilter::All) => TagFilter::All,
            (TagFilter::None, other) | (other, TagFilter::None) => other,
            (TagFilter::Or(mut left), TagFilter::Or(right)) => {
                left.extend(right);
                TagFilter::Or(left)
            }
            (TagFilter::Or(mut parts), part) => {
                parts.push(part);
                TagFilter::Or(parts)
            }
            (left, right) => TagFilter::Or(vec![left, right]),
        }
    }

    /// The filter of one test. A regular expression that only spells out values becomes tests of equality, which an
    /// index answers without looking at every value.
    pub fn test(tag: &str, test: &TagTest) -> TagFilter {
        let tag = || tag.to_owned();
        match test {
            TagTest::Equal(value) => TagFilter::Equal { tag: tag(), value: value.clone() },
            TagTest::NotEqual(value) => TagFilter::NotEqual { tag: tag(), value: value.clone() },
            TagTest::Match(regex) => match literal_alternatives(regex.text()) {
                Some(values) => values
                    .into_iter()
                    .map(|value| TagFilter::Equal { tag: tag(), value })
                    .fold(TagFilter::None, TagFilter::or),
                None => TagFilter::Match { tag: tag(), regex: regex.clone() },
            },
            TagTest::NotMatch(regex) => match literal_alternatives(regex.text()) {
                Some(values) => values
                    .into_iter()
                    .map(|value| TagFilter::NotEqual { tag: tag(), value })
                    .fold(TagFilter::All, TagFilter::and),
                None => TagFilter::NotMatch { tag: tag(), regex: regex.clone() },
            },
        }
    }

    /// The filter of a SHOW statement's WHERE over a measurement. Comparisons of fields match nothing, and so does
    /// whatever is not a test of a tag; `_name` is the measurement. A condition on time must have been taken out.
    ///
    /// `is_field` says which names are fields of the measurement: unqualified, those hide tags of the same name.
    pub fn of_show(condition: &Expr, measurement: &str, is_field: &impl Fn(&str) -> bool) -> TagFilter {
        match condition {
            Expr::Paren(inner) => TagFilter::of_show(inner, measurement, is_field),
            Expr::Boolean(true) => TagFilter::All,
            Expr::Binary { operator: BinaryOperator::And, left, right } => {
                let left = TagFilter::of_show(left, measurement, is_field);
                left.and(TagFilter::of_show(right, measurement, is_field))
            }
            Expr::Binary { operator: BinaryOperator::Or, left, right } => {
                let left = TagFilter::of_show(left, measurement, is_field);
                left.or(TagFilter::of_show(right, measurement, is_field))
            }
            Expr::Binary { operator, left, right } => {
                let (name, value) = match (left.without_parens(), right.without_parens()) {
                    (Expr::VarRef(name), value) if value.is_literal() => (name, value),
                    (value, Expr::VarRef(name)) if value.is_literal() => (name, value),
                    _ => return TagFilter::None,
                };
                let Some(test) = TagTest::new(*operator, value) else { return TagFilter::None };
                if name.name == "_name" {
                    return if test.accepts(measurement) { TagFilter::All } else { TagFilter::None };
                }
                match name.data_type {
                    None if is_field(&name.name) => TagFilter::None,
                    None | Some(tidemill_influxql::DataType::Tag) => TagFilter::test(&name.name, &test),
                    Some(_) => TagFilter::None,
                }
            }
            _ => TagFilter::None,
        }
    }

    /// Whether a series with these tags passes. `tag` gives a tag's value, if the series has the tag.
    pub fn accepts<'a>(&self, tag: &impl Fn(&str) -> Option<&'a str>) -> bool {
        match self {
            TagFilter::All => true,
            TagFilter::None => false,
            TagFilter::And(parts) => parts.iter().all(|part| part.accepts(tag)),
            TagFilter::Or(parts) => parts.iter().any(|part| part.accepts(tag)),
            TagFilter::Equal { tag: name, value } => tag(name).unwrap_or("") == value,
            TagFilter::NotEqual { tag: name, value } => tag(name).unwrap_or("") != value,
            TagFilter::Match { tag: name, regex } => regex.is_match(tag(name).unwrap_or("").as_bytes()),
            TagFilter::NotMatch { tag: name, regex } => !regex.is_match(tag(name).unwrap_or("").as_bytes()),
        }
    }
}

/// A test of one tag's value.
#[derive(Clone, Debug, PartialEq)]
pub enum TagTest {
    Equal(String),
    NotEqual(String),
    Match(RegexLiteral),
    NotMatch(RegexLiteral),
}

impl TagTest {
    /// The test that an operator and a literal make, if they make one: tags are only compared with strings and
    /// regular expressions, and have no order.
    pub fn new(operator: BinaryOperator, literal: &Expr) -> Option<TagTest> {
        match (operator, literal) {
            (BinaryOperator::Equal, Expr::String(value)) => Some(TagTest::Equal(value.clone())),
            (BinaryOperator::NotEqual, Expr::String(value)) => Some(TagTest::NotEqual(value.clone())),
            (BinaryOperator::RegexMatch, Expr::Regex(regex)) => Some(TagTest::Match(regex.clone())),
            (BinaryOperator::RegexNotMatch, Expr::Regex(regex)) => Some(TagTest::NotMatch(regex.clone())),
            _ => None,
        }
    }

    /// Whether the value of a tag passes; "" stands for a missing one.
    pub fn accepts(&self, value: &str) -> bool {
        match self {
            TagTest::Equal(wanted) => value == wanted,
            TagTest::NotEqual(unwanted) => value != unwanted,
            TagTest::Match(regex) => regex.is_match(value.as_bytes()),
            TagTest::NotMatch(regex) => !regex.is_match(value.as_bytes()),
        }
    }
}

/// The values of `^literal$`, `^(a|b|c)$` and `^(?:a|b|c)$`; none for any other expression.
fn literal_alternatives(text: &str) -> Option<Vec<String>> {
    let inner = text.strip_prefix('^')?.strip_suffix('$')?;
    let (inner, grouped) = match inner.strip_prefix('(').and_then(|inner| inner.strip_suffix(')')) {
        Some(inner) => (inner.strip_prefix("?:").unwrap_or(inner), true),
        None => (inner, false),
    };
    let mut values = vec![String::new()];
    let mut characters = inner.chars();
    while let Some(character) = characters.next() {
        let value = values.last_mut()?;
        match character {
            '|' if grouped => values.push(String::new()),
            '\\' => match characters.next()? {
                escaped if escaped.is_ascii_punctuation() => value.push(escaped),
                _ => return None,
            },
            '.' | '+' | '*' | '?' | '(' | ')' | '|' | '[' | ']' | '{' | '}' | '^' | '$' => return None,
            plain => value.push(plain),
        }
    }
    (values.len() <= ALTERNATIVES_MAX).then_some(values)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_spelled_out_values_become_equalities() {
        assert_eq!(literal_alternatives("^a$"), Some(vec!["a".to_owned()]));
        assert_eq!(literal_alternatives("^(a|b\\.c)$"), Some(vec!["a".to_owned(), "b.c".to_owned()]));
        assert_eq!(literal_alternatives("^(?:a|)$"), Some(vec!["a".to_owned(), String::new()]));
        // An alternation binds looser than the anchors; a class, a repetition and a trailing escape are no literals.
        for text in ["a", "^a", "a$", "^a|b$", "^a.$", "^(a|b)c$", "^(a)(b)$", "^\\d$", "^a\\$", "^[ab]$", "^(?i:a)$"] {
            assert_eq!(literal_alternatives(text), None, "{text}");
        }
    }

    #[test]
    fn a_missing_tag_is_an_empty_value() {
        let host = |name: &str| (name == "host").then_some("a");
        let test = |operator, value: &str| TagTest::new(operator, &Expr::string(value)).unwrap();
        assert!(TagFilter::test("dc", &test(BinaryOperator::Equal, "")).accepts(&host));
        assert!(!TagFilter::test("host", &test(BinaryOperator::Equal, "")).accepts(&host));
        assert!(TagFilter::test("dc", &test(BinaryOperator::NotEqual, "x")).accepts(&host));
        let any = Expr::Regex(RegexLiteral::new("").unwrap());
        let matches = TagTest::new(BinaryOperator::RegexMatch, &any).unwrap();
        assert!(TagFilter::test("dc", &matches).accepts(&host));
    }

    #[test]
    fn show_conditions_match_tags_only() {
        let condition = Expr::binary(
            BinaryOperator::Or,
            Expr::binary(BinaryOperator::Equal, Expr::var_ref("host"), Expr::string("a")),
            Expr::binary(BinaryOperator::Greater, Expr::var_ref("v"), Expr::Integer(3)),
        );
        let filter = TagFilter::of_show(&condition, "cpu", &|name| name == "v");
        assert_eq!(filter, TagFilter::Equal { tag: "host".to_owned(), value: "a".to_owned() });
        let name = Expr::binary(BinaryOperator::Equal, Expr::var_ref("_name"), Expr::string("cpu"));
        assert_eq!(TagFilter::of_show(&name, "cpu", &|_| false), TagFilter::All);
        assert_eq!(TagFilter::of_show(&name, "mem", &|_| false), TagFilter::None);
    }
}
