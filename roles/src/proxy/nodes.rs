//! The nodes that a proxy passes requests to, as one of its threads sees them.
//!
//! Owns: the connections to each node, and whether it answers: asked every interval, and noted at once where a request
//! finds it gone.
//! Invariants: nothing here outlives the process or is told to other proxies; a node that does not answer is still tried
//! when no other does.
//! Knows nothing of what requests say.

use super::options::ProxyOptions;
use hyper::{Request, Response, header::HOST};
use std::{
    cell::{Cell, RefCell},
    future::poll_fn,
    net::SocketAddr,
    rc::Rc,
    task::{Poll, Waker},
    time::Duration,
};
use tidemill_edge::{Answer, Outgoing, Pool, PoolOptions, SendFailure, within};

/// One node.
pub struct Node {
    /// As the configuration names it.
    pub name: String,
    pool: Rc<Pool>,
    is_up: Cell<bool>,
    /// Requests that wait for its answer, woken when it goes down.
    waiting: RefCell<Vec<Waker>>,
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
        Node { name, pool, is_up: Cell::new(true), waiting: RefCell::default(), figures: NodeFigures::default() }
    }

    pub fn is_up(&self) -> bool {
        self.is_up.get()
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

    /// Asks the node whether it is there.
    pub async fn look(&self) {
        let request = Request::builder().uri("/ping").header(HOST, self.name.as_str()).body(Outgoing::default());
        let Ok(request) = request else { return };
        match within(PING_DEADLINE, self.pool.send(request)).await {
            None => self.note(false, "no answer in time"),
            Some(Err(failure)) => self.note(false, &failure.to_string()),
            Some(Ok(response)) => {
                let status = response.status();
                // To its end, so that the connection can be used again.
                let _ = response.into_body().collect(PING_BYTES_MAX).await;
                self.note(!status.is_server_error(), status.as_str());
            }
        }
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

    /// Ends when a node that was up is found to be gone.
    async fn until_down(&self) {
        let was_up = self.is_up();
        poll_fn(|context| {
            if was_up && !self.is_up() {
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

    /// All nodes in the order in which they are to be tried: those that answer in turn, then the others.
    pub fn in_turn(&self) -> Vec<Rc<Node>> {
        let first = self.next.get();
        self.next.set((first + 1) % self.all.len());
        let mut order: Vec<_> = self.all[first..].iter().chain(&self.all[..first]).cloned().collect();
        order.sort_by_key(|node| !node.is_up());
        order
    }
}
