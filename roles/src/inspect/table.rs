//! Tables for people, and the text forms of times, sizes and keys.

use std::fmt;
use tidemill_influxql::TimestampText;

/// Columns as wide as their widest cell; numbers to the right.
pub struct Table {
    header: Vec<&'static str>,
    rows: Vec<Vec<String>>,
}

impl Table {
    pub fn new(header: &[&'static str]) -> Table {
        Table { header: header.to_vec(), rows: Vec::new() }
    }

    pub fn push(&mut self, cells: Vec<String>) {
        self.rows.push(cells);
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cells = |column: usize| self.rows.iter().filter_map(move |row| row.get(column));
        let width = |column: usize| cells(column).map(|cell| cell.chars().count()).max().unwrap_or(0);
        let is_number = |cell: &String| cell.starts_with(|first: char| first.is_ascii_digit());
        let columns: Vec<(usize, bool)> = (0..self.header.len())
            .map(|column| (width(column).max(self.header[column].len()), cells(column).all(is_number)))
            .collect();
        let mut line = |cells: &mut dyn Iterator<Item = &str>| {
            let mut text = String::new();
            for (cell, (width, right)) in cells.zip(&columns) {
                let padding = " ".repeat(width.saturating_sub(cell.chars().count()));
                let (before, behind) = if *right { (padding.as_str(), "") } else { ("", padding.as_str()) };
                text.extend([before, cell, behind, "  "]);
            }
            writeln!(f, "{}", text.trim_end())
        };
        line(&mut self.header.iter().copied())?;
        line(&mut columns.iter().map(|(width, _)| "-".repeat(*width)).collect::<Vec<_>>().iter().map(String::as_str))?;
        self.rows.iter().try_for_each(|row| line(&mut row.iter().map(String::as_str)))
    }
}

/// An instant as RFC 3339 with as many digits as it has.
pub fn time_text(ns: i64) -> String {
    TimestampText(ns).to_string()
}

/// Bytes in the largest unit that keeps them above one.
pub fn size_text(bytes: u64) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < units.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{bytes} B") } else { format!("{value:.1} {}", units[unit]) }
}

/// A key of an index as text: series key and field.
pub fn key_text(key: &[u8]) -> String {
    String::from_utf8_lossy(key).escape_debug().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up() {
        let mut table = Table::new(&["name", "points"]);
        table.push(vec!["a".into(), "1000".into()]);
        table.push(vec!["longer".into(), "7".into()]);
        assert_eq!(table.to_string(), "name    points\n------  ------\na         1000\nlonger       7\n");
        assert_eq!((size_text(1023), size_text(1536)), ("1023 B".into(), "1.5 KiB".into()));
    }
}
