//! Expressions, sources and `SELECT` as text.
//!
//! `{}` gives upstream's normalised text, which `SHOW QUERIES` and messages show; its numbers have three decimals, so
//! it can lose digits. `{:#}` gives the same with all digits, for text that is parsed again.

use std::fmt::{Display, Formatter, Result, Write};

use crate::duration::{DurationText, MonthsText};
use crate::expression::{Call, Expr, VarRef, WildcardKind};
use crate::regex_literal::RegexLiteral;
use crate::select::{Field, Fill, Measurement, MeasurementName, SelectStatement, SortKey, SortOrder, Source};
use crate::token::keyword;

/// An identifier, in double quotes if it needs them.
pub struct QuotedIdent<'a>(pub &'a str);

/// A string in single quotes.
pub struct QuotedString<'a>(pub &'a str);

fn needs_quotes(name: &str) -> bool {
    let mut characters = name.chars();
    let starts_well = characters.next().is_some_and(|first| first.is_ascii_alphabetic() || first == '_');
    !starts_well
        || !characters.all(|character| character.is_ascii_alphanumeric() || character == '_')
        || keyword(name).is_some()
}

fn write_quoted(text: &str, quote: char, output: &mut impl Write) -> Result {
    output.write_char(quote)?;
    for character in text.chars() {
        match character {
            '\n' => output.write_str("\\n")?,
            '\\' => output.write_str("\\\\")?,
            escaped if escaped == quote => write!(output, "\\{escaped}")?,
            other => output.write_char(other)?,
        }
    }
    output.write_char(quote)
}

impl Display for QuotedIdent<'_> {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> Result {
        if needs_quotes(self.0) { write_quoted(self.0, '"', formatter) } else { formatter.write_str(self.0) }
    }
}

impl Display for QuotedString<'_> {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> Result {
        write_quoted(self.0, '\'', formatter)
    }
}

/// A path as upstream's messages show it: every part but the last in quotes.
pub(crate) fn push_path(text: &mut String, segments: &[String]) {
    for (index, segment) in segments.iter().enumerate() {
        if index > 0 {
            text.push('.');
        }
        let is_last = index.saturating_add(1) == segments.len();
        let quote = !segment.is_empty() && (!is_last || needs_quotes(segment));
        // Writing to a string does not fail.
        let _ = if quote { write_quoted(segment, '"', text) } else { text.write_str(segment) };
    }
}

/// Items separated by a comma and a blank.
pub(crate) fn write_list<T: Display>(items: &[T], formatter: &mut Formatter<'_>) -> Result {
    for (index, item) in items.iter().enumerate() {
        if index > 0 {
            formatter.write_str(", ")?;
        }
        item.fmt(formatter)?;
    }
    Ok(())
}

fn write_number(value: f64, formatter: &mut Formatter<'_>) -> Result {
    if !formatter.alternate() {
        return write!(formatter, "{value:.3}");
    }
    let digits = value.to_string();
    formatter.write_str(&digits)?;
    // Without a point the text would be an integer.
    if digits.contains('.') { Ok(()) } else { formatter.write_str(".0") }
}

impl Display for Expr {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> Result {
        match self {
            Self::Binary { operator, left, right } => {
                left.fmt(formatter)?;
                write!(formatter, " {} ", operator.symbol())?;
                right.fmt(formatter)
            }
            Self::Paren(inner) => {
                formatter.write_char('(')?;
                inner.fmt(formatter)?;
                formatter.write_char(')')
            }
            Self::VarRef(reference) => reference.fmt(formatter),
            Self::Call(call) => call.fmt(formatter),
            Self::Distinct(name) => write!(formatter, "DISTINCT {}", QuotedIdent(name)),
            Self::Wildcard(WildcardKind::All) => formatter.write_char('*'),
            Self::Wildcard(WildcardKind::Field) => formatter.write_str("*::field"),
            Self::Wildcard(WildcardKind::Tag) => formatter.write_str("*::tag"),
            Self::Regex(regex) => regex.fmt(formatter),
            Self::Integer(value) => write!(formatter, "{value}"),
            Self::Unsigned(value) => write!(formatter, "{value}"),
            Self::Number(value) => write_number(*value, formatter),
            Self::String(text) => QuotedString(text).fmt(formatter),
            Self::Boolean(value) => write!(formatter, "{value}"),
            Self::Duration(nanoseconds) => DurationText(*nanoseconds).fmt(formatter),
            Self::Months(months) => MonthsText(*months).fmt(formatter),
            Self::Time(nanoseconds) => write!(formatter, "'{}'", crate::timestamp::TimestampText(*nanoseconds)),
            Self::Nil => formatter.write_str("nil"),
        }
    }
}

impl Display for VarRef {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> Result {
        QuotedIdent(&self.name).fmt(formatter)?;
        match self.data_type {
            Some(data_type) => write!(formatter, "::{}", data_type.name()),
            None => Ok(()),
        }
    }
}

impl Display for Call {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> Result {
        // Upstream prints the name bare; a quoted one must come back as it was.
        let is_distinct = self.name == "distinct";
        if is_distinct {
            formatter.write_str("distinct")?
        } else {
            QuotedIdent(&self.name).fmt(formatter)?
        }
        formatter.write_char('(')?;
        write_list(&self.arguments, formatter)?;
        formatter.write_char(')')
    }
}

impl Display for RegexLiteral {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> Result {
        write!(formatter, "/{}/", self.text().replace('/', "\\/"))
    }
}

impl Display for Measurement {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> Result {
        if let Some(database) = &self.database {
            write!(formatter, "{}.", QuotedIdent(database))?;
        }
        if let Some(retention_policy) = &self.retention_policy {
            QuotedIdent(retention_policy).fmt(formatter)?;
        }
        if self.database.is_some() || self.retention_policy.is_some() {
            formatter.write_char('.')?;
        }
        match &self.name {
            MeasurementName::Name(name) => QuotedIdent(name).fmt(formatter),
            MeasurementName::Regex(regex) => regex.fmt(formatter),
            MeasurementName::OfSource => formatter.write_str(":MEASUREMENT"),
        }
    }
}

impl Display for Source {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> Result {
        match self {
            Self::Measurement(measurement) => measurement.fmt(formatter),
            Self::Subquery(statement) => {
                formatter.write_char('(')?;
                statement.fmt(formatter)?;
                formatter.write_char(')')
            }
        }
    }
}

impl Display for Field {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> Result {
        self.expr.fmt(formatter)?;
        match &self.alias {
            Some(alias) => write!(formatter, " AS {}", QuotedIdent(alias)),
            None => Ok(()),
        }
    }
}

impl Display for SortKey {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> Result {
        self.expr.fmt(formatter)?;
        formatter.write_str(match self.order {
            SortOrder::Ascending => " ASC",
            SortOrder::Descending => " DESC",
        })
    }
}

impl Display for SelectStatement {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> Result {
        formatter.write_str("SELECT ")?;
        write_list(&self.fields, formatter)?;
        if let Some(target) = &self.target {
            formatter.write_str(" INTO ")?;
            target.fmt(formatter)?;
        }
        write_sources(&self.sources, formatter)?;
        write_condition(self.condition.as_ref(), formatter)?;
        write_dimensions(&self.dimensions, formatter)?;
        match self.fill {
            Fill::Null => {}
            Fill::None => formatter.write_str(" fill(none)")?,
            Fill::Previous => formatter.write_str(" fill(previous)")?,
            Fill::Linear => formatter.write_str(" fill(linear)")?,
            Fill::Integer(value) => write!(formatter, " fill({value})")?,
            Fill::Number(value) => {
                formatter.write_str(" fill(")?;
                write_fill_number(value, formatter)?;
                formatter.write_char(')')?;
            }
        }
        write_order(self.order, formatter)?;
        if !self.sort.is_empty() {
            formatter.write_str(" ORDER BY ")?;
            write_list(&self.sort, formatter)?;
        }
        write_count("LIMIT", self.limit, formatter)?;
        write_count("OFFSET", self.offset, formatter)?;
        write_count("SLIMIT", self.slimit, formatter)?;
        write_count("SOFFSET", self.soffset, formatter)?;
        match &self.time_zone {
            Some(name) => write!(formatter, " TZ({})", QuotedString(name)),
            None => Ok(()),
        }
    }
}

/// All digits, with a point, so that it comes back as a float.
fn write_fill_number(value: f64, formatter: &mut Formatter<'_>) -> Result {
    let digits = value.to_string();
    let suffix = if digits.contains('.') { "" } else { ".0" };
    write!(formatter, "{digits}{suffix}")
}

pub(crate) fn write_sources(sources: &[Source], formatter: &mut Formatter<'_>) -> Result {
    if sources.is_empty() {
        return Ok(());
    }
    formatter.write_str(" FROM ")?;
    write_list(sources, formatter)
}

pub(crate) fn write_condition(condition: Option<&Expr>, formatter: &mut Formatter<'_>) -> Result {
    let Some(condition) = condition else { return Ok(()) };
    formatter.write_str(" WHERE ")?;
    condition.fmt(formatter)
}

pub(crate) fn write_dimensions(dimensions: &[Expr], formatter: &mut Formatter<'_>) -> Result {
    if dimensions.is_empty() {
        return Ok(());
    }
    formatter.write_str(" GROUP BY ")?;
    write_list(dimensions, formatter)
}

pub(crate) fn write_order(order: Option<SortOrder>, formatter: &mut Formatter<'_>) -> Result {
    formatter.write_str(match order {
        None => "",
        Some(SortOrder::Ascending) => " ORDER BY time ASC",
        Some(SortOrder::Descending) => " ORDER BY time DESC",
    })
}

pub(crate) fn write_count(keyword: &str, count: u64, formatter: &mut Formatter<'_>) -> Result {
    if count > 0 { write!(formatter, " {keyword} {count}") } else { Ok(()) }
}
