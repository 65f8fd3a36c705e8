//! The standalone role: one data group of one replica, with the metadata embedded.

use crate::{
    backup::{is_unfinished, snapshot},
    data::{
        Budget, Door, Founding, MemoryGauge, SeriesCounts, StartFailure, Work, bound_allocator, message::Message,
        run_core,
    },
    data_lock::DataLock,
    https,
    identity::Identity,
    options::Options,
    query::QueryMemory,
    side_thread,
    subscriber::Subscribers,
    udp::UdpListener,
};
use anyhow::{Context, bail};
use std::sync::Arc;
use tidemill_http::{AccessLog, Front};
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

/// Runs a server until it is told to stop.
pub fn run(options: Options) -> anyhow::Result<()> {
    let _lock = DataLock::exclusive(&options.data_dir)?;
    bound_allocator(options.cores);
    if is_unfinished(&options.data_dir) {
        bail!("{}: its restore was not finished; run it again", options.data_dir.display());
    }
    snapshot::remove_all(&options.data_dir).context("removing snapshots of an earlier run")?;
    let seed = Seed::from_system().context("drawing a seed")?;
    let identity = Identity::establish(&options.data_dir, options.partitions, seed.random_u64())?;
    warn_of_open_door(&options);
    let listeners = Listeners::bind(options.http_addr, options.cores)?;
    start(options, identity, Door::Http(listeners))
}

/// Runs a server that takes no requests until the work is done, then stops it in order.
pub fn run_work(options: Options, work: Work) -> anyhow::Result<()> {
    let _lock = DataLock::exclusive(&options.data_dir)?;
    bound_allocator(options.cores);
    let seed = Seed::from_system().context("drawing a seed")?;
    let identity = Identity::establish(&options.data_dir, options.partitions, seed.random_u64())?;
    start(options, identity, Door::Work(work))
}

fn start(options: Options, identity: Identity, door: Door) -> anyhow::Result<()> {
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
        partitions: identity.partitions,
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
