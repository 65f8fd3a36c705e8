//! SHOW ... CARDINALITY. All figures are exact, those under the estimates' column names too.

use crate::{
    data::question::{About, Finding},
    query::{
        StatementError,
        answer_table::number,
        pieces::Answer,
        show::{Scope, refuse_time},
        sources::{Session, fields_of, tests_of},
    },
};
use std::collections::BTreeMap;
use tidemill_influxql::{ShowCardinality, ShowTagValuesCardinality};
use tidemill_query::{ResultSeries, RowLimit};

const ESTIMATE: &str = "cardinality estimation";

pub(super) async fn series(session: &Session, show: &ShowCardinality) -> Result<Answer, StatementError> {
    let counts = series_counts(session, show, "SHOW SERIES EXACT CARDINALITY").await?;
    if show.is_exact() {
        return Ok(per_measurement(show, counts));
    }
    Ok(Answer::of(vec![number("", ESTIMATE, counts.values().sum())]))
}

pub(super) async fn measurements(session: &Session, show: &ShowCardinality) -> Result<Answer, StatementError> {
    let counts = series_counts(session, show, "SHOW MEASUREMENT EXACT CARDINALITY").await?;
    let count = counts.len() as u64;
    if !show.is_exact() {
        return Ok(Answer::of(vec![number("", ESTIMATE, count)]));
    }
    if count == 0 {
        return Ok(Answer::done());
    }
    Ok(Answer::of(RowLimit::new(show.limit, show.offset).slice(&[number("", "count", count)]).to_vec()))
}

pub(super) async fn tag_keys(session: &Session, show: &ShowCardinality) -> Result<Answer, StatementError> {
    let scope = scope(session, show, "SHOW TAG KEY EXACT CARDINALITY")?;
    let Finding::Names(found) = scope.ask(session, &show.sources, About::TagKeys).await? else {
        unreachable!("tag keys are found by measurement")
    };
    let counts = found.into_iter().map(|(measurement, keys)| (measurement, keys.len() as u64));
    Ok(per_measurement(show, counts.collect()))
}

pub(super) async fn field_keys(session: &Session, show: &ShowCardinality) -> Result<Answer, StatementError> {
    let scope = scope(session, show, "SHOW FIELD KEY CARDINALITY")?;
    let names = session.measurements(scope.database, tests_of(&show.sources)).await?;
    let meta = session.core.meta();
    let Some(database) = meta.database_by_id(tidemill_meta::DatabaseId(scope.database.0)) else {
        return Ok(Answer::done());
    };
    let count = |measurement: &str| {
        let mut names: Vec<String> =
            fields_of(&meta, database, measurement).into_iter().map(|(name, _)| name).collect();
        names.dedup();
        names.len() as u64
    };
    let counts = names.into_iter().map(|measurement| {
        let count = count(&measurement);
        (measurement, count)
    });
    Ok(per_measurement(show, counts.collect()))
}

pub(super) async fn tag_values(session: &Session, show: &ShowTagValuesCardinality) -> Result<Answer, StatementError> {
    let clauses = &show.clauses;
    let scope = Scope::of(session, clauses.database.as_deref(), &clauses.sources, clauses.condition.as_ref())?;
    let about = About::TagValues(show.key.clone());
    let Finding::Pairs(found) = scope.ask(session, &clauses.sources, about).await? else {
        unreachable!("tag values are found as pairs")
    };
    let counts = found.into_iter().map(|(measurement, pairs)| (measurement, pairs.len() as u64));
    Ok(per_measurement(clauses, counts.collect()))
}

async fn series_counts(
    session: &Session,
    show: &ShowCardinality,
    statement: &str,
) -> Result<BTreeMap<String, u64>, StatementError> {
    let scope = scope(session, show, statement)?;
    match scope.ask(session, &show.sources, About::SeriesCount).await? {
        Finding::Counts(counts) => Ok(counts),
        _ => unreachable!("series are counted"),
    }
}

fn scope(session: &Session, show: &ShowCardinality, statement: &str) -> Result<Scope, StatementError> {
    let (range, _) = session.split_time(show.condition.as_ref())?;
    refuse_time(range, statement)?;
    if !show.dimensions.is_empty() {
        return Err(StatementError::NotSupported("GROUP BY in a cardinality statement"));
    }
    Scope::of(session, show.database.as_deref(), &show.sources, show.condition.as_ref())
}

/// A table for each measurement that has any; LIMIT and OFFSET count the one row of each.
fn per_measurement(show: &ShowCardinality, counts: BTreeMap<String, u64>) -> Answer {
    let limit = RowLimit::new(show.limit, show.offset);
    let some = counts.into_iter().filter(|(_, count)| *count > 0);
    let tables: Vec<ResultSeries> = some.map(|(measurement, count)| number(&measurement, "count", count)).collect();
    Answer::of(tables.into_iter().filter(|_| !limit.window(0, 1).is_empty()).collect())
}
