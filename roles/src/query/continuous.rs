//! Continuous queries: the statements about them, and the task that runs them.
//!
//! Invariants: a run is noted in the metadata once all of its points are written, so that a stop or a failure in between
//! makes it run again over the same windows, whose points it overwrites; what was due while no server ran is computed
//! by the next run. One query runs at a time.
//! Knows nothing of windows: [`ContinuousSchedule`] says what is due.

use crate::{
    data::{DataCore, META_CORE, META_GROUP},
    query::{
        QueryPieces, StatementError,
        answer_table::{TableColumn, table},
        definitions,
        pieces::Answer,
        sources::Session,
    },
};
use futures_lite::future;
use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    rc::Rc,
    time::Duration,
};
use tidemill_http::{Caller, Piece, Pieces, QueryRequest};
use tidemill_influxql::{
    BinaryOperator, CreateContinuousQuery, Expr, Measurement, Query, SelectStatement, Source, Statement, TimeContext,
    VarRef, parse_statement, split_time,
};
use tidemill_meta::{Command, ContinuousQueryId, Database, Meta};
use tidemill_query::{ContinuousSchedule, ContinuousTurn, ResultColumn};

/// `[continuous_queries]`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ContinuousOptions {
    pub is_enabled: bool,
    /// Each run is told in the log.
    pub logs_runs: bool,
    /// SHOW STATS has a row for each query.
    pub keeps_statistics: bool,
    /// How often the schedules are looked at.
    pub run_interval: Duration,
}

impl Default for ContinuousOptions {
    fn default() -> ContinuousOptions {
        let run_interval = Duration::from_secs(1);
        ContinuousOptions { is_enabled: true, logs_runs: true, keeps_statistics: false, run_interval }
    }
}

/// What is counted of the runs.
#[derive(Clone, Default)]
pub struct ContinuousFigures {
    pub succeeded: Cell<u64>,
    pub failed: Cell<u64>,
    /// By database and name.
    pub last_runs: RefCell<BTreeMap<(String, String), ContinuousRun>>,
}

/// A run that succeeded.
#[derive(Clone, Copy, Debug)]
pub struct ContinuousRun {
    pub duration_ns: u64,
    pub points: u64,
    /// Of the windows, ns, the second exclusive.
    pub range: (i64, i64),
}

/// A failed run is tried again after this pause, then after twice as long, up to the longest pause.
const RETRY_PAUSE_NS: u64 = 1_000_000_000;
const RETRY_PAUSE_NS_MAX: u64 = 300_000_000_000;
/// Rows of a piece.
const CHUNK_ROWS: usize = 10_000;

pub(super) async fn create(session: &Session, mut create: CreateContinuousQuery) -> Result<Answer, StatementError> {
    {
        let meta = session.core.meta();
        qualify(&meta, &mut create, &session.database);
        check_measurements(&meta, &create)?;
    }
    let text = create.to_string();
    let command = Command::CreateContinuousQuery { database: create.database, name: create.name, text };
    definitions::change(session, command).await
}

pub(super) async fn drop(session: &Session, name: String, database: String) -> Result<Answer, StatementError> {
    definitions::change(session, Command::DropContinuousQuery { database, name }).await
}

/// SHOW CONTINUOUS QUERIES: a table for each database, those without queries included.
pub(super) fn show(session: &Session) -> Result<Answer, StatementError> {
    let meta = session.core.meta();
    let of_database = |database: &Database| {
        let queries = &database.continuous_queries;
        let names = queries.iter().map(|query| query.name.clone()).collect();
        let texts = queries.iter().map(|query| query.text.clone()).collect();
        table(&database.name, vec![("name", TableColumn::Texts(names)), ("query", TableColumn::Texts(texts))])
    };
    Ok(Answer::of(meta.databases().iter().map(of_database).collect()))
}

/// Names without a database mean the request's, and only without one that of the query, as in upstream.
fn qualify(meta: &Meta, create: &mut CreateContinuousQuery, database: &str) {
    let database = if database.is_empty() { &create.database } else { database };
    create.source.qualify_measurements(database, &|name| default_policy(meta, name));
}

fn default_policy(meta: &Meta, database: &str) -> Option<String> {
    let policy = meta.database(database).map(|database| database.default_policy.clone());
    policy.filter(|policy| !policy.is_empty())
}

/// A statement with the databases and policies written out that it leaves to defaults.
pub fn qualified(meta: &Meta, statement: &Statement, database: &str) -> Statement {
    let mut statement = statement.clone();
    match &mut statement {
        Statement::CreateContinuousQuery(create) => qualify(meta, create, database),
        Statement::Select(select) if !database.is_empty() || names_its_databases(select) => {
            select.qualify_measurements(database, &|name| default_policy(meta, name));
        }
        _ => {}
    }
    statement
}

fn names_its_databases(select: &SelectStatement) -> bool {
    let mut named: Vec<&Measurement> = select.target.iter().collect();
    measurements(&select.sources, &mut named);
    named.iter().all(|measurement| measurement.database.is_some())
}

/// Every database and every policy that the statement names must be there.
fn check_measurements(meta: &Meta, create: &CreateContinuousQuery) -> Result<(), StatementError> {
    let mut named: Vec<&Measurement> = create.source.target.iter().collect();
    measurements(&create.source.sources, &mut named);
    for measurement in named {
        let name = measurement.database.as_deref().unwrap_or_default();
        let database = meta.database(name).ok_or_else(|| StatementError::DatabaseNotFound(name.to_owned()))?;
        let Some(policy) = measurement.retention_policy.as_deref() else {
            return Err(StatementError::NoDefaultPolicy(name.to_owned()));
        };
        if database.policy(Some(policy)).is_none() {
            return Err(StatementError::PolicyNotFound(format!("{name}.{policy}")));
        }
    }
    Ok(())
}

fn measurements<'a>(sources: &'a [Source], named: &mut Vec<&'a Measurement>) {
    for source in sources {
        match source {
            Source::Measurement(measurement) => named.push(measurement),
            Source::Subquery(select) => measurements(&select.sources, named),
        }
    }
}

/// What is known of a query besides its entry in the metadata.
struct Known {
    create: CreateContinuousQuery,
    /// `None`: it never runs.
    schedule: Option<ContinuousSchedule>,
    /// Not before this monotonic time, and the pause after the next failure.
    retry: Option<(u64, u64)>,
}

/// A run that is due.
struct Due {
    id: ContinuousQueryId,
    database: String,
    turn: ContinuousTurn,
}

/// Runs what is due, until the core stops. To be run on the metadata's core.
pub(crate) async fn run(core: Rc<DataCore>, options: ContinuousOptions) {
    assert_eq!(core.context().core, META_CORE, "one core runs continuous queries");
    let mut known: BTreeMap<ContinuousQueryId, Known> = BTreeMap::new();
    loop {
        let context = core.context();
        future::or(context.sleep(options.run_interval), context.shutdown.requested()).await;
        for due in due(&core, &mut known) {
            if context.shutdown.is_requested() {
                return;
            }
            let Some(query) = known.get_mut(&due.id) else { continue };
            match run_once(&core, &options, query, &due).await {
                Ok(()) => query.retry = None,
                Err(error) => {
                    let pause_ns = query.retry.map_or(RETRY_PAUSE_NS, |(_, pause_ns)| pause_ns);
                    query.retry = Some((
                        context.clock.monotonic_ns().saturating_add(pause_ns),
                        (2 * pause_ns).min(RETRY_PAUSE_NS_MAX),
                    ));
                    let failed = &core.continuous_figures.failed;
                    failed.set(failed.get() + 1);
                    tracing::warn!(
                        name = query.create.name,
                        database = due.database,
                        error,
                        pause_s = pause_ns / 1_000_000_000,
                        "a continuous query failed and will be tried again"
                    );
                }
            }
        }
        if context.shutdown.is_requested() {
            return;
        }
    }
}

/// The queries that are due now, in the order of their databases and names' creation.
fn due(core: &DataCore, known: &mut BTreeMap<ContinuousQueryId, Known>) -> Vec<Due> {
    // In a cluster one node runs them for all: the one that decides on the metadata, where their runs are noted.
    if !core.decides(META_GROUP) {
        known.clear();
        return Vec::new();
    }
    let (now_ns, monotonic_ns) = (core.context().clock.now_ns(), core.context().clock.monotonic_ns());
    let meta = core.meta();
    let queries =
        || meta.databases().iter().flat_map(|one| one.continuous_queries.iter().map(move |query| (one, query)));
    known.retain(|id, _| queries().any(|(_, query)| query.id == *id));
    let mut all = Vec::new();
    for (database, query) in queries() {
        if let std::collections::btree_map::Entry::Vacant(entry) = known.entry(query.id) {
            let Some(new) = read(&query.text) else {
                tracing::error!(query = query.text, "a continuous query in the metadata is not understood");
                continue;
            };
            if new.schedule.is_none() {
                tracing::warn!(name = query.name, "continuous queries must be aggregate queries; this one never runs");
            }
            entry.insert(new);
        }
        let Some(Known { schedule: Some(schedule), retry, .. }) = known.get(&query.id) else { continue };
        if retry.is_some_and(|(until_ns, _)| monotonic_ns < until_ns) {
            continue;
        }
        let Some(turn) = schedule.turn(query.last_run_ns, now_ns) else { continue };
        all.push(Due { id: query.id, database: database.name.clone(), turn });
    }
    all
}

fn read(text: &str) -> Option<Known> {
    let Ok(Statement::CreateContinuousQuery(create)) = parse_statement(text) else { return None };
    let schedule = ContinuousSchedule::of(&create).ok()?;
    Some(Known { create, schedule, retry: None })
}

async fn run_once(core: &Rc<DataCore>, options: &ContinuousOptions, query: &Known, due: &Due) -> Result<(), String> {
    if let Some(range) = due.turn.range {
        let begun_ns = core.context().clock.monotonic_ns();
        let points = execute(core, &query.create, &due.database, range).await?;
        let duration_ns = core.context().clock.monotonic_ns() - begun_ns;
        let figures = &core.continuous_figures;
        figures.succeeded.set(figures.succeeded.get() + 1);
        if options.keeps_statistics {
            let key = (due.database.clone(), query.create.name.clone());
            figures.last_runs.borrow_mut().insert(key, ContinuousRun { duration_ns, points, range });
        }
        if options.logs_runs {
            tracing::info!(
                name = query.create.name,
                database = due.database,
                start = range.0,
                end = range.1,
                written = points,
                duration_ms = duration_ns / 1_000_000,
                "continuous query"
            );
        }
    }
    let note = Command::NoteContinuousQueryRun { id: due.id, ran_ns: due.turn.run_ns };
    core.change_meta(note).await.map(std::mem::drop).map_err(|error| error.to_string())
}

/// Computes and writes the windows of a time range. Returns how many points were written.
async fn execute(
    core: &Rc<DataCore>,
    create: &CreateContinuousQuery,
    database: &str,
    range: (i64, i64),
) -> Result<u64, String> {
    core.catch_up().await.map_err(|error| error.to_string())?;
    let mut select = create.source.clone();
    let context = TimeContext::utc(core.context().clock.now_ns());
    let (_, rest) = split_time(select.condition.as_ref(), &context).map_err(|error| error.to_string())?;
    let time = || Expr::VarRef(VarRef { name: "time".to_owned(), data_type: None });
    let bound = |operator, time_ns| Expr::binary(operator, time(), Expr::Integer(time_ns));
    let lower = bound(BinaryOperator::GreaterOrEqual, range.0);
    let within = Expr::binary(BinaryOperator::And, lower, bound(BinaryOperator::Less, range.1));
    select.condition = Some(match rest {
        Some(rest) => Expr::binary(BinaryOperator::And, within, Expr::paren(rest)),
        None => within,
    });
    let request = QueryRequest {
        query: Query { statements: vec![Statement::Select(select)] },
        database: database.to_owned(),
        retention_policy: None,
        chunked: false,
        chunk_size: CHUNK_ROWS,
        read_only: false,
        read: tidemill_http::ReadLevel::default(),
        caller: Caller::Anyone,
    };
    let mut pieces = QueryPieces::start(core.clone(), request)?;
    let mut points = 0;
    while let Some(piece) = pieces.next().await {
        match piece {
            Piece::Series { series, .. } => {
                if let Some(ResultColumn::Values(column)) = series.values.get(1)
                    && let Some(tidemill_column::Value::Integer(written)) = column.value(0)
                {
                    points += u64::try_from(written).unwrap_or(0);
                }
            }
            Piece::Error { text, .. } => return Err(text),
            Piece::StatementDone(_) | Piece::Zone { .. } | Piece::Message { .. } => {}
        }
    }
    Ok(points)
}
