//! The nodes that a proxy passes requests to, as one of its threads sees them.
//!
//! Owns: the connections to each node, and whether it answers: asked every interval, and noted at once where a request
//! finds it gone.
//! Invariants: nothing here outlives the process or is told to other proxies; a node that does not answer is still tried
//! when no other does.
//! Knows nothing of what requests say.

use super::{options::ProxyOptions, placement::Placement, verdict::error_text, write::now_ns};
use crate::access::proof;
use hyper::{Request, Response, StatusCode, header::HOST};
use std::{
    cell::{Cell, RefCell},
    future::poll_fn,
    net::SocketAddr,
    rc::Rc,
    task::{Poll, Waker},
    time::Duration,
};
use tidemill_edge::{Answer, Outgoing, Pool, PoolOptions, SendFailure, sleep, within};
use tidemill_http::{X_TIDEMILL_CLAIM, X_TIDEMILL_PROOF};
use tidemill_line::PartitionMap;

/// One node.
pub struct Node {
    /// As the configuration names it.
    pub name: String,
    pool: Rc<Pool>,
    is_up: Cell<bool>,
    /// Requests that wait for its answer, woken when it goes down.
    waiting: RefCell<Vec<Waker>>,
    has_complained: Cell<bool>,
    /// Behind each other.
    late_pings: Cell<u32>,
    /// Its last word.
    placement: RefCell<Option<Placement>>,
    pub figures: NodeFigures,
}

/// What is counted of a node.
#[derive(Debug, Default)]
pub struct NodeFigures {
    pub requests: Cell<u64>,
    /// Requests that brought no answer.
    pub failures: Cell<u64>,
    pub falls: Cell<u64>,
}

/// All nodes.
pub struct Nodes {
    all: Vec<Rc<Node>>,
    next: Cell<usize>,
}

/// A node closes connections without requests after five minutes.
const IDLE_MAX: Duration = Duration::from_secs(60);
/// How long a node may take to say that it is there.
const PING_DEADLINE: Duration = Duration::from_secs(2);
/// Times behind each other that it may be late: a machine that is busy for a moment is not gone.
const LATE_PINGS_MAX: u32 = 1;
/// How long a node that is gone is waited for where no other one answers.
const COMEBACK_WAIT: Duration = Duration::from_secs(5);

impl Node {
    fn new(name: String, address: SocketAddr, options: &ProxyOptions) -> Node {
        let pool = Pool::new(
            address,
            PoolOptions {
                connections_max: options.connections_per_node,
                connect_deadline: options.connect_deadline,
                idle_max: IDLE_MAX,
            },
        );
        Node {
            name,
            pool,
            is_up: Cell::new(true),
            waiting: RefCell::default(),
            has_complained: Cell::new(false),
            late_pings: Cell::new(0),
            placement: RefCell::default(),
            figures: NodeFigures::default(),
        }
    }

    pub fn is_up(&self) -> bool {
        self.is_up.get()
    }

    /// Whether it has said where series go, and stamps the identities that the proxy gives.
    pub fn has_placement(&self) -> bool {
        self.placement.borrow().as_ref().is_some_and(|known| known.knows_proxies)
    }

    pub fn connections(&self) -> usize {
        self.pool.open_count()
    }

    /// Sends a request and gives the head of its answer.
    ///
    /// # Errors
    /// There is none, also when the node is found to be gone while it is waited for.
    pub async fn send(&self, mut request: Request<Outgoing>) -> Result<Response<Answer>, SendFailure> {
        self.figures.requests.set(self.figures.requests.get() + 1);
        if let Ok(host) = self.name.parse() {
            request.headers_mut().insert(HOST, host);
        }
        let gone = async {
            self.until_down().await;
            Err(SendFailure::Unknown("the node does not answer any more".to_owned()))
        };
        let sent = futures_lite::future::or(self.pool.send(request), gone).await;
        if let Err(failure) = &sent {
            self.figures.failures.set(self.figures.failures.get() + 1);
            if let SendFailure::NotSent(why) = failure {
                self.note(false, why);
            }
        }
        sent
    }

    /// Asks the node whether it is there, and where series go if it knows the proxy by this secret.
    pub async fn look(&self, secret: &str) {
        self.ping().await;
        if self.is_up() && !secret.is_empty() {
            self.ask_placement(secret).await;
        }
    }

    async fn ask_placement(&self, secret: &str) {
        let text = format!("placement {}", now_ns());
        let request = Request::builder()
            .uri("/cluster/placement")
            .header(HOST, self.name.as_str())
            .header(X_TIDEMILL_PROOF, proof(secret, &text))
            .header(X_TIDEMILL_CLAIM, text);
        let Ok(request) = request.body(Outgoing::default()) else { return };
        let asked = async {
            let (head, body) = self.pool.send(request).await.ok()?.into_parts();
            Some((head.status, body.collect(PLACEMENT_BYTES_MAX).await.ok()?))
        };
        // What was said holds until something else is said: a node that is busy has not moved its series.
        let Some(Some((status, body))) = within(PING_DEADLINE, asked).await else { return };
        let told = match status {
            StatusCode::OK => Placement::parse(&body),
            status => Err(format!("{status}: {}", error_text(&body))),
        };
        if let Err(error) = &told
            && (self.placement.borrow().is_some() || !self.has_complained.replace(true))
        {
            tracing::warn!(node = self.name, error, "the node does not say where series go");
        }
        *self.placement.borrow_mut() = told.ok();
    }

    async fn ping(&self) {
        let request = Request::builder().uri("/ping").header(HOST, self.name.as_str()).body(Outgoing::default());
        let Ok(request) = request else { return };
        match within(PING_DEADLINE, self.pool.send(request)).await {
            None => {
                let late = self.late_pings.get() + 1;
                self.late_pings.set(late);
                if late > LATE_PINGS_MAX {
                    self.note(false, "no answer in time");
                }
                return;
            }
            Some(Err(failure)) => self.note(false, &failure.to_string()),
            Some(Ok(response)) => {
                let status = response.status();
                // To its end, so that the connection can be used again.
                let _ = response.into_body().collect(PING_BYTES_MAX).await;
                self.note(!status.is_server_error(), status.as_str());
            }
        }
        self.late_pings.set(0);
    }

    fn note(&self, is_up: bool, why: &str) {
        if self.is_up.replace(is_up) == is_up {
            return;
        }
        if is_up {
            return tracing::info!(node = self.name, "the node answers again");
        }
        tracing::warn!(node = self.name, why, "the node does not answer");
        self.figures.falls.set(self.figures.falls.get() + 1);
        self.pool.close_idle();
        let waiting = std::mem::take(&mut *self.waiting.borrow_mut());
        waiting.into_iter().for_each(Waker::wake);
    }

    /// Ends when the node is found to be gone. One that is gone already, and was asked for want of others, has a while to
    /// come back.
    async fn until_down(&self) {
        if !self.is_up() {
            sleep(COMEBACK_WAIT).await;
        }
        poll_fn(|context| {
            if !self.is_up() {
                return Poll::Ready(());
            }
            let mut waiting = self.waiting.borrow_mut();
            waiting.retain(|waker| !waker.will_wake(context.waker()));
            waiting.push(context.waker().clone());
            Poll::Pending
        })
        .await;
    }
}

const PING_BYTES_MAX: usize = 64 << 10;
const PLACEMENT_BYTES_MAX: usize = 1 << 20;

impl Nodes {
    pub fn new(options: &ProxyOptions) -> Nodes {
        let all = options.nodes.iter().map(|(name, address)| Rc::new(Node::new(name.clone(), *address, options)));
        Nodes { all: all.collect(), next: Cell::new(0) }
    }

    pub fn all(&self) -> &[Rc<Node>] {
        &self.all
    }

    pub fn is_any_up(&self) -> bool {
        self.all.iter().any(|node| node.is_up())
    }

    /// Where series go, if all nodes that say it say the same; a write is not dealt otherwise.
    pub fn map(&self) -> Option<PartitionMap> {
        let mut known: Option<Placement> = None;
        for node in &self.all {
            let placement = node.placement.borrow();
            let Some(placement) = placement.as_ref() else { continue };
            match &known {
                None if placement.knows_proxies => known = Some(placement.clone()),
                Some(other) if other.cluster != placement.cluster || other.map != placement.map => {
                    tracing::warn!(node = node.name, "the node is of another cluster than others");
                    return None;
                }
                _ => {}
            }
        }
        known.map(|placement| placement.map)
    }

    /// Nodes that take a write to a data group, in the order in which they are to be tried: first who leads most of these
    /// partitions, then other nodes of the group, then other data nodes, last those that do not answer.
    pub fn of_group(&self, group: u32, partitions: &[u32]) -> Vec<Rc<Node>> {
        let mut order = self.in_turn();
        order.retain(|node| node.placement.borrow().as_ref().is_none_or(|known| known.data_group.is_some()));
        order.sort_by_cached_key(|node| {
            let placement = node.placement.borrow();
            let known = placement.as_ref().filter(|placement| placement.knows_proxies);
            let led = known.map_or(0, |placement| placement.led_of(partitions));
            let is_of_group = known.is_some_and(|placement| placement.data_group == Some(group + 1));
            (!node.is_up(), known.is_none(), !is_of_group, std::cmp::Reverse(led))
        });
        order
    }

    /// All nodes in the order in which they are to be tried: those that answer in turn, then the others.
    pub fn in_turn(&self) -> Vec<Rc<Node>> {
        let first = self.next.get();
        self.next.set((first + 1) % self.all.len());
        let mut order: Vec<_> = self.all[first..].iter().chain(&self.all[..first]).cloned().collect();
        // Meta nodes answer no queries.
        let holds_data = |node: &Node| node.placement.borrow().as_ref().is_none_or(|known| known.data_group.is_some());
        order.sort_by_key(|node| (!node.is_up(), !holds_data(node)));
        order
    }
}
