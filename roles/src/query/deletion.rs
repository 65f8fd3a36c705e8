//! DELETE, DROP SERIES, DROP MEASUREMENT and DROP FIELD: points of some series, in all retention policies of the database.
//!
//! Invariant: DROP SERIES with a condition that names a field changes nothing; DELETE with one deletes the points that
//! satisfy it, as a query finds them.

use crate::{
    data::question::MeasurementTest,
    query::{
        StatementError,
        measurement_filter::MeasurementFilter,
        pieces::Answer,
        point_search::delete_points,
        show::refuse_time,
        sources::{Session, copy, store_id, test_of},
    },
};
use std::rc::Rc;
use tidemill_column::{TIME_MAX, TIME_MIN};
use tidemill_influxql::{DataType, Expr, Measurement, TimeRange};
use tidemill_meta::{Command, Database, FieldDefinition, Meta};
use tidemill_query::TagFilter;
use tidemill_store::{Command as StoreCommand, DatabaseId, Measurements, TagCondition};

pub(super) async fn delete(
    session: &Rc<Session>,
    sources: &[Measurement],
    condition: Option<&Expr>,
) -> Result<Answer, StatementError> {
    let database = database(session)?;
    let whole = condition;
    let (range, condition) = session.split_time(condition)?;
    if let (Some(whole), Some(rest)) = (whole, &condition)
        && !rest.var_refs().iter().any(|name| name.name == "_name")
    {
        let tests = (!sources.is_empty()).then(|| sources.iter().filter_map(test_of).collect());
        let measurements = session.measurements(database, tests).await?;
        let names_field = {
            let meta = session.core.meta();
            let known = meta.database_by_id(tidemill_meta::DatabaseId(database.0));
            known.is_some_and(|known| group_with_field(&meta, known, &measurements, rest, range).is_some())
        };
        if names_field {
            delete_points(session, database, &measurements, whole, range).await?;
            forget_empty(session, database, measurements).await?;
            return Ok(Answer::done());
        }
    }
    remove(session, database, sources, condition.as_ref(), range).await
}

pub(super) async fn drop_series(
    session: &Session,
    sources: &[Measurement],
    condition: Option<&Expr>,
) -> Result<Answer, StatementError> {
    let database = database(session)?;
    let (range, condition) = session.split_time(condition)?;
    refuse_time(range, "DROP SERIES")?;
    remove(session, database, sources, condition.as_ref(), range).await
}

pub(super) async fn drop_measurement(session: &Session, name: String) -> Result<Answer, StatementError> {
    remove(session, database(session)?, &[Measurement::named(name)], None, TimeRange::default()).await
}

/// In this order: 1. the points go; 2. the field leaves the metadata; 3. writes that had looked its old type up have ended;
/// 4. what they wrote goes. Without 3 and 4 such rows would be there with a type that nobody knows; without 1 all of them
/// would be after a crash behind 2. Rows that give the field a type anew before 4 came before the statement ended.
pub(super) async fn drop_field(
    session: &Session,
    field: String,
    measurement: String,
) -> Result<Answer, StatementError> {
    let database = database(session)?;
    let tests = Some(vec![MeasurementTest::Name(measurement.clone())]);
    let measurements = session.measurements(database, tests).await?;
    if measurements.is_empty() {
        return Ok(Answer::done());
    }
    let of = tidemill_meta::DatabaseId(database.0);
    let (measurement, field) = (measurement.into_bytes(), field.into_bytes());
    let forget = Command::ForgetField { database: of, measurement: measurement.clone(), field: field.clone() };
    let drop = StoreCommand::DropField { database: database.0, measurement, field };
    session.core.change_store(drop.clone()).await?;
    session.core.change_meta(forget).await?;
    session.core.outwait_writes().await?;
    session.core.change_store(drop).await?;
    forget_empty(session, database, measurements).await?;
    Ok(Answer::done())
}

/// The request's database. Upstream does not complain of a missing name here, but of an unknown empty one.
fn database(session: &Session) -> Result<DatabaseId, StatementError> {
    let meta = session.core.meta();
    let found = meta.database(&session.database).map(store_id);
    found.ok_or_else(|| StatementError::DatabaseNotFound(session.database.clone()))
}

async fn remove(
    session: &Session,
    database: DatabaseId,
    sources: &[Measurement],
    condition: Option<&Expr>,
    range: TimeRange,
) -> Result<Answer, StatementError> {
    let tests: Option<Vec<MeasurementTest>> =
        (!sources.is_empty()).then(|| sources.iter().filter_map(test_of).collect());
    let measurements =
        session.measurements(database, tests.as_ref().map(|tests| tests.iter().map(copy).collect())).await?;
    if range.is_empty() || measurements.is_empty() {
        return Ok(Answer::done());
    }
    let deletions = match condition {
        None => wanted(tests.as_deref()).into_iter().map(|wanted| (wanted, TagCondition::All)).collect(),
        Some(condition) => {
            let meta = session.core.meta();
            let known = meta.database_by_id(tidemill_meta::DatabaseId(database.0));
            let known = known.ok_or_else(|| StatementError::DatabaseNotFound(session.database.clone()))?;
            refuse_fields(&meta, known, &measurements, condition, range)?;
            // A comparison that tags do not have would match nothing or everything: neither is what was meant.
            MeasurementFilter::new(condition)?;
            conditional(&measurements, condition)
        }
    };
    let (min_time, max_time) = (range.min_ns.unwrap_or(TIME_MIN), range.max_ns.unwrap_or(TIME_MAX));
    for (measurements, condition) in deletions {
        let command = StoreCommand::Delete { database: database.0, measurements, condition, min_time, max_time };
        session.core.change_store(command).await?;
    }
    forget_empty(session, database, measurements).await?;
    Ok(Answer::done())
}

/// Takes the fields of measurements that have no series left out of the metadata. A write that had looked them up before
/// may bring a series back: then they come back as well, unless another write gave them types meanwhile.
async fn forget_empty(session: &Session, database: DatabaseId, candidates: Vec<String>) -> Result<(), StatementError> {
    let tests = candidates.iter().cloned().map(MeasurementTest::Name).collect();
    let left = session.measurements(database, Some(tests)).await?;
    let gone: Vec<String> = candidates.into_iter().filter(|name| left.binary_search(name).is_err()).collect();
    if gone.is_empty() {
        return Ok(());
    }
    let of = tidemill_meta::DatabaseId(database.0);
    let mut forgotten: Vec<(&String, Command)> = Vec::new();
    for name in &gone {
        let known = definitions(&session.core.meta(), of, name.as_bytes());
        forgotten.extend(known.into_iter().map(|command| (name, command)));
        let command = Command::ForgetMeasurement { database: of, measurement: name.as_bytes().to_vec() };
        session.core.change_meta(command).await?;
    }
    session.core.outwait_writes().await?;
    let tests = gone.iter().cloned().map(MeasurementTest::Name).collect();
    let back = session.measurements(database, Some(tests)).await?;
    for (_, define) in forgotten.into_iter().filter(|(name, _)| back.binary_search(name).is_ok()) {
        session.core.change_meta(define).await?;
    }
    Ok(())
}

/// The fields of a measurement as they are defined now, one command a shard group.
fn definitions(meta: &Meta, database: tidemill_meta::DatabaseId, measurement: &[u8]) -> Vec<Command> {
    let policies = meta.database_by_id(database).map(|known| known.policies.as_slice()).unwrap_or_default();
    let groups = policies.iter().flat_map(|policy| &policy.groups).map(|group| group.id);
    let of_group = |group| {
        let fields: Vec<FieldDefinition> = meta
            .field_types()
            .fields(group, measurement)
            .map(|(name, field_type)| FieldDefinition::new(name, field_type))
            .collect();
        (!fields.is_empty()).then(|| Command::DefineFields { group, measurement: measurement.to_vec(), fields })
    };
    groups.filter_map(of_group).collect()
}

/// The measurements of a deletion without a condition, as the store takes them.
fn wanted(tests: Option<&[MeasurementTest]>) -> Vec<Measurements> {
    let Some(tests) = tests else { return vec![Measurements::All] };
    let mut names = Vec::new();
    let mut wanted = Vec::new();
    for test in tests {
        match test {
            MeasurementTest::Name(name) => names.push(name.as_bytes().to_vec()),
            MeasurementTest::Regex(regex) => wanted.push(Measurements::Matching(regex.program().as_str().to_owned())),
        }
    }
    if !names.is_empty() {
        wanted.push(Measurements::Named(names));
    }
    wanted
}

/// The measurements with what the condition says of their tags; those with the same condition together.
fn conditional(measurements: &[String], condition: &Expr) -> Vec<(Measurements, TagCondition)> {
    let mut deletions: Vec<(Vec<Vec<u8>>, TagFilter)> = Vec::new();
    for measurement in measurements {
        let filter = TagFilter::of_show(condition, measurement, &|_| false);
        if filter == TagFilter::None {
            continue;
        }
        let name = measurement.as_bytes().to_vec();
        match deletions.iter_mut().find(|(_, known)| *known == filter) {
            Some((names, _)) => names.push(name),
            None => deletions.push((vec![name], filter)),
        }
    }
    deletions.into_iter().map(|(names, filter)| (Measurements::Named(names), tag_condition(&filter))).collect()
}

/// # Errors
/// The condition names a field of a measurement; upstream says so for a shard that has it.
fn refuse_fields(
    meta: &Meta,
    database: &Database,
    measurements: &[String],
    condition: &Expr,
    range: TimeRange,
) -> Result<(), StatementError> {
    let Some(group) = group_with_field(meta, database, measurements, condition, range) else { return Ok(()) };
    let text = format!("shard {group}: fields not supported in WHERE clause during deletion");
    Err(StatementError::Invalid(text))
}

/// A shard group in which a measurement has a field that the condition names.
fn group_with_field(
    meta: &Meta,
    database: &Database,
    measurements: &[String],
    condition: &Expr,
    range: TimeRange,
) -> Option<u64> {
    let groups = database.policies.iter().flat_map(|p| p.groups_in(range.min_or_first(), range.max_or_last()));
    let mut groups: Vec<u64> = groups.map(|group| group.id.0).collect();
    groups.sort_unstable();
    for reference in condition.var_refs() {
        let is_cast = matches!(reference.data_type, Some(data_type) if data_type != DataType::Tag);
        if reference.name == "_name" || reference.data_type == Some(DataType::Tag) {
            continue;
        }
        let has_field = |group: &&u64| {
            let group = tidemill_meta::ShardGroupId(**group);
            let field_type = |measurement: &String| {
                meta.field_types().field_type(group, measurement.as_bytes(), reference.name.as_bytes())
            };
            measurements.iter().any(|measurement| is_cast || field_type(measurement).is_some())
        };
        if let Some(group) = groups.iter().find(has_field) {
            return Some(*group);
        }
    }
    None
}

/// A filter as it travels in the log.
fn tag_condition(filter: &TagFilter) -> TagCondition {
    let bytes = |text: &String| text.as_bytes().to_vec();
    match filter {
        TagFilter::All => TagCondition::All,
        TagFilter::None => TagCondition::Or(Vec::new()),
        TagFilter::And(parts) => TagCondition::And(parts.iter().map(tag_condition).collect()),
        TagFilter::Or(parts) => TagCondition::Or(parts.iter().map(tag_condition).collect()),
        TagFilter::Equal { tag, value } => TagCondition::Equal { key: bytes(tag), value: bytes(value) },
        TagFilter::NotEqual { tag, value } => TagCondition::NotEqual { key: bytes(tag), value: bytes(value) },
        TagFilter::Match { tag, regex } => {
            TagCondition::Matches { key: bytes(tag), regex: regex.program().as_str().to_owned() }
        }
        TagFilter::NotMatch { tag, regex } => {
            TagCondition::NotMatches { key: bytes(tag), regex: regex.program().as_str().to_owned() }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidemill_influxql::{RegexLiteral, parse_expr};

    fn equal(key: &str, value: &str) -> TagCondition {
        TagCondition::Equal { key: key.as_bytes().to_vec(), value: value.as_bytes().to_vec() }
    }

    fn named(names: &[&str]) -> Measurements {
        Measurements::Named(names.iter().map(|name| name.as_bytes().to_vec()).collect())
    }

    #[test]
    fn measurements_of_one_condition_are_deleted_together() {
        let measurements = ["cpu".to_owned(), "mem".to_owned(), "net".to_owned()];
        let deletions = |text: &str| conditional(&measurements, &parse_expr(text).unwrap());
        assert_eq!(deletions("host = 'a'"), [(named(&["cpu", "mem", "net"]), equal("host", "a"))]);
        assert_eq!(deletions("_name = 'mem' AND host = 'a'"), [(named(&["mem"]), equal("host", "a"))]);
        assert_eq!(
            deletions("_name = 'mem' OR host = 'a'"),
            [(named(&["cpu", "net"]), equal("host", "a")), (named(&["mem"]), TagCondition::All)]
        );
        assert_eq!(deletions("host = 3"), []);
    }

    #[test]
    fn conditions_travel_as_the_index_understands_them() {
        let deletions =
            conditional(&["cpu".to_owned()], &parse_expr("host !~ /a.c/ AND (dc = '' OR dc != 'x')").unwrap());
        let not_equal = TagCondition::NotEqual { key: b"dc".to_vec(), value: b"x".to_vec() };
        let regex = RegexLiteral::new("a.c").unwrap().program().as_str().to_owned();
        let not_match = TagCondition::NotMatches { key: b"host".to_vec(), regex };
        let expected = TagCondition::And(vec![not_match, TagCondition::Or(vec![equal("dc", ""), not_equal])]);
        assert_eq!(deletions, [(named(&["cpu"]), expected.clone())]);
        assert!(expected.compile().is_ok());
    }

    #[test]
    fn sources_without_a_condition_stay_patterns() {
        assert_eq!(wanted(None), [Measurements::All]);
        let tests = ["a", "b"].map(|name| MeasurementTest::Name(name.to_owned()));
        assert_eq!(wanted(Some(&tests)), [named(&["a", "b"])]);
        let regex = RegexLiteral::new("^c").unwrap();
        let tests = [MeasurementTest::Regex(regex), MeasurementTest::Name("a".to_owned())];
        assert_eq!(wanted(Some(&tests)).len(), 2);
    }
}
