//! Answers as text: columns, CSV, JSON.

use serde::Deserialize;
use serde_json::value::RawValue;
use std::collections::BTreeMap;
use std::io::Write;

/// How answers are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    Column,
    Csv,
    Json,
}

impl Format {
    pub fn named(name: &str) -> Result<Format, String> {
        match name {
            "column" => Ok(Format::Column),
            "csv" => Ok(Format::Csv),
            "json" => Ok(Format::Json),
            other => Err(format!("Unknown format {other:?}. Please use json, csv, or column.")),
        }
    }

    pub const fn name(self) -> &'static str {
        match self {
            Format::Column => "column",
            Format::Csv => "csv",
            Format::Json => "json",
        }
    }
}

#[derive(Deserialize)]
struct Document {
    #[serde(default)]
    results: Vec<StatementResult>,
    error: Option<String>,
}

#[derive(Deserialize)]
struct StatementResult {
    #[serde(default)]
    series: Vec<Series>,
    #[serde(default)]
    messages: Vec<Message>,
    error: Option<String>,
}

#[derive(Deserialize)]
struct Message {
    level: String,
    text: String,
}

#[derive(Deserialize)]
struct Series {
    #[serde(default)]
    name: String,
    #[serde(default)]
    tags: BTreeMap<String, String>,
    #[serde(default)]
    columns: Vec<String>,
    #[serde(default)]
    values: Vec<Vec<Box<RawValue>>>,
    #[serde(default)]
    partial: bool,
}

/// Shows the documents of one answer. A series that comes in pieces has one head.
pub struct Printer {
    format: Format,
    is_pretty: bool,
    /// Something was shown before.
    has_begun: bool,
    /// Widths of the series that goes on in the next piece.
    going_on: Option<Vec<usize>>,
}

impl Printer {
    pub fn new(format: Format, is_pretty: bool) -> Printer {
        Printer { format, is_pretty, has_begun: false, going_on: None }
    }

    /// # Errors
    /// What the server says, or what is wrong with its answer.
    pub fn print(&mut self, text: &str, out: &mut dyn Write) -> Result<(), String> {
        let document: Document = serde_json::from_str(text).map_err(|error| format!("{error}: {}", text.trim()))?;
        let mut shown = Vec::new();
        let mut fault = document.error;
        match self.format {
            Format::Json => shown = self.json(text)?,
            Format::Column | Format::Csv => {
                for result in &document.results {
                    self.result(result, &mut shown);
                }
            }
        }
        for result in document.results {
            fault = fault.or(result.error);
        }
        out.write_all(&shown).and_then(|()| out.flush()).map_err(|error| error.to_string())?;
        fault.map_or(Ok(()), Err)
    }

    fn json(&self, text: &str) -> Result<Vec<u8>, String> {
        if !self.is_pretty {
            return Ok(format!("{}\n", text.trim_end()).into_bytes());
        }
        let value: serde_json::Value = serde_json::from_str(text).map_err(|error| error.to_string())?;
        Ok(format!("{value:#}\n").into_bytes())
    }

    fn result(&mut self, result: &StatementResult, shown: &mut Vec<u8>) {
        for message in &result.messages {
            shown.extend_from_slice(format!("{}: {}.\n", message.level.to_uppercase(), message.text).as_bytes());
        }
        for series in &result.series {
            match self.format {
                Format::Csv => self.csv(series, shown),
                Format::Column | Format::Json => self.columns(series, shown),
            }
        }
    }

    fn columns(&mut self, series: &Series, shown: &mut Vec<u8>) {
        let rows: Vec<Vec<String>> =
            series.values.iter().map(|row| row.iter().map(|cell| cell_text(cell)).collect()).collect();
        let widths = match self.going_on.take() {
            Some(widths) => widths,
            None => {
                if self.has_begun {
                    shown.push(b'\n');
                }
                if !series.name.is_empty() {
                    shown.extend_from_slice(format!("name: {}\n", series.name).as_bytes());
                }
                if !series.tags.is_empty() {
                    let tags: Vec<String> = series.tags.iter().map(|(key, value)| format!("{key}={value}")).collect();
                    shown.extend_from_slice(format!("tags: {}\n", tags.join(", ")).as_bytes());
                }
                let widths = widths(&series.columns, &rows);
                push_row(&series.columns, &widths, shown);
                let dashes: Vec<String> = series.columns.iter().map(|name| "-".repeat(name.chars().count())).collect();
                push_row(&dashes, &widths, shown);
                widths
            }
        };
        rows.iter().for_each(|row| push_row(row, &widths, shown));
        self.has_begun = true;
        self.going_on = series.partial.then_some(widths);
    }

    /// As upstream's client: a head for each series, without a name where there is none.
    fn csv(&mut self, series: &Series, shown: &mut Vec<u8>) {
        let tags: Vec<String> = series.tags.iter().map(|(key, value)| format!("{key}={value}")).collect();
        let row = |name: &str, tags: &str, cells: Vec<String>| {
            let name = (!series.name.is_empty()).then(|| name.to_owned());
            let tags = (!series.tags.is_empty()).then(|| tags.to_owned());
            let cells: Vec<String> = name.into_iter().chain(tags).chain(cells).map(|cell| quoted(&cell)).collect();
            cells.join(",") + "\n"
        };
        if self.going_on.take().is_none() {
            shown.extend_from_slice(row("name", "tags", series.columns.clone()).as_bytes());
        }
        for values in &series.values {
            let cells = values.iter().map(|cell| cell_text(cell)).collect();
            shown.extend_from_slice(row(&series.name, &tags.join(","), cells).as_bytes());
        }
        self.going_on = series.partial.then(Vec::new);
    }
}

/// A cell as the server wrote it; texts without their quotes, null as nothing.
fn cell_text(cell: &RawValue) -> String {
    match cell.get() {
        "null" => String::new(),
        text if text.starts_with('"') => serde_json::from_str(text).unwrap_or_else(|_| text.to_owned()),
        text if text.starts_with('[') => {
            let parts: Vec<String> = serde_json::from_str(text).unwrap_or_default();
            format!("[{}]", parts.join(" "))
        }
        text => text.to_owned(),
    }
}

fn widths(columns: &[String], rows: &[Vec<String>]) -> Vec<usize> {
    let width = |cell: &String| cell.chars().count();
    let mut widths: Vec<usize> = columns.iter().map(width).collect();
    for row in rows {
        for (widest, cell) in widths.iter_mut().zip(row) {
            *widest = (*widest).max(width(cell));
        }
    }
    widths
}

/// Cells side by side, one space between columns; the last one is not padded.
fn push_row(row: &[String], widths: &[usize], shown: &mut Vec<u8>) {
    for (number, (cell, width)) in row.iter().zip(widths).enumerate() {
        if number > 0 {
            shown.push(b' ');
        }
        shown.extend_from_slice(cell.as_bytes());
        if number + 1 < row.len() {
            shown.extend(std::iter::repeat_n(b' ', width.saturating_sub(cell.chars().count())));
        }
    }
    shown.push(b'\n');
}

/// RFC 4180.
fn quoted(cell: &str) -> String {
    let needs_quotes = cell.starts_with(' ') || cell.contains([',', '"', '\n', '\r']);
    if needs_quotes { format!("\"{}\"", cell.replace('"', "\"\"")) } else { cell.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(format: Format, documents: &[&str]) -> Result<String, String> {
        let (mut printer, mut out) = (Printer::new(format, false), Vec::new());
        documents.iter().try_for_each(|document| printer.print(document, &mut out))?;
        Ok(String::from_utf8(out).unwrap())
    }

    const SERIES: &str = r#"{"results":[{"series":[{"name":"k","tags":{"host":"a"},"columns":["time","v","s"],"values":[[0,1,"p"],[100000,null,"a,b"]]}]}]}"#;

    #[test]
    fn columns_are_padded_with_one_space() {
        let expected = "name: k\ntags: host=a\ntime   v s\n----   - -\n0      1 p\n100000   a,b\n";
        assert_eq!(shown(Format::Column, &[SERIES]).unwrap(), expected);
    }

    #[test]
    fn csv_has_tags_where_there_are_some() {
        let expected = "name,tags,time,v,s\nk,host=a,0,1,p\nk,host=a,100000,,\"a,b\"\n";
        assert_eq!(shown(Format::Csv, &[SERIES]).unwrap(), expected);
        let plain = r#"{"results":[{"series":[{"name":"databases","columns":["name"],"values":[["d"]]}]}]}"#;
        assert_eq!(shown(Format::Csv, &[plain]).unwrap(), "name,name\ndatabases,d\n");
    }

    #[test]
    fn a_series_in_pieces_has_one_head() {
        let piece = |time: u64, partial: bool| {
            format!(
                r#"{{"results":[{{"series":[{{"name":"n","columns":["time"],"values":[[{time}]],"partial":{partial}}}]}}]}}"#
            )
        };
        let text = shown(Format::Column, &[&piece(1, true), &piece(2, false), &piece(3, false)]).unwrap();
        assert_eq!(text, "name: n\ntime\n----\n1\n2\n\nname: n\ntime\n----\n3\n");
    }

    #[test]
    fn faults_of_statements_and_requests_are_told() {
        assert_eq!(shown(Format::Column, &[r#"{"error":"no"}"#]), Err("no".to_owned()));
        assert_eq!(shown(Format::Csv, &[r#"{"results":[{"error":"bad"}]}"#]), Err("bad".to_owned()));
        assert!(shown(Format::Csv, &["<html>"]).is_err());
    }
}
