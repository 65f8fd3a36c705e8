//! Tokens and the list of keywords.

use std::borrow::Cow;

/// What the scanner hands to the parser. Numbers stay text until the grammar says what they are.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Token {
    EndOfInput,
    /// A character that starts nothing, or an unterminated comment.
    Illegal(Option<char>),
    /// A quoted text that does not end on its line.
    BadString(String),
    /// The escape that is not one, e.g. `\x`.
    BadEscape(String),
    Ident(String),
    /// Upper case.
    Keyword(&'static str),
    String(String),
    Integer(String),
    Number(String),
    Duration(String),
    /// Only from a bound parameter; the parser asks for literal ones where they are legal.
    Regex(String),
    Boolean(bool),
    /// An operator or punctuation.
    Symbol(&'static str),
    /// `$name`, not yet replaced.
    Parameter(String),
}

impl Token {
    /// How an error message shows the token.
    pub(crate) fn text(&self) -> Cow<'_, str> {
        match self {
            Self::EndOfInput => "EOF".into(),
            Self::Illegal(Some(character)) => character.to_string().into(),
            Self::Illegal(None) => "ILLEGAL".into(),
            Self::Keyword(text) | Self::Symbol(text) => (*text).into(),
            Self::Boolean(true) => "TRUE".into(),
            Self::Boolean(false) => "FALSE".into(),
            Self::Ident(text) if text.is_empty() => "IDENT".into(),
            Self::String(text) if text.is_empty() => "STRING".into(),
            Self::BadString(text) if text.is_empty() => "BADSTRING".into(),
            Self::Regex(text) if text.is_empty() => "REGEX".into(),
            Self::BadString(text)
            | Self::BadEscape(text)
            | Self::Ident(text)
            | Self::String(text)
            | Self::Integer(text)
            | Self::Number(text)
            | Self::Duration(text)
            | Self::Regex(text)
            | Self::Parameter(text) => text.as_str().into(),
        }
    }
}

/// Sorted, so that a look-up is a binary search. `TRUE` and `FALSE` are among them because they need quotes as names.
#[rustfmt::skip]
const KEYWORDS: [&str; 80] = [
    "ALL", "ALTER", "ANALYZE", "AND", "ANY", "AS", "ASC", "BEGIN", "BY", "CARDINALITY", "CONTINUOUS", "CREATE",
    "DATABASE", "DATABASES", "DEFAULT", "DELETE", "DESC", "DESTINATIONS", "DIAGNOSTICS", "DISTINCT", "DROP",
    "DURATION", "END", "EVERY", "EXACT", "EXPLAIN", "FALSE", "FIELD", "FOR", "FROM", "GRANT", "GRANTS", "GROUP",
    "GROUPS", "IN", "INF", "INSERT", "INTO", "KEY", "KEYS", "KILL", "LIMIT", "MEASUREMENT", "MEASUREMENTS", "NAME",
    "OFFSET", "ON", "OR", "ORDER", "PASSWORD", "POLICIES", "POLICY", "PRIVILEGES", "QUERIES", "QUERY", "READ",
    "REPLICATION", "RESAMPLE", "RETENTION", "REVOKE", "SELECT", "SERIES", "SET", "SHARD", "SHARDS", "SHOW",
    "SLIMIT", "SOFFSET", "STATS", "SUBSCRIPTION", "SUBSCRIPTIONS", "TAG", "TO", "TRUE", "USER", "USERS", "VALUES",
    "WHERE", "WITH", "WRITE",
];

const KEYWORD_BYTES_MAX: usize = 13;

/// The keyword that the word is, in any case.
pub(crate) fn keyword(word: &str) -> Option<&'static str> {
    if word.len() > KEYWORD_BYTES_MAX {
        return None;
    }
    let upper = word.to_ascii_uppercase();
    KEYWORDS.binary_search(&upper.as_str()).ok().and_then(|index| KEYWORDS.get(index).copied())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keywords_are_found_in_any_case() {
        assert!(KEYWORDS.is_sorted());
        for word in KEYWORDS {
            assert_eq!(keyword(&word.to_lowercase()), Some(word));
            assert!(word.len() <= KEYWORD_BYTES_MAX);
        }
        for word in ["time", "now", "fill", "tz", "previous", "future", "", "subscriptionss"] {
            assert_eq!(keyword(word), None);
        }
    }
}
