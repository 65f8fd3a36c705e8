//! One field's values over some rows.

use crate::{Bitmap, FieldType, Strings, Value};
use rkyv::{Archive, Deserialize, Serialize};

/// Dense values of one type; a row without a value holds the type's zero and a cleared validity bit.
#[derive(Clone, Debug, PartialEq, Archive, Serialize, Deserialize)]
pub enum Values {
    Float(Vec<f64>),
    Integer(Vec<i64>),
    Boolean(Vec<bool>),
    String(Strings),
    Unsigned(Vec<u64>),
}

impl Values {
    pub fn new(field_type: FieldType) -> Values {
        match field_type {
            FieldType::Float => Values::Float(Vec::new()),
            FieldType::Integer => Values::Integer(Vec::new()),
            FieldType::Boolean => Values::Boolean(Vec::new()),
            FieldType::String => Values::String(Strings::new()),
            FieldType::Unsigned => Values::Unsigned(Vec::new()),
        }
    }

    pub fn field_type(&self) -> FieldType {
        match self {
            Values::Float(_) => FieldType::Float,
            Values::Integer(_) => FieldType::Integer,
            Values::Boolean(_) => FieldType::Boolean,
            Values::String(_) => FieldType::String,
            Values::Unsigned(_) => FieldType::Unsigned,
        }
    }

    pub fn len(&self) -> usize {
        match self {
            Values::Float(values) => values.len(),
            Values::Integer(values) => values.len(),
            Values::Boolean(values) => values.len(),
            Values::String(values) => values.len(),
            Values::Unsigned(values) => values.len(),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// As [`Column::is_sound`].
    pub fn is_sound(&self, field_type: FieldType, rows: usize) -> bool {
        let strings_are = match self {
            Values::String(values) => values.is_sound(),
            _ => true,
        };
        self.field_type() == field_type && self.len() == rows && strings_are
    }

    /// Bytes that the values take, for budgets.
    pub fn byte_size(&self) -> usize {
        match self {
            Values::Float(values) => values.len() * 8,
            Values::Integer(values) => values.len() * 8,
            Values::Boolean(values) => values.len(),
            Values::String(values) => values.byte_size() + values.len() * 4,
            Values::Unsigned(values) => values.len() * 8,
        }
    }

    /// The value of row `row`, whether valid or not.
    pub fn value(&self, row: usize) -> Value {
        match self {
            Values::Float(values) => Value::Float(values[row]),
            Values::Integer(values) => Value::Integer(values[row]),
            Values::Boolean(values) => Value::Boolean(values[row]),
            Values::String(values) => Value::String(values.value(row).into()),
            Values::Unsigned(values) => Value::Unsigned(values[row]),
        }
    }

    /// Appends the type's zero: the place holder of a row without a value.
    pub fn push_zero(&mut self) {
        match self {
            Values::Float(values) => values.push(0.0),
            Values::Integer(values) => values.push(0),
            Values::Boolean(values) => values.push(false),
            Values::String(values) => values.push(b""),
            Values::Unsigned(values) => values.push(0),
        }
    }

    /// Appends row `row` of `from`.
    ///
    /// # Panics
    /// If the types differ.
    pub fn push_from(&mut self, from: &Values, row: usize) {
        match (self, from) {
            (Values::Float(to), Values::Float(from)) => to.push(from[row]),
            (Values::Integer(to), Values::Integer(from)) => to.push(from[row]),
            (Values::Boolean(to), Values::Boolean(from)) => to.push(from[row]),
            (Values::String(to), Values::String(from)) => to.push(from.value(row)),
            (Values::Unsigned(to), Values::Unsigned(from)) => to.push(from[row]),
            (to, from) => panic!("a {} row into a {} column", from.field_type(), to.field_type()),
        }
    }

    /// Appends rows `rows` of `from`.
    ///
    /// # Panics
    /// If the types differ.
    pub fn extend_from(&mut self, from: &Values, rows: std::ops::Range<usize>) {
        match (self, from) {
            (Values::Float(to), Values::Float(from)) => to.extend_from_slice(&from[rows]),
            (Values::Integer(to), Values::Integer(from)) => to.extend_from_slice(&from[rows]),
            (Values::Boolean(to), Values::Boolean(from)) => to.extend_from_slice(&from[rows]),
            (Values::String(to), Values::String(from)) => rows.for_each(|row| to.push(from.value(row))),
            (Values::Unsigned(to), Values::Unsigned(from)) => to.extend_from_slice(&from[rows]),
            (to, from) => panic!("{} rows into a {} column", from.field_type(), to.field_type()),
        }
    }

    /// Appends a value.
    ///
    /// # Panics
    /// If its type is another one.
    pub fn push(&mut self, value: &Value) {
        match (self, value) {
            (Values::Float(to), Value::Float(value)) => to.push(*value),
            (Values::Integer(to), Value::Integer(value)) => to.push(*value),
            (Values::Boolean(to), Value::Boolean(value)) => to.push(*value),
            (Values::String(to), Value::String(value)) => to.push(value),
            (Values::Unsigned(to), Value::Unsigned(value)) => to.push(*value),
            (to, value) => panic!("a {} value into a {} column", value.field_type(), to.field_type()),
        }
    }

    pub fn truncate(&mut self, rows: usize) {
        match self {
            Values::Float(values) => values.truncate(rows),
            Values::Integer(values) => values.truncate(rows),
            Values::Boolean(values) => values.truncate(rows),
            Values::String(values) => values.truncate(rows),
            Values::Unsigned(values) => values.truncate(rows),
        }
    }
}

/// Values with validity: `valid` absent means that every row holds a value.
#[derive(Clone, Debug, PartialEq, Archive, Serialize, Deserialize)]
pub struct Column {
    pub values: Values,
    pub valid: Option<Bitmap>,
}

impl Column {
    pub fn new(field_type: FieldType) -> Column {
        Column { values: Values::new(field_type), valid: None }
    }

    /// A column in which every row holds a value.
    pub fn dense(values: Values) -> Column {
        Column { values, valid: None }
    }

    /// `rows` rows of which none holds a value.
    pub fn absent(field_type: FieldType, rows: usize) -> Column {
        let mut column = Column::new(field_type);
        (0..rows).for_each(|_| column.push_null());
        column
    }

    pub fn len(&self) -> usize {
        self.values.len()
    }

    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    pub fn is_valid(&self, row: usize) -> bool {
        self.valid.as_ref().is_none_or(|valid| valid.bit(row))
    }

    /// Rows that hold a value.
    pub fn valid_count(&self) -> usize {
        self.valid.as_ref().map_or(self.len(), Bitmap::count_ones)
    }

    /// The value of row `row`, if it holds one.
    pub fn value(&self, row: usize) -> Option<Value> {
        self.is_valid(row).then(|| self.values.value(row))
    }

    /// Appends a row without a value.
    pub fn push_null(&mut self) {
        let rows = self.len();
        self.valid.get_or_insert_with(|| Bitmap::filled(rows, true)).push(false);
        self.values.push_zero();
    }

    /// Appends a value.
    ///
    /// # Panics
    /// If its type is another one.
    pub fn push(&mut self, value: &Value) {
        self.values.push(value);
        if let Some(valid) = &mut self.valid {
            valid.push(true);
        }
    }

    /// Appends row `row` of `from`, with or without a value.
    ///
    /// # Panics
    /// If the types differ.
    pub fn push_from(&mut self, from: &Column, row: usize) {
        if from.is_valid(row) {
            self.values.push_from(&from.values, row);
            if let Some(valid) = &mut self.valid {
                valid.push(true);
            }
        } else {
            self.push_null();
        }
    }

    /// Appends rows `rows` of `from`.
    ///
    /// # Panics
    /// If the types differ.
    pub fn extend_from(&mut self, from: &Column, rows: std::ops::Range<usize>) {
        if from.valid.is_some() {
            rows.for_each(|row| self.push_from(from, row));
            return;
        }
        if let Some(valid) = &mut self.valid {
            rows.clone().for_each(|_| valid.push(true));
        }
        self.values.extend_from(&from.values, rows);
    }

    pub fn truncate(&mut self, rows: usize) {
        self.values.truncate(rows);
        if let Some(valid) = &mut self.valid {
            valid.truncate(rows);
        }
    }

    /// Whether it is one of this type and so many rows that could have been made here; one that came from elsewhere may
    /// not be.
    pub fn is_sound(&self, field_type: FieldType, rows: usize) -> bool {
        self.values.is_sound(field_type, rows) && self.valid.as_ref().is_none_or(|valid| valid.is_sound(rows))
    }

    /// Bytes that the column takes, for budgets.
    pub fn byte_size(&self) -> usize {
        self.values.byte_size() + self.valid.as_ref().map_or(0, |valid| valid.len() / 8)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn validity_appears_with_the_first_null_and_survives_appends() {
        let mut column = Column::new(FieldType::Integer);
        column.push(&Value::Integer(7));
        assert!(column.valid.is_none());
        column.push_null();
        column.push(&Value::Integer(8));
        assert_eq!((column.value(0), column.value(1)), (Some(Value::Integer(7)), None));
        let mut copy = Column::new(FieldType::Integer);
        copy.extend_from(&column, 1..3);
        assert_eq!((copy.value(0), copy.value(1), copy.valid_count()), (None, Some(Value::Integer(8)), 1));
        let mut late = Column::absent(FieldType::Integer, 2);
        late.extend_from(&Column::dense(Values::Integer(vec![1, 2])), 0..2);
        assert_eq!((late.value(1), late.value(3)), (None, Some(Value::Integer(2))));
    }
}
