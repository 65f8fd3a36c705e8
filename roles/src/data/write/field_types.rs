//! Types of fields: the first writer of a shard group decides, and everybody hears it from the metadata.

use super::rejection::Rejections;
use crate::data::core::DataCore;
use std::{
    collections::{BTreeMap, BTreeSet},
    rc::Rc,
};
use tidemill_column::FieldType;
use tidemill_http::WriteOutcome;
use tidemill_line::{Parsed, ShardGroupRange};
use tidemill_meta::{Command as MetaCommand, FieldDefinition, Meta, ShardGroupId};

/// Fields without a type yet, by shard group (its place in the list) and measurement.
type NewFields = BTreeMap<(usize, Vec<u8>), BTreeMap<Vec<u8>, FieldType>>;

impl DataCore {
    /// Leaves out the rows whose fields have other types, after the new fields got theirs.
    pub(super) async fn settle_types(
        self: &Rc<Self>,
        parsed: &Parsed<'_>,
        groups: &[ShardGroupRange],
        rejections: &mut Rejections,
    ) -> Result<(), WriteOutcome> {
        let mut used = used_schemas(parsed, groups, rejections);
        let (mut new, clashing) = new_fields(&self.meta(), parsed, groups, &used);
        for group in &clashing {
            let range = groups[*group];
            rejections.refuse_batch(parsed, "field type conflict", |row| in_group(&range, row.time));
            used.retain(|(used, _)| used != group);
            new.retain(|(of, _), _| of != group);
        }
        for ((group, measurement), fields) in new {
            let fields = fields.iter().map(|(name, field_type)| FieldDefinition::new(name, *field_type)).collect();
            let command = MetaCommand::DefineFields { group: ShardGroupId(groups[group].id), measurement, fields };
            self.change_meta_surely(command).await.map_err(|error| self.meta_failed(error))?;
        }
        let conflicts = conflicts(&self.meta(), parsed, groups, &used);
        for ((group, schema), why) in conflicts {
            let range = groups[group];
            rejections.refuse(parsed, &why, |row| row.schema == schema && in_group(&range, row.time));
        }
        Ok(())
    }
}

fn in_group(range: &ShardGroupRange, time: i64) -> bool {
    range.start <= time && time < range.end
}

/// Which schemas the kept rows of each group have.
fn used_schemas(parsed: &Parsed<'_>, groups: &[ShardGroupRange], rejections: &Rejections) -> BTreeSet<(usize, u32)> {
    let mut used = BTreeSet::new();
    let mut last = (usize::MAX, u32::MAX);
    for (number, row) in parsed.rows().iter().enumerate() {
        let group = match groups.get(last.0).filter(|range| in_group(range, row.time)) {
            Some(_) => last.0,
            None => groups.partition_point(|range| range.end <= row.time),
        };
        if (group, row.schema) != last && rejections.keeps(number) {
            last = (group, row.schema);
            used.insert(last);
        }
    }
    used
}

/// Fields that no writer has given a type yet, and groups in which this body gives one two.
fn new_fields(
    meta: &Meta,
    parsed: &Parsed<'_>,
    groups: &[ShardGroupRange],
    used: &BTreeSet<(usize, u32)>,
) -> (NewFields, BTreeSet<usize>) {
    let (mut new, mut clashing) = (NewFields::new(), BTreeSet::new());
    for (group, schema) in used {
        let schema = parsed.schema(*schema);
        let measurement = schema.measurement();
        for (name, field_type) in schema.fields() {
            let id = ShardGroupId(groups[*group].id);
            if meta.field_types().field_type(id, &measurement, name).is_some() {
                continue;
            }
            let fields = new.entry((*group, measurement.to_vec())).or_default();
            if *fields.entry(name.to_vec()).or_insert(field_type) != field_type {
                clashing.insert(*group);
            }
        }
    }
    (new, clashing)
}

/// Schemas with a field of another type, and the text of the first of those fields.
fn conflicts(
    meta: &Meta,
    parsed: &Parsed<'_>,
    groups: &[ShardGroupRange],
    used: &BTreeSet<(usize, u32)>,
) -> Vec<((usize, u32), String)> {
    let mut conflicts = Vec::new();
    for (group, number) in used {
        let schema = parsed.schema(*number);
        let measurement = schema.measurement();
        let id = ShardGroupId(groups[*group].id);
        let conflict = schema.fields().find_map(|(name, field_type)| {
            let existing = meta.field_types().field_type(id, &measurement, name)?;
            (existing != field_type).then_some((name, field_type, existing))
        });
        if let Some((name, field_type, existing)) = conflict {
            let (name, measurement) = (String::from_utf8_lossy(name), String::from_utf8_lossy(&measurement));
            let why = format!(
                "field type conflict: input field \"{name}\" on measurement \"{measurement}\" is type {field_type}, \
                 already exists as type {existing}"
            );
            conflicts.push(((*group, *number), why));
        }
    }
    conflicts
}
