//! SHOW statements other than the cardinalities.
//!
//! Owns: columns, names, order and limits of their answers.
//! Invariant: index statements answer from the indexes, so that what has no points left is not shown. With a time range
//! SHOW SERIES, TAG KEYS and TAG VALUES answer from the points, so that only series with points in it are shown: upstream
//! shows those of all shards that the range touches.

use crate::{
    access::may_see,
    data::question::{About, Finding, lossy},
    query::{
        StatementError,
        account::Charge,
        answer_table::{TableColumn, list, table},
        listing::{Listed, SeriesKeys, TagValueTables},
        measurement_filter::MeasurementFilter,
        pieces::Answer,
        running::RunningQueries,
        scope::Scope,
        sources::{Session, store_id, test_of},
    },
};
use std::{
    collections::{BTreeMap, BTreeSet},
    rc::Rc,
};
use tidemill_influxql::{
    GoDurationText, ShowFieldKeys, ShowMeasurements, ShowSeries, ShowTagKeys, ShowTagValues, Source, TimeRange,
    TimestampText,
};
use tidemill_line::series_key::format_key;
use tidemill_meta::{Database, RetentionPolicy, ShardGroup};
use tidemill_query::RowLimit;

/// SHOW DATABASES, in the order of creation: those that the caller may see.
pub(super) fn databases(session: &Session) -> Result<Answer, StatementError> {
    let meta = session.core.meta();
    let names = meta.databases().iter().map(|database| database.name.clone());
    let names = names.filter(|name| may_see(&meta, &session.caller, name)).collect();
    Ok(Answer::of(vec![table("databases", vec![("name", TableColumn::Texts(names))])]))
}

pub(super) fn retention_policies(session: &Session, database: Option<&str>) -> Result<Answer, StatementError> {
    let name = session.database_name(database)?;
    let meta = session.core.meta();
    let database = meta.database(name).ok_or_else(|| StatementError::DatabaseNotFound(name.to_owned()))?;
    let texts = |text: fn(&RetentionPolicy) -> String| database.policies.iter().map(text).collect();
    let columns = vec![
        ("name", TableColumn::Texts(texts(|policy| policy.name.clone()))),
        ("duration", TableColumn::Texts(texts(|policy| GoDurationText(policy.duration_ns).to_string()))),
        (
            "shardGroupDuration",
            TableColumn::Texts(texts(|policy| GoDurationText(policy.shard_group_duration_ns).to_string())),
        ),
        (
            "replicaN",
            TableColumn::Integers(database.policies.iter().map(|policy| i64::from(policy.replicas)).collect()),
        ),
        (
            "default",
            TableColumn::Booleans(
                database.policies.iter().map(|policy| policy.name == database.default_policy).collect(),
            ),
        ),
    ];
    Ok(Answer::of(vec![table("", columns)]))
}

/// SHOW SHARDS: each group has one shard, of the same id.
pub(super) fn shards(session: &Session) -> Result<Answer, StatementError> {
    let meta = session.core.meta();
    let of_database = |database: &Database| {
        let rows: Vec<(&Database, &RetentionPolicy, &ShardGroup)> = groups(database).collect();
        let mut columns = group_columns(&rows);
        let ids = rows.iter().map(|(_, _, group)| group.id.0 as i64).collect();
        columns.insert(3, ("shard_group", TableColumn::Integers(ids)));
        columns.push(("owners", TableColumn::Texts(vec![String::new(); rows.len()])));
        table(&database.name, columns)
    };
    Ok(Answer::of(meta.databases().iter().map(of_database).collect()))
}

pub(super) fn shard_groups(session: &Session) -> Result<Answer, StatementError> {
    let meta = session.core.meta();
    let rows: Vec<_> = meta.databases().iter().flat_map(groups).collect();
    Ok(Answer::of(vec![table("shard groups", group_columns(&rows))]))
}

fn groups(database: &Database) -> impl Iterator<Item = (&Database, &RetentionPolicy, &ShardGroup)> {
    database.policies.iter().flat_map(move |policy| policy.groups.iter().map(move |group| (database, policy, group)))
}

fn group_columns(rows: &[(&Database, &RetentionPolicy, &ShardGroup)]) -> Vec<(&'static str, TableColumn)> {
    let texts = |text: &dyn Fn(&(&Database, &RetentionPolicy, &ShardGroup)) -> String| {
        TableColumn::Texts(rows.iter().map(text).collect())
    };
    vec![
        ("id", TableColumn::Integers(rows.iter().map(|(_, _, group)| group.id.0 as i64).collect())),
        ("database", texts(&|(database, _, _)| database.name.clone())),
        ("retention_policy", texts(&|(_, policy, _)| policy.name.clone())),
        ("start_time", texts(&|(_, _, group)| second_text(group.start_ns))),
        ("end_time", texts(&|(_, _, group)| second_text(group.end_ns))),
        ("expiry_time", texts(&|(_, policy, group)| second_text(group.end_ns.saturating_add(policy.duration_ns)))),
    ]
}

/// The time in whole seconds.
fn second_text(time_ns: i64) -> String {
    TimestampText(time_ns.div_euclid(1_000_000_000).saturating_mul(1_000_000_000)).to_string()
}

/// SHOW MEASUREMENTS: an unknown database has none.
pub(super) async fn measurements(session: &Session, show: &ShowMeasurements) -> Result<Answer, StatementError> {
    let name = session.database_name(show.database.as_deref())?;
    let (range, condition) = session.split_time(show.condition.as_ref())?;
    refuse_time(range, "SHOW MEASUREMENTS")?;
    let database = session.core.meta().database(name).map(store_id);
    let Some(database) = database else { return Ok(Answer::done()) };
    let filter = condition.as_ref().map(MeasurementFilter::new).transpose()?;
    let tests = show.with_measurement.as_ref().map(|measurement| test_of(measurement).into_iter().collect());
    let names: Vec<String> = match filter {
        None => session.measurements(database, tests).await?,
        Some(filter) => filter.measurements(session, database, tests).await?.into_iter().collect(),
    };
    let names = RowLimit::new(show.limit, show.offset).slice(&names).to_vec();
    let charge = charge(session, names.iter().map(String::len))?;
    Ok(Answer::charged(list("measurements", "name", names, usize::MAX), charge))
}

/// SHOW SERIES: canonical keys of the whole database, in byte order.
pub(super) async fn series(session: &Rc<Session>, show: &ShowSeries) -> Result<Answer, StatementError> {
    let scope = Scope::of_policies(session, show.database.as_deref(), &show.sources, show.condition.as_ref())?;
    let limit = RowLimit::new(show.limit, show.offset);
    let Some(found) = scope.tags_in_time(session, None).await? else {
        let runs = scope.list(session, || Listed::Series, limit.rows_max()).await?;
        return Ok(Answer::Keys(Box::new(SeriesKeys::begin(session, runs, limit).await?)));
    };
    let keys = found.iter().flat_map(|found| &found.by_measurement).flat_map(series_keys);
    let mut keys: Vec<String> = keys.collect();
    let charge = charge(session, keys.iter().map(String::len))?;
    // Measurements follow each other by name, and an escaped comma or space may sort otherwise in the keys.
    keys.sort_unstable();
    keys.dedup();
    Ok(Answer::charged(list("", "key", limit.slice(&keys).to_vec(), session.chunk_rows), charge))
}

/// The keys of series with these tags, as SHOW SERIES shows them.
fn series_keys((measurement, tags): (&String, &BTreeSet<Vec<(String, String)>>)) -> Vec<String> {
    let key = |tags: &Vec<(String, String)>| {
        let tags: Vec<(&[u8], &[u8])> = tags.iter().map(|(key, value)| (key.as_bytes(), value.as_bytes())).collect();
        lossy(&format_key(measurement.as_bytes(), &tags))
    };
    tags.iter().map(key).collect()
}

pub(super) async fn tag_keys(session: &Rc<Session>, show: &ShowTagKeys) -> Result<Answer, StatementError> {
    let scope = Scope::of_database(session, show.database.as_deref(), &show.sources, show.condition.as_ref())?;
    let found = match scope.tags_in_time(session, None).await? {
        Some(found) => {
            let mut keys: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
            for (measurement, tags) in found.iter().flat_map(|found| &found.by_measurement) {
                let of_series = tags.iter().flatten().map(|(key, _)| key.clone());
                keys.entry(measurement.clone()).or_default().extend(of_series);
            }
            keys
        }
        None => match scope.ask(session, About::TagKeys).await? {
            Finding::Names(found) => found,
            _ => unreachable!("tag keys are found by measurement"),
        },
    };
    let limit = RowLimit::new(show.limit, show.offset);
    let mut series = Vec::new();
    for (measurement, keys) in found {
        let keys: Vec<String> = keys.into_iter().collect();
        let keys = limit.slice(&keys).to_vec();
        if !keys.is_empty() {
            series.push(table(&measurement, vec![("tagKey", TableColumn::Texts(keys))]));
        }
    }
    Ok(Answer::of(series))
}

/// SHOW TAG VALUES: pairs of tag and value by measurement, each in byte order.
pub(super) async fn tag_values(session: &Rc<Session>, show: &ShowTagValues) -> Result<Answer, StatementError> {
    let scope = Scope::of_database(session, show.database.as_deref(), &show.sources, show.condition.as_ref())?;
    let limit = RowLimit::new(show.limit, show.offset);
    let Some(found) = scope.tags_in_time(session, Some(&show.key)).await? else {
        let runs = scope.list(session, || Listed::TagValues(show.key.clone()), limit.rows_max()).await?;
        return Ok(Answer::TagValues(Box::new(TagValueTables::begin(session, runs, limit))));
    };
    let mut by_measurement: BTreeMap<&str, BTreeSet<&(String, String)>> = BTreeMap::new();
    for (measurement, tags) in found.iter().flat_map(|found| &found.by_measurement) {
        by_measurement.entry(measurement).or_default().extend(tags.iter().flatten());
    }
    let texts = by_measurement.values().flatten();
    let charge = charge(session, texts.map(|(key, value)| key.len() + value.len()))?;
    let mut series = Vec::new();
    for (measurement, pairs) in by_measurement {
        let pairs = Vec::from_iter(pairs);
        let (keys, values): (Vec<String>, Vec<String>) = limit.slice(&pairs).iter().copied().cloned().unzip();
        if !keys.is_empty() {
            let columns = vec![("key", TableColumn::Texts(keys)), ("value", TableColumn::Texts(values))];
            series.push(table(measurement, columns));
        }
    }
    Ok(Answer::charged(series, charge))
}

pub(super) async fn field_keys(session: &Session, show: &ShowFieldKeys) -> Result<Answer, StatementError> {
    let scope = Scope::of_policies(session, show.database.as_deref(), &show.sources, None)?;
    let limit = RowLimit::new(show.limit, show.offset);
    let mut series = Vec::new();
    for measurement in scope.fields(session).await?.into_keys() {
        let fields: Vec<(String, String)> = fields_of_policies(session, show, &measurement)?.into_iter().collect();
        let rows = limit.slice(&fields).iter().cloned();
        let (keys, types): (Vec<String>, Vec<String>) = rows.unzip();
        if !keys.is_empty() {
            let columns = vec![("fieldKey", TableColumn::Texts(keys)), ("fieldType", TableColumn::Texts(types))];
            series.push(table(&measurement, columns));
        }
    }
    Ok(Answer::of(series))
}

/// The fields of a measurement in the retention policies that the statement names or leaves to defaults, with the names
/// of their types.
fn fields_of_policies(
    session: &Session,
    show: &ShowFieldKeys,
    measurement: &str,
) -> Result<BTreeSet<(String, String)>, StatementError> {
    let named = show.sources.iter().filter_map(|source| match source {
        Source::Measurement(source) => Some((source.database.as_deref(), source.retention_policy.as_deref())),
        Source::Subquery(_) => None,
    });
    let mut policies: BTreeSet<_> = named.collect();
    if policies.is_empty() {
        policies.insert((None, None));
    }
    let meta = session.core.meta();
    let mut fields = BTreeSet::new();
    for (database, policy) in policies {
        let name = session.database_name(database.or(show.database.as_deref()))?;
        let Some(database) = meta.database(name) else { continue };
        let policy = database.policy(policy.or(session.retention_policy.as_deref()));
        for group in policy.into_iter().flat_map(|policy| &policy.groups) {
            let of_group = meta.field_types().fields(group.id, measurement.as_bytes());
            fields.extend(of_group.map(|(name, kind)| (lossy(name), kind.to_string())));
        }
    }
    Ok(fields)
}

/// SHOW QUERIES, this one included.
pub(super) fn queries(session: &Session) -> Result<Answer, StatementError> {
    let now_ns = session.core.context().clock.monotonic_ns();
    let queries = RunningQueries::of_process().list();
    let texts = |text: &dyn Fn(&crate::query::account::RunningQuery) -> String| {
        TableColumn::Texts(queries.iter().map(|query| text(query)).collect())
    };
    let status = |killed| if killed { "killed" } else { "running" };
    let columns = vec![
        ("qid", TableColumn::Integers(queries.iter().map(|query| query.id as i64).collect())),
        ("query", texts(&|query| query.text.clone())),
        ("database", texts(&|query| query.database.clone())),
        ("duration", texts(&|query| running_text(now_ns.saturating_sub(query.started_ns)))),
        ("status", texts(&|query| status(query.is_killed()).to_owned())),
    ];
    Ok(Answer::of(vec![table("", columns)]))
}

/// A duration without what is below its largest of s, ms and us.
pub(super) fn running_text(duration_ns: u64) -> String {
    let unit = [1_000_000_000, 1_000_000, 1_000].into_iter().find(|unit| duration_ns >= *unit).unwrap_or(1_000);
    GoDurationText((duration_ns / unit * unit) as i64).to_string()
}

/// # Errors
/// There is a time bound where upstream takes none.
pub(super) fn refuse_time(range: TimeRange, statement: &str) -> Result<(), StatementError> {
    if range == TimeRange::default() {
        return Ok(());
    }
    Err(StatementError::Invalid(format!("{statement} doesn't support time in WHERE clause")))
}

/// Charges what texts of these lengths take.
pub(super) fn charge(session: &Session, lengths: impl Iterator<Item = usize>) -> Result<Charge, StatementError> {
    let mut charge = session.query.charge();
    charge.set(lengths.map(|length| length + size_of::<String>()).sum())?;
    Ok(charge)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn running_times_keep_their_largest_unit() {
        for (duration_ns, text) in [
            (0, "0s"),
            (999, "0s"),
            (12_345, "12µs"),
            (9_876_543, "9ms"),
            (1_999_999_999, "1s"),
            (61_500_000_000, "1m1s"),
        ] {
            assert_eq!(running_text(duration_ns), text);
        }
    }

    #[test]
    fn bounds_of_shards_show_whole_seconds() {
        assert_eq!(second_text(0), "1970-01-01T00:00:00Z");
        assert_eq!(second_text(-1), "1969-12-31T23:59:59Z");
        assert_eq!(second_text(1_500_000_000_999_999_999), "2017-07-14T02:40:00Z");
        assert!(second_text(i64::MIN).starts_with("1677-09-21T00:12:4"));
    }
}
