//! What the sources have: fields with their types, tag keys, and what a name means among them.

use rkyv::{Archive, Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use tidemill_column::FieldType;
use tidemill_influxql::{Call, DataType, Expr, RegexLiteral, VarRef, WildcardKind};

use crate::QueryError;
use crate::compile::CompiledField;
use crate::functions::Function;
use crate::math::MathFunction;
use crate::names::name_of;
use crate::stream::StreamFunction;

/// One measurement that a source came to.
#[derive(Clone, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct SourceSchema {
    /// Index into [`Compiled::sources`](crate::Compiled::sources), or of a statement in FROM.
    pub source: SourceIndex,
    pub database: String,
    pub retention_policy: String,
    pub measurement: String,
    /// Where shards differ in the type, the winner of [`winner`].
    pub fields: BTreeMap<String, FieldType>,
    pub tag_keys: BTreeSet<String>,
}

/// Which source.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub enum SourceIndex {
    Measurement(usize),
    /// Index into [`Compiled::subqueries`](crate::Compiled::subqueries).
    Subquery(usize),
}

/// Which of two types a field has whose shards differ: float, integer, unsigned, string, boolean.
pub fn winner(a: FieldType, b: FieldType) -> FieldType {
    const ORDER: [FieldType; 5] =
        [FieldType::Float, FieldType::Integer, FieldType::Unsigned, FieldType::String, FieldType::Boolean];
    ORDER.into_iter().find(|one| *one == a || *one == b).unwrap_or(a)
}

/// What a name means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Meaning {
    /// A field, read as this type.
    Field(FieldType),
    Tag,
    /// Neither, so that it never has a value.
    Nothing,
}

/// The fields and tags of all sources together.
#[derive(Debug, Default)]
pub(crate) struct Names {
    pub fields: BTreeMap<String, FieldType>,
    pub tags: BTreeSet<String>,
    /// Tags of statements in FROM: functions take them as texts.
    pub inner_tags: BTreeSet<String>,
}

/// What `::type` asks for, if it is a field's type.
pub(crate) fn cast_type(data_type: DataType) -> Option<FieldType> {
    Some(match data_type {
        DataType::Float => FieldType::Float,
        DataType::Integer => FieldType::Integer,
        DataType::Unsigned => FieldType::Unsigned,
        DataType::String => FieldType::String,
        DataType::Boolean => FieldType::Boolean,
        DataType::Tag | DataType::AnyField => return None,
    })
}

/// The `::type` of a field's type.
pub(crate) fn data_type(field_type: FieldType) -> DataType {
    match field_type {
        FieldType::Float => DataType::Float,
        FieldType::Integer => DataType::Integer,
        FieldType::Unsigned => DataType::Unsigned,
        FieldType::String => DataType::String,
        FieldType::Boolean => DataType::Boolean,
    }
}

/// What a name means where `fields` and `is_tag` are known: a field hides a tag of the same name.
pub(crate) fn meaning(name: &VarRef, fields: &BTreeMap<String, FieldType>, is_tag: bool) -> Meaning {
    match (name.data_type, fields.get(&name.name)) {
        (None | Some(DataType::AnyField), Some(field_type)) => Meaning::Field(*field_type),
        (Some(DataType::Tag), _) | (None, None) if is_tag => Meaning::Tag,
        (Some(cast), Some(_)) => cast_type(cast).map_or(Meaning::Nothing, Meaning::Field),
        _ => Meaning::Nothing,
    }
}

/// A name that a wildcard may stand for, by name, a field before a tag of the same name.
struct Candidate {
    name: String,
    field_type: Option<FieldType>,
}

impl Candidate {
    fn expr(&self) -> Expr {
        let data_type = self.field_type.map_or(DataType::Tag, data_type);
        Expr::VarRef(VarRef { name: self.name.clone(), data_type: Some(data_type) })
    }

    fn matches(&self, kind: WildcardKind) -> bool {
        match kind {
            WildcardKind::All => true,
            WildcardKind::Field => self.field_type.is_some(),
            WildcardKind::Tag => self.field_type.is_none(),
        }
    }
}

impl Names {
    pub(crate) fn of(schemas: &[SourceSchema]) -> Names {
        let mut names = Names::default();
        for schema in schemas {
            for (name, field_type) in &schema.fields {
                let merged = names.fields.get(name).map_or(*field_type, |other| winner(*other, *field_type));
                names.fields.insert(name.clone(), merged);
            }
            names.tags.extend(schema.tag_keys.iter().cloned());
            if matches!(schema.source, SourceIndex::Subquery(_)) {
                names.inner_tags.extend(schema.tag_keys.iter().cloned());
            }
        }
        names
    }

    pub(crate) fn meaning(&self, name: &VarRef) -> Meaning {
        // Measurement and key of a series can be shown beside fields, as tags are.
        let is_shown = matches!(name.name.as_str(), "_name" | "_seriesKey");
        meaning(name, &self.fields, is_shown || self.tags.contains(&name.name))
    }

    /// The GROUP BY tags, sorted, wildcards and regular expressions replaced.
    pub(crate) fn dimensions(&self, dimensions: &[Expr]) -> Vec<String> {
        let mut expanded = BTreeSet::new();
        for dimension in dimensions {
            match dimension.without_parens() {
                Expr::VarRef(name) => {
                    expanded.insert(name.name.clone());
                }
                Expr::Wildcard(_) => expanded.extend(self.tags.iter().cloned()),
                Expr::Regex(regex) => {
                    let matching = self.tags.iter().filter(|tag| regex.is_match(tag.as_bytes()));
                    expanded.extend(matching.cloned());
                }
                _ => {}
            }
        }
        expanded.into_iter().collect()
    }

    /// The SELECT list with wildcards and regular expressions replaced.
    ///
    /// # Errors
    /// A function over all tags.
    pub(crate) fn expand(
        &self,
        fields: &[CompiledField],
        dimensions: &[Expr],
    ) -> Result<Vec<CompiledField>, QueryError> {
        let candidates = self.candidates(dimensions);
        let mut expanded = Vec::new();
        for field in fields {
            match &field.expr {
                Expr::Wildcard(kind) => {
                    let matching = candidates.iter().filter(|candidate| candidate.matches(*kind));
                    expanded.extend(matching.map(|one| CompiledField { expr: one.expr(), alias: None }));
                }
                Expr::Regex(regex) => {
                    let matching = candidates.iter().filter(|candidate| regex.is_match(candidate.name.as_bytes()));
                    expanded.extend(matching.map(|one| CompiledField { expr: one.expr(), alias: None }));
                }
                Expr::Call(call) => match innermost(call).arguments.first() {
                    Some(Expr::Wildcard(WildcardKind::Tag)) => {
                        let name = &innermost(call).name;
                        return Err(QueryError::invalid(format!("unable to use tag wildcard in {name}()")));
                    }
                    Some(Expr::Wildcard(_)) => self.expand_call(field, &candidates, None, &mut expanded)?,
                    Some(Expr::Regex(regex)) => self.expand_call(field, &candidates, Some(regex), &mut expanded)?,
                    _ => expanded.push(field.clone()),
                },
                _ => expanded.push(field.clone()),
            }
        }
        Ok(expanded)
    }

    fn expand_call(
        &self,
        field: &CompiledField,
        candidates: &[Candidate],
        regex: Option<&RegexLiteral>,
        expanded: &mut Vec<CompiledField>,
    ) -> Result<(), QueryError> {
        let Expr::Call(call) = &field.expr else { return Ok(()) };
        let inner = innermost(call);
        let accepts: Box<dyn Fn(FieldType) -> bool> = match MathFunction::named(&inner.name) {
            Some(_) => Box::new(|field_type| !matches!(field_type, FieldType::String | FieldType::Boolean)),
            None => match StreamFunction::named(&inner.name) {
                Some(function) => Box::new(move |field_type| function.accepts(field_type)),
                None => {
                    let function = Function::named(&inner.name)?;
                    Box::new(move |field_type| function.accepts(field_type))
                }
            },
        };
        let prefix = field.alias.clone().unwrap_or_else(|| name_of(&field.expr));
        for candidate in candidates {
            let accepted = candidate.field_type.is_some_and(&accepts)
                && regex.is_none_or(|regex| regex.is_match(candidate.name.as_bytes()));
            if accepted {
                let mut call = call.clone();
                set_innermost(&mut call, candidate.expr());
                let alias = Some(format!("{prefix}_{}", candidate.name));
                expanded.push(CompiledField { expr: Expr::Call(call), alias });
            }
        }
        Ok(())
    }

    /// What wildcards stand for: without fields nothing; tags only where no dimension is a wildcard, and not those that
    /// are grouped by.
    fn candidates(&self, dimensions: &[Expr]) -> Vec<Candidate> {
        if self.fields.is_empty() {
            return Vec::new();
        }
        let mut candidates: Vec<Candidate> = self
            .fields
            .iter()
            .map(|(name, field_type)| Candidate { name: name.clone(), field_type: Some(*field_type) })
            .collect();
        if !dimensions.iter().any(|dimension| matches!(dimension, Expr::Wildcard(_) | Expr::Regex(_))) {
            let grouped = self.dimensions(dimensions);
            let free = self.tags.iter().filter(|tag| !grouped.contains(tag));
            candidates.extend(free.map(|name| Candidate { name: name.clone(), field_type: None }));
        }
        // Stable: fields stand in front of tags.
        candidates.sort_by(|a, b| a.name.cmp(&b.name));
        candidates
    }
}

/// The call that a wildcard stands in: calls are looked through by their first arguments.
fn innermost(call: &Call) -> &Call {
    match call.arguments.first() {
        Some(Expr::Call(inner)) => innermost(inner),
        _ => call,
    }
}

fn set_innermost(call: &mut Call, argument: Expr) {
    match call.arguments.first_mut() {
        Some(Expr::Call(inner)) => set_innermost(inner, argument),
        Some(first) => *first = argument,
        None => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_winner_does_not_depend_on_the_order() {
        for a in FieldType::ALL {
            for b in FieldType::ALL {
                assert_eq!(winner(a, b), winner(b, a));
            }
        }
        assert_eq!(winner(FieldType::Boolean, FieldType::String), FieldType::String);
        assert_eq!(winner(FieldType::Unsigned, FieldType::Integer), FieldType::Integer);
    }
}
