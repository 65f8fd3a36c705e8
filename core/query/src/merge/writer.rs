//! From rows of leaves to the answer: expressions, LIMIT and OFFSET, pieces of a series.

use super::Target;
use crate::evaluate::Leaves;
use crate::finish::LeafRows;
use crate::plan::{Output, Shape, Work};
use crate::result::{ResultColumn, ResultSeries};
use std::borrow::Cow;
use std::sync::Arc;
use tidemill_column::{Bitmap, Column, FieldType, Values};
use tidemill_influxql::Fill;

/// Writes one output series. Keeps the last piece back, because only then is known whether more follow.
pub(crate) struct SeriesWriter {
    shape: Arc<Shape>,
    name: Arc<str>,
    tags: Arc<[(String, String)]>,
    /// Outputs that are a field which the measurement lacks.
    lacking: Arc<[bool]>,
    /// Rows so far, skipped ones included.
    seen: u64,
    held: Option<ResultSeries>,
}

struct Rows<'a>(&'a LeafRows);

impl Leaves for Rows<'_> {
    fn row_count(&self) -> usize {
        self.0.len()
    }

    fn leaf(&self, leaf: usize) -> Option<Cow<'_, Column>> {
        self.0.columns.get(leaf).map(Cow::Borrowed)
    }
}

impl SeriesWriter {
    pub(crate) fn new(shape: Arc<Shape>, target: &Target<'_>, group: &[String]) -> SeriesWriter {
        let tags = shape.dimensions.iter().cloned().zip(group.iter().cloned()).collect();
        let (name, lacking) = (target.name.clone(), target.lacking.clone());
        SeriesWriter { shape, name, tags, lacking, seen: 0, held: None }
    }

    /// No further row can pass LIMIT.
    pub(crate) fn is_full(&self) -> bool {
        self.shape.row_limit.is_reached(self.seen)
    }

    /// Rows of the series so far, whether they passed or not.
    pub(crate) fn rows_seen(&self) -> u64 {
        self.seen
    }

    pub(crate) fn byte_size(&self) -> usize {
        self.held.as_ref().map_or(0, |held| held.row_count() * 8 * held.values.len())
    }

    /// Takes the next rows; returns the piece before them, if there is one.
    pub(crate) fn push(&mut self, rows: &LeafRows) -> Option<ResultSeries> {
        let window = self.shape.row_limit.window(self.seen, rows.len() as u64);
        self.seen += rows.len() as u64;
        if window.is_empty() {
            return None;
        }
        let window = window.start as usize..window.end as usize;
        let times = rows.times[window.clone()].to_vec();
        let mut values = vec![ResultColumn::Time(times)];
        let fill = match (&self.shape.work, self.shape.fill) {
            (Work::Raw { .. }, Fill::Integer(number)) => Some((number as f64, number)),
            (Work::Raw { .. }, Fill::Number(number)) => Some((number, number as i64)),
            _ => None,
        };
        for (output, lacking) in self.shape.outputs.iter().zip(&*self.lacking) {
            let column = match fill {
                // Nothing in it has a type, so it takes the number's.
                Some(number) if *lacking => constant_column(number, self.shape.fill, window.len()),
                _ => output_column(output, rows, window.clone(), fill),
            };
            values.push(ResultColumn::Values(column));
        }
        let piece = ResultSeries {
            name: self.name.clone(),
            tags: self.tags.clone(),
            columns: self.shape.column_names.clone(),
            values,
            partial: false,
        };
        let mut before = self.held.replace(piece);
        if let Some(before) = &mut before {
            before.partial = true;
        }
        before
    }

    /// The last piece.
    pub(crate) fn end(self) -> Option<ResultSeries> {
        self.held
    }
}

fn constant_column(number: (f64, i64), fill: Fill, rows: usize) -> Column {
    Column::dense(match fill {
        Fill::Integer(_) => Values::Integer(vec![number.1; rows]),
        _ => Values::Float(vec![number.0; rows]),
    })
}

fn output_column(output: &Output, rows: &LeafRows, window: std::ops::Range<usize>, fill: Option<(f64, i64)>) -> Column {
    let leaves = Rows(rows);
    let whole = output.expr.column(&leaves, output.field_type);
    let mut column = if window.len() == rows.len() {
        whole.into_owned()
    } else {
        let mut cut = Column::new(whole.values.field_type());
        cut.extend_from(&whole, window);
        cut
    };
    if let Values::Float(values) = &column.values
        && values.iter().any(|value| value.is_nan())
    {
        let rows = values.len();
        let valid = column.valid.get_or_insert_with(|| Bitmap::filled(rows, true));
        values.iter().enumerate().filter(|(_, value)| value.is_nan()).for_each(|(row, _)| valid.clear_bit(row));
    }
    match (fill, &column.valid) {
        (Some((float, integer)), Some(valid)) if valid.count_ones() < valid.len() => {
            replace_nulls(&column, output.field_type, float, integer)
        }
        _ => column,
    }
}

/// fill(number) on a raw select: the number stands in for missing values. A column of another type than the number's
/// keeps its gaps, for it cannot hold the number.
fn replace_nulls(column: &Column, field_type: FieldType, float: f64, integer: i64) -> Column {
    if matches!(field_type, FieldType::String | FieldType::Boolean) {
        return column.clone();
    }
    let Some(constant) = crate::fill::constant(field_type, float, integer) else { return column.clone() };
    let mut filled = Column::new(field_type);
    for row in 0..column.len() {
        filled.push(&column.value(row).unwrap_or_else(|| constant.clone()));
    }
    filled
}
