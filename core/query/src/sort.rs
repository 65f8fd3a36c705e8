//! ORDER BY by something else than time: the rows of each series of the answer in another order.
//!
//! Owns the rows of the series at hand, as sorted runs that are merged two by two. With a LIMIT a run never keeps more
//! rows than LIMIT and OFFSET let through, so that what is held is a few times that; without one all rows of a series
//! are held, and [`Sort::bytes_held`] goes to the query's budget.
//! Invariants: rows that no key tells apart keep the order that they came in; a row without a value is behind those
//! with one, ascending and descending; one [`Sort::step`] handles at most [`STEP_ROWS`] rows.
//! It knows nothing of where rows come from.

use crate::QueryError;
use crate::compile::CompiledField;
use crate::limit::RowLimit;
use crate::names::matches_without_types;
use crate::plan::Plan;
use crate::result::{ResultColumn, ResultSeries};
use crate::rows::{self, Run};
use std::cmp::Ordering;
use std::collections::VecDeque;
use std::sync::Arc;
use tidemill_column::{Column, Values};
use tidemill_influxql::{Expr, SortKey, SortOrder};

/// Rows that are handled between two turns of other tasks: some hundred microseconds of work.
const STEP_ROWS: usize = 4096;

/// What a plan's rows are ordered by, and which of them pass then.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct SortPlan {
    /// Columns of the answer, `time` being the first, the weightiest first.
    keys: Vec<(usize, SortOrder)>,
    limit: RowLimit,
}

impl SortPlan {
    /// The order that a statement asks for, if it does.
    ///
    /// # Errors
    /// A key is no column of the answer.
    pub(crate) fn of(
        keys: &[SortKey],
        limit: RowLimit,
        fields: &[CompiledField],
        column_names: &[String],
    ) -> Result<Option<SortPlan>, QueryError> {
        let column = |key: &SortKey| {
            let is_named = |wanted: &String| matches!(&key.expr, Expr::VarRef(name) if name.name == *wanted);
            if matches!(&key.expr, Expr::VarRef(name) if name.is_time()) {
                return Ok((0, key.order));
            }
            let by_name = column_names.iter().position(is_named);
            let by_text = || fields.iter().position(|field| matches_without_types(&field.expr, &key.expr));
            let found = by_name.or_else(|| by_text().map(|field| field + 1));
            let error = || QueryError::invalid(format!("ORDER BY {} is not a column of the answer", key.expr));
            found.map(|column| (column, key.order)).ok_or_else(error)
        };
        let keys = keys.iter().map(column).collect::<Result<Vec<_>, _>>()?;
        Ok((!keys.is_empty()).then_some(SortPlan { keys, limit }))
    }

    fn rows_max(&self) -> usize {
        self.limit.rows_max().map_or(usize::MAX, |rows| usize::try_from(rows).unwrap_or(usize::MAX))
    }
}

/// What a [`Sort`] needs or gives.
#[derive(Debug)]
pub enum SortStep {
    /// The next piece of the answer before it is ordered, or that there is none, by [`Sort::supply`].
    Input,
    /// Some rows were handled; others should get a turn.
    Turn,
    /// A piece of the ordered answer.
    Rows(ResultSeries),
    Done,
}

/// The rows of an answer on their way into another order.
pub struct Sort {
    plan: SortPlan,
    chunk_rows: usize,
    /// Whose rows are at hand: a piece of the series without its rows.
    series: Option<ResultSeries>,
    /// Rows of the series that are not sorted yet.
    unsorted: VecDeque<Rows>,
    /// Sorted, the oldest first.
    runs: Vec<Rows>,
    merge: Option<RunMerge>,
    /// The first piece of the next series.
    next: Option<ResultSeries>,
    is_ended: bool,
    /// The ordered rows that have not been given, and how many were.
    ordered: Option<(Rows, usize)>,
}

/// Some rows: the columns of the answer.
struct Rows {
    times: Vec<i64>,
    columns: Vec<Column>,
}

/// Two runs on their way into one.
struct RunMerge {
    sources: [Rows; 2],
    positions: [usize; 2],
    merged: Rows,
}

impl Sort {
    /// Of a plan whose rows are to be ordered. Pieces of the answer have at most `chunk_rows` rows.
    pub fn new(plan: &Plan, chunk_rows: usize) -> Option<Sort> {
        plan.sort.clone().map(|plan| Sort::by(plan, chunk_rows.max(1)))
    }

    fn by(plan: SortPlan, chunk_rows: usize) -> Sort {
        Sort {
            plan,
            chunk_rows,
            series: None,
            unsorted: VecDeque::new(),
            runs: Vec::new(),
            merge: None,
            next: None,
            is_ended: false,
            ordered: None,
        }
    }

    /// Gives the piece that [`SortStep::Input`] asked for; `None` behind the last.
    pub fn supply(&mut self, piece: Option<ResultSeries>) {
        match piece {
            None => self.is_ended = true,
            Some(piece) if self.series.as_ref().is_none_or(|series| is_same(series, &piece)) => self.take(piece),
            Some(piece) => self.next = Some(piece),
        }
    }

    /// Goes on for some rows.
    pub fn step(&mut self) -> SortStep {
        if self.ordered.is_some() {
            return self.emit();
        }
        if let Some(merge) = &mut self.merge {
            if let Some(run) = merge.advance(&self.plan) {
                self.merge = None;
                self.runs.push(run);
            }
            return SortStep::Turn;
        }
        let is_complete = self.next.is_some() || self.is_ended;
        let is_last = is_complete && self.unsorted.is_empty();
        if let [.., older, newer] = self.runs.as_slice()
            && (is_last || newer.len() >= older.len())
        {
            self.merge_last_two();
            return SortStep::Turn;
        }
        if let Some(rows) = self.unsorted.pop_front() {
            self.runs.push(rows.sorted(&self.plan));
            return SortStep::Turn;
        }
        if !is_complete {
            return SortStep::Input;
        }
        match self.runs.pop() {
            Some(rows) => {
                self.ordered = Some((rows, 0));
                self.emit()
            }
            None => match self.next.take() {
                Some(piece) => {
                    self.take(piece);
                    SortStep::Turn
                }
                None => SortStep::Done,
            },
        }
    }

    /// Bytes held, for budgets.
    pub fn bytes_held(&self) -> usize {
        let merge = self.merge.iter().flat_map(|merge| merge.sources.iter().chain([&merge.merged]));
        let ordered = self.ordered.iter().map(|(rows, _)| rows);
        self.unsorted.iter().chain(&self.runs).chain(merge).chain(ordered).map(Rows::byte_size).sum()
    }

    /// Takes rows of the series at hand in, as parts of at most [`STEP_ROWS`].
    fn take(&mut self, mut piece: ResultSeries) {
        let values = std::mem::take(&mut piece.values);
        self.series = Some(piece);
        let mut times = Vec::new();
        let mut columns = Vec::new();
        for column in values {
            match column {
                ResultColumn::Time(all) => times = all,
                ResultColumn::Values(column) => columns.push(column),
                ResultColumn::StringLists(_) => unreachable!("a SELECT answers no lists"),
            }
        }
        let rows = Rows { times, columns };
        if rows.len() <= STEP_ROWS {
            self.unsorted.push_back(rows);
            return;
        }
        for start in (0..rows.len()).step_by(STEP_ROWS) {
            self.unsorted.push_back(rows.cut(start..(start + STEP_ROWS).min(rows.len())));
        }
    }

    fn merge_last_two(&mut self) {
        let (Some(newer), Some(older)) = (self.runs.pop(), self.runs.pop()) else { return };
        let merged = older.empty_copy();
        self.merge = Some(RunMerge { sources: [older, newer], positions: [0, 0], merged });
    }

    /// The next piece of the ordered rows; the last takes the series with it.
    fn emit(&mut self) -> SortStep {
        let (Some((rows, given)), Some(series)) = (&mut self.ordered, &self.series) else { return SortStep::Turn };
        let window = self.plan.limit.window(0, rows.len() as u64);
        let start = (window.start as usize).max(*given);
        let end = (window.end as usize).min(start.saturating_add(self.chunk_rows));
        if start >= end {
            self.ordered = None;
            self.series = None;
            return SortStep::Turn;
        }
        let cut = rows.cut(start..end);
        *given = end;
        let mut values = vec![ResultColumn::Time(cut.times)];
        values.extend(cut.columns.into_iter().map(ResultColumn::Values));
        SortStep::Rows(ResultSeries { values, partial: (end as u64) < window.end, ..series.clone() })
    }
}

/// Whether two pieces are of one series.
fn is_same(a: &ResultSeries, b: &ResultSeries) -> bool {
    let is_same_tags = Arc::ptr_eq(&a.tags, &b.tags) || a.tags == b.tags;
    is_same_tags && a.name == b.name && a.columns == b.columns
}

impl Rows {
    fn len(&self) -> usize {
        self.times.len()
    }

    fn byte_size(&self) -> usize {
        self.times.len() * size_of::<i64>() + self.columns.iter().map(Column::byte_size).sum::<usize>()
    }

    /// No rows, of the same columns.
    fn empty_copy(&self) -> Rows {
        let columns = self.columns.iter().map(|column| Column::new(column.values.field_type()));
        Rows { times: Vec::new(), columns: columns.collect() }
    }

    fn cut(&self, range: std::ops::Range<usize>) -> Rows {
        let mut rows = self.empty_copy();
        rows.times.extend_from_slice(&self.times[range.clone()]);
        rows.columns.iter_mut().zip(&self.columns).for_each(|(to, from)| to.extend_from(from, range.clone()));
        rows
    }

    /// The first of them in the order of a plan, as many as can pass.
    fn sorted(self, plan: &SortPlan) -> Rows {
        let mut order: Vec<u32> = (0..self.len() as u32).collect();
        order.sort_by(|a, b| compare(plan, (&self, *a as usize), (&self, *b as usize)));
        order.truncate(plan.rows_max());
        let times = order.iter().map(|row| self.times[*row as usize]).collect();
        Rows { times, columns: self.columns.iter().map(|column| rows::take(column, &order)).collect() }
    }
}

impl RunMerge {
    /// Takes some rows; gives the run once it is complete.
    fn advance(&mut self, plan: &SortPlan) -> Option<Rows> {
        let rows_max = plan.rows_max();
        let mut runs: Vec<Run> = Vec::new();
        let mut count = 0;
        while count < STEP_ROWS && self.merged.len() + count < rows_max {
            let [older, newer] = self.positions;
            let source = match (older < self.sources[0].len(), newer < self.sources[1].len()) {
                (false, false) => break,
                (true, false) => 0,
                (false, true) => 1,
                // Of equal rows the older ones come first.
                _ => {
                    let order = compare(plan, (&self.sources[0], older), (&self.sources[1], newer));
                    usize::from(order == Ordering::Greater)
                }
            };
            let row = self.positions[source] as u32;
            match runs.last_mut() {
                Some(run) if run.source == source as u32 => run.count += 1,
                _ => runs.push(Run { source: source as u32, start: row, count: 1 }),
            }
            self.positions[source] += 1;
            count += 1;
        }
        for run in &runs {
            let start = run.start as usize;
            let times = &self.sources[run.source as usize].times;
            self.merged.times.extend_from_slice(&times[start..start + run.count as usize]);
        }
        for (index, column) in self.merged.columns.iter_mut().enumerate() {
            rows::gather(column, &runs, |source| Some(&self.sources[source as usize].columns[index]));
        }
        let is_complete = self.merged.len() >= rows_max
            || self.positions[0] == self.sources[0].len() && self.positions[1] == self.sources[1].len();
        is_complete.then(|| std::mem::replace(&mut self.merged, Rows { times: Vec::new(), columns: Vec::new() }))
    }
}

fn compare(plan: &SortPlan, a: (&Rows, usize), b: (&Rows, usize)) -> Ordering {
    for (key, order) in &plan.keys {
        let ordering = match key.checked_sub(1) {
            None => directed(a.0.times[a.1].cmp(&b.0.times[b.1]), *order),
            Some(column) => compare_values((&a.0.columns[column], a.1), (&b.0.columns[column], b.1), *order),
        };
        if ordering.is_ne() {
            return ordering;
        }
    }
    Ordering::Equal
}

fn directed(ordering: Ordering, order: SortOrder) -> Ordering {
    if order == SortOrder::Descending { ordering.reverse() } else { ordering }
}

fn compare_values(a: (&Column, usize), b: (&Column, usize), order: SortOrder) -> Ordering {
    match (a.0.is_valid(a.1), b.0.is_valid(b.1)) {
        (true, true) => {}
        (a, b) => return b.cmp(&a),
    }
    let (row, other) = (a.1, b.1);
    let ordering = match (&a.0.values, &b.0.values) {
        // There are no numbers that are none among values.
        (Values::Float(a), Values::Float(b)) => a[row].partial_cmp(&b[other]).unwrap_or(Ordering::Equal),
        (Values::Integer(a), Values::Integer(b)) => a[row].cmp(&b[other]),
        (Values::Unsigned(a), Values::Unsigned(b)) => a[row].cmp(&b[other]),
        (Values::Boolean(a), Values::Boolean(b)) => a[row].cmp(&b[other]),
        (Values::String(a), Values::String(b)) => a.value(row).cmp(b.value(other)),
        _ => panic!("a column of two types"),
    };
    directed(ordering, order)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use tidemill_column::{FieldType, Value};

    type Row = (i64, Option<i64>, Option<&'static str>);

    fn piece(name: &str, rows: &[Row]) -> ResultSeries {
        let mut numbers = Column::new(FieldType::Integer);
        let mut texts = Column::new(FieldType::String);
        for (_, number, text) in rows {
            match number {
                Some(number) => numbers.push(&Value::Integer(*number)),
                None => numbers.push_null(),
            }
            match text {
                Some(text) => texts.push(&Value::String(text.as_bytes().into())),
                None => texts.push_null(),
            }
        }
        let times = rows.iter().map(|(time, _, _)| *time).collect();
        ResultSeries {
            name: name.into(),
            tags: [].into(),
            columns: ["time", "number", "text"].map(str::to_owned).into(),
            values: vec![ResultColumn::Time(times), ResultColumn::Values(numbers), ResultColumn::Values(texts)],
            partial: false,
        }
    }

    fn sort(keys: Vec<(usize, SortOrder)>, limit: RowLimit, chunk_rows: usize) -> Sort {
        Sort::by(SortPlan { keys, limit }, chunk_rows)
    }

    /// Name, times of a piece, and whether more of it follow.
    fn run(mut sort: Sort, pieces: Vec<ResultSeries>) -> Vec<(String, Vec<i64>, bool)> {
        let mut pieces = pieces.into_iter();
        let mut answer = Vec::new();
        for _ in 0..1_000_000 {
            match sort.step() {
                SortStep::Input => sort.supply(pieces.next()),
                SortStep::Turn => {}
                SortStep::Rows(series) => {
                    let ResultColumn::Time(times) = &series.values[0] else { panic!("times first") };
                    answer.push((series.name.to_string(), times.clone(), series.partial));
                }
                SortStep::Done => {
                    assert_eq!(sort.bytes_held(), 0);
                    return answer;
                }
            }
        }
        panic!("never done")
    }

    use SortOrder::{Ascending, Descending};

    #[test]
    fn rows_without_a_value_are_last_in_both_directions() {
        let rows = [(1, None, None), (2, Some(5), None), (3, Some(-5), None), (4, None, None), (5, Some(5), None)];
        let times = |order| run(sort(vec![(1, order)], RowLimit::new(0, 0), 10), vec![piece("m", &rows)]);
        assert_eq!(times(Ascending), [("m".to_owned(), vec![3, 2, 5, 1, 4], false)]);
        assert_eq!(times(Descending), [("m".to_owned(), vec![2, 5, 3, 1, 4], false)]);
    }

    #[test]
    fn further_keys_decide_between_equal_rows() {
        let rows = [(1, Some(1), Some("b")), (2, Some(1), Some("a")), (3, Some(0), Some("z")), (4, Some(1), Some("a"))];
        let keys = vec![(1, Descending), (2, Ascending), (0, Descending)];
        let found = run(sort(keys, RowLimit::new(0, 0), 10), vec![piece("m", &rows)]);
        assert_eq!(found, [("m".to_owned(), vec![4, 2, 1, 3], false)]);
    }

    #[test]
    fn each_series_is_ordered_and_limited_by_itself() {
        let rows = |first: i64| [(first, Some(1), None), (first + 1, Some(3), None), (first + 2, Some(2), None)];
        let pieces = vec![piece("a", &rows(0)), piece("b", &rows(10)), piece("b", &rows(20)), piece("c", &rows(30))];
        let found = run(sort(vec![(1, Descending)], RowLimit::new(2, 1), 1), pieces);
        let expected =
            [("a", 2, true), ("a", 0, false), ("b", 21, true), ("b", 12, false), ("c", 32, true), ("c", 30, false)];
        assert_eq!(found, expected.map(|(name, time, partial)| (name.to_owned(), vec![time], partial)));
    }

    #[test]
    fn an_answer_without_rows_has_none() {
        assert_eq!(run(sort(vec![(1, Ascending)], RowLimit::new(0, 0), 10), Vec::new()), []);
        let found = run(sort(vec![(1, Ascending)], RowLimit::new(0, 7), 10), vec![piece("m", &[(1, None, None)])]);
        assert_eq!(found, []);
    }

    proptest! {
        #[test]
        fn all_rows_come_out_as_a_stable_sort_orders_them(
            numbers in prop::collection::vec(prop::option::of(0..50i64), 0..30_000),
            piece_rows in 1..9_000usize,
            chunk_rows in 1..9_000usize,
            limit in prop_oneof![Just(0u64), 1..10u64, 1..40_000u64],
            offset in prop_oneof![Just(0u64), 1..20_000u64],
            descending: bool,
        ) {
            let rows: Vec<Row> = (0..).zip(&numbers).map(|(time, number)| (time, *number, None)).collect();
            let limit = RowLimit::new(limit, offset);
            let mut expected = rows.clone();
            expected.sort_by_key(|(_, number, _)| match number {
                None => i64::MAX,
                Some(number) if descending => -number,
                Some(number) => *number,
            });
            let expected: Vec<i64> = limit.slice(&expected).iter().map(|(time, _, _)| *time).collect();
            let order = if descending { Descending } else { Ascending };
            let pieces = rows.chunks(piece_rows).map(|rows| piece("m", rows)).collect();
            let found = run(sort(vec![(1, order)], limit, chunk_rows), pieces);
            for (index, (_, times, partial)) in found.iter().enumerate() {
                prop_assert!(times.len() <= chunk_rows);
                prop_assert_eq!(*partial, index + 1 < found.len());
            }
            let times: Vec<i64> = found.into_iter().flat_map(|(_, times, _)| times).collect();
            prop_assert_eq!(times, expected);
        }
    }

    #[test]
    fn a_limit_bounds_what_is_held() {
        let mut sort = sort(vec![(1, Descending)], RowLimit::new(10, 0), 10);
        let mut bytes_max = 0;
        for start in 0..200 {
            while !matches!(sort.step(), SortStep::Input) {}
            let rows: Vec<Row> = (0..1000).map(|row| (start * 1000 + row, Some(row), None)).collect();
            sort.supply(Some(piece("m", &rows)));
            bytes_max = bytes_max.max(sort.bytes_held());
        }
        assert!(bytes_max < 40_000, "{bytes_max}");
    }
}
