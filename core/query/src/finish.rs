//! From joined accumulators to rows: one row a window, or as many as the function gives.
//!
//! Owns the definitions of the functions that need all values: median, mode, stddev, percentile. A value that exists
//! but cannot be told (the deviation of one value) is a NaN here, so that it is not taken for a missing one by fill.

use crate::accumulator::{Accumulator, Collected, carried_types};
use crate::plan::{Aggregate, CallPlan, Finish, Shape};
use tidemill_column::{Column, FieldType, Value, Values};

/// Rows of leaves: for an aggregation the calls and what is carried along, for a raw select fields and tags.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct LeafRows {
    pub times: Vec<i64>,
    pub columns: Vec<Column>,
}

impl LeafRows {
    pub(crate) fn new(types: &[FieldType]) -> LeafRows {
        LeafRows { times: Vec::new(), columns: types.iter().map(|one| Column::new(*one)).collect() }
    }

    pub(crate) fn len(&self) -> usize {
        self.times.len()
    }

    pub(crate) fn byte_size(&self) -> usize {
        self.times.len() * 8 + self.columns.iter().map(Column::byte_size).sum::<usize>()
    }
}

/// Types of the leaves of an aggregation.
pub(crate) fn leaf_types(aggregate: &Aggregate, shape: &Shape) -> Vec<FieldType> {
    let mut types: Vec<FieldType> = aggregate.calls.iter().map(|call| call.field_type).collect();
    types.extend(carried_types(&aggregate.carried, &shape.columns));
    types
}

/// The rows of windows whose accumulators are joined: slot `i` belongs to `starts[i]`. Windows without any value give
/// no row.
pub(crate) fn finish(shape: &Shape, aggregate: &Aggregate, starts: &[i64], slots: &mut [Accumulator]) -> LeafRows {
    let mut rows = LeafRows::new(&leaf_types(aggregate, shape));
    if let [CallPlan { finish: Some(finish), .. }] = aggregate.calls.as_slice()
        && finish.gives_rows()
    {
        for (slot, start) in starts.iter().enumerate() {
            several_rows(finish, *start, slot, slots, &mut rows);
        }
        return rows;
    }
    let has_value = |slot: usize| {
        let mut finishes = aggregate.calls.iter().filter_map(|call| call.finish.as_ref());
        finishes.any(|finish| slots[finish.accumulator()].value_count(slot) > 0)
    };
    let wanted: Vec<usize> = (0..starts.len()).filter(|slot| has_value(*slot)).collect();
    rows.times = wanted.iter().map(|slot| starts[*slot]).collect();
    let (call_columns, carried_columns) = rows.columns.split_at_mut(aggregate.calls.len());
    let mut absent = vec![false; wanted.len()];
    for (call, column) in aggregate.calls.iter().zip(call_columns) {
        for (row, slot) in wanted.iter().enumerate() {
            let value = call.finish.as_ref().and_then(|finish| one_value(finish, *slot, slots));
            match &value {
                Some((_, value)) => column.push(value),
                None => column.push_null(),
            }
            if aggregate.calls.len() > 1 {
                continue;
            }
            absent[row] = value.is_none();
            if let (true, Some((Some(time), _))) = (aggregate.own_times, value) {
                rows.times[row] = time;
            }
        }
        if let Some(Finish::Best(accumulator) | Finish::Percentile { accumulator, .. }) = &call.finish {
            for slot in &wanted {
                let Some(collected) = slots[*accumulator].collected(*slot) else { continue };
                let row = selected_row(call.finish.as_ref(), collected);
                for (to, from) in carried_columns.iter_mut().zip(&collected.carried) {
                    match row {
                        Some(row) => to.push_from(from, row),
                        None => to.push_null(),
                    }
                }
            }
        }
    }
    // Carried columns without their selector (its field does not exist) have no rows yet.
    for column in &mut rows.columns {
        while column.len() < rows.times.len() {
            column.push_null();
        }
    }
    // A percentile may name no row of a window that has values.
    if absent.contains(&true) {
        let kept: Vec<u32> = (0..absent.len()).filter(|row| !absent[*row]).map(|row| row as u32).collect();
        rows.times = kept.iter().map(|row| rows.times[*row as usize]).collect();
        rows.columns = rows.columns.iter().map(|column| crate::rows::take(column, &kept)).collect();
    }
    rows
}

/// The value of a function in a slot, with the time of its point where it has one.
fn one_value(finish: &Finish, slot: usize, slots: &mut [Accumulator]) -> Option<(Option<i64>, Value)> {
    let accumulator = finish.accumulator();
    if slots[accumulator].value_count(slot) == 0 {
        return None;
    }
    let value = match finish {
        Finish::Count(_) | Finish::CountDistinct(_) => Value::Integer(slots[accumulator].value_count(slot) as i64),
        Finish::Sum(_) => slots[accumulator].sum(slot)?,
        Finish::Mean(_) => Value::Float(slots[accumulator].mean(slot)?),
        Finish::Pick(_) => {
            let (time, value) = slots[accumulator].picked(slot)?;
            return Some((Some(time), value));
        }
        Finish::Spread { min, max } => difference(&slots[*max].picked(slot)?.1, &slots[*min].picked(slot)?.1)?,
        Finish::Median(_) => Value::Float(median(slots[accumulator].collected(slot)?)?),
        Finish::Mode(_) => mode(slots[accumulator].collected(slot)?)?,
        Finish::Stddev(_) => Value::Float(stddev(slots[accumulator].collected(slot)?)),
        Finish::Best(_) | Finish::Percentile { .. } => {
            let collected = slots[accumulator].collected(slot)?;
            if matches!(finish, Finish::Percentile { .. }) {
                collected.sort_by_value();
            }
            let row = selected_row(Some(finish), collected)?;
            return Some((Some(collected.times[row]), collected.values.value(row)));
        }
        Finish::Distinct(_) | Finish::Ranked(_) => return None,
    };
    Some((None, value))
}

/// The row that a selector takes out of its collected rows, which a percentile wants by value.
fn selected_row(finish: Option<&Finish>, collected: &Collected) -> Option<usize> {
    match finish {
        Some(Finish::Percentile { percent, .. }) => percentile_index(collected.len(), *percent),
        Some(Finish::Best(_)) => (collected.len() > 0).then_some(0),
        _ => None,
    }
}

fn several_rows(finish: &Finish, start: i64, slot: usize, slots: &mut [Accumulator], rows: &mut LeafRows) {
    match finish {
        Finish::Distinct(accumulator) => {
            for (_, value) in slots[*accumulator].distinct(slot) {
                rows.times.push(start);
                rows.columns[0].push(&value);
            }
        }
        Finish::Ranked(accumulator) => {
            let Some(collected) = slots[*accumulator].collected(slot) else { return };
            collected.sort_by_time();
            rows.times.extend_from_slice(&collected.times);
            for row in 0..collected.len() {
                rows.columns[0].push(&collected.values.value(row));
            }
            for (to, from) in rows.columns[1..].iter_mut().zip(&collected.carried) {
                to.extend_from(from, 0..from.len());
            }
        }
        _ => {}
    }
}

fn difference(high: &Value, low: &Value) -> Option<Value> {
    Some(match (high, low) {
        (Value::Float(high), Value::Float(low)) => Value::Float(high - low),
        (Value::Integer(high), Value::Integer(low)) => Value::Integer(high.wrapping_sub(*low)),
        (Value::Unsigned(high), Value::Unsigned(low)) => Value::Unsigned(high.wrapping_sub(*low)),
        _ => return None,
    })
}

/// Nearest rank: the index among `count` sorted values, if the percentile names one.
fn percentile_index(count: usize, percent: f64) -> Option<usize> {
    let index = (count as f64 * percent / 100.0 + 0.5).floor() - 1.0;
    (index >= 0.0 && index < count as f64).then_some(index as usize)
}

/// The values stay as they are: other functions may read the same ones by their times.
fn median(collected: &Collected) -> Option<f64> {
    fn middle<T: Copy>(
        values: &[T],
        compare: impl Fn(&T, &T) -> std::cmp::Ordering + Copy,
        float: impl Fn(T) -> f64,
        distance: impl Fn(T, T) -> f64,
    ) -> Option<f64> {
        let mut values = values.to_vec();
        let half = values.len() / 2;
        if half >= values.len() {
            return None;
        }
        let (_, high, _) = values.select_nth_unstable_by(half, compare);
        let high = *high;
        if values.len() % 2 == 1 {
            return Some(float(high));
        }
        let low = values[..half].iter().copied().max_by(compare)?;
        Some(float(low) + distance(high, low) / 2.0)
    }
    match &collected.values {
        Values::Float(values) => middle(values, f64::total_cmp, |value| value, |high, low| high - low),
        Values::Integer(values) => {
            middle(values, i64::cmp, |value| value as f64, |high, low| high.wrapping_sub(low) as f64)
        }
        Values::Unsigned(values) => {
            middle(values, u64::cmp, |value| value as f64, |high, low| high.wrapping_sub(low) as f64)
        }
        Values::Boolean(_) | Values::String(_) => None,
    }
}

/// The most frequent value. Between equally frequent ones decides how their times interleave, as upstream's scan of
/// the sorted values has it: a run of equal values takes over when it reaches the best count, unless its first point
/// is later than the point that completed the best one. Only the first run counts its first point.
fn mode(collected: &mut Collected) -> Option<Value> {
    collected.sort_by_value();
    let values = &collected.values;
    if let Values::Boolean(values) = values {
        let trues = values.iter().filter(|value| **value).count();
        return Some(Value::Boolean(trues * 2 >= values.len()));
    }
    let equal = |a: usize, b: usize| match values {
        Values::Float(values) => values[a] == values[b],
        Values::Integer(values) => values[a] == values[b],
        Values::Unsigned(values) => values[a] == values[b],
        Values::Boolean(values) => values[a] == values[b],
        Values::String(values) => values.value(a) == values.value(b),
    };
    let mut best = (0, 0, collected.times.first().copied()?);
    let (mut run_start, mut run_count) = (0, 0);
    for row in 0..values.len() {
        if !equal(row, run_start) {
            (run_start, run_count) = (row, 1);
            continue;
        }
        run_count += 1;
        let (_, best_count, best_time) = best;
        if run_count > best_count || run_count == best_count && collected.times[run_start] <= best_time {
            best = (row, run_count, collected.times[row]);
        }
    }
    Some(values.value(best.0))
}

/// Sample deviation, by a running mean in time order, as upstream rounds it; a NaN for fewer than two values.
fn stddev(collected: &mut Collected) -> f64 {
    if collected.len() < 2 {
        return f64::NAN;
    }
    collected.sort_by_time();
    let values: Vec<f64> = match &collected.values {
        Values::Float(values) => values.clone(),
        Values::Integer(values) => values.iter().map(|value| *value as f64).collect(),
        Values::Unsigned(values) => values.iter().map(|value| *value as f64).collect(),
        Values::Boolean(_) | Values::String(_) => return f64::NAN,
    };
    let mut mean = 0.0;
    for (count, value) in values.iter().enumerate() {
        mean += (value - mean) / (count + 1) as f64;
    }
    let variance: f64 = values.iter().map(|value| (value - mean) * (value - mean)).sum();
    (variance / (values.len() - 1) as f64).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_name_the_nearest_rank_or_nothing() {
        assert_eq!(percentile_index(8, 50.0), Some(3));
        assert_eq!(percentile_index(8, 100.0), Some(7));
        assert_eq!(percentile_index(8, 0.0), None);
        assert_eq!(percentile_index(8, 101.0), Some(7));
        assert_eq!(percentile_index(8, 150.0), None);
        assert_eq!(percentile_index(0, 50.0), None);
        assert_eq!(percentile_index(8, f64::NAN), None);
    }
}
