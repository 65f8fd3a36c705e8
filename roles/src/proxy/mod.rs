//! The proxy role: a stateless front of a cluster, on monoio.
//!
//! Owns: the threads of the process and the order in which it ends: no new connection, those without a request are closed,
//! requests that are in work end or are late.
//! Invariants: no proxy remembers anything that a node needs, so that any number of them stand before the same nodes;
//! nothing here runs on the executor that the other roles have.
//!
//! ```text
//! run ── threads ── edge (answers, refuses, passes on) ─┬─ nodes (who answers, placement) ── tidemill-edge (HTTP on monoio)
//!                                                       └─ write (parts, identities, verdicts)
//! ```

mod edge;
mod figures;
mod gather;
mod nodes;
mod options;
mod parts;
mod placement;
mod signals;
mod verdict;
mod write;

pub use options::ProxyOptions;
pub use placement::Placement;
pub use verdict::{Claiming, Verdict, claiming, error_text, joined};

use crate::data::Senders;
use anyhow::Context;
use edge::{Edge, Load};
use figures::{Board, Figures};
use gather::Gather;
use nodes::Nodes;
use signals::StopSignals;
use std::{
    cell::RefCell,
    net::TcpListener,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};
use tidemill_edge::{Server, sleep, spawn};
use tidemill_http::{AnswerHeaders, RequestIds};
use tidemill_reactor::{Listeners, Seed};

/// How often a thread looks whether it is to end.
const STOP_LOOK_INTERVAL: Duration = Duration::from_millis(50);
/// How often a thread shows its figures to the others.
const SHOW_INTERVAL: Duration = Duration::from_secs(1);

/// What all threads share.
#[derive(Clone)]
struct Founding {
    options: Arc<ProxyOptions>,
    board: Board,
    load: Arc<Load>,
    is_stopping: Arc<AtomicBool>,
    random: u64,
}

/// Runs a proxy until it is told to stop.
///
/// # Errors
/// Its address cannot be served, or a thread cannot run.
pub fn run(options: ProxyOptions) -> anyhow::Result<()> {
    let signals = StopSignals::block().context("blocking the signals that stop the proxy")?;
    let listeners = Listeners::bind(options.bind, options.cores)?;
    let (address, nodes) = (listeners.addr(), options.nodes.len());
    let founding = Founding {
        options: Arc::new(options),
        board: Board::default(),
        load: Arc::default(),
        is_stopping: Arc::default(),
        random: Seed::from_system().context("drawing a seed")?.random_u64(),
    };
    let mut threads = Vec::new();
    for (number, listener) in listeners.into_std().into_iter().enumerate() {
        let founding = founding.clone();
        let thread = std::thread::Builder::new().name(format!("proxy-{number}"));
        let run = move || tidemill_edge::run(serve(number, listener, founding));
        threads.push(thread.spawn(run).context("starting a thread")?);
    }
    tracing::info!(%address, nodes, "the proxy serves");
    let is_stopping = founding.is_stopping.clone();
    crate::side_thread::spawn("signals", move || {
        let signal = signals.wait();
        tracing::info!(signal, "stopping; a second signal ends the process at once");
        is_stopping.store(true, Ordering::Relaxed);
        let signal = signals.wait();
        std::process::exit(128 + signal);
    })
    .context("starting the thread that waits for signals")?;
    for thread in threads {
        let ended = thread.join().map_err(|_| anyhow::anyhow!("a thread of the proxy panicked"))?;
        ended.context("making a ring")?.context("serving")?;
    }
    Ok(())
}

/// One thread, until the proxy is told to stop.
async fn serve(thread: usize, listener: TcpListener, founding: Founding) -> std::io::Result<()> {
    let Founding { options, board, load, is_stopping, random } = founding;
    let random = random.wrapping_add(thread as u64);
    let edge = Rc::new(Edge {
        nodes: Nodes::new(&options),
        figures: Rc::new(Figures::new(thread, &board)),
        senders: Senders::default(),
        sender: write::sender_number(random),
        session_ns: write::now_ns(),
        router: RefCell::default(),
        gather: Gather::default(),
        headers: AnswerHeaders::new(&options.http, request_ids(random)),
        options: options.clone(),
        load,
    });
    for node in edge.nodes.all() {
        let (node, options) = (node.clone(), options.clone());
        spawn(async move {
            loop {
                node.look(&options.shared_secret).await;
                sleep(options.health_interval).await;
            }
        });
    }
    let server = Server::new(edge.clone(), options.http.clone());
    let (watched, shown) = (server.clone(), edge.clone());
    spawn(async move {
        loop {
            let (accepted, overdue) = watched.accepted_and_overdue();
            shown.figures.connections.set(watched.connection_count() as u64);
            shown.figures.connections_accepted.set(accepted);
            shown.figures.connections_overdue.set(overdue);
            shown.figures.show(&shown.nodes);
            sleep(SHOW_INTERVAL).await;
        }
    });
    let stop = async move {
        while !is_stopping.load(Ordering::Relaxed) {
            sleep(STOP_LOOK_INTERVAL).await;
        }
    };
    server.run(listener, stop).await
}

/// Identities of requests that bring none.
fn request_ids(random: u64) -> RequestIds {
    let [a, b, c, d, e, f, ..] = random.to_be_bytes();
    RequestIds::new([a, b, c, d, e, f], random as u16, || {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
    })
}
