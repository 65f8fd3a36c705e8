//! The answer of a request: its statements in their order, a piece at a time.
//!
//! Owns: which statement is under way. A statement starts when the former one is answered; an error ends the answer.
//! Invariants: the request is listed among the running queries until its pieces are dropped; at most one piece is made
//! ahead of what the client takes.
//! Knows nothing of encodings.

use crate::{
    data::{DataCore, session_token::SessionToken},
    query::{
        StatementError,
        account::Charge,
        cardinality, continuous, definitions, deletion,
        error::Stopped,
        everywhere, explain,
        into::Into,
        listing::{SeriesKeys, TagValueTables},
        monitor,
        running::{RunningGuard, RunningQueries},
        select::Select,
        show,
        sources::Session,
        subscriptions, users,
    },
};
use std::{collections::VecDeque, rc::Rc};
use tidemill_http::{Piece, Pieces, QueryRequest, ReadLevel, Zone};
use tidemill_influxql::Statement;
use tidemill_query::ResultSeries;

/// The pieces of one request.
pub struct QueryPieces {
    progress: Progress,
    read: ReadLevel,
    /// What the client's session has seen with the answer.
    shown: Option<String>,
}

enum Progress {
    Running(Request),
    /// The request does not run; its first statement says why.
    Refused(Option<String>),
}

/// A request under way.
struct Request {
    session: Rc<Session>,
    /// With their numbers.
    statements: VecDeque<(u32, Statement)>,
    current: Option<(u32, Answer)>,
    read: ReadLevel,
    _running: RunningGuard,
}

/// What a statement answers.
pub(super) enum Answer {
    Select(Box<Select>),
    Into(Box<Into>),
    Keys(Box<SeriesKeys>),
    TagValues(Box<TagValueTables>),
    /// All of it is there already.
    Series(SeriesList),
}

/// Series that are held until the client takes them.
pub(super) struct SeriesList {
    series: VecDeque<ResultSeries>,
    _charge: Option<Charge>,
}

impl Answer {
    /// A statement that answers nothing but that it is done.
    pub fn done() -> Answer {
        Answer::of(Vec::new())
    }

    pub fn of(series: Vec<ResultSeries>) -> Answer {
        Answer::Series(SeriesList { series: series.into(), _charge: None })
    }

    /// As [`Answer::of`], with what the series take.
    pub fn charged(series: Vec<ResultSeries>, charge: Charge) -> Answer {
        Answer::Series(SeriesList { series: series.into(), _charge: Some(charge) })
    }
}

impl QueryPieces {
    /// Takes a request on. Nothing is executed before the first piece is asked for.
    ///
    /// # Errors
    /// The process is about to stop.
    pub fn start(core: Rc<DataCore>, request: QueryRequest) -> Result<QueryPieces, String> {
        if core.context().shutdown.is_requested() {
            return Err(Stopped::ShuttingDown.to_string());
        }
        let clock = &core.context().clock;
        let text = request.query.to_string();
        if core.query_limits().logs_queries {
            tracing::info!(query = text, database = request.database, "executing query");
        }
        let running = RunningQueries::of_process().start(
            text,
            request.database.clone(),
            clock.monotonic_ns(),
            core.query_limits(),
            core.query_memory(),
        );
        let running = match running {
            Ok(running) => running,
            Err(error) => {
                let progress = Progress::Refused(Some(error.to_string()));
                return Ok(QueryPieces { progress, read: ReadLevel::Eventual, shown: None });
            }
        };
        let session = Session {
            now_ns: clock.now_ns(),
            query: running.query().clone(),
            caller: request.caller,
            database: request.database,
            retention_policy: request.retention_policy.filter(|policy| !policy.is_empty()),
            chunk_rows: request.chunk_size.max(1),
            core,
        };
        let statements = (0..).zip(request.query.statements).collect();
        let read = request.read;
        let request =
            Request { session: Rc::new(session), statements, current: None, read: read.clone(), _running: running };
        Ok(QueryPieces { progress: Progress::Running(request), read, shown: None })
    }

    /// Waits until this node shows what the client's session has seen, if it said so.
    ///
    /// # Errors
    /// The status and text of the answer to the whole request.
    pub async fn join_session(&mut self) -> Result<(), (u16, String)> {
        let (ReadLevel::Session(text), Progress::Running(request)) = (&self.read, &self.progress) else {
            return Ok(());
        };
        let token = match text.as_str() {
            "" => SessionToken::default(),
            text => text.parse::<SessionToken>().map_err(|error| (400, error.to_string()))?,
        };
        let shown = request.session.core.catch_up_session(token.clone()).await;
        let mut shown = shown.map_err(|error| (503, error.to_string()))?;
        shown.join(token);
        self.shown = Some(shown.to_string());
        Ok(())
    }
}

impl Pieces for QueryPieces {
    async fn next(&mut self) -> Option<Piece> {
        match &mut self.progress {
            Progress::Running(request) => request.next().await,
            Progress::Refused(text) => text.take().map(|text| Piece::Error { statement: 0, text }),
        }
    }

    fn session(&self) -> Option<String> {
        self.shown.clone()
    }
}

impl Request {
    async fn next(&mut self) -> Option<Piece> {
        let (statement, next) = match &mut self.current {
            None => {
                let (number, statement) = self.statements.pop_front()?;
                match self.begin(statement).await {
                    Ok(mut answer) => {
                        if let Some(zone) = answer.zone() {
                            self.current = Some((number, answer));
                            return Some(Piece::Zone { statement: number, zone });
                        }
                        let next = answer.next().await;
                        self.current = Some((number, answer));
                        (number, next)
                    }
                    Err(error) => (number, Err(error)),
                }
            }
            Some((number, answer)) => (*number, answer.next().await),
        };
        Some(match next {
            Ok(Some(series)) => Piece::Series { statement, series, more: false },
            Ok(None) => {
                self.current = None;
                Piece::StatementDone(statement)
            }
            Err(error) => {
                self.current = None;
                self.statements.clear();
                Piece::Error { statement, text: error.to_string() }
            }
        })
    }

    async fn begin(&self, statement: Statement) -> Result<Answer, StatementError> {
        self.session.query.check(self.session.core.context().clock.monotonic_ns())?;
        let core = &self.session.core;
        match &self.read {
            _ if is_of_process(&statement) => {}
            ReadLevel::Eventual | ReadLevel::Session(_) if only_reads(&statement) => {}
            ReadLevel::Bounded(staleness) if only_reads(&statement) => core.catch_up_bounded(*staleness).await?,
            _ => core.catch_up().await?,
        }
        execute(&self.session, statement).await
    }
}

/// Whether a statement changes nothing: what is changed is decided by what is there.
fn only_reads(statement: &Statement) -> bool {
    match statement {
        Statement::Select(select) => select.target.is_none(),
        Statement::ShowDatabases
        | Statement::ShowRetentionPolicies { .. }
        | Statement::ShowMeasurements(_)
        | Statement::ShowSeries(_)
        | Statement::ShowTagKeys(_)
        | Statement::ShowTagValues(_)
        | Statement::ShowFieldKeys(_)
        | Statement::ShowSeriesCardinality(_)
        | Statement::ShowMeasurementCardinality(_)
        | Statement::ShowTagKeyCardinality(_)
        | Statement::ShowFieldKeyCardinality(_)
        | Statement::ShowTagValuesCardinality(_)
        | Statement::ShowShards
        | Statement::ShowShardGroups => true,
        _ => false,
    }
}

/// Whether a statement asks for nothing that other nodes could have changed.
fn is_of_process(statement: &Statement) -> bool {
    matches!(
        statement,
        Statement::ShowQueries
            | Statement::KillQuery { .. }
            | Statement::ShowStats { .. }
            | Statement::ShowDiagnostics { .. }
    )
}

impl Answer {
    /// Whose wall clock the times are shown in, if it is not UTC.
    fn zone(&self) -> Option<Rc<dyn Zone>> {
        match self {
            Answer::Select(select) => Some(Rc::new(select.zone()?.clone())),
            _ => None,
        }
    }

    async fn next(&mut self) -> Result<Option<ResultSeries>, StatementError> {
        match self {
            Answer::Select(select) => select.next().await,
            Answer::Into(into) => into.next().await,
            Answer::Keys(keys) => keys.next().await,
            Answer::TagValues(tables) => tables.next().await,
            Answer::Series(list) => Ok(list.series.pop_front()),
        }
    }
}

/// Executes a statement; of a SELECT only the plan.
async fn execute(session: &Rc<Session>, statement: Statement) -> Result<Answer, StatementError> {
    match statement {
        Statement::Select(select) => match &select.target {
            Some(target) => Ok(Answer::Into(Box::new(Into::start(session.clone(), &select, target).await?))),
            None => Ok(Answer::Select(Box::new(Select::start(session.clone(), &select).await?))),
        },
        Statement::ShowDatabases => show::databases(session),
        Statement::ShowRetentionPolicies { database } => show::retention_policies(session, database.as_deref()),
        Statement::ShowShards => show::shards(session),
        Statement::ShowShardGroups => show::shard_groups(session),
        Statement::ShowMeasurements(show) => show::measurements(session, &show).await,
        Statement::ShowSeries(show) => show::series(session, &show).await,
        Statement::ShowTagKeys(show) => show::tag_keys(session, &show).await,
        Statement::ShowTagValues(show) => show::tag_values(session, &show).await,
        Statement::ShowFieldKeys(show) => show::field_keys(session, &show).await,
        Statement::ShowContinuousQueries => continuous::show(session),
        Statement::ShowSubscriptions => Ok(subscriptions::show(session)),
        Statement::ShowUsers => Ok(users::show(session)),
        Statement::ShowGrants { user } => users::show_grants(session, &user),
        Statement::ShowQueries if session.core.has_other_nodes() => everywhere::queries(session).await,
        Statement::ShowQueries => show::queries(session),
        Statement::KillQuery { id, host } if session.core.has_other_nodes() => {
            everywhere::kill(&session.core, id, host.as_deref()).await
        }
        Statement::KillQuery { id, host: None } => kill(id),
        Statement::KillQuery { host: Some(_), .. } => Err(StatementError::NotSupported("KILL QUERY ON a host")),
        Statement::ShowSeriesCardinality(show) => cardinality::series(session, &show).await,
        Statement::ShowMeasurementCardinality(show) => cardinality::measurements(session, &show).await,
        Statement::ShowTagKeyCardinality(show) => cardinality::tag_keys(session, &show).await,
        Statement::ShowFieldKeyCardinality(show) => cardinality::field_keys(session, &show).await,
        Statement::ShowTagValuesCardinality(show) => cardinality::tag_values(session, &show).await,
        Statement::CreateDatabase(create) => definitions::create_database(session, create).await,
        Statement::DropDatabase { name } => definitions::drop_database(session, name).await,
        Statement::CreateRetentionPolicy(create) => definitions::create_policy(session, create).await,
        Statement::AlterRetentionPolicy(alter) => definitions::alter_policy(session, alter).await,
        Statement::DropRetentionPolicy { name, database } => definitions::drop_policy(session, name, database).await,
        Statement::DropShard { id } => definitions::drop_shard(session, id).await,
        Statement::DropField { name, measurement } => deletion::drop_field(session, name, measurement).await,
        Statement::DropMeasurement { name } => deletion::drop_measurement(session, name).await,
        Statement::Delete(delete) => deletion::delete(session, &delete.sources, delete.condition.as_ref()).await,
        Statement::DropSeries(drop) => deletion::drop_series(session, &drop.sources, drop.condition.as_ref()).await,
        Statement::CreateUser(create) => users::create(session, create).await,
        Statement::DropUser { name } => users::drop(session, name).await,
        Statement::SetPassword { user, password } => users::set_password(session, user, password).await,
        Statement::Grant { privilege, database, user } => users::grant(session, user, database, privilege).await,
        Statement::GrantAdmin { user } => users::set_admin(session, user, true).await,
        Statement::Revoke { privilege, database, user } => users::revoke(session, user, database, privilege).await,
        Statement::RevokeAdmin { user } => users::set_admin(session, user, false).await,
        Statement::CreateContinuousQuery(create) => continuous::create(session, create).await,
        Statement::DropContinuousQuery { name, database } => continuous::drop(session, name, database).await,
        Statement::CreateSubscription(create) => subscriptions::create(session, create).await,
        Statement::DropSubscription { name, database, retention_policy } => {
            subscriptions::drop(session, name, database, retention_policy).await
        }
        Statement::Explain(explain) if explain.analyze => explain::analyze(session, &explain.statement).await,
        Statement::Explain(explain) => explain::explain(session, &explain.statement).await,
        Statement::ShowStats { module } => monitor::statistics_of(session, module.as_deref()).await,
        Statement::ShowDiagnostics { module } => monitor::diagnostics(session, module.as_deref()),
    }
}

fn kill(id: u64) -> Result<Answer, StatementError> {
    let killed = RunningQueries::of_process().kill(id);
    killed.map(|()| Answer::done()).map_err(|error| StatementError::Invalid(error.to_string()))
}
