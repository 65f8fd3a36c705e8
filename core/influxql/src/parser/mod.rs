//! Text to statements, by recursive descent.
//!
//! Owns the grammar and every check that upstream makes before anything is executed, with upstream's texts and
//! positions. Never panics and never recurses deeper than [`NESTING_MAX`], whatever the text. It knows no schema, so
//! whether a `SELECT` makes sense is not decided here.

mod administration;
mod expression;
mod select;
mod show;

use crate::error::{ParseError, Position};
use crate::expression::Expr;
use crate::parameters::Parameters;
use crate::regex_literal::RegexLiteral;
use crate::scanner::{ScannedRegex, Scanner};
use crate::statement::{Query, Statement};
use crate::token::Token;

/// How deeply parentheses, calls and subqueries may nest. One level costs up to eight kilobytes of stack in a
/// development build, so the deepest query stays below half a megabyte, a quarter of a thread's default.
pub const NESTING_MAX: usize = 50;

/// Parses a request without bound parameters.
///
/// # Errors
/// The first error in the text; nothing of the request may then be executed.
pub fn parse_query(text: &str) -> Result<Query, ParseError> {
    parse_query_with(text, &Parameters::default())
}

/// Parses a request whose `$name`s stand for the given values.
///
/// # Errors
/// As [`parse_query`], and the texts for missing and unusable parameters.
pub fn parse_query_with(text: &str, parameters: &Parameters) -> Result<Query, ParseError> {
    let mut parser = Parser::new(text, parameters);
    let mut statements = Vec::new();
    let mut separated = true;
    loop {
        let (token, position) = parser.peek()?;
        match token {
            Token::EndOfInput => return Ok(Query { statements }),
            Token::Symbol(";") => {
                parser.next()?;
                separated = true;
            }
            other if !separated => return Err(ParseError::expected(&other.text(), &[";"], position)),
            _ => {
                statements.push(parser.parse_statement()?);
                separated = false;
            }
        }
    }
}

/// Parses exactly one statement.
///
/// # Errors
/// As [`parse_query`]; also when something follows the statement.
pub fn parse_statement(text: &str) -> Result<Statement, ParseError> {
    let parameters = Parameters::default();
    let mut parser = Parser::new(text, &parameters);
    let statement = parser.parse_statement()?;
    parser.expect_end()?;
    Ok(statement)
}

/// Parses one expression, e.g. a condition.
///
/// # Errors
/// As [`parse_query`]; also when something follows the expression.
pub fn parse_expr(text: &str) -> Result<Expr, ParseError> {
    let parameters = Parameters::default();
    let mut parser = Parser::new(text, &parameters);
    let expr = parser.parse_expr()?;
    parser.expect_end()?;
    Ok(expr)
}

struct Parser<'a> {
    scanner: Scanner<'a>,
    parameters: &'a Parameters,
    nesting: usize,
    /// In GROUP BY, where a duration may be of calendar months.
    takes_months: bool,
    /// The last token that was consumed, for the messages that name what came before.
    last: (Token, Position),
}

impl<'a> Parser<'a> {
    fn new(text: &'a str, parameters: &'a Parameters) -> Self {
        let start = Position { line: 1, character: 1 };
        Self {
            scanner: Scanner::new(text),
            parameters,
            nesting: 0,
            takes_months: false,
            last: (Token::EndOfInput, start),
        }
    }

    fn resolve(&self, scanned: (Token, Position)) -> Result<(Token, Position), ParseError> {
        match scanned {
            (Token::Parameter(name), position) => match self.parameters.token(&name) {
                Ok(token) => Ok((token, position)),
                Err(message) => Err(ParseError::without_position(message)),
            },
            other => Ok(other),
        }
    }

    /// Consumes a token; white space before it is skipped.
    fn next(&mut self) -> Result<(Token, Position), ParseError> {
        let scanned = self.scanner.scan();
        let resolved = self.resolve(scanned)?;
        self.last.clone_from(&resolved);
        Ok(resolved)
    }

    /// The next token, white space before it skipped, without consuming it.
    fn peek(&mut self) -> Result<(Token, Position), ParseError> {
        let cursor = self.scanner.cursor();
        let scanned = self.scanner.scan();
        self.scanner.go_back(cursor);
        self.resolve(scanned)
    }

    /// Consumes the symbol if it stands right here, without white space before it.
    fn take_adjacent(&mut self, symbol: &str) -> bool {
        let cursor = self.scanner.cursor();
        let scanned = self.scanner.scan_adjacent();
        if matches!(scanned.0, Token::Symbol(found) if found == symbol) {
            self.last = scanned;
            return true;
        }
        self.scanner.go_back(cursor);
        false
    }

    fn take_symbol(&mut self, symbol: &str) -> Result<bool, ParseError> {
        self.take_if(|token| matches!(token, Token::Symbol(found) if *found == symbol))
    }

    fn take_keyword(&mut self, keyword: &str) -> Result<bool, ParseError> {
        self.take_if(|token| matches!(token, Token::Keyword(found) if *found == keyword))
    }

    fn take_if(&mut self, accepts: impl FnOnce(&Token) -> bool) -> Result<bool, ParseError> {
        let cursor = self.scanner.cursor();
        let scanned = self.scanner.scan();
        let resolved = self.resolve(scanned)?;
        if accepts(&resolved.0) {
            self.last = resolved;
            return Ok(true);
        }
        self.scanner.go_back(cursor);
        Ok(false)
    }

    /// Consumes the keywords, one after the other.
    fn expect_keywords(&mut self, keywords: &[&str]) -> Result<(), ParseError> {
        for keyword in keywords {
            match self.next()? {
                (Token::Keyword(found), _) if found == *keyword => {}
                (other, position) => return Err(ParseError::expected(&other.text(), &[keyword], position)),
            }
        }
        Ok(())
    }

    fn expect_symbol(&mut self, symbol: &str) -> Result<(), ParseError> {
        match self.next()? {
            (Token::Symbol(found), _) if found == symbol => Ok(()),
            (other, position) => Err(ParseError::expected(&other.text(), &[symbol], position)),
        }
    }

    fn expect_end(&mut self) -> Result<(), ParseError> {
        match self.next()? {
            (Token::EndOfInput, _) => Ok(()),
            (other, position) => Err(ParseError::expected(&other.text(), &["EOF"], position)),
        }
    }

    fn parse_ident(&mut self) -> Result<String, ParseError> {
        match self.next()? {
            (Token::Ident(name), _) => Ok(name),
            (other, position) => Err(ParseError::expected(&other.text(), &["identifier"], position)),
        }
    }

    fn parse_string(&mut self) -> Result<String, ParseError> {
        match self.next()? {
            (Token::String(text), _) => Ok(text),
            (other, position) => Err(ParseError::expected(&other.text(), &["string"], position)),
        }
    }

    /// Nanoseconds.
    fn parse_duration(&mut self) -> Result<i64, ParseError> {
        match self.next()? {
            (Token::Duration(text), _) => crate::duration::parse_duration(&text),
            (other, position) => Err(ParseError::expected(&other.text(), &["duration"], position)),
        }
    }

    /// Nanoseconds; `INF` is 0.
    fn parse_duration_or_infinite(&mut self) -> Result<i64, ParseError> {
        if self.take_keyword("INF")? { Ok(0) } else { self.parse_duration() }
    }

    fn parse_identifier_number(&mut self) -> Result<u64, ParseError> {
        match self.next()? {
            (Token::Integer(text), position) => text.parse().map_err(|_| {
                let message = format!("strconv.ParseUint: parsing \"{text}\": value out of range");
                ParseError::at(message, position)
            }),
            (other, position) => Err(ParseError::expected(&other.text(), &["integer"], position)),
        }
    }

    /// Names joined by dots. A part may be missing between two dots. Stops after a dot that `/` or `:` follows.
    fn parse_path(&mut self) -> Result<Path, ParseError> {
        let mut segments = vec![self.parse_ident()?];
        let mut ends_with_dot = false;
        while self.take_adjacent(".") {
            match self.scanner.peek_past_end() {
                Some('/' | ':') => {
                    ends_with_dot = true;
                    break;
                }
                Some('.') => segments.push(String::new()),
                _ => segments.push(self.parse_ident()?),
            }
        }
        if segments.len() > 3 {
            let mut text = String::new();
            crate::print::push_path(&mut text, &segments);
            let start = Position { line: 1, character: 1 };
            return Err(ParseError::at(format!("too many segments in {text}"), start));
        }
        Ok(Path { segments, ends_with_dot })
    }

    /// A regular expression if one stands here, literal or as a bound parameter.
    fn parse_regex(&mut self) -> Result<Option<RegexLiteral>, ParseError> {
        let cursor = self.scanner.cursor();
        if self.scanner.skip_blank().is_err() {
            self.scanner.go_back(cursor);
            return Ok(None);
        }
        let (text, position) = match self.scanner.peek_past_end() {
            Some('$') => match self.next()? {
                (Token::Regex(text), position) => (text, position),
                _ => {
                    self.scanner.go_back(cursor);
                    return Ok(None);
                }
            },
            Some('/') if self.scanner.at_regex() => {
                let position = self.scanner.previous();
                match self.scanner.scan_regex() {
                    ScannedRegex::Regex(text) => (text, position),
                    ScannedRegex::Bad => return Err(ParseError::at("bad regex: ", position)),
                }
            }
            _ => return Ok(None),
        };
        let regex = RegexLiteral::new(&text).map_err(|error| ParseError::at(error.to_string(), position))?;
        self.last = (Token::Regex(text), position);
        Ok(Some(regex))
    }

    /// Runs `parse` one level deeper.
    fn nested<T>(&mut self, parse: impl FnOnce(&mut Self) -> Result<T, ParseError>) -> Result<T, ParseError> {
        if self.nesting >= NESTING_MAX {
            let message = format!("query is nested too deeply, at most {NESTING_MAX} levels are allowed");
            return Err(ParseError::at(message, self.last.1));
        }
        self.nesting = self.nesting.saturating_add(1);
        let result = parse(self);
        self.nesting = self.nesting.saturating_sub(1);
        result
    }
}

/// The parts of a dotted name, one to three of them.
struct Path {
    segments: Vec<String>,
    ends_with_dot: bool,
}
