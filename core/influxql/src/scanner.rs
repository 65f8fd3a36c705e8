//! Text to tokens, one at a time: whether `/` starts a regular expression depends on where the parser stands.
//!
//! Positions are upstream's, quirks included: a quoted text, a string or a regular expression is reported where the
//! character *before* it stands, and the end of input one further once something has tried to read past it.

use crate::error::Position;
use crate::token::{Token, keyword};

/// A place in the text; the parser keeps one to come back to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cursor {
    offset: usize,
    line: u32,
    character: u32,
    /// Where the last character that was read stands.
    previous: Position,
    end_was_read: bool,
}

pub(crate) struct Scanner<'a> {
    text: &'a str,
    cursor: Cursor,
}

/// What stands where a regular expression may.
pub(crate) enum ScannedRegex {
    Regex(String),
    /// The line or the text ends inside it.
    Bad,
}

impl<'a> Scanner<'a> {
    pub(crate) fn new(text: &'a str) -> Self {
        let start = Position { line: 1, character: 1 };
        Self { text, cursor: Cursor { offset: 0, line: 1, character: 1, previous: start, end_was_read: false } }
    }

    pub(crate) fn cursor(&self) -> Cursor {
        self.cursor
    }

    pub(crate) fn go_back(&mut self, cursor: Cursor) {
        self.cursor = cursor;
    }

    /// Where the last character read stands.
    pub(crate) fn previous(&self) -> Position {
        self.cursor.previous
    }

    fn rest(&self) -> &'a str {
        self.text.get(self.cursor.offset..).unwrap_or_default()
    }

    /// The next character, `\r` and `\r\n` as `\n`, without reading it.
    pub(crate) fn peek(&self) -> Option<char> {
        self.rest().chars().next().map(|character| if character == '\r' { '\n' } else { character })
    }

    /// The character after the next one.
    fn peek_second(&self) -> Option<char> {
        self.rest().chars().nth(1)
    }

    /// [`Scanner::peek`] that remembers having met the end of input.
    pub(crate) fn peek_past_end(&mut self) -> Option<char> {
        let next = self.peek();
        self.cursor.end_was_read |= next.is_none();
        next
    }

    fn read(&mut self) -> Option<char> {
        let rest = self.rest();
        let Some(raw) = rest.chars().next() else {
            self.cursor.end_was_read = true;
            return None;
        };
        let length = if rest.starts_with("\r\n") { 2 } else { raw.len_utf8() };
        let character = if raw == '\r' { '\n' } else { raw };
        self.cursor.previous = self.position();
        self.cursor.offset = self.cursor.offset.saturating_add(length);
        if character == '\n' {
            self.cursor.line = self.cursor.line.saturating_add(1);
            self.cursor.character = 1;
        } else {
            self.cursor.character = self.cursor.character.saturating_add(1);
        }
        Some(character)
    }

    fn position(&self) -> Position {
        Position { line: self.cursor.line, character: self.cursor.character }
    }

    fn read_if(&mut self, wanted: char) -> bool {
        let matches = self.peek() == Some(wanted);
        if matches {
            self.read();
        }
        matches
    }

    /// Reads white space and comments. A comment that does not end gives the place where it starts.
    pub(crate) fn skip_blank(&mut self) -> Result<(), Position> {
        loop {
            match self.peek() {
                Some(' ' | '\t' | '\n') => {
                    while matches!(self.peek_past_end(), Some(' ' | '\t' | '\n')) {
                        self.read();
                    }
                }
                Some('-') if self.peek_second() == Some('-') => while !matches!(self.read(), None | Some('\n')) {},
                Some('/') if self.peek_second() == Some('*') => {
                    let start = self.position();
                    self.read();
                    self.read();
                    loop {
                        match self.read() {
                            Some('*') if self.peek() == Some('/') => break,
                            Some(_) => {}
                            None => return Err(start),
                        }
                    }
                    self.read();
                }
                _ => return Ok(()),
            }
        }
    }

    /// The next token, white space and comments skipped.
    pub(crate) fn scan(&mut self) -> (Token, Position) {
        match self.skip_blank() {
            Ok(()) => self.scan_adjacent(),
            Err(start) => (Token::Illegal(None), start),
        }
    }

    /// The token that starts right here. Blank input gives an illegal blank, which no caller expects.
    pub(crate) fn scan_adjacent(&mut self) -> (Token, Position) {
        let mut position = self.position();
        let before = self.previous();
        let Some(first) = self.peek() else {
            // Only the first read past the end is counted, so a token that ran into the end moves it by one.
            position.character = position.character.saturating_add(u32::from(self.cursor.end_was_read));
            self.cursor.end_was_read = true;
            return (Token::EndOfInput, position);
        };
        match first {
            'a'..='z' | 'A'..='Z' | '_' => (self.scan_word(), position),
            '0'..='9' => (self.scan_number(), position),
            '.' if matches!(self.peek_second(), Some('0'..='9')) => (self.scan_number(), position),
            '"' => self.scan_quoted(position, before),
            '\'' => self.scan_quoted(before, before),
            '$' => {
                self.read();
                self.scan_parameter(position)
            }
            _ => {
                self.read();
                (self.scan_symbol(first), position)
            }
        }
    }

    fn scan_symbol(&mut self, first: char) -> Token {
        Token::Symbol(match first {
            '+' => "+",
            '-' => "-",
            '*' => "*",
            '/' => "/",
            '%' => "%",
            '&' => "&",
            '|' => "|",
            '^' => "^",
            '(' => "(",
            ')' => ")",
            ',' => ",",
            ';' => ";",
            '.' => ".",
            '=' if self.read_if('~') => "=~",
            '=' => "=",
            '!' if self.read_if('=') => "!=",
            '!' if self.read_if('~') => "!~",
            '<' if self.read_if('=') => "<=",
            '<' if self.read_if('>') => "!=",
            '<' => "<",
            '>' if self.read_if('=') => ">=",
            '>' => ">",
            ':' if self.read_if(':') => "::",
            ':' => ":",
            other => return Token::Illegal(Some(other)),
        })
    }

    fn take_while(&mut self, mut accepts: impl FnMut(char) -> bool) -> &'a str {
        let start = self.cursor.offset;
        while self.peek().is_some_and(&mut accepts) {
            self.read();
        }
        self.text.get(start..self.cursor.offset).unwrap_or_default()
    }

    fn scan_word(&mut self) -> Token {
        let word = self.take_while(|character| character.is_ascii_alphanumeric() || character == '_');
        self.peek_past_end();
        match keyword(word) {
            Some("TRUE") => Token::Boolean(true),
            Some("FALSE") => Token::Boolean(false),
            Some(keyword) => Token::Keyword(keyword),
            None => Token::Ident(word.to_owned()),
        }
    }

    fn scan_number(&mut self) -> Token {
        let start = self.cursor.offset;
        self.take_while(|character| character.is_ascii_digit());
        let is_decimal = self.read_if('.');
        if is_decimal {
            self.take_while(|character| character.is_ascii_digit());
        }
        let is_unit = |character: char| character.is_ascii_alphabetic() || character == 'µ';
        let is_duration = !is_decimal && self.peek().is_some_and(is_unit);
        if is_duration {
            self.take_while(|character| is_unit(character) || character.is_ascii_digit());
        }
        let text = self.text.get(start..self.cursor.offset).unwrap_or_default().to_owned();
        match (is_decimal, is_duration) {
            (true, _) => Token::Number(text),
            (false, true) => Token::Duration(text),
            (false, false) => Token::Integer(text),
        }
    }

    /// A quoted identifier or string, told apart by its first character.
    fn scan_quoted(&mut self, position: Position, bad_position: Position) -> (Token, Position) {
        let Some(quote) = self.read() else { return (Token::EndOfInput, position) };
        let mut content = String::new();
        loop {
            match self.read() {
                None | Some('\n') => return (Token::BadString(content), bad_position),
                Some(end) if end == quote => break,
                Some('\\') => match self.read() {
                    Some('n') => content.push('\n'),
                    Some(escaped @ ('\\' | '"' | '\'')) => content.push(escaped),
                    other => {
                        let escape = other.map_or_else(|| "\\".to_owned(), |character| format!("\\{character}"));
                        return (Token::BadEscape(escape), self.previous());
                    }
                },
                Some(character) => content.push(character),
            }
        }
        (if quote == '"' { Token::Ident(content) } else { Token::String(content) }, position)
    }

    fn scan_parameter(&mut self, position: Position) -> (Token, Position) {
        if self.peek() == Some('"') {
            return match self.scan_quoted(position, position) {
                (Token::Ident(name), _) => (Token::Parameter(name), position),
                bad => bad,
            };
        }
        let name = self.take_while(|character| character.is_ascii_alphanumeric() || character == '_').to_owned();
        self.peek_past_end();
        (Token::Parameter(name), position)
    }

    /// The regular expression that starts at the next character, which the caller knows to be `/`.
    /// `\/` becomes `/`; other escapes stay for the regular expression parser.
    pub(crate) fn scan_regex(&mut self) -> ScannedRegex {
        self.read();
        let mut content = String::new();
        loop {
            match self.read() {
                None | Some('\n') => return ScannedRegex::Bad,
                Some('/') => return ScannedRegex::Regex(content),
                Some('\\') => match self.peek() {
                    Some('/') => {
                        self.read();
                        content.push('/');
                    }
                    Some(escaped) if escaped != '\n' => {
                        self.read();
                        content.push('\\');
                        content.push(escaped);
                    }
                    _ => content.push('\\'),
                },
                Some(character) => content.push(character),
            }
        }
    }

    /// Whether a regular expression starts at the next character. `/*` starts a comment instead; as a regular
    /// expression it would be malformed anyway.
    pub(crate) fn at_regex(&self) -> bool {
        self.peek() == Some('/') && self.peek_second() != Some('*')
    }
}
