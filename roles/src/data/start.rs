//! A core's life: recover, serve, stop.
//!
//! The log of a server lives in one folder per *epoch*, and an epoch has a number of cores. A start with another number
//! of cores first brings the old epoch to its end (core 0 replays its logs, writes everything to files, removes it) and
//! begins a new one: partitions are dealt out anew without a byte of them being moved.

use crate::{
    acquaintance::Acquaintances,
    data::{
        acquainting::TakesPart,
        budget::Budget,
        core::{DataCore, Held, META_CORE},
        elsewhere::LeadersElsewhere,
        figures::WriteFigures,
        member_changes::nodes_in,
        membership::Membership,
        memory_gauge::MemoryGauge,
        message::Message,
        metadata::{META_GROUP, MetaMachine, SnapshotError},
        scrub::ScrubFigures,
        self_monitor,
        series_ledger::{SeriesCounts, SeriesLedger},
        tag_values::TagLedger,
        typed_writes::TypedWrites,
    },
    links::POOL_GROUP,
    options::Options,
    pool::{PoolParts, machine::PoolSnapshotError, reader::PoolReader, shipping},
    query::{
        QueryMemory,
        continuous::{self, ContinuousFigures},
    },
    replica::{Machine, PartitionMachine, Payload, ProposeError, RecoverError, Replicas, Surroundings, recover},
    service::DataService,
    subscriber::Subscribers,
    udp::UdpListener,
};
use futures_lite::future;
use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    pin::Pin,
    rc::Rc,
    sync::Arc,
};
use tidemill_disk::{Disk, Notify};
use tidemill_http::{Front, RequestIds, Server, metrics::HttpMetrics};
use tidemill_line::PartitionMap;
use tidemill_log::LogOptions;
use tidemill_raft::GroupId;
use tidemill_reactor::{CoreContext, Listeners, Pending, RingDisk};
use tidemill_store::{NoPool, OpenError, Partition, PoolBlocks, ReadCache, Turn};

/// What all cores of a process share at the start.
#[derive(Clone)]
pub struct Founding {
    pub options: Arc<Options>,
    pub door: Door,
    /// How series are dealt to partitions: fixed when the data folder was made.
    pub partitions: PartitionMap,
    /// None: a server without other nodes.
    pub membership: Option<Membership>,
    /// Draws the ids of new logs.
    pub log_seed: u64,
    pub gauge: Arc<MemoryGauge>,
    pub query_memory: Arc<QueryMemory>,
    pub series_counts: Arc<SeriesCounts>,
    pub front: Front,
    pub subscribers: Arc<Subscribers>,
    pub udp: Arc<[Arc<UdpListener>]>,
    /// Values that a tag may have; zero is any number.
    pub tag_values_max: u64,
}

impl Founding {
    /// Partitions that this node holds.
    fn held(&self) -> impl Iterator<Item = u32> + use<> {
        let roster = self.membership.as_ref().map(Membership::roster);
        let is_held = move |id: &u32| roster.as_ref().is_none_or(|roster| roster.holds(roster.node, GroupId(*id)));
        (0..self.partitions.count()).filter(is_held)
    }
}

/// What the cores do between start and stop.
#[derive(Clone)]
pub enum Door {
    /// Serve requests until a stop is asked for.
    Http(Listeners),
    /// Take none; the core of the metadata runs this to its end, which stops all.
    Work(Work),
}

/// A piece of work on one core of a running server.
pub type Work = Arc<dyn Fn(Rc<DataCore>) -> Pin<Box<dyn Future<Output = ()>>> + Send + Sync>;

/// Why a core does not come up or does not end well.
#[derive(Debug, thiserror::Error)]
pub enum StartFailure {
    #[error(transparent)]
    Recover(#[from] RecoverError),
    #[error(transparent)]
    Partition(#[from] OpenError),
    #[error(transparent)]
    Metadata(#[from] SnapshotError),
    #[error(transparent)]
    Pool(#[from] PoolSnapshotError),
    #[error(transparent)]
    Propose(#[from] ProposeError),
    #[error(transparent)]
    Handoff(#[from] crate::handoff::PushError),
    #[error("the log of {0} cores cannot be brought to its end: {1}")]
    Migrate(usize, String),
    #[error(
        "this node of a cluster has run with {found} cores and is now to run with {asked}: what it has promised the \
         others stands in the logs of its cores; change it back"
    )]
    Cores { found: usize, asked: usize },
    #[error("{0}")]
    Io(#[from] std::io::Error),
    #[error("the other cores have ended")]
    Abandoned,
    /// By the other nodes.
    #[error("{0}")]
    Refused(String),
}

pub(crate) const LOG_FOLDER: &str = "log";
/// Stands before the name of an epoch whose logs are not needed any more.
const DONE_PREFIX: &str = "done-";

/// One epoch of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Epoch {
    number: u64,
    cores: usize,
}

impl Epoch {
    fn folder(&self) -> String {
        format!("{LOG_FOLDER}/{:06}-{}", self.number, self.cores)
    }

    fn parse(name: &str) -> Option<Epoch> {
        let (number, cores) = name.split_once('-')?;
        Some(Epoch { number: number.parse().ok()?, cores: cores.parse().ok()? })
    }
}

/// Runs one core from start to stop.
pub async fn run_core(context: CoreContext<Message>, founding: Founding) -> Result<(), StartFailure> {
    let disk = context.disk.clone();
    let budget = Budget::new(founding.options.memory_limit_bytes, context.cores);
    let cache = Rc::new(ReadCache::new(budget.cache_bytes_max));
    let is_meta = context.core == META_CORE;

    let meta_machine = if is_meta {
        let machine = Rc::new(MetaMachine::load(disk.clone()).await?);
        finish_old_epochs(&context, &founding, &machine, &cache).await?;
        Some(machine)
    } else {
        None
    };
    let epoch = current_epoch(&context).await?;

    let links = founding.membership.as_ref().map(|membership| membership.links(&context));
    let reader = links.as_ref().map(|links| PoolReader::new(links.clone(), context.clone()));
    let file_keys: Rc<Cell<u64>> = Rc::default();
    let held: Rc<Held> = Rc::default();
    let ledger = Rc::new(SeriesLedger::new(founding.series_counts.clone()));
    let mut partitions = BTreeMap::new();
    let mut machines: BTreeMap<GroupId, Rc<dyn Machine>> = BTreeMap::new();
    for id in founding.held().filter(|id| *id as usize % context.cores == context.core.index()) {
        let partition = open_partition(&disk, id, &cache, &file_keys, reader.as_ref()).await?;
        let mut machine = PartitionMachine::new(partition.clone());
        let (applied, held, counted) = (partition.clone(), held.clone(), ledger.clone());
        let index_bytes = Cell::new(0);
        machine.on_applied = Box::new(move |entry| {
            let bytes = applied.index_bytes();
            held.index_bytes.set(held.index_bytes.get() + bytes - index_bytes.replace(bytes));
            counted.follow(id, &applied, entry);
            held.changed.notify();
        });
        machines.insert(GroupId(id), Rc::new(machine));
        partitions.insert(id, partition);
    }
    if let Some(machine) = &meta_machine {
        machines.insert(META_GROUP, machine.clone());
    }
    let pool = PoolParts::open(&context, &founding, reader).await?;
    if let Some(master) = &pool.master {
        machines.insert(POOL_GROUP, master.machine.clone());
    }
    let folder = format!("{}/{}", epoch.folder(), context.core.index());
    let surroundings = match (&founding.membership, &links) {
        (Some(membership), Some(links)) => membership.surroundings(&context, &budget, links, machines.keys().copied()),
        _ => Surroundings::standalone(),
    };
    let options = log_options(&context, &founding);
    let (log, mut found) = recover(disk.clone(), &folder, options, &surroundings.placement, &machines).await?;
    partitions.iter().for_each(|(id, partition)| ledger.count(*id, partition));
    let replicas = Replicas::new(log.clone(), surroundings);
    if let Some(membership) = &founding.membership {
        crate::query::number_queries(membership.options.node);
    }
    let acquaintances = match &founding.membership {
        Some(membership) if is_meta => {
            Some(Rc::new(Acquaintances::load(&founding.options.data_dir, membership.folder)?))
        }
        _ => None,
    };
    let core = Rc::new(DataCore {
        budget,
        partition_map: founding.partitions,
        leaders: LeadersElsewhere::default(),
        takes_part: founding.membership.as_ref().map_or_else(|| TakesPart::new(true), |of| of.takes_part.clone()),
        acquaintances,
        refusal: RefCell::default(),
        partitions,
        replicas,
        links,
        meta: RefCell::new(meta_machine.as_ref().map(|machine| machine.state()).unwrap_or_default()),
        meta_machine: meta_machine.clone(),
        pool,
        replies: Pending::new(),
        cache,
        held,
        confirmed: RefCell::default(),
        senders: Default::default(),
        handoff: Default::default(),
        ledger,
        tags: Rc::new(TagLedger::new(founding.tag_values_max, founding.held().count().max(1) as u32)),
        counting: Turn::default(),
        gauge: founding.gauge.clone(),
        query_memory: founding.query_memory.clone(),
        parsers: RefCell::default(),
        figures: WriteFigures::default(),
        typed_writes: TypedWrites::default(),
        scrub_figures: ScrubFigures::default(),
        mending: Turn::default(),
        continuous_figures: ContinuousFigures::default(),
        http_metrics: Rc::new(HttpMetrics::default()),
        subscribers: founding.subscribers.clone(),
        udp: founding.udp.clone(),
        met: Cell::new(false),
        nodes_followed: Cell::new(None),
        nodes_expected: RefCell::new(
            found.get(&META_GROUP).map(|found| nodes_in(found.undecided())).unwrap_or_default().into(),
        ),
        parted: Cell::new(0),
        met_changed: Notify::new(),
        stopping: Cell::new(false),
        options: founding.options.clone(),
        started_ns: context.clock.now_ns(),
        context: context.clone(),
    });
    let latency = context.queues.latency;
    let run_log = {
        let log = log.clone();
        context.spawn(latency, "log", async move { log.run().await })
    };
    for (id, machine) in &machines {
        core.replicas.open_group(*id, found.remove(id).unwrap_or_default(), machine.clone()).await?;
    }
    // Before any write of this run: none overtakes what waits there.
    core.reopen_handoff().await?;
    let commits = core.clone();
    let run_commits = context.spawn(latency, "commits", async move { commits.replicas.run_commits().await });
    context.spawn(latency, "mail", core.clone().read_mail()).detach();
    let maintenance = context.spawn(context.queues.background, "maintenance", core.clone().maintain());
    let scrub = context.spawn(context.queues.background, "scrub", core.clone().scrub());
    let copying = context.spawn(context.queues.background, "copies", core.clone().copy_files());
    if let Some(machine) = &meta_machine {
        context.spawn(latency, "metadata", core.clone().lead_meta(machine.clone())).detach();
    }
    core.pool.start(&core);
    if core.links.is_some() && !core.partitions.is_empty() {
        context.spawn(context.queues.background, "shipping", shipping::run(core.clone())).detach();
    }
    if founding.tag_values_max > 0 {
        context.spawn(latency, "large tags", core.clone().learn_large_tags()).detach();
    }
    meet(&core, meta_machine.as_deref()).await?;
    // From here on changes of the metadata may come from other nodes: every core has what was before them.
    if let Some(membership) = founding.membership.as_ref().filter(|_| core.met.get()) {
        membership.join(&core)?;
    }
    if core.met.get() {
        context.spawn(latency, "hinted handoff", core.clone().run_handoff()).detach();
    }
    let mut retention = None;
    if core.met.get() {
        if core.links.is_none() {
            core.drop_orphans().await;
        }
        let enforce = |every| context.spawn(latency, "retention", core.clone().enforce_retention(every));
        let options = &core.options;
        retention = options.retention_is_enabled.then(|| enforce(options.retention_check_interval));
    }
    let continuous = core.options.continuous;
    let runs_queries = continuous.is_enabled && runs_services(&core, &founding);
    let continuous = runs_queries
        .then(|| context.spawn(context.queues.query, "continuous queries", continuous::run(core.clone(), continuous)));

    let services = if runs_services(&core, &founding) { services(&core) } else { Vec::new() };

    let served = serve(&core, &founding).await;

    // Stop: no more requests come in; what was taken is committed; rows go to files, so that the next start replays
    // nothing. The log has them if that fails.
    if let Some(retention) = retention {
        retention.await;
    }
    if let Some(continuous) = continuous {
        continuous.await;
    }
    for service in services {
        service.await;
    }
    if core.links.is_some() {
        core.hand_groups_over().await;
    }
    core.stopping.set(true);
    core.handoff.close();
    core.halt_copies();
    core.held.changed.notify();
    copying.await;
    maintenance.await;
    scrub.await;
    if core.links.is_none() {
        core.flush_all().await;
    }
    part(&core).await;
    if let Some(links) = &core.links {
        links.close().await;
    }
    if let Some(machine) = &meta_machine {
        machine.unfollowed.close();
    }
    core.replicas.close();
    run_commits.await;
    if let Err(poisoned) = run_log.await {
        tracing::error!(%poisoned, "the log ended with an error");
    }
    context.mail.close();
    match core.refusal.take() {
        Some(why) => Err(StartFailure::Refused(why)),
        None => served,
    }
}

/// Whether what a server does by itself is done here: on one core, while requests are served.
fn runs_services(core: &DataCore, founding: &Founding) -> bool {
    core.context.core == META_CORE && core.met.get() && matches!(founding.door, Door::Http(_))
}

/// What runs beside requests, until it has ended.
type Service = Pin<Box<dyn Future<Output = ()>>>;

/// Begins what runs beside requests, until a stop is asked for.
fn services(core: &Rc<DataCore>) -> Vec<Service> {
    let context = &core.context;
    let subscriptions = core.clone().keep_subscriptions();
    let mut begun: Vec<Service> =
        vec![Box::pin(context.spawn(context.queues.background, "subscriptions", subscriptions))];
    let precreation = core.options.precreation;
    if precreation.is_enabled {
        let precreate = core.clone().precreate_groups(precreation);
        begun.push(Box::pin(context.spawn(context.queues.background, "shard groups to come", precreate)));
    }
    let monitor = core.options.monitor.clone();
    if monitor.is_enabled {
        let run = self_monitor::run(core.clone(), monitor);
        begun.push(Box::pin(context.spawn(context.queues.background, "self monitor", run)));
    }
    for listener in core.udp.iter() {
        let serve = listener.clone().serve(core.clone());
        begun.push(Box::pin(context.spawn(context.queues.latency, "udp", serve)));
    }
    begun
}

/// Accepts requests until a stop is asked for.
async fn serve(core: &Rc<DataCore>, founding: &Founding) -> Result<(), StartFailure> {
    let context = &core.context;
    let listeners = match &founding.door {
        Door::Http(listeners) => listeners,
        Door::Work(work) => {
            if context.core == META_CORE {
                work(core.clone()).await;
                context.shutdown.request();
            }
            context.shutdown.requested().await;
            return Ok(());
        }
    };
    let listener = listeners.take(context.core, &context.metrics)?.into_listener();
    let clock = context.clock.clone();
    let random = context.seed.random_u64().to_le_bytes();
    let node = [random[0] | 1, random[1], random[2], random[3], random[4], random[5]];
    let sequence = u16::from_le_bytes([random[6], random[7]]);
    let request_ids = RequestIds::new(node, sequence, move || clock.now_ns() as u64);
    let service = Rc::new(DataService::new(core.clone()));
    let options = http_options(&core.options.http, &core.budget);
    let server = Rc::new(Server::new(service, options, core.http_metrics.clone(), request_ids, founding.front.clone()));
    if context.core == META_CORE {
        tracing::info!(addr = %listeners.addr(), cores = context.cores, "ready for queries and writes");
    }
    let accept = server.clone();
    let accepting = context.spawn(context.queues.latency, "http", async move { accept.run(listener).await });
    context.shutdown.requested().await;
    server.shutdown();
    accepting.await;
    Ok(())
}

/// The limits of the configuration, held inside the core's budget.
fn http_options(options: &tidemill_http::Options, budget: &Budget) -> tidemill_http::Options {
    let mut options = options.clone();
    // A compressed body is noticed to be too long one byte behind its end.
    let body_bytes_max = budget.bodies_bytes_max - 1;
    options.body_bytes_max = match options.body_bytes_max {
        0 => body_bytes_max,
        bytes_max => bytes_max.min(body_bytes_max),
    };
    options.bodies_bytes_max = budget.bodies_bytes_max;
    if options.connection_count_max == 0 {
        options.connection_count_max = budget.connection_count_max;
    }
    options
}

/// Gives every core the metadata; returns when this core has them.
async fn meet(core: &Rc<DataCore>, machine: Option<&MetaMachine<RingDisk>>) -> Result<(), StartFailure> {
    if let Some(machine) = machine {
        let meta = Arc::new(machine.state());
        let expected = core.nodes_expected.borrow().clone();
        for other in core.cores().filter(|other| *other != core.context.core) {
            let sent = core
                .context
                .mail
                .send_to(other, Message::Metadata { meta: meta.clone(), expected: expected.clone() })
                .await;
            sent.map_err(|_| StartFailure::Abandoned)?;
        }
        core.met.set(true);
        core.met_changed.notify();
    }
    loop {
        let changed = core.met_changed.notified();
        if core.met.get() {
            return Ok(());
        }
        let stop = async {
            core.context.shutdown.requested().await;
        };
        future::or(changed, stop).await;
        if core.context.shutdown.is_requested() && !core.met.get() {
            return Ok(());
        }
    }
}

/// Waits until no core needs this one's log or partitions any more.
async fn part(core: &Rc<DataCore>) {
    let others: Vec<_> = core.cores().filter(|other| *other != core.context.core).collect();
    for other in &others {
        if core.context.mail.send_to(*other, Message::Parting).await.is_err() {
            // It has ended already, and so has left before.
            core.parted.set(core.parted.get() + 1);
        }
    }
    loop {
        let changed = core.met_changed.notified();
        if core.parted.get() >= others.len() {
            return;
        }
        changed.await;
    }
}

async fn open_partition(
    disk: &RingDisk,
    id: u32,
    cache: &Rc<ReadCache>,
    file_keys: &Rc<Cell<u64>>,
    reader: Option<&PoolReader>,
) -> Result<Rc<Partition<RingDisk>>, StartFailure> {
    let folder = format!("partitions/{id:03}");
    let pool: Rc<dyn PoolBlocks> = match reader {
        Some(reader) => Rc::new(reader.clone()),
        None => Rc::new(NoPool),
    };
    Ok(Rc::new(Partition::open_with_pool(disk.clone(), folder, cache.clone(), file_keys.clone(), pool).await?))
}

fn log_options(context: &CoreContext<Message>, founding: &Founding) -> LogOptions {
    LogOptions { new_log_id: context.seed.random_u64() ^ founding.log_seed, ..founding.options.log.clone() }
}

/// Epochs whose logs are needed, in order, and the number for a new one: above all that ever were, because the folders
/// of finished ones stay.
async fn epochs(disk: &RingDisk) -> Result<(Vec<Epoch>, u64), StartFailure> {
    disk.create_dir(LOG_FOLDER).await?;
    let names = disk.list(LOG_FOLDER).await?;
    let mut needed: Vec<Epoch> = names.iter().filter_map(|name| Epoch::parse(name)).collect();
    needed.sort_unstable();
    let ever = names.iter().filter_map(|name| Epoch::parse(name.strip_prefix(DONE_PREFIX).unwrap_or(name)));
    let newest = ever.map(|epoch| epoch.number).max().unwrap_or(0);
    Ok((needed, newest + 1))
}

/// Folders of the epochs whose logs are needed, in order.
pub(crate) async fn epochs_in<D: Disk>(disk: &D) -> std::io::Result<Vec<String>> {
    let names = disk.list(LOG_FOLDER).await?;
    let mut needed: Vec<(Epoch, String)> =
        names.into_iter().filter_map(|name| Some((Epoch::parse(&name)?, name))).collect();
    needed.sort_unstable();
    Ok(needed.into_iter().map(|(_, name)| name).collect())
}

/// The epoch of this number of cores. Core 0 makes it; the others wait until it is there.
async fn current_epoch(context: &CoreContext<Message>) -> Result<Epoch, StartFailure> {
    if context.core == META_CORE {
        let (needed, number) = epochs(&context.disk).await?;
        let epoch = match needed.last() {
            Some(last) if last.cores == context.cores => *last,
            _ => Epoch { number, cores: context.cores },
        };
        context.disk.create_dir(&epoch.folder()).await?;
        for other in (0..context.cores as u16).map(tidemill_reactor::CoreId).filter(|other| *other != META_CORE) {
            let sent = context.mail.send_to(other, Message::Epoch { number: epoch.number }).await;
            sent.map_err(|_| StartFailure::Abandoned)?;
        }
        return Ok(epoch);
    }
    // Nothing else is sent before: the reader of the mail starts later.
    let stopped = async {
        context.shutdown.requested().await;
        None
    };
    match future::or(context.mail.receive(), stopped).await {
        Some((_, Message::Epoch { number })) => Ok(Epoch { number, cores: context.cores }),
        _ => Err(StartFailure::Abandoned),
    }
}

/// Brings epochs of other numbers of cores to their end: replays their logs, writes everything to files, and removes
/// them. Only core 0 does it, before any core opens a partition.
async fn finish_old_epochs(
    context: &CoreContext<Message>,
    founding: &Founding,
    meta: &Rc<MetaMachine<RingDisk>>,
    cache: &Rc<ReadCache>,
) -> Result<(), StartFailure> {
    let (known, _) = epochs(&context.disk).await?;
    let old = known.iter().filter(|epoch| epoch.cores != context.cores || Some(*epoch) != known.last());
    for epoch in old {
        if founding.membership.is_some() {
            return Err(StartFailure::Cores { found: epoch.cores, asked: context.cores });
        }
        tracing::info!(
            cores = epoch.cores,
            now = context.cores,
            "bringing the log of another number of cores to its end"
        );
        for core in 0..epoch.cores {
            finish_log(context, founding, meta, cache, *epoch, core).await?;
        }
        // The rename decides: before it all logs are there and are replayed again, behind it none is needed.
        let done = format!("{LOG_FOLDER}/{DONE_PREFIX}{:06}-{}", epoch.number, epoch.cores);
        context.disk.rename(&epoch.folder(), &done).await?;
        context.disk.sync_dir(LOG_FOLDER).await?;
    }
    for done in context.disk.list(LOG_FOLDER).await?.iter().filter(|name| name.starts_with(DONE_PREFIX)) {
        for core in context.disk.list(&format!("{LOG_FOLDER}/{done}")).await? {
            let folder = format!("{LOG_FOLDER}/{done}/{core}");
            for name in context.disk.list(&folder).await? {
                context.disk.remove(&format!("{folder}/{name}")).await?;
            }
        }
    }
    Ok(())
}

/// Replays one core's log of an old epoch and writes what it held to files.
async fn finish_log(
    context: &CoreContext<Message>,
    founding: &Founding,
    meta: &Rc<MetaMachine<RingDisk>>,
    cache: &Rc<ReadCache>,
    epoch: Epoch,
    core: usize,
) -> Result<(), StartFailure> {
    let folder = format!("{}/{core}", epoch.folder());
    if context.disk.list(&folder).await?.is_empty() {
        return Ok(());
    }
    let mut machines: BTreeMap<GroupId, Rc<dyn Machine>> = BTreeMap::new();
    let mut partitions = Vec::new();
    let file_keys: Rc<Cell<u64>> = Rc::default();
    for id in founding.held().filter(|id| *id as usize % epoch.cores == core) {
        let partition = open_partition(&context.disk, id, cache, &file_keys, None).await?;
        machines.insert(GroupId(id), Rc::new(PartitionMachine::new(partition.clone())));
        partitions.push((GroupId(id), partition));
    }
    if core == META_CORE.index() {
        machines.insert(META_GROUP, meta.clone());
    }
    let surroundings = Surroundings::standalone();
    let options = log_options(context, founding);
    let (log, mut found) = recover(context.disk.clone(), &folder, options, &surroundings.placement, &machines).await?;
    let replicas = Rc::new(Replicas::new(log.clone(), surroundings));
    let run_log = context.spawn(context.queues.latency, "old log", async move { log.run().await });
    for (id, machine) in &machines {
        replicas.open_group(*id, found.remove(id).unwrap_or_default(), machine.clone()).await?;
    }
    let commits = replicas.clone();
    let run_commits = context.spawn(context.queues.latency, "old commits", async move { commits.run_commits().await });
    for (id, partition) in &partitions {
        let failed = |error: String| StartFailure::Migrate(epoch.cores, error);
        let ticket = replicas.propose(*id, Payload::Command(founding.options.flush().encode().into()))?;
        ticket.outcome().await.map_err(|error| failed(error.to_string()))?;
        partition.maintain().await.map_err(|error| failed(error.to_string()))?;
    }
    if core == META_CORE.index() {
        meta.snapshot().await?;
    }
    replicas.close();
    run_commits.await;
    run_log.await.map_err(|poisoned| StartFailure::Migrate(epoch.cores, poisoned.to_string()))?;
    Ok(())
}
