//! The roles that hold data, as processes: `standalone`, and `data`, which is the same with replicas at other nodes.
//!
//! Both are one code path: a standalone server is a cluster of one node without a name.

use crate::{
    acquaintance::Acquaintances,
    backup::{is_unfinished, snapshot},
    data::{
        Budget, Door, Founding, Membership, MemoryGauge, SeriesCounts, StartFailure, TakesPart, Work, bound_allocator,
        message::Message, run_core,
    },
    data_lock::DataLock,
    https,
    identity::{Identity, Owner},
    links::Rotation,
    options::{ClusterOptions, Options},
    query::QueryMemory,
    side_thread,
    subscriber::Subscribers,
    udp::UdpListener,
};
use anyhow::{Context, bail};
use std::{path::Path, sync::Arc};
use tidemill_http::{AccessLog, Front};
use tidemill_line::PartitionMap;
use tidemill_log::Durability;
use tidemill_reactor::{CoreContext, CoreError, Listeners, ReactorOptions, Seed};

/// Whoever reaches the server may read and drop everything.
fn warn_of_open_door(options: &Options) {
    let addr = options.http_addr;
    if !addr.ip().is_loopback() && !options.access.is_enabled {
        tracing::warn!(
            %addr,
            "REACHABLE FROM OTHER MACHINES WITHOUT AUTHENTICATION: anybody may read, write and drop everything; \
             set http.auth-enabled = true and create an admin user, or bind to 127.0.0.1"
        );
    }
}

/// Whose data folder this is to be.
fn owner(options: &Options, seed: &Seed) -> Owner {
    match &options.cluster {
        None => Owner::Standalone { new: seed.random_u64() },
        Some(cluster) => Owner::Node { node: cluster.node.0, data: cluster.data_id(), new: seed.random_u64() },
    }
}

/// Runs a server until it is told to stop.
pub fn run(options: Options) -> anyhow::Result<()> {
    let _lock = DataLock::exclusive(&options.data_dir)?;
    bound_allocator(options.cores);
    if is_unfinished(&options.data_dir) {
        bail!("{}: its restore was not finished; run it again", options.data_dir.display());
    }
    snapshot::remove_all(&options.data_dir).context("removing snapshots of an earlier run")?;
    let seed = Seed::from_system().context("drawing a seed")?;
    let owner = owner(&options, &seed);
    let identity = Identity::establish(&options.data_dir, options.partitions, owner)?;
    warn_of_open_door(&options);
    let listeners = Listeners::bind(options.http_addr, options.cores)?;
    start(options, identity, Door::Http(listeners), seed.random_u64())
}

/// Runs a server that takes no requests until the work is done, then stops it in order.
pub fn run_work(options: Options, work: Work) -> anyhow::Result<()> {
    let _lock = DataLock::exclusive(&options.data_dir)?;
    bound_allocator(options.cores);
    let seed = Seed::from_system().context("drawing a seed")?;
    let owner = owner(&options, &seed);
    let identity = Identity::establish(&options.data_dir, options.partitions, owner)?;
    start(options, identity, Door::Work(work), seed.random_u64())
}

/// What a node of a cluster is to the others.
fn membership(
    cluster: &ClusterOptions,
    data_dir: &Path,
    identity: Identity,
    incarnation: u64,
) -> anyhow::Result<Membership> {
    let node = tidemill_peer::NodeId(cluster.node.0);
    let certificates = Rotation::follow(cluster.id, node, &cluster.certificates);
    let certificates =
        certificates.with_context(|| format!("cluster.certificates {}", cluster.certificates.display()))?;
    let shape = cluster.shape(identity.partitions);
    let partitions = PartitionMap::new(cluster.groups, identity.partitions)?;
    let takes_part = TakesPart::new(Acquaintances::is_noted(data_dir));
    let options = Arc::new(cluster.clone());
    Ok(Membership { options, certificates, partitions, shape, incarnation, folder: identity.folder, takes_part })
}

fn start(options: Options, identity: Identity, door: Door, incarnation: u64) -> anyhow::Result<()> {
    let membership = options.cluster.as_ref();
    let membership =
        membership.map(|cluster| self::membership(cluster, &options.data_dir, identity, incarnation)).transpose()?;
    let mut reactor = ReactorOptions::new(options.cores, options.data_dir.clone());
    reactor.dsync = options.log.durability == Durability::Dsync;
    reactor.allow_buffered = options.allow_buffered;
    reactor.spin_before_park = options.spin_before_park;
    reactor.io_memory_bytes = Budget::new(options.memory_limit_bytes, options.cores).io_bytes;
    let gauge = Arc::new(MemoryGauge::new(options.memory_limit_bytes));
    gauge.watch().context("starting the thread that measures memory")?;
    let front = match &door {
        Door::Http(_) => {
            let log = &options.access_log;
            let opened = AccessLog::open(log).with_context(|| format!("access log {}", log.path.display()))?;
            let (access_log, writer) = opened.unzip();
            if let Some(writer) = writer {
                side_thread::spawn("access-log", move || writer.run()).context("starting the access log's thread")?;
            }
            Front { access_log, tls: https::server_config(&options.https)? }
        }
        Door::Work(_) => Front::default(),
    };
    let queries_bytes_max = Budget::queries_bytes_max(options.memory_limit_bytes);
    let (series_max, tag_values_max) = match door {
        Door::Http(_) => (options.series_per_database_max, options.values_per_tag_max),
        // What is brought over was taken in before.
        Door::Work(_) => (0, 0),
    };
    let series_counts = Arc::new(SeriesCounts::new(series_max));
    let udp = match door {
        Door::Http(_) => {
            options.udp.iter().map(|one| UdpListener::open(one).map(Arc::new)).collect::<anyhow::Result<_>>()?
        }
        Door::Work(_) => Arc::from([]),
    };
    let founding = Founding {
        subscribers: Arc::new(Subscribers::new(options.subscriber.clone())),
        udp,
        options: Arc::new(options),
        door,
        partitions: match &membership {
            Some(membership) => membership.partitions,
            None => PartitionMap::single(identity.partitions),
        },
        membership,
        log_seed: identity.cluster,
        series_counts,
        tag_values_max,
        query_memory: Arc::new(QueryMemory::new(queries_bytes_max, gauge.clone())),
        gauge,
        front,
    };
    let main = move |context: CoreContext<Message>| {
        let founding = founding.clone();
        async move { run_core(context, founding).await.map_err(|error: StartFailure| CoreError::from(error)) }
    };
    tidemill_reactor::run(reactor, main)?;
    Ok(())
}
