//! Tables of SHOW statements as series of an answer.
//!
//! Owns: turning rows of texts and numbers into columns, and cutting long ones into pieces.

use std::sync::Arc;
use tidemill_column::{Column, Strings, Values};
use tidemill_query::{ResultColumn, ResultSeries};

/// One column of a table.
pub(super) enum TableColumn {
    Texts(Vec<String>),
    Strings(Strings),
    Integers(Vec<i64>),
    Booleans(Vec<bool>),
}

impl TableColumn {
    fn into_result(self) -> ResultColumn {
        let values = match self {
            TableColumn::Texts(texts) => {
                let mut strings = Strings::new();
                texts.iter().for_each(|text| strings.push(text.as_bytes()));
                Values::String(strings)
            }
            TableColumn::Strings(strings) => Values::String(strings),
            TableColumn::Integers(values) => Values::Integer(values),
            TableColumn::Booleans(values) => Values::Boolean(values),
        };
        ResultColumn::Values(Column::dense(values))
    }
}

/// A table of these columns, with their names.
pub(super) fn table(name: &str, columns: Vec<(&str, TableColumn)>) -> ResultSeries {
    let (names, values): (Vec<String>, Vec<ResultColumn>) =
        columns.into_iter().map(|(name, column)| (name.to_owned(), column.into_result())).unzip();
    ResultSeries { name: name.into(), tags: Arc::new([]), columns: names.into(), values, partial: false }
}

/// A table of one column of texts, in pieces of `rows` rows; no piece without rows.
pub(super) fn list(name: &str, column: &str, texts: Vec<String>, rows: usize) -> Vec<ResultSeries> {
    let mut pieces = Vec::with_capacity(texts.len().div_ceil(rows.max(1)));
    let mut texts = texts.into_iter().peekable();
    while texts.peek().is_some() {
        let piece = texts.by_ref().take(rows.max(1)).collect();
        pieces.push(table(name, vec![(column, TableColumn::Texts(piece))]));
    }
    let count = pieces.len();
    pieces.iter_mut().take(count.saturating_sub(1)).for_each(|piece| piece.partial = true);
    pieces
}

/// A table of one number.
pub(super) fn number(name: &str, column: &str, number: u64) -> ResultSeries {
    table(name, vec![(column, TableColumn::Integers(vec![number as i64]))])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_lists_come_in_pieces_and_empty_ones_not_at_all() {
        let texts: Vec<String> = (0..5).map(|number| number.to_string()).collect();
        let pieces = list("", "key", texts, 2);
        let rows: Vec<_> = pieces.iter().map(|piece| (piece.row_count(), piece.partial)).collect();
        assert_eq!(rows, [(2, true), (2, true), (1, false)]);
        assert!(list("", "key", Vec::new(), 2).is_empty());
        assert_eq!(list("", "key", vec!["a".into()], 0).len(), 1);
    }
}
