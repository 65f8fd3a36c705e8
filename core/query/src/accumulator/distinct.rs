//! Each value once, with the earliest time that it was seen.

use rkyv::{Archive, Deserialize, Serialize};
use std::collections::BTreeMap;
use std::ops::Range;
use tidemill_column::{FieldType, Value, Values};

/// A value of a known type whose order is the order of values of that type.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Archive, Serialize, Deserialize)]
#[rkyv(derive(PartialEq, Eq, PartialOrd, Ord))]
pub(crate) enum OrderedValue {
    Bits(u64),
    Bytes(Box<[u8]>),
}

const SIGN: u64 = 1 << 63;

impl OrderedValue {
    pub(crate) fn new(value: &Value) -> OrderedValue {
        match value {
            Value::Float(value) => {
                // Adding zero turns a negative zero into the other one: they are one value.
                let bits = (value + 0.0).to_bits();
                OrderedValue::Bits(if bits & SIGN == 0 { bits | SIGN } else { !bits })
            }
            Value::Integer(value) => OrderedValue::Bits(*value as u64 ^ SIGN),
            Value::Unsigned(value) => OrderedValue::Bits(*value),
            Value::Boolean(value) => OrderedValue::Bits(u64::from(*value)),
            Value::String(value) => OrderedValue::Bytes(value.clone()),
        }
    }

    /// The value again, which was of type `field_type`.
    pub(crate) fn value(&self, field_type: FieldType) -> Value {
        match (self, field_type) {
            (OrderedValue::Bytes(bytes), _) => Value::String(bytes.clone()),
            (OrderedValue::Bits(bits), FieldType::Float) => {
                Value::Float(f64::from_bits(if bits & SIGN == 0 { !bits } else { bits ^ SIGN }))
            }
            (OrderedValue::Bits(bits), FieldType::Integer) => Value::Integer((bits ^ SIGN) as i64),
            (OrderedValue::Bits(bits), FieldType::Boolean) => Value::Boolean(*bits == 1),
            (OrderedValue::Bits(bits), _) => Value::Unsigned(*bits),
        }
    }
}

#[derive(Clone, Debug, Archive, Serialize, Deserialize)]
pub(crate) struct DistinctSlots {
    field_type: FieldType,
    slots: Vec<BTreeMap<OrderedValue, i64>>,
    bytes: usize,
}

/// What an entry takes in the tree, about.
const ENTRY_BYTES: usize = 40;

impl DistinctSlots {
    pub(crate) fn new(field_type: FieldType) -> DistinctSlots {
        DistinctSlots { field_type, slots: Vec::new(), bytes: 0 }
    }

    pub(crate) fn is_of(&self, field_type: FieldType, slots: usize) -> bool {
        let is_text = field_type == FieldType::String;
        let fits = |value: &OrderedValue| matches!(value, OrderedValue::Bytes(_)) == is_text;
        let values = self.slots.iter().flat_map(BTreeMap::keys);
        self.field_type == field_type && self.slots.len() == slots && values.into_iter().all(fits)
    }

    pub(crate) fn add_slot(&mut self) {
        self.slots.push(BTreeMap::new());
    }

    fn offer(&mut self, slot: usize, value: OrderedValue, time: i64) {
        let size = ENTRY_BYTES + if let OrderedValue::Bytes(bytes) = &value { bytes.len() } else { 0 };
        let bytes = &mut self.bytes;
        self.slots[slot].entry(value).and_modify(|held| *held = time.min(*held)).or_insert_with(|| {
            *bytes += size;
            time
        });
    }

    pub(crate) fn update(&mut self, slot: usize, times: &[i64], values: &Values, rows: Range<usize>) {
        let mut before = None;
        for row in rows {
            let value = OrderedValue::new(&values.value(row));
            // A run of equal values, in ascending time, says nothing new after its first row.
            if before.as_ref() != Some(&value) {
                self.offer(slot, value.clone(), times[row]);
                before = Some(value);
            }
        }
    }

    pub(crate) fn join(&mut self, slot: usize, other: &mut DistinctSlots, from: usize) {
        for (value, time) in std::mem::take(&mut other.slots[from]) {
            self.offer(slot, value, time);
        }
    }

    pub(crate) fn take(&mut self, slots: &[u32]) -> DistinctSlots {
        let taken = slots.iter().map(|slot| std::mem::take(&mut self.slots[*slot as usize])).collect();
        let mut taken = DistinctSlots { field_type: self.field_type, slots: taken, bytes: 0 };
        for value in taken.slots.iter().flat_map(BTreeMap::keys) {
            taken.bytes += ENTRY_BYTES + if let OrderedValue::Bytes(bytes) = value { bytes.len() } else { 0 };
        }
        self.bytes = self.bytes.saturating_sub(taken.bytes);
        taken
    }

    pub(crate) fn count(&self, slot: usize) -> u64 {
        self.slots[slot].len() as u64
    }

    pub(crate) fn values(&self, slot: usize) -> Vec<(i64, Value)> {
        let mut values: Vec<_> =
            self.slots[slot].iter().map(|(value, time)| (*time, value.value(self.field_type))).collect();
        // Stable, and the tree gives values in their order.
        values.sort_by_key(|(time, _)| *time);
        values
    }

    pub(crate) fn byte_size(&self) -> usize {
        self.bytes + self.slots.len() * 24
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn order_and_value_survive(a in -1e9f64..1e9, b in -1e9f64..1e9, i: i64, j: i64) {
            let (x, y) = (OrderedValue::new(&Value::Float(a)), OrderedValue::new(&Value::Float(b)));
            prop_assert_eq!(x.cmp(&y), a.partial_cmp(&b).unwrap());
            prop_assert_eq!(x.value(FieldType::Float), Value::Float(a));
            let (x, y) = (OrderedValue::new(&Value::Integer(i)), OrderedValue::new(&Value::Integer(j)));
            prop_assert_eq!(x.cmp(&y), i.cmp(&j));
            prop_assert_eq!(x.value(FieldType::Integer), Value::Integer(i));
        }
    }

    #[test]
    fn both_zeros_are_one_value() {
        let mut slots = DistinctSlots::new(FieldType::Float);
        slots.add_slot();
        slots.update(0, &[1, 2], &Values::Float(vec![-0.0, 0.0]), 0..2);
        assert_eq!(slots.values(0), [(1, Value::Float(0.0))]);
    }
}
