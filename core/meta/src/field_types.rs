//! Which type a field has, per shard group: the first writer decides.

use crate::{FieldDefinition, ShardGroupId};
use rkyv::{Archive, Deserialize, Serialize};
use std::collections::BTreeMap;
use tidemill_column::FieldType;

/// Codes of types by field.
type Fields = BTreeMap<Vec<u8>, u8>;

/// Types by group, measurement and field.
#[derive(Clone, Debug, Default, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct FieldTypes {
    groups: BTreeMap<ShardGroupId, BTreeMap<Vec<u8>, Fields>>,
}

impl FieldTypes {
    /// The type of a field in a group, if it has one there.
    pub fn field_type(&self, group: ShardGroupId, measurement: &[u8], field: &[u8]) -> Option<FieldType> {
        let code = self.groups.get(&group)?.get(measurement)?.get(field)?;
        FieldType::from_code(*code)
    }

    /// The fields of a measurement in a group, in the order of their names.
    pub fn fields(&self, group: ShardGroupId, measurement: &[u8]) -> impl Iterator<Item = (&[u8], FieldType)> {
        let fields = self.groups.get(&group).and_then(|measurements| measurements.get(measurement));
        fields
            .into_iter()
            .flatten()
            .filter_map(|(name, code)| FieldType::from_code(*code).map(|field_type| (name.as_slice(), field_type)))
    }

    pub(crate) fn define(&mut self, group: ShardGroupId, measurement: Vec<u8>, fields: Vec<FieldDefinition>) {
        let known = self.groups.entry(group).or_default().entry(measurement).or_default();
        for field in fields {
            if FieldType::from_code(field.type_code).is_some() {
                known.entry(field.name).or_insert(field.type_code);
            }
        }
    }

    pub(crate) fn forget_group(&mut self, group: ShardGroupId) {
        self.groups.remove(&group);
    }

    pub(crate) fn forget_field(
        &mut self,
        groups: impl Iterator<Item = ShardGroupId>,
        measurement: &[u8],
        field: &[u8],
    ) {
        for group in groups {
            if let Some(fields) = self.groups.get_mut(&group).and_then(|known| known.get_mut(measurement)) {
                fields.remove(field);
            }
        }
    }

    pub(crate) fn forget_measurement(&mut self, groups: impl Iterator<Item = ShardGroupId>, measurement: &[u8]) {
        for group in groups {
            if let Some(measurements) = self.groups.get_mut(&group) {
                measurements.remove(measurement);
            }
        }
    }
}
