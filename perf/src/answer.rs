//! Walks an InfluxQL answer row by row without holding it.
//!
//! Reads one document (plain answers) or several behind each other (`chunked=true`) and hands every row to a sink.

use crate::json::JsonReader;
use std::io::{self, Read};

/// One cell of a row.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Cell<'a> {
    Null,
    Bool(bool),
    /// Digits as they stand in the answer.
    Number(&'a str),
    Text(&'a str),
}

impl Cell<'_> {
    pub fn integer(&self) -> Option<i64> {
        match self {
            Cell::Number(digits) => digits.parse().ok(),
            _ => None,
        }
    }

    pub fn float(&self) -> Option<f64> {
        match self {
            Cell::Number(digits) => digits.parse().ok(),
            _ => None,
        }
    }

    pub fn text(&self) -> Option<&str> {
        match self {
            Cell::Text(text) => Some(text),
            _ => None,
        }
    }
}

/// What a row belongs to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SeriesHead {
    pub statement: u64,
    pub name: String,
    pub tags: Vec<(String, String)>,
    pub columns: Vec<String>,
}

impl SeriesHead {
    pub fn tag(&self, key: &str) -> Option<&str> {
        self.tags.iter().find(|(tag, _)| tag == key).map(|(_, value)| value.as_str())
    }
}

/// Takes the parts of an answer in their order.
pub trait AnswerSink {
    /// A series starts (again, when it is cut into several pieces).
    fn series(&mut self, head: &SeriesHead);
    fn row(&mut self, cells: &[Cell<'_>]);
    /// An error of one statement, or of the whole request (`statement` None).
    fn error(&mut self, statement: Option<u64>, text: &str);
}

#[derive(Clone, Copy, Debug)]
enum Span {
    Null,
    Bool(bool),
    Number(usize, usize),
    Text(usize, usize),
}

#[derive(Debug, Default)]
struct Scratch {
    text: Vec<u8>,
    spans: Vec<Span>,
    key: Vec<u8>,
}

fn invalid(text: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, text.into())
}

/// Reads a whole answer. Returns the bytes read.
pub fn read_answer(source: impl Read, sink: &mut dyn AnswerSink) -> io::Result<u64> {
    let mut json = JsonReader::new(source);
    let mut scratch = Scratch::default();
    while json.peek()?.is_some() {
        read_document(&mut json, &mut scratch, sink)?;
    }
    Ok(json.bytes_read())
}

fn read_document<R: Read>(
    json: &mut JsonReader<R>,
    scratch: &mut Scratch,
    sink: &mut dyn AnswerSink,
) -> io::Result<()> {
    json.expect(b'{')?;
    let mut first = true;
    while json.more(&mut first, b'}')? {
        match read_key(json, scratch)?.as_str() {
            "results" => {
                json.expect(b'[')?;
                let mut first = true;
                while json.more(&mut first, b']')? {
                    read_result(json, scratch, sink)?;
                }
            }
            "error" => {
                let text = read_string(json)?;
                sink.error(None, &text);
            }
            _ => json.skip()?,
        }
    }
    Ok(())
}

fn read_result<R: Read>(json: &mut JsonReader<R>, scratch: &mut Scratch, sink: &mut dyn AnswerSink) -> io::Result<()> {
    let mut statement = 0;
    json.expect(b'{')?;
    let mut first = true;
    while json.more(&mut first, b'}')? {
        match read_key(json, scratch)?.as_str() {
            "statement_id" => {
                scratch.text.clear();
                json.literal(&mut scratch.text)?;
                statement = std::str::from_utf8(&scratch.text)
                    .ok()
                    .and_then(|digits| digits.parse().ok())
                    .ok_or_else(|| invalid("statement_id is not a number"))?;
            }
            "series" => {
                json.expect(b'[')?;
                let mut first = true;
                while json.more(&mut first, b']')? {
                    read_series(json, scratch, statement, sink)?;
                }
            }
            "error" => {
                let text = read_string(json)?;
                sink.error(Some(statement), &text);
            }
            _ => json.skip()?,
        }
    }
    Ok(())
}

fn read_series<R: Read>(
    json: &mut JsonReader<R>,
    scratch: &mut Scratch,
    statement: u64,
    sink: &mut dyn AnswerSink,
) -> io::Result<()> {
    let mut head = SeriesHead { statement, ..SeriesHead::default() };
    json.expect(b'{')?;
    let mut first = true;
    while json.more(&mut first, b'}')? {
        match read_key(json, scratch)?.as_str() {
            "name" => head.name = read_string(json)?,
            "tags" => {
                json.expect(b'{')?;
                let mut first = true;
                while json.more(&mut first, b'}')? {
                    let key = read_key(json, scratch)?;
                    head.tags.push((key, read_string(json)?));
                }
            }
            "columns" => {
                json.expect(b'[')?;
                let mut first = true;
                while json.more(&mut first, b']')? {
                    head.columns.push(read_string(json)?);
                }
                sink.series(&head);
            }
            "values" => {
                if head.columns.is_empty() {
                    return Err(invalid("a series has values before its columns"));
                }
                json.expect(b'[')?;
                let mut first = true;
                while json.more(&mut first, b']')? {
                    read_row(json, scratch, head.columns.len(), sink)?;
                }
            }
            _ => json.skip()?,
        }
    }
    Ok(())
}

fn read_row<R: Read>(
    json: &mut JsonReader<R>,
    scratch: &mut Scratch,
    columns: usize,
    sink: &mut dyn AnswerSink,
) -> io::Result<()> {
    scratch.text.clear();
    scratch.spans.clear();
    json.expect(b'[')?;
    let mut first = true;
    while json.more(&mut first, b']')? {
        let start = scratch.text.len();
        let span = if json.peek()? == Some(b'"') {
            json.string(&mut scratch.text)?;
            Span::Text(start, scratch.text.len())
        } else {
            json.literal(&mut scratch.text)?;
            match &scratch.text[start..] {
                b"null" => Span::Null,
                b"true" => Span::Bool(true),
                b"false" => Span::Bool(false),
                _ => Span::Number(start, scratch.text.len()),
            }
        };
        scratch.spans.push(span);
    }
    if scratch.spans.len() != columns {
        return Err(invalid(format!("a row of {} cells in a series of {columns} columns", scratch.spans.len())));
    }
    let text = std::str::from_utf8(&scratch.text).map_err(|_| invalid("a row is not UTF-8"))?;
    // Rows are short: the cells of nearly all of them fit on the stack.
    let mut near = [Cell::Null; 16];
    let mut far = Vec::new();
    let cells = if columns <= near.len() {
        &mut near[..columns]
    } else {
        far.resize(columns, Cell::Null);
        &mut far[..]
    };
    for (cell, span) in cells.iter_mut().zip(&scratch.spans) {
        *cell = match *span {
            Span::Null => Cell::Null,
            Span::Bool(value) => Cell::Bool(value),
            Span::Number(start, end) => Cell::Number(&text[start..end]),
            Span::Text(start, end) => Cell::Text(&text[start..end]),
        };
    }
    sink.row(cells);
    Ok(())
}

fn read_key<R: Read>(json: &mut JsonReader<R>, scratch: &mut Scratch) -> io::Result<String> {
    scratch.key.clear();
    json.string(&mut scratch.key)?;
    json.expect(b':')?;
    String::from_utf8(scratch.key.clone()).map_err(|_| invalid("a key is not UTF-8"))
}

fn read_string<R: Read>(json: &mut JsonReader<R>) -> io::Result<String> {
    let mut bytes = Vec::new();
    json.string(&mut bytes)?;
    String::from_utf8(bytes).map_err(|_| invalid("a string is not UTF-8"))
}

/// Holds a small answer: for single figures and for tests.
#[derive(Debug, Default)]
pub struct Collected {
    pub series: Vec<(SeriesHead, Vec<Vec<String>>)>,
    pub errors: Vec<String>,
}

impl AnswerSink for Collected {
    fn series(&mut self, head: &SeriesHead) {
        self.series.push((head.clone(), Vec::new()));
    }

    fn row(&mut self, cells: &[Cell<'_>]) {
        let row = cells
            .iter()
            .map(|cell| match cell {
                Cell::Null => "null".to_owned(),
                Cell::Bool(value) => value.to_string(),
                Cell::Number(text) | Cell::Text(text) => (*text).to_owned(),
            })
            .collect();
        if let Some((_, rows)) = self.series.last_mut() {
            rows.push(row);
        }
    }

    fn error(&mut self, _statement: Option<u64>, text: &str) {
        self.errors.push(text.to_owned());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunked_documents_are_read_behind_each_other() {
        let text = r#"{"results":[{"statement_id":0,"series":[{"name":"m","tags":{"t":"a"},"columns":["time","v"],"values":[[1,1.5],[2,null]],"partial":true}],"partial":true}]}
{"results":[{"statement_id":1,"series":[{"name":"m","columns":["time","s"],"values":[[3,"x"]]}]},{"statement_id":2,"error":"bad"}]}
"#;
        let mut collected = Collected::default();
        assert_eq!(read_answer(text.as_bytes(), &mut collected).unwrap(), text.len() as u64);
        assert_eq!(collected.errors, ["bad"]);
        assert_eq!(collected.series.len(), 2);
        assert_eq!(collected.series[0].0.tag("t"), Some("a"));
        assert_eq!(collected.series[0].1, [["1", "1.5"], ["2", "null"]]);
        assert_eq!((collected.series[1].0.statement, &collected.series[1].1[0][1]), (1, &"x".to_owned()));
    }

    #[test]
    fn an_answer_that_ends_early_is_an_error() {
        let whole = r#"{"results":[{"statement_id":0,"series":[{"columns":["time"],"values":[[1]]}]}]}"#;
        for cut in 1..whole.len() {
            assert!(read_answer(&whole.as_bytes()[..cut], &mut Collected::default()).is_err(), "cut at {cut}");
        }
    }

    #[test]
    fn a_row_of_the_wrong_width_is_an_error() {
        let text = r#"{"results":[{"series":[{"columns":["time","v"],"values":[[1]]}]}]}"#;
        assert!(read_answer(text.as_bytes(), &mut Collected::default()).is_err());
    }
}
