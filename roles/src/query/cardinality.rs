//! SHOW ... CARDINALITY. All figures are exact, those under the estimates' column names too, and a series counts once
//! however many shards it has points in. They are the indexes' own counts; with a condition on tags, those of postings.
//! Only the values of a tag have to be looked at, as a value may be in several partitions.

use crate::{
    data::question::{About, Finding},
    query::{
        StatementError,
        answer_table::number,
        pieces::Answer,
        scope::Scope,
        show::refuse_time,
        sources::{Session, store_id},
    },
};
use std::collections::{BTreeMap, BTreeSet};
use tidemill_influxql::{ShowCardinality, ShowTagValuesCardinality};
use tidemill_query::{ResultSeries, RowLimit, TagFilter};

pub(super) async fn series(session: &Session, show: &ShowCardinality) -> Result<Answer, StatementError> {
    if !show.is_exact() {
        return estimate(session, show, |counts| counts.values().sum()).await;
    }
    let scope = scope(session, show, Some("SHOW SERIES EXACT CARDINALITY"))?;
    Ok(per_measurement(show, series_counts(session, &scope).await?))
}

pub(super) async fn measurements(session: &Session, show: &ShowCardinality) -> Result<Answer, StatementError> {
    if !show.is_exact() {
        return estimate(session, show, |counts| counts.len() as u64).await;
    }
    let scope = scope(session, show, Some("SHOW MEASUREMENT EXACT CARDINALITY"))?;
    let count = series_counts(session, &scope).await?.len() as u64;
    Ok(per_measurement(show, BTreeMap::from([(String::new(), count)])))
}

pub(super) async fn tag_keys(session: &Session, show: &ShowCardinality) -> Result<Answer, StatementError> {
    let scope = scope(session, show, Some("SHOW TAG KEY EXACT CARDINALITY"))?;
    let Finding::Names(found) = scope.ask(session, About::TagKeys).await? else {
        unreachable!("tag keys are found by measurement")
    };
    let counts = found.into_iter().map(|(measurement, keys)| (measurement, keys.len() as u64));
    Ok(per_measurement(show, counts.collect()))
}

pub(super) async fn field_keys(session: &Session, show: &ShowCardinality) -> Result<Answer, StatementError> {
    let scope = scope(session, show, Some("SHOW FIELD KEY CARDINALITY"))?;
    let counts = scope.fields(session).await?.into_iter().map(|(measurement, fields)| {
        let names: BTreeSet<String> = fields.into_iter().map(|(name, _)| name).collect();
        (measurement, names.len() as u64)
    });
    Ok(per_measurement(show, counts.collect()))
}

pub(super) async fn tag_values(session: &Session, show: &ShowTagValuesCardinality) -> Result<Answer, StatementError> {
    let scope = scope(session, &show.clauses, None)?;
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
        Some(database) => session.ask(database, None, |_| TagFilter::All, About::SeriesCount).await?,
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
    if !show.dimensions.is_empty() {
        return Err(StatementError::NotSupported("GROUP BY in a cardinality statement"));
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
