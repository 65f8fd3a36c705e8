//! SELECT on the core that was asked: from names to a plan, scans to the owning cores, and the merge.
//!
//! Owns: the streams from the parts. Scans are opened in the order in which the merge comes to them, a few ahead, so
//! that a pattern over thousands of measurements holds the outputs of a few.
//! Invariants: a stream that ends without its end marker is an error (I9); dropping the select tells all parts to stop.
//! Knows nothing of how parts read.

use crate::{
    data::question::{About, Filter, Finding, MeasurementTest},
    query::{
        StatementError,
        account::{Account, Charge},
        elsewhere::Recipe,
        scan::{PartChunk, ScanOrder, ScanRequest},
        sources::{Session, store_id},
    },
};
use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    future::{Future, poll_fn},
    pin::Pin,
    rc::Rc,
    sync::Arc,
    task::Poll,
};
use tidemill_column::FieldType;
use tidemill_influxql::SelectStatement;
use tidemill_meta::Meta;
use tidemill_query::{
    CompileOptions, Compiled, Join, JoinDemand, MeasurementSelector, Merge, MergeDemand, PartOutput, Plan,
    ResultSeries, ScanPlan, Sort, SortStep, SourceIndex, SourceRequest, SourceSchema, SubqueryPart, SubqueryRows,
    SubqueryStep, TimeZone, compile, winner,
};
use tidemill_reactor::{ChunkConsumer, ChunkConsumerEnd, CoreId, chunk_stream};
use tidemill_store::{DatabaseId, ShardGroupId};

/// Outputs of a part that may wait for the merge. Two: one is on its way while the next is made.
const WINDOW: usize = 2;
/// Scans that work before the merge asks for them.
const SCANS_AHEAD: usize = 2;
/// Outputs that the merge takes between two looks at what it holds.
const OUTPUTS_PER_LOOK: usize = 16;

/// A SELECT under way.
pub(super) struct Select {
    session: Rc<Session>,
    account: Arc<Account>,
    zone: Option<Arc<TimeZone>>,
    rows: Rows,
}

/// Where a plan's rows come from.
enum Rows {
    Merged(Box<Merged>),
    Joined(Box<Joined>),
    Sorted(Box<Sorted>),
}

/// Rows that are put into another order than that of time.
struct Sorted {
    sort: Sort,
    charge: Charge,
    rows: Rows,
}

/// The join of the answers of a plan's legs.
struct Joined {
    join: Join,
    charge: Charge,
    legs: Vec<Rows>,
}

/// The merge of what the parts of a plan's scans put out.
struct Merged {
    merge: Merge,
    charge: Charge,
    outputs_taken: usize,
    scans: Vec<Scan>,
    /// Scans in the order of the merge; those in front are open.
    turns: Vec<u32>,
    opened: usize,
}

/// A plan, with what its scans read.
pub(super) struct Prepared {
    pub(super) plan: Arc<Plan>,
    pub(super) targets: Vec<Target>,
    /// The statements in FROM.
    pub(super) inner: Vec<Rc<Inner>>,
    /// Where other nodes hold partitions: how they come to the plan, and the places of its scans.
    elsewhere: Option<(Arc<Recipe>, BTreeMap<*const ScanPlan, u32>)>,
}

/// What plans are made from again, but for the sources.
struct Origin {
    statement: String,
    options: CompileOptions,
}

/// A statement in FROM. Its answer is held for all scans that read it.
pub(super) struct Inner {
    pub(super) prepared: Prepared,
    answer: RefCell<Option<(Rc<SubqueryRows>, Charge)>>,
}

struct Scan {
    plan: Arc<ScanPlan>,
    elsewhere: Option<(Arc<Recipe>, u32)>,
    source: ScanSource,
}

/// Where a scan's outputs come from.
enum ScanSource {
    Partitions {
        database: DatabaseId,
        groups: Arc<[ShardGroupId]>,
        /// One a partition, once open.
        parts: Vec<PartStream>,
    },
    /// The answer of a statement in FROM: one part, once open, and none in the other partitions.
    Answer { inner: Rc<Inner>, part: Option<(Box<SubqueryPart>, Charge)> },
}

/// What comes from a part.
struct PartStream {
    end: Option<ChunkConsumerEnd<PartChunk>>,
    consumer: Option<ChunkConsumer<PartChunk>>,
    /// Outputs of the last chunk that the merge has not taken, with their charge.
    outputs: std::vec::IntoIter<PartOutput>,
    charge: Option<Charge>,
}

/// A retention policy that a source names.
pub(super) struct Target {
    pub(super) database: DatabaseId,
    database_name: String,
    policy_name: String,
    pub(super) groups: Arc<[ShardGroupId]>,
}

impl Select {
    /// Plans the statement. Nothing is read yet.
    pub async fn start(session: Rc<Session>, select: &SelectStatement) -> Result<Select, StatementError> {
        let (compiled, prepared) = plan(&session, select).await?;
        Ok(Select::of(session, &compiled, &prepared))
    }

    /// A statement that was planned.
    pub fn of(session: Rc<Session>, compiled: &Compiled, prepared: &Prepared) -> Select {
        let account = Arc::new(Account::new(session.query.clone(), session.core.query_limits().select));
        let rows = Rows::of(&prepared.plan, prepared, &session, &account);
        Select { session, account, zone: compiled.time_zone().cloned(), rows }
    }

    pub fn account(&self) -> &Arc<Account> {
        &self.account
    }

    /// Whose wall clock the times are shown in, if it is not UTC.
    pub fn zone(&self) -> Option<&Arc<TimeZone>> {
        self.zone.as_ref()
    }

    /// The next rows of the answer; `None` behind the last.
    pub async fn next(&mut self) -> Result<Option<ResultSeries>, StatementError> {
        let next = self.rows.next(&self.session, &self.account).await?;
        if next.is_none() {
            self.account.abandon();
        }
        Ok(next)
    }
}

/// Checks and plans a statement. Nothing is read.
pub(super) async fn plan(session: &Session, select: &SelectStatement) -> Result<(Compiled, Prepared), StatementError> {
    session.check_sources(&select.sources)?;
    let options = CompileOptions {
        now_ns: session.now_ns,
        default_database: (!session.database.is_empty()).then(|| session.database.clone()),
        limits: session.core.query_limits().select,
    };
    let compiled = compile(select, &options)?;
    let origin = session.core.has_elsewhere().then(|| Origin { statement: select.to_string(), options });
    let prepared = prepare(session, &compiled, origin.as_ref(), &[]).await?;
    Ok((compiled, prepared))
}

impl Rows {
    fn of(plan: &Arc<Plan>, prepared: &Prepared, session: &Session, account: &Arc<Account>) -> Rows {
        let rows = Rows::by_time(plan, prepared, session, account);
        match Sort::new(plan, session.chunk_rows) {
            Some(sort) => Rows::Sorted(Box::new(Sorted { sort, charge: account.charge(), rows })),
            None => rows,
        }
    }

    fn by_time(plan: &Arc<Plan>, prepared: &Prepared, session: &Session, account: &Arc<Account>) -> Rows {
        let legs: Vec<Rows> = plan.legs().map(|leg| Rows::of(leg, prepared, session, account)).collect();
        let charge = account.charge();
        if !legs.is_empty() {
            let join = Join::new(plan.clone(), session.chunk_rows);
            return Rows::Joined(Box::new(Joined { join, charge, legs }));
        }
        let scans: Vec<Scan> = plan.scans().iter().map(|scan| scan_of(scan, prepared)).collect();
        let mut turns: Vec<u32> = (0..scans.len() as u32).collect();
        turns.sort_by_key(|scan| scans[*scan as usize].plan.measurement());
        if !plan.is_ascending() {
            turns.reverse();
        }
        let merge = Merge::new(plan.clone(), session.core.partition_count(), session.chunk_rows);
        Rows::Merged(Box::new(Merged { merge, charge, outputs_taken: 0, scans, turns, opened: 0 }))
    }

    /// A leg may be a join itself, so the future has a place of its own.
    fn next<'a>(
        &'a mut self,
        session: &'a Session,
        account: &'a Arc<Account>,
    ) -> Pin<Box<dyn Future<Output = Result<Option<ResultSeries>, StatementError>> + 'a>> {
        match self {
            Rows::Merged(merged) => Box::pin(merged.next(session, account)),
            Rows::Joined(joined) => Box::pin(joined.next(session, account)),
            Rows::Sorted(sorted) => Box::pin(sorted.next(session, account)),
        }
    }
}

impl Joined {
    async fn next(
        &mut self,
        session: &Session,
        account: &Arc<Account>,
    ) -> Result<Option<ResultSeries>, StatementError> {
        loop {
            match self.join.poll() {
                JoinDemand::Rows(series) => return Ok(Some(series)),
                JoinDemand::Turn => {
                    account.check(session.core.context().clock.monotonic_ns())?;
                    self.charge.set(self.join.bytes_held())?;
                }
                JoinDemand::Done => {
                    self.legs.clear();
                    return Ok(None);
                }
                JoinDemand::Leg(leg) => {
                    let piece = self.legs[leg as usize].next(session, account).await?;
                    self.join.supply(leg, piece);
                    self.charge.set(self.join.bytes_held())?;
                }
            }
            session.core.context().yield_now_if_needed().await;
        }
    }
}

impl Sorted {
    async fn next(
        &mut self,
        session: &Session,
        account: &Arc<Account>,
    ) -> Result<Option<ResultSeries>, StatementError> {
        loop {
            match self.sort.step() {
                SortStep::Rows(series) => return Ok(Some(series)),
                SortStep::Done => return Ok(None),
                SortStep::Turn => account.check(session.core.context().clock.monotonic_ns())?,
                SortStep::Input => {
                    let piece = self.rows.next(session, account).await?;
                    self.sort.supply(piece);
                }
            }
            self.charge.set(self.sort.bytes_held())?;
            session.core.context().yield_now_if_needed().await;
        }
    }
}

impl Merged {
    async fn next(
        &mut self,
        session: &Session,
        account: &Arc<Account>,
    ) -> Result<Option<ResultSeries>, StatementError> {
        loop {
            account.check(session.core.context().clock.monotonic_ns())?;
            match self.merge.poll()? {
                MergeDemand::Rows(series) => return Ok(Some(series)),
                MergeDemand::Done => {
                    self.scans.clear();
                    return Ok(None);
                }
                MergeDemand::Part { scan, part } => {
                    self.open_up_to(scan, session, account).await?;
                    let output = self.scans[scan as usize].receive(part, session, account).await?;
                    self.merge.supply(scan, part, output);
                    self.outputs_taken += 1;
                    if self.outputs_taken.is_multiple_of(OUTPUTS_PER_LOOK) {
                        self.charge.set(self.merge.bytes_held())?;
                    }
                }
            }
            session.core.context().yield_now_if_needed().await;
        }
    }

    /// Opens the scans up to this one and a few behind it.
    async fn open_up_to(&mut self, scan: u32, session: &Session, account: &Arc<Account>) -> Result<(), StatementError> {
        if self.scans[scan as usize].is_open() {
            return Ok(());
        }
        let turn = self.turns.iter().position(|turn| *turn == scan).unwrap_or(0);
        let end = (turn + 1 + SCANS_AHEAD).min(self.turns.len());
        let mut sends: Vec<Pin<Box<dyn Future<Output = _>>>> = Vec::new();
        for turn in self.opened..end {
            let scan = &mut self.scans[self.turns[turn] as usize];
            for (owner, order) in scan.orders(session, account) {
                let core = session.core.clone();
                sends.push(Box::pin(async move { core.send_scan(owner, order).await }));
            }
        }
        self.opened = self.opened.max(end);
        for result in all(sends).await {
            result?;
        }
        Ok(())
    }
}

impl PartStream {
    async fn next(&mut self, part: u32) -> Result<Option<PartOutput>, StatementError> {
        loop {
            if let Some(output) = self.outputs.next() {
                return Ok(Some(output));
            }
            self.charge = None;
            if let Some(end) = self.end.take() {
                self.consumer = Some(end.arrive().await);
            }
            let Some(chunks) = &self.consumer else { return Ok(None) };
            let chunk = match chunks.next().await {
                // Between finding nothing and finding the producer gone, its last chunk may have come.
                None => chunks.next().await,
                chunk => chunk,
            };
            match chunk {
                Some(PartChunk::Outputs(outputs, charge)) => {
                    self.outputs = outputs.into_iter();
                    self.charge = Some(charge);
                }
                Some(PartChunk::End) => self.consumer = None,
                Some(PartChunk::Failed(text)) => return Err(StatementError::Part(text)),
                None => return Err(StatementError::PartLost(part)),
            }
        }
    }
}

impl Drop for Select {
    fn drop(&mut self) {
        self.account.abandon();
    }
}

impl Scan {
    /// Whether its parts are at work. The answer of a statement in FROM is only read when it is asked for.
    fn is_open(&self) -> bool {
        match &self.source {
            ScanSource::Partitions { parts, .. } => !parts.is_empty(),
            ScanSource::Answer { .. } => true,
        }
    }

    /// The next output of a part; `None` when it is done.
    async fn receive(
        &mut self,
        part: u32,
        session: &Session,
        account: &Arc<Account>,
    ) -> Result<Option<PartOutput>, StatementError> {
        match &mut self.source {
            ScanSource::Partitions { parts, .. } => parts[part as usize].next(part).await,
            ScanSource::Answer { .. } if part > 0 => Ok(None),
            ScanSource::Answer { inner, part } => {
                if part.is_none() {
                    let answer = inner.answer(session, account).await?;
                    let opened = Box::new(answer.part(&self.plan));
                    let mut charge = account.charge();
                    charge.set(opened.bytes_held())?;
                    *part = Some((opened, charge));
                }
                let Some((part, _)) = part else { return Ok(None) };
                loop {
                    match part.step() {
                        SubqueryStep::Output(output) => return Ok(Some(output)),
                        SubqueryStep::Done => return Ok(None),
                        SubqueryStep::Turn => {
                            account.check(session.core.context().clock.monotonic_ns())?;
                            session.core.context().yield_now_if_needed().await;
                        }
                    }
                }
            }
        }
    }

    /// Makes the streams of all parts; the orders go to the cores that own the partitions.
    fn orders(&mut self, session: &Session, account: &Arc<Account>) -> BTreeMap<CoreId, ScanOrder> {
        let mut orders: BTreeMap<CoreId, ScanOrder> = BTreeMap::new();
        let ScanSource::Partitions { database, groups, parts } = &mut self.source else { return orders };
        for partition in 0..session.core.partition_count() {
            let (producer, consumer) = chunk_stream(WINDOW);
            let outputs = Vec::new().into_iter();
            parts.push(PartStream { end: Some(consumer), consumer: None, outputs, charge: None });
            let order = orders.entry(session.core.core_of(partition)).or_insert_with(|| {
                let (scan, groups, account) = (self.plan.clone(), groups.clone(), account.clone());
                let elsewhere = self.elsewhere.clone();
                let what = ScanRequest { scan, database: *database, groups, account, elsewhere };
                ScanOrder { what, parts: Vec::new() }
            });
            order.parts.push((partition, producer));
        }
        orders
    }
}

impl Inner {
    /// The statement's answer, computed when it is first asked for and charged while it is held.
    async fn answer(&self, session: &Session, account: &Arc<Account>) -> Result<Rc<SubqueryRows>, StatementError> {
        if let Some((answer, _)) = &*self.answer.borrow() {
            return Ok(answer.clone());
        }
        let plan = &self.prepared.plan;
        let mut rows = Rows::of(plan, &self.prepared, session, account);
        let mut answer = SubqueryRows::new(plan.clone());
        let mut charge = account.charge();
        while let Some(piece) = rows.next(session, account).await? {
            answer.push(&piece);
            charge.set(answer.bytes_held())?;
        }
        let answer = Rc::new(answer);
        *self.answer.borrow_mut() = Some((answer.clone(), charge));
        Ok(answer)
    }
}

fn scan_of(scan: &Arc<ScanPlan>, prepared: &Prepared) -> Scan {
    let source = match scan.source() {
        SourceIndex::Measurement(source) => {
            let target = &prepared.targets[source];
            ScanSource::Partitions { database: target.database, groups: target.groups.clone(), parts: Vec::new() }
        }
        SourceIndex::Subquery(source) => ScanSource::Answer { inner: prepared.inner[source].clone(), part: None },
    };
    Scan { plan: scan.clone(), elsewhere: prepared.elsewhere(scan), source }
}

impl Prepared {
    /// How other nodes come to a scan of the plan.
    pub(super) fn elsewhere(&self, scan: &Arc<ScanPlan>) -> Option<(Arc<Recipe>, u32)> {
        let (recipe, places) = self.elsewhere.as_ref()?;
        Some((recipe.clone(), *places.get(&Arc::as_ptr(scan))?))
    }
}

/// Plans a statement and those in its FROM, the innermost first. `path` leads to it from the whole one.
fn prepare<'a>(
    session: &'a Session,
    compiled: &'a Compiled,
    origin: Option<&'a Origin>,
    path: &'a [u32],
) -> Pin<Box<dyn Future<Output = Result<Prepared, StatementError>> + 'a>> {
    Box::pin(async move {
        let targets = {
            let meta = session.core.meta();
            let target = |source| target(&meta, source, session.retention_policy.as_deref(), compiled.read_range());
            compiled.sources().iter().map(target).collect::<Result<Vec<_>, _>>()?
        };
        let mut schemas = schemas(session, compiled, &targets).await?;
        let mut inner = Vec::new();
        for (number, subquery) in compiled.subqueries().iter().enumerate() {
            let path = [path, &[number as u32]].concat();
            let prepared = prepare(session, subquery, origin, &path).await?;
            schemas.extend(prepared.plan.schemas(number));
            inner.push(Rc::new(Inner { prepared, answer: RefCell::default() }));
        }
        let known = origin.is_some().then(|| schemas.clone());
        let plan = Arc::new(compiled.plan(schemas)?);
        let elsewhere = origin.zip(known).map(|(Origin { statement, options }, schemas)| {
            let recipe = Recipe {
                statement: statement.clone(),
                now_ns: options.now_ns,
                default_database: options.default_database.clone(),
                limits: options.limits,
                path: path.to_vec(),
                schemas,
            };
            let places = (0..).zip(plan.all_scans()).map(|(place, scan)| (Arc::as_ptr(scan), place));
            (Arc::new(recipe), places.collect())
        });
        Ok(Prepared { plan, targets, inner, elsewhere })
    })
}

/// The database, the policy and its shard groups that a source reads.
fn target(
    meta: &Meta,
    source: &SourceRequest,
    request_policy: Option<&str>,
    range: (i64, i64),
) -> Result<Target, StatementError> {
    let name = source.database.as_deref().ok_or(StatementError::DatabaseRequired)?;
    let database = meta.database(name).ok_or_else(|| StatementError::DatabaseNotFound(name.to_owned()))?;
    let policy_name = source.retention_policy.as_deref().or(request_policy).unwrap_or(&database.default_policy);
    let policy = database.policy(Some(policy_name));
    let policy = policy.ok_or_else(|| StatementError::PolicyNotFound(policy_name.to_owned()))?;
    let groups = if range.0 <= range.1 {
        policy.groups_in(range.0, range.1).map(|group| ShardGroupId(group.id.0)).collect()
    } else {
        Vec::new()
    };
    Ok(Target {
        database: store_id(database),
        database_name: name.to_owned(),
        policy_name: policy_name.to_owned(),
        groups: groups.into(),
    })
}

/// The measurements that the sources come to, with their fields and tag keys.
async fn schemas(
    session: &Session,
    compiled: &Compiled,
    targets: &[Target],
) -> Result<Vec<SourceSchema>, StatementError> {
    let databases: BTreeSet<DatabaseId> = targets.iter().map(|target| target.database).collect();
    let mut tag_keys = BTreeMap::new();
    for database in databases {
        let of_database = compiled.sources().iter().zip(targets).filter(|(_, target)| target.database == database);
        let tests = of_database.map(|(source, _)| match &source.measurement {
            MeasurementSelector::Name(name) => MeasurementTest::Name(name.clone()),
            MeasurementSelector::Regex(regex) => MeasurementTest::Regex(regex.clone()),
        });
        let found = session.ask(database, Some(tests.collect()), Filter::All, About::TagKeys).await?;
        let Finding::Names(names) = found else { unreachable!("tag keys are found by name") };
        tag_keys.insert(database, names);
    }
    let meta = session.core.meta();
    let mut schemas: Vec<SourceSchema> = Vec::new();
    for (number, (source, target)) in compiled.sources().iter().zip(targets).enumerate() {
        for (measurement, tag_keys) in &tag_keys[&target.database] {
            let is_meant = match &source.measurement {
                MeasurementSelector::Name(name) => name == measurement,
                MeasurementSelector::Regex(regex) => regex.is_match(measurement.as_bytes()),
            };
            // A measurement that two sources come to is read twice, and counts twice, as in upstream.
            let fields = if is_meant { fields(&meta, target, measurement) } else { BTreeMap::new() };
            if !fields.is_empty() {
                schemas.push(SourceSchema {
                    source: SourceIndex::Measurement(number),
                    database: target.database_name.clone(),
                    retention_policy: target.policy_name.clone(),
                    measurement: measurement.clone(),
                    fields,
                    tag_keys: tag_keys.clone(),
                });
            }
        }
    }
    Ok(schemas)
}

/// The fields of a measurement in the shard groups that are read.
fn fields(meta: &Meta, target: &Target, measurement: &str) -> BTreeMap<String, FieldType> {
    let mut fields: BTreeMap<String, FieldType> = BTreeMap::new();
    for group in target.groups.iter() {
        let group = tidemill_meta::ShardGroupId(group.0);
        for (name, field_type) in meta.field_types().fields(group, measurement.as_bytes()) {
            let name = crate::data::question::lossy(name);
            let known = fields.get(&name).copied();
            fields.insert(name, known.map_or(field_type, |known| winner(known, field_type)));
        }
    }
    fields
}

/// Runs futures side by side and gives what they came to, in their order.
async fn all<T>(mut futures: Vec<Pin<Box<dyn Future<Output = T>>>>) -> Vec<T> {
    let mut results: Vec<Option<T>> = futures.iter().map(|_| None).collect();
    poll_fn(|context| {
        for (future, result) in futures.iter_mut().zip(&mut results) {
            if result.is_none()
                && let Poll::Ready(value) = future.as_mut().poll(context)
            {
                *result = Some(value);
            }
        }
        if results.iter().all(Option::is_some) { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
    results.into_iter().flatten().collect()
}
