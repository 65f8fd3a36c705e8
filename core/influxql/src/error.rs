//! Why a text is not a query.

use std::fmt;

/// A place in the query text. Both numbers count from 1; characters are Unicode scalar values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    pub line: u32,
    pub character: u32,
}

/// A request-level error: the whole request is refused. Displays upstream's text without its
/// `error parsing query: ` prefix. A few of upstream's texts have no position.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct ParseError {
    pub message: String,
    pub position: Option<Position>,
}

impl ParseError {
    /// `found X, expected A, B at line L, char C`
    pub(crate) fn expected(found: &str, expected: &[&str], position: Position) -> Self {
        Self::at(format!("found {found}, expected {}", expected.join(", ")), position)
    }

    pub(crate) fn at(message: impl Into<String>, position: Position) -> Self {
        Self { message: message.into(), position: Some(position) }
    }

    pub(crate) fn without_position(message: impl Into<String>) -> Self {
        Self { message: message.into(), position: None }
    }

    /// The error for a `TZ('..')` whose zone the caller does not know.
    pub fn unknown_time_zone(name: &str) -> Self {
        Self::without_position(format!("unable to find time zone {name}"))
    }
}

impl fmt::Display for ParseError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.message)?;
        match self.position {
            Some(Position { line, character }) => write!(formatter, " at line {line}, char {character}"),
            None => Ok(()),
        }
    }
}
