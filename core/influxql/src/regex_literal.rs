//! Regular expressions of the query language: their text and the compiled program.
//!
//! Owns matching: unanchored search over bytes, in time linear in the input.

use std::fmt;

/// A compiled regular expression. Two are equal when their texts are.
#[derive(Clone)]
pub struct RegexLiteral {
    text: String,
    program: regex::bytes::Regex,
}

/// Why a text is not a regular expression: upstream's text without its prefix, e.g. ``missing closing ): `(` ``.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("error parsing regexp: {reason}")]
pub struct RegexError {
    pub reason: String,
}

/// Compiled programs larger than this are refused: it bounds what one request can make the server hold.
const PROGRAM_BYTES_MAX: usize = 1 << 20;

impl RegexLiteral {
    /// Compiles the text between the slashes, with `\/` already turned into `/`.
    ///
    /// # Errors
    /// The text is not RE2 syntax, or its program is too large.
    pub fn new(text: &str) -> Result<Self, RegexError> {
        let translated = crate::re2::translate(text).map_err(|reason| RegexError { reason })?;
        let built = regex::bytes::RegexBuilder::new(&translated).size_limit(PROGRAM_BYTES_MAX).build();
        match built {
            Ok(program) => Ok(Self { text: text.to_owned(), program }),
            Err(regex::Error::CompiledTooBig(_)) => {
                Err(RegexError { reason: format!("expression too large: `{text}`") })
            }
            Err(_) => Err(RegexError { reason: format!("invalid or unsupported regular expression: `{text}`") }),
        }
    }

    /// The text between the slashes, without the escape of `/`.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Whether the value holds a match anywhere.
    pub fn is_match(&self, value: &[u8]) -> bool {
        self.program.is_match(value)
    }

    /// The compiled program, for callers that want to search themselves.
    pub fn program(&self) -> &regex::bytes::Regex {
        &self.program
    }
}

impl PartialEq for RegexLiteral {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl fmt::Debug for RegexLiteral {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "RegexLiteral(/{}/)", self.text)
    }
}
