//! Expressions over columns: arithmetic of the SELECT list and comparisons of conditions, many rows at a time.
//!
//! Owns the value rules of arithmetic: integers wrap, a division by zero gives zero, a NaN is no value, no value on
//! either side gives no value. Types were checked when the plan was made; a mismatch that is left gives no value.
//! The leaves are numbered; what they stand for (fields, tags, results of functions) is the caller's.

use crate::math::MathFunction;
use std::borrow::Cow;
use tidemill_column::{Bitmap, Column, FieldType, Value, Values};
use tidemill_influxql::{BinaryOperator, RegexLiteral};

/// An expression whose names are resolved.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum EvalExpr {
    Leaf(usize),
    Literal(Value),
    /// No value in any row.
    Nil,
    Binary {
        operator: BinaryOperator,
        left: Box<EvalExpr>,
        right: Box<EvalExpr>,
        /// Whether `/` between integers truncates, as it does in WHERE but not in the SELECT list.
        integer_division: bool,
    },
    Math {
        function: MathFunction,
        arguments: Vec<EvalExpr>,
    },
}

/// What an expression is over some rows.
pub(crate) enum Evaluated<'a> {
    Column(Cow<'a, Column>),
    Constant(Value),
    Nil,
}

/// The rows that expressions are evaluated over.
pub(crate) trait Leaves {
    fn row_count(&self) -> usize;

    /// The rows of a leaf; `None` when none of them has a value.
    fn leaf(&self, leaf: usize) -> Option<Cow<'_, Column>>;
}

impl EvalExpr {
    pub(crate) fn evaluate<'a>(&self, leaves: &'a impl Leaves) -> Evaluated<'a> {
        match self {
            EvalExpr::Leaf(leaf) => leaves.leaf(*leaf).map_or(Evaluated::Nil, Evaluated::Column),
            EvalExpr::Literal(value) => Evaluated::Constant(value.clone()),
            EvalExpr::Nil => Evaluated::Nil,
            EvalExpr::Binary { operator, left, right, integer_division } => {
                let (left, right) = (left.evaluate(leaves), right.evaluate(leaves));
                arithmetic(*operator, &left, &right, *integer_division)
            }
            EvalExpr::Math { function, arguments } => {
                let arguments: Vec<Evaluated<'_>> = arguments.iter().map(|one| one.evaluate(leaves)).collect();
                math(*function, &arguments)
            }
        }
    }

    /// The rows as a column of type `field_type`.
    pub(crate) fn column<'a>(&self, leaves: &'a impl Leaves, field_type: FieldType) -> Cow<'a, Column> {
        let rows = leaves.row_count();
        match self.evaluate(leaves) {
            Evaluated::Column(column) if column.values.field_type() == field_type => column,
            Evaluated::Column(column) => match crate::rows::convert(&column, field_type) {
                Some(converted) => Cow::Owned(converted.into_owned()),
                None => Cow::Owned(Column::absent(field_type, rows)),
            },
            Evaluated::Constant(value) if value.field_type() == field_type => {
                let mut column = Column::new(field_type);
                (0..rows).for_each(|_| column.push(&value));
                Cow::Owned(column)
            }
            Evaluated::Constant(_) | Evaluated::Nil => Cow::Owned(Column::absent(field_type, rows)),
        }
    }
}

/// One side of an operator: a value a row, or one for all rows.
enum Operand<'a, T: Clone> {
    Rows(Cow<'a, [T]>),
    Constant(T),
}

impl<T: Copy> Operand<'_, T> {
    fn combine<R>(&self, other: &Operand<'_, T>, rows: usize, f: impl Fn(T, T) -> R) -> Vec<R> {
        match (self, other) {
            (Operand::Rows(left), Operand::Rows(right)) => {
                left.iter().zip(right.iter()).map(|(left, right)| f(*left, *right)).collect()
            }
            (Operand::Rows(left), Operand::Constant(right)) => left.iter().map(|left| f(*left, *right)).collect(),
            (Operand::Constant(left), Operand::Rows(right)) => right.iter().map(|right| f(*left, *right)).collect(),
            (Operand::Constant(left), Operand::Constant(right)) => (0..rows).map(|_| f(*left, *right)).collect(),
        }
    }
}

impl Evaluated<'_> {
    fn field_type(&self) -> Option<FieldType> {
        match self {
            Evaluated::Column(column) => Some(column.values.field_type()),
            Evaluated::Constant(value) => Some(value.field_type()),
            Evaluated::Nil => None,
        }
    }

    fn floats(&self) -> Option<Operand<'_, f64>> {
        Some(match self {
            Evaluated::Column(column) => match &column.values {
                Values::Float(values) => Operand::Rows(Cow::Borrowed(values)),
                Values::Integer(values) => Operand::Rows(values.iter().map(|value| *value as f64).collect()),
                Values::Unsigned(values) => Operand::Rows(values.iter().map(|value| *value as f64).collect()),
                Values::Boolean(_) | Values::String(_) => return None,
            },
            Evaluated::Constant(Value::Float(value)) => Operand::Constant(*value),
            Evaluated::Constant(Value::Integer(value)) => Operand::Constant(*value as f64),
            Evaluated::Constant(Value::Unsigned(value)) => Operand::Constant(*value as f64),
            Evaluated::Constant(_) | Evaluated::Nil => return None,
        })
    }

    fn integers(&self) -> Option<Operand<'_, i64>> {
        match self {
            Evaluated::Column(column) => match &column.values {
                Values::Integer(values) => Some(Operand::Rows(Cow::Borrowed(values))),
                _ => None,
            },
            Evaluated::Constant(Value::Integer(value)) => Some(Operand::Constant(*value)),
            Evaluated::Constant(_) | Evaluated::Nil => None,
        }
    }

    /// Unsigned values, and integer constants that are not negative.
    fn unsigned(&self) -> Option<Operand<'_, u64>> {
        match self {
            Evaluated::Column(column) => match &column.values {
                Values::Unsigned(values) => Some(Operand::Rows(Cow::Borrowed(values))),
                _ => None,
            },
            Evaluated::Constant(Value::Unsigned(value)) => Some(Operand::Constant(*value)),
            Evaluated::Constant(Value::Integer(value)) => u64::try_from(*value).ok().map(Operand::Constant),
            Evaluated::Constant(_) | Evaluated::Nil => None,
        }
    }

    fn booleans(&self) -> Option<Operand<'_, bool>> {
        match self {
            Evaluated::Column(column) => match &column.values {
                Values::Boolean(values) => Some(Operand::Rows(Cow::Borrowed(values))),
                _ => None,
            },
            Evaluated::Constant(Value::Boolean(value)) => Some(Operand::Constant(*value)),
            Evaluated::Constant(_) | Evaluated::Nil => None,
        }
    }

    fn row_count(&self) -> usize {
        if let Evaluated::Column(column) = self { column.len() } else { 1 }
    }

    fn valid(&self) -> Option<&Bitmap> {
        if let Evaluated::Column(column) = self { column.valid.as_ref() } else { None }
    }
}

fn both_valid(left: Option<&Bitmap>, right: Option<&Bitmap>) -> Option<Bitmap> {
    match (left, right) {
        (None, None) => None,
        (Some(one), None) | (None, Some(one)) => Some(one.clone()),
        (Some(left), Some(right)) => {
            let mut valid = Bitmap::new();
            (0..left.len()).for_each(|row| valid.push(left.bit(row) && right.bit(row)));
            Some(valid)
        }
    }
}

/// A column of floats in which a NaN is no value.
fn float_column(values: Vec<f64>, mut valid: Option<Bitmap>) -> Column {
    if values.iter().any(|value| value.is_nan()) {
        let bitmap = valid.get_or_insert_with(|| Bitmap::filled(values.len(), true));
        for (row, value) in values.iter().enumerate() {
            if value.is_nan() {
                bitmap.clear_bit(row);
            }
        }
    }
    Column { values: Values::Float(values), valid }
}

fn arithmetic<'a>(
    operator: BinaryOperator,
    left: &Evaluated<'_>,
    right: &Evaluated<'_>,
    integer_division: bool,
) -> Evaluated<'a> {
    use BinaryOperator as Op;
    let rows = left.row_count().max(right.row_count());
    let (Some(left_type), Some(right_type)) = (left.field_type(), right.field_type()) else { return Evaluated::Nil };
    let valid = both_valid(left.valid(), right.valid());
    let column = if left_type == FieldType::Float || right_type == FieldType::Float {
        let (Some(left), Some(right)) = (left.floats(), right.floats()) else { return Evaluated::Nil };
        let values = match operator {
            Op::Add => left.combine(&right, rows, |a, b| a + b),
            Op::Subtract => left.combine(&right, rows, |a, b| a - b),
            Op::Multiply => left.combine(&right, rows, |a, b| a * b),
            Op::Divide => left.combine(&right, rows, |a, b| if b == 0.0 { 0.0 } else { a / b }),
            Op::Modulo => left.combine(&right, rows, |a, b| a % b),
            _ => return Evaluated::Nil,
        };
        float_column(values, valid)
    } else if let (Some(a), Some(b)) = (left.integers(), right.integers()) {
        if operator == Op::Divide && !integer_division {
            let divide = |a: i64, b: i64| if b == 0 { 0.0 } else { a as f64 / b as f64 };
            float_column(a.combine(&b, rows, divide), valid)
        } else {
            let values = match operator {
                Op::Add => a.combine(&b, rows, i64::wrapping_add),
                Op::Subtract => a.combine(&b, rows, i64::wrapping_sub),
                Op::Multiply => a.combine(&b, rows, i64::wrapping_mul),
                Op::Divide => a.combine(&b, rows, |a, b| if b == 0 { 0 } else { a.wrapping_div(b) }),
                Op::Modulo => a.combine(&b, rows, |a, b| if b == 0 { 0 } else { a.wrapping_rem(b) }),
                Op::BitwiseAnd => a.combine(&b, rows, |a, b| a & b),
                Op::BitwiseOr => a.combine(&b, rows, |a, b| a | b),
                Op::BitwiseXor => a.combine(&b, rows, |a, b| a ^ b),
                _ => return Evaluated::Nil,
            };
            Column { values: Values::Integer(values), valid }
        }
    } else if let (Some(a), Some(b)) = (left.unsigned(), right.unsigned()) {
        let values = match operator {
            Op::Add => a.combine(&b, rows, u64::wrapping_add),
            Op::Subtract => a.combine(&b, rows, u64::wrapping_sub),
            Op::Multiply => a.combine(&b, rows, u64::wrapping_mul),
            Op::Divide => a.combine(&b, rows, |a, b| a.checked_div(b).unwrap_or(0)),
            Op::Modulo => a.combine(&b, rows, |a, b| a.checked_rem(b).unwrap_or(0)),
            Op::BitwiseAnd => a.combine(&b, rows, |a, b| a & b),
            Op::BitwiseOr => a.combine(&b, rows, |a, b| a | b),
            Op::BitwiseXor => a.combine(&b, rows, |a, b| a ^ b),
            _ => return Evaluated::Nil,
        };
        Column { values: Values::Unsigned(values), valid }
    } else if let (Some(a), Some(b)) = (left.booleans(), right.booleans()) {
        let values = match operator {
            Op::BitwiseAnd => a.combine(&b, rows, |a, b| a & b),
            Op::BitwiseOr => a.combine(&b, rows, |a, b| a | b),
            Op::BitwiseXor => a.combine(&b, rows, |a, b| a ^ b),
            _ => return Evaluated::Nil,
        };
        Column { values: Values::Boolean(values), valid }
    } else {
        return Evaluated::Nil;
    };
    match (left, right) {
        (Evaluated::Constant(_), Evaluated::Constant(_)) => column.value(0).map_or(Evaluated::Nil, Evaluated::Constant),
        _ => Evaluated::Column(Cow::Owned(column)),
    }
}

/// A function of single values, row by row.
fn math<'a>(function: MathFunction, arguments: &[Evaluated<'_>]) -> Evaluated<'a> {
    let column = match arguments {
        [Evaluated::Constant(value)] => match value {
            Value::Integer(value) if function.is_integral() => {
                return Evaluated::Constant(Value::Integer(function.of_integer(*value)));
            }
            Value::Unsigned(_) if function.is_integral() => return Evaluated::Constant(value.clone()),
            value => match crate::math::number(value).map(|value| function.of_float(value)) {
                Some(value) if !value.is_nan() => return Evaluated::Constant(Value::Float(value)),
                _ => return Evaluated::Nil,
            },
        },
        [Evaluated::Column(column)] => match &column.values {
            Values::Integer(values) if function.is_integral() => {
                let values = values.iter().map(|value| function.of_integer(*value)).collect();
                Column { values: Values::Integer(values), valid: column.valid.clone() }
            }
            Values::Unsigned(_) if function.is_integral() => column.as_ref().clone(),
            _ => {
                let Some(values) = arguments[0].floats() else { return Evaluated::Nil };
                let values = values.combine(&Operand::Constant(0.0), column.len(), |value, _| function.of_float(value));
                float_column(values, column.valid.clone())
            }
        },
        [first, second] => {
            let rows = first.row_count().max(second.row_count());
            let (Some(a), Some(b)) = (first.floats(), second.floats()) else { return Evaluated::Nil };
            let values = a.combine(&b, rows, |a, b| function.of_floats(a, b));
            let column = float_column(values, both_valid(first.valid(), second.valid()));
            if let (Evaluated::Constant(_), Evaluated::Constant(_)) = (first, second) {
                return column.value(0).map_or(Evaluated::Nil, Evaluated::Constant);
            }
            column
        }
        _ => return Evaluated::Nil,
    };
    Evaluated::Column(Cow::Owned(column))
}

/// Which of `rows` rows satisfy the comparison. A row without a value on either side does not, whatever the operator;
/// neither do sides of types that do not compare.
pub(crate) fn compare(operator: BinaryOperator, left: &Evaluated<'_>, right: &Evaluated<'_>, rows: usize) -> Vec<bool> {
    use BinaryOperator as Op;
    let none = || vec![false; rows];
    let (Some(left_type), Some(right_type)) = (left.field_type(), right.field_type()) else { return none() };

    fn ordered<T: PartialOrd + Copy>(
        operator: BinaryOperator,
        a: &Operand<'_, T>,
        b: &Operand<'_, T>,
        rows: usize,
    ) -> Vec<bool> {
        match operator {
            Op::Equal => a.combine(b, rows, |a, b| a == b),
            Op::NotEqual => a.combine(b, rows, |a, b| a != b),
            Op::Less => a.combine(b, rows, |a, b| a < b),
            Op::LessOrEqual => a.combine(b, rows, |a, b| a <= b),
            Op::Greater => a.combine(b, rows, |a, b| a > b),
            Op::GreaterOrEqual => a.combine(b, rows, |a, b| a >= b),
            _ => vec![false; rows],
        }
    }

    let mut mask = if left_type == FieldType::Float || right_type == FieldType::Float {
        let (Some(a), Some(b)) = (left.floats(), right.floats()) else { return none() };
        ordered(operator, &a, &b, rows)
    } else if let (Some(a), Some(b)) = (left.integers(), right.integers()) {
        ordered(operator, &a, &b, rows)
    } else if let (Some(a), Some(b)) = (left.unsigned(), right.unsigned()) {
        ordered(operator, &a, &b, rows)
    } else if let (Some(a), Some(b)) = (left.booleans(), right.booleans()) {
        match operator {
            Op::Equal | Op::NotEqual => ordered(operator, &a, &b, rows),
            _ => return none(),
        }
    } else if left_type == FieldType::String && right_type == FieldType::String {
        match operator {
            Op::Equal => (0..rows).map(|row| text(left, row) == text(right, row)).collect(),
            Op::NotEqual => (0..rows).map(|row| text(left, row) != text(right, row)).collect(),
            _ => return none(),
        }
    } else {
        // What is left are an integer and an unsigned value, which compare by their numeric values, and sides
        // that do not compare at all.
        match (wide(left), wide(right)) {
            (Some(a), Some(b)) => ordered(operator, &a, &b, rows),
            _ => return none(),
        }
    };
    clear_invalid(&mut mask, left.valid());
    clear_invalid(&mut mask, right.valid());
    mask
}

/// Which of `rows` rows of strings match; a row without a value does not, negated or not.
pub(crate) fn matches(value: &Evaluated<'_>, regex: &RegexLiteral, negated: bool, rows: usize) -> Vec<bool> {
    if value.field_type() != Some(FieldType::String) {
        return vec![false; rows];
    }
    let mut mask: Vec<bool> = (0..rows).map(|row| regex.is_match(text(value, row)) != negated).collect();
    clear_invalid(&mut mask, value.valid());
    mask
}

/// Which of `rows` rows are true.
pub(crate) fn truth(value: &Evaluated<'_>, rows: usize) -> Vec<bool> {
    let mut mask = match value.booleans() {
        Some(Operand::Rows(values)) => values.to_vec(),
        Some(Operand::Constant(value)) => vec![value; rows],
        None => vec![false; rows],
    };
    clear_invalid(&mut mask, value.valid());
    mask
}

fn text<'a>(side: &'a Evaluated<'_>, row: usize) -> &'a [u8] {
    match side {
        Evaluated::Column(column) => match &column.values {
            Values::String(values) => values.value(row),
            _ => b"",
        },
        Evaluated::Constant(Value::String(value)) => value,
        Evaluated::Constant(_) | Evaluated::Nil => b"",
    }
}

fn wide<'a>(side: &Evaluated<'_>) -> Option<Operand<'a, i128>> {
    Some(match side {
        Evaluated::Column(column) => match &column.values {
            Values::Integer(values) => Operand::Rows(values.iter().map(|value| i128::from(*value)).collect()),
            Values::Unsigned(values) => Operand::Rows(values.iter().map(|value| i128::from(*value)).collect()),
            _ => return None,
        },
        Evaluated::Constant(Value::Integer(value)) => Operand::Constant(i128::from(*value)),
        Evaluated::Constant(Value::Unsigned(value)) => Operand::Constant(i128::from(*value)),
        Evaluated::Constant(_) | Evaluated::Nil => return None,
    })
}

fn clear_invalid(mask: &mut [bool], valid: Option<&Bitmap>) {
    if let Some(valid) = valid {
        mask.iter_mut().enumerate().for_each(|(row, set)| *set = *set && valid.bit(row));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct One(Vec<Column>);

    impl Leaves for One {
        fn row_count(&self) -> usize {
            self.0[0].len()
        }

        fn leaf(&self, leaf: usize) -> Option<Cow<'_, Column>> {
            self.0.get(leaf).map(Cow::Borrowed)
        }
    }

    fn binary(operator: BinaryOperator, left: EvalExpr, right: EvalExpr, integer_division: bool) -> EvalExpr {
        EvalExpr::Binary { operator, left: Box::new(left), right: Box::new(right), integer_division }
    }

    fn value(expr: &EvalExpr, leaves: &One) -> Option<Value> {
        match expr.evaluate(leaves) {
            Evaluated::Column(column) => column.value(0),
            Evaluated::Constant(value) => Some(value),
            Evaluated::Nil => None,
        }
    }

    #[test]
    fn divisions_by_zero_give_zero_and_the_smallest_integer_survives_minus_one() {
        let leaves = One(vec![
            Column::dense(Values::Integer(vec![i64::MIN])),
            Column::dense(Values::Integer(vec![-1])),
            Column::dense(Values::Float(vec![0.0])),
            Column::dense(Values::Integer(vec![0])),
        ]);
        let leaf = EvalExpr::Leaf;
        let cases = [
            (BinaryOperator::Divide, 0, 1, true, Some(Value::Integer(i64::MIN))),
            (BinaryOperator::Modulo, 0, 1, true, Some(Value::Integer(0))),
            (BinaryOperator::Divide, 0, 3, true, Some(Value::Integer(0))),
            (BinaryOperator::Divide, 0, 3, false, Some(Value::Float(0.0))),
            (BinaryOperator::Divide, 1, 2, false, Some(Value::Float(0.0))),
            (BinaryOperator::Modulo, 1, 2, false, None),
            (BinaryOperator::Modulo, 0, 3, false, Some(Value::Integer(0))),
        ];
        for (operator, left, right, integer_division, expected) in cases {
            let found = value(&binary(operator, leaf(left), leaf(right), integer_division), &leaves);
            assert_eq!(found, expected, "{left} {operator:?} {right}");
        }
    }

    #[test]
    fn a_missing_value_satisfies_no_comparison() {
        let mut column = Column::dense(Values::Float(vec![1.0]));
        column.push_null();
        let side = Evaluated::Column(Cow::Borrowed(&column));
        for operator in [BinaryOperator::NotEqual, BinaryOperator::Equal, BinaryOperator::Less] {
            assert!(!compare(operator, &side, &Evaluated::Constant(Value::Float(0.0)), 2)[1]);
            assert!(!compare(operator, &side, &Evaluated::Nil, 2)[0]);
        }
        assert_eq!(compare(BinaryOperator::Equal, &side, &Evaluated::Constant(Value::Integer(1)), 2), [true, false]);
    }

    #[test]
    fn integers_and_unsigned_values_compare_by_number() {
        let big = Column::dense(Values::Unsigned(vec![u64::MAX, 0]));
        let side = Evaluated::Column(Cow::Owned(big));
        let minus = Column::dense(Values::Integer(vec![-1, 0]));
        let other = Evaluated::Column(Cow::Owned(minus));
        assert_eq!(compare(BinaryOperator::Equal, &side, &other, 2), [false, true]);
        assert_eq!(compare(BinaryOperator::Greater, &side, &Evaluated::Constant(Value::Integer(-5)), 2), [true, true]);
    }
}
