//! SHOW ... CARDINALITY. All figures are exact, those under the estimates' column names too, and a series counts once
//! however many shards it has points in. They are the indexes' own counts; with a condition on tags, those of postings.
//! Only the values of a tag have to be looked at, as a value may be in several partitions; and with GROUP BY, the keys of
//! all series.

use crate::{
    data::question::{About, Filter, Finding},
    query::{
        StatementError,
        answer_table::number,
        pieces::Answer,
        scope::Scope,
        show::{charge, refuse_time},
        sources::{Session, store_id},
    },
};
use std::collections::{BTreeMap, BTreeSet};
use tidemill_influxql::{Expr, ShowCardinality, ShowTagValuesCardinality, TagKeyFilter};
use tidemill_line::series_key;
use tidemill_query::{ResultSeries, RowLimit};

/// Measurement ("" for all of them) and values of the tags that are grouped by, and the things that are counted there.
type Groups = BTreeMap<(String, Vec<String>), BTreeSet<String>>;

pub(super) async fn series(session: &Session, show: &ShowCardinality) -> Result<Answer, StatementError> {
    if !show.is_exact() {
        return estimate(session, show, |counts| counts.values().sum()).await;
    }
    let scope = scope(session, show, Some("SHOW SERIES EXACT CARDINALITY"))?;
    if !show.dimensions.is_empty() {
        return grouped(session, show, &scope, |_, key, _| vec![key.to_owned()], true).await;
    }
    Ok(per_measurement(show, series_counts(session, &scope).await?))
}

pub(super) async fn measurements(session: &Session, show: &ShowCardinality) -> Result<Answer, StatementError> {
    if !show.is_exact() {
        return estimate(session, show, |counts| counts.len() as u64).await;
    }
    let scope = scope(session, show, Some("SHOW MEASUREMENT EXACT CARDINALITY"))?;
    if !show.dimensions.is_empty() {
        return grouped(session, show, &scope, |measurement, _, _| vec![measurement.to_owned()], false).await;
    }
    let count = series_counts(session, &scope).await?.len() as u64;
    Ok(per_measurement(show, BTreeMap::from([(String::new(), count)])))
}

pub(super) async fn tag_keys(session: &Session, show: &ShowCardinality) -> Result<Answer, StatementError> {
    let scope = scope(session, show, Some("SHOW TAG KEY EXACT CARDINALITY"))?;
    if !show.dimensions.is_empty() {
        let keys = |_: &str, _: &str, tags: &BTreeMap<String, String>| tags.keys().cloned().collect();
        return grouped(session, show, &scope, keys, true).await;
    }
    let Finding::Names(found) = scope.ask(session, About::TagKeys).await? else {
        unreachable!("tag keys are found by measurement")
    };
    let counts = found.into_iter().map(|(measurement, keys)| (measurement, keys.len() as u64));
    Ok(per_measurement(show, counts.collect()))
}

pub(super) async fn field_keys(session: &Session, show: &ShowCardinality) -> Result<Answer, StatementError> {
    let scope = scope(session, show, Some("SHOW FIELD KEY CARDINALITY"))?;
    let fields = scope.fields(session).await?.into_iter().map(|(measurement, fields)| {
        let names: BTreeSet<String> = fields.into_iter().map(|(name, _)| name).collect();
        (measurement, names)
    });
    let fields: BTreeMap<String, BTreeSet<String>> = fields.collect();
    if !show.dimensions.is_empty() {
        let names = |measurement: &str, _: &str, _: &BTreeMap<String, String>| {
            fields.get(measurement).into_iter().flatten().cloned().collect()
        };
        return grouped(session, show, &scope, names, true).await;
    }
    Ok(per_measurement(
        show,
        fields.into_iter().map(|(measurement, names)| (measurement, names.len() as u64)).collect(),
    ))
}

pub(super) async fn tag_values(session: &Session, show: &ShowTagValuesCardinality) -> Result<Answer, StatementError> {
    let scope = scope(session, &show.clauses, None)?;
    if !show.clauses.dimensions.is_empty() {
        let values = |_: &str, _: &str, tags: &BTreeMap<String, String>| values_of(&show.key, tags);
        return grouped(session, &show.clauses, &scope, values, true).await;
    }
    let Finding::Distinct(found) = scope.ask(session, About::TagValueCount(show.key.clone())).await? else {
        unreachable!("tag values are told apart")
    };
    let mut counts = BTreeMap::new();
    for (measurement, mut distinct) in found {
        let mut total = 0;
        while let Some(count) = distinct.count_next() {
            total += count;
            session.core.context().yield_now_if_needed().await;
        }
        counts.insert(measurement, total);
    }
    Ok(per_measurement(&show.clauses, counts))
}

/// One figure of a database; an unknown one has nothing.
async fn estimate(
    session: &Session,
    show: &ShowCardinality,
    figure: fn(&BTreeMap<String, u64>) -> u64,
) -> Result<Answer, StatementError> {
    let name = session.database_name(show.database.as_deref())?;
    let database = session.core.meta().database(name).map(store_id);
    let counts = match database {
        Some(database) => session.ask(database, None, Filter::All, About::SeriesCount).await?,
        None => Finding::Counts(BTreeMap::new()),
    };
    let Finding::Counts(counts) = counts else { unreachable!("series are counted") };
    Ok(Answer::of(vec![number("", "cardinality estimation", figure(&counts))]))
}

async fn series_counts(session: &Session, scope: &Scope) -> Result<BTreeMap<String, u64>, StatementError> {
    match scope.ask(session, About::SeriesCount).await? {
        Finding::Counts(counts) => Ok(counts),
        _ => unreachable!("series are counted"),
    }
}

/// `statement` is named where it takes no time bounds.
fn scope(session: &Session, show: &ShowCardinality, statement: Option<&str>) -> Result<Scope, StatementError> {
    if let Some(statement) = statement {
        let (range, _) = session.split_time(show.condition.as_ref())?;
        refuse_time(range, statement)?;
    }
    Scope::of_policies(session, show.database.as_deref(), &show.sources, show.condition.as_ref())
}

/// A table for each measurement that has any; LIMIT and OFFSET count the one row of each.
fn per_measurement(show: &ShowCardinality, counts: BTreeMap<String, u64>) -> Answer {
    if RowLimit::new(show.limit, show.offset).window(0, 1).is_empty() {
        return Answer::done();
    }
    let some = counts.into_iter().filter(|(_, count)| *count > 0);
    let tables: Vec<ResultSeries> = some.map(|(measurement, count)| number(&measurement, "count", count)).collect();
    Answer::of(tables)
}

/// Values of the tags that are meant.
fn values_of(key: &TagKeyFilter, tags: &BTreeMap<String, String>) -> Vec<String> {
    tags.iter().filter(|(name, _)| key.accepts(name)).map(|(name, value)| format!("{name}={value}")).collect()
}

/// The figure of each group: `counted` gives what there is to count of a series, by its measurement, its key and its
/// tags.
async fn grouped(
    session: &Session,
    show: &ShowCardinality,
    scope: &Scope,
    counted: impl Fn(&str, &str, &BTreeMap<String, String>) -> Vec<String>,
    is_per_measurement: bool,
) -> Result<Answer, StatementError> {
    let Finding::Names(found) = scope.ask(session, About::Series).await? else {
        unreachable!("series are found by measurement")
    };
    // The keys, and their tags once more.
    let _charge = charge(session, found.values().flatten().map(|key| 2 * key.len()))?;
    let series: Vec<(&str, &str, BTreeMap<String, String>)> = found
        .iter()
        .flat_map(|(measurement, keys)| keys.iter().map(move |key| (measurement.as_str(), key.as_str(), tags_of(key))))
        .collect();
    let tag_keys: BTreeSet<&str> = series.iter().flat_map(|(_, _, tags)| tags.keys().map(String::as_str)).collect();
    let mut dimensions: BTreeSet<&str> = BTreeSet::new();
    for dimension in &show.dimensions {
        match dimension.without_parens() {
            Expr::VarRef(name) => drop(dimensions.insert(&name.name)),
            Expr::Wildcard(_) => dimensions.extend(&tag_keys),
            Expr::Regex(regex) => {
                dimensions.extend(tag_keys.iter().copied().filter(|key| regex.is_match(key.as_bytes())));
            }
            _ => {}
        }
    }
    let mut groups = Groups::new();
    for (measurement, key, tags) in &series {
        let values = dimensions.iter().map(|name| tags.get(*name).cloned().unwrap_or_default()).collect();
        let name = if is_per_measurement { (*measurement).to_owned() } else { String::new() };
        groups.entry((name, values)).or_default().extend(counted(measurement, key, tags));
        session.core.context().yield_now_if_needed().await;
    }
    if RowLimit::new(show.limit, show.offset).window(0, 1).is_empty() {
        return Ok(Answer::done());
    }
    let tables = groups.into_iter().filter(|(_, counted)| !counted.is_empty()).map(|((name, values), counted)| {
        let tags = dimensions.iter().map(|key| (*key).to_owned()).zip(values).collect();
        ResultSeries { tags, ..number(&name, "count", counted.len() as u64) }
    });
    Ok(Answer::of(tables.collect()))
}

/// The tags of a series by its key.
fn tags_of(key: &str) -> BTreeMap<String, String> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    series_key::tags(key.as_bytes()).map(|(name, value)| (text(&name), text(&value))).collect()
}
