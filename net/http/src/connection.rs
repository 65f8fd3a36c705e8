//! Deadlines of one connection.
//!
//! Owns: in which phase a connection is, since when, and whether it was condemned. No timer is armed per request: a
//! sweep per core looks at all connections every now and then, which is why a deadline is late by up to one sweep.
//! Invariants: while a request is handled there is no deadline here (the body has its own, the service another); a
//! peer that does not take its answer has one in every phase.
//! Knows nothing of what the bytes mean.

use crate::options::Options;
use std::cell::{Cell, RefCell};
use std::net::IpAddr;
use std::task::{Context, Waker};
use std::time::{Duration, Instant};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Between two requests, no byte of the next one seen.
    Idle,
    /// Some bytes of a head, or none at all on a fresh connection.
    Head,
    /// From the end of the head to the end of the answer.
    Request,
}

/// What is known of one connection while it is open.
#[derive(Debug)]
pub struct Connection {
    /// Address of the other end, where it is known.
    peer: Option<IpAddr>,
    phase: Cell<Phase>,
    since: Cell<Instant>,
    /// Since when the peer takes nothing.
    blocked_since: Cell<Option<Instant>>,
    /// How long it has been blocked before, in this answer.
    blocked_before: Cell<Duration>,
    sent_bytes: Cell<u64>,
    condemned: Cell<bool>,
    lingers: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

impl Connection {
    /// A fresh connection, whose first head is awaited.
    pub fn new(peer: Option<IpAddr>) -> Connection {
        Connection {
            peer,
            phase: Cell::new(Phase::Head),
            since: Cell::new(Instant::now()),
            blocked_since: Cell::new(None),
            blocked_before: Cell::new(Duration::ZERO),
            sent_bytes: Cell::new(0),
            condemned: Cell::new(false),
            lingers: Cell::new(false),
            waker: RefCell::new(None),
        }
    }

    /// Address of the other end, where it is known.
    pub fn peer(&self) -> Option<IpAddr> {
        self.peer
    }

    /// Bytes came in.
    pub fn received(&self, count: usize) {
        if count > 0 && self.phase.get() == Phase::Idle {
            self.phase.set(Phase::Head);
            self.since.set(Instant::now());
        }
    }

    /// Bytes went out.
    pub fn sent(&self, count: usize) {
        self.sent_bytes.set(self.sent_bytes.get() + count as u64);
        if let Some(since) = self.blocked_since.take() {
            self.blocked_before.set(self.blocked_before.get() + since.elapsed());
        }
    }

    /// The peer's window and our send buffer are full.
    pub fn blocked(&self) {
        if self.blocked_since.get().is_none() {
            self.blocked_since.set(Some(Instant::now()));
        }
    }

    /// A head is complete.
    pub fn begin_request(&self) {
        self.phase.set(Phase::Request);
        self.blocked_before.set(Duration::ZERO);
        self.sent_bytes.set(0);
    }

    /// The answer is handed over in full (its last bytes may still be on the way).
    pub fn end_request(&self) {
        self.phase.set(Phase::Idle);
        self.since.set(Instant::now());
    }

    /// True once the connection must be closed; otherwise the caller is woken when that changes.
    pub fn is_condemned(&self, context: &Context<'_>) -> bool {
        if self.condemned.get() {
            return true;
        }
        let mut waker = self.waker.borrow_mut();
        if !waker.as_ref().is_some_and(|waker| waker.will_wake(context.waker())) {
            *waker = Some(context.waker().clone());
        }
        false
    }

    /// Closes the connection at its next turn, whatever it is doing.
    pub fn condemn(&self) {
        self.condemned.set(true);
        self.wake();
    }

    /// Gives the connection a turn.
    pub fn wake(&self) {
        if let Some(waker) = self.waker.borrow().as_ref() {
            waker.wake_by_ref();
        }
    }

    /// Since when it has had no request, while it has none.
    pub fn idle_since(&self) -> Option<Instant> {
        (self.phase.get() == Phase::Idle && !self.condemned.get()).then(|| self.since.get())
    }

    /// After this answer the peer may still be sending: what comes is read for a while before the socket closes.
    pub fn linger(&self) {
        self.lingers.set(true);
    }

    /// Whether what still comes is to be read for a while.
    pub fn is_lingering(&self) -> bool {
        self.lingers.get()
    }

    /// Condemns the connection if one of its deadlines has passed; true if that is new.
    pub fn enforce_deadlines(&self, now: Instant, options: &Options) -> bool {
        let is_new = !self.condemned.get() && self.is_overdue(now, options);
        if is_new {
            self.condemn();
        }
        is_new
    }

    fn is_overdue(&self, now: Instant, options: &Options) -> bool {
        if let Some(since) = self.blocked_since.get() {
            let blocked = self.blocked_before.get() + now.saturating_duration_since(since);
            let rate = u64::from(options.write_bytes_per_s_min.max(1));
            return blocked > options.write_deadline + Duration::from_secs(self.sent_bytes.get() / rate);
        }
        let waited = now.saturating_duration_since(self.since.get());
        match self.phase.get() {
            Phase::Idle => waited > options.idle_deadline,
            Phase::Head => waited > options.head_deadline,
            Phase::Request => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn overdue_after(connection: &Connection, seconds: u64) -> bool {
        connection.is_overdue(Instant::now() + Duration::from_secs(seconds), &Options::default())
    }

    #[test]
    fn each_phase_has_its_deadline() {
        let connection = Connection::new(None);
        assert!(!overdue_after(&connection, 29) && overdue_after(&connection, 31));
        connection.begin_request();
        assert!(!overdue_after(&connection, 1_000_000));
        connection.end_request();
        assert!(!overdue_after(&connection, 299) && overdue_after(&connection, 301));
        connection.received(1);
        assert!(!overdue_after(&connection, 29) && overdue_after(&connection, 31));
    }

    #[test]
    fn a_slow_reader_is_granted_time_by_what_it_took() {
        let connection = Connection::new(None);
        connection.begin_request();
        connection.sent(1_000_000);
        connection.blocked();
        assert!(!overdue_after(&connection, 129) && overdue_after(&connection, 132));
        connection.sent(1);
        assert!(!overdue_after(&connection, 1_000_000));
    }
}
