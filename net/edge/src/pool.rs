//! The connections to one node.
//!
//! Owns: idle connections, and the count of all. A connection is leased for one request and comes back when its answer has
//! been taken to the end; otherwise it is closed.
//! Invariants: never more than [`PoolOptions::connections_max`] are open; those who wait for one are served as others come
//! back; an idle connection is closed before the node would close it, so that a request does not meet the node's close.
//! Knows nothing of what is asked.

use crate::answer::{Answer, Outgoing};
use crate::socket::Socket;
use hyper::client::conn::http1::{self, SendRequest};
use hyper::{Request, Response};
use monoio::net::TcpStream;
use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::net::SocketAddr;
use std::rc::Rc;
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

/// Limits of a pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolOptions {
    /// Open connections at most; further requests wait for one. At least 1.
    pub connections_max: usize,
    pub connect_deadline: Duration,
    /// An unused connection is closed after so long.
    pub idle_max: Duration,
}

/// Connections to one node. Shared by the requests of a thread.
pub struct Pool {
    address: SocketAddr,
    options: PoolOptions,
    idle: RefCell<Vec<Idle>>,
    open: Cell<usize>,
    waiting: RefCell<Vec<Waker>>,
}

struct Idle {
    sender: SendRequest<Outgoing>,
    since: Instant,
}

/// A connection for one request.
pub struct Lease {
    slot: Slot,
    sender: SendRequest<Outgoing>,
}

/// One of the connections that may be open. Nothing once it is that of an idle connection.
struct Slot(Option<Rc<Pool>>);

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SendFailure {
    /// The node has certainly not seen the request.
    #[error("{0}")]
    NotSent(String),
    /// It may have seen it, and may have done it.
    #[error("{0}")]
    Unknown(String),
}

/// Bytes of an answer's head.
const HEAD_BYTES_MAX: usize = 256 << 10;

impl Pool {
    pub fn new(address: SocketAddr, options: PoolOptions) -> Rc<Pool> {
        Rc::new(Pool { address, options, idle: RefCell::default(), open: Cell::new(0), waiting: RefCell::default() })
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Open connections.
    pub fn open_count(&self) -> usize {
        self.open.get()
    }

    /// Sends a request and gives the head of its answer, whose body is still to come.
    ///
    /// # Errors
    /// There is none, and whether the node may have seen the request.
    pub async fn send(self: &Rc<Self>, request: Request<Outgoing>) -> Result<Response<Answer>, SendFailure> {
        let mut request = request;
        loop {
            let (mut lease, was_idle) = self.lease().await?;
            match lease.sender.try_send_request(request).await {
                Ok(response) => return Ok(response.map(|incoming| Answer::passed(incoming, lease))),
                Err(mut failure) => match failure.take_message() {
                    // An idle connection that ended meanwhile says nothing about the node: the next one will.
                    Some(unsent) if was_idle => request = unsent,
                    Some(_) => return Err(SendFailure::NotSent(failure.error().to_string())),
                    None => return Err(SendFailure::Unknown(failure.error().to_string())),
                },
            }
        }
    }

    /// Closes all idle connections: the node was away.
    pub fn close_idle(&self) {
        let idle = std::mem::take(&mut *self.idle.borrow_mut());
        self.open.set(self.open.get() - idle.len());
        self.wake();
    }

    /// An idle connection (`true`), or a new one.
    async fn lease(self: &Rc<Self>) -> Result<(Lease, bool), SendFailure> {
        loop {
            while let Some(mut lease) = self.take_idle() {
                // Its last answer may have ended a moment ago.
                if lease.sender.ready().await.is_ok() {
                    return Ok((lease, true));
                }
            }
            if self.open.get() < self.options.connections_max.max(1) {
                self.open.set(self.open.get() + 1);
                let slot = Slot(Some(self.clone()));
                return Ok((Lease { slot, sender: self.connect().await? }, false));
            }
            let mut has_waited = false;
            poll_fn(|context| {
                if std::mem::replace(&mut has_waited, true) {
                    return Poll::Ready(());
                }
                self.waiting.borrow_mut().push(context.waker().clone());
                Poll::Pending
            })
            .await;
        }
    }

    /// The connection that was used last: those that are not needed grow old.
    fn take_idle(self: &Rc<Self>) -> Option<Lease> {
        loop {
            let Idle { sender, since } = self.idle.borrow_mut().pop()?;
            let lease = Lease { slot: Slot(Some(self.clone())), sender };
            if since.elapsed() < self.options.idle_max && !lease.sender.is_closed() {
                return Some(lease);
            }
        }
    }

    async fn connect(&self) -> Result<SendRequest<Outgoing>, SendFailure> {
        let not_sent = |text: String| SendFailure::NotSent(text);
        let connecting = TcpStream::connect_addr(self.address);
        let stream = match monoio::time::timeout(self.options.connect_deadline, connecting).await {
            Err(_) => return Err(not_sent(format!("no connection within {:?}", self.options.connect_deadline))),
            Ok(Err(error)) => return Err(not_sent(error.to_string())),
            Ok(Ok(stream)) => stream,
        };
        let mut builder = http1::Builder::new();
        builder.max_buf_size(HEAD_BYTES_MAX);
        let handshake = builder.handshake(Socket::new(stream, None)).await;
        let (sender, connection) = handshake.map_err(|error| not_sent(error.to_string()))?;
        monoio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "connection to a node ended");
            }
        });
        Ok(sender)
    }

    fn wake(&self) {
        let waiting = std::mem::take(&mut *self.waiting.borrow_mut());
        waiting.into_iter().for_each(Waker::wake);
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        if let Some(pool) = self.0.take() {
            pool.open.set(pool.open.get() - 1);
            pool.wake();
        }
    }
}

impl Lease {
    /// The answer was taken to its end: the connection can be used again.
    pub(crate) fn give_back(self) {
        let Lease { mut slot, sender } = self;
        if sender.is_closed() {
            return;
        }
        // It stays open: its slot is that of the idle connection now.
        let Some(pool) = slot.0.take() else { return };
        pool.idle.borrow_mut().push(Idle { sender, since: Instant::now() });
        pool.wake();
    }
}
