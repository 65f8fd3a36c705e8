//! The driver's tasks on an executor: receiving, timers, sending, and calls to the owner.
//!
//! Owns the socket and the turns. A turn: what was received goes to the driver; the driver's events go to the owner's
//! handler; what the handler sent, and what waits otherwise, goes out. Small messages that are answered at once so leave
//! in the turn in which they arrived.
//! Invariants: the driver is never borrowed while the owner's code runs or across an await; no turn is longer than
//! [`TURN_TIME_MAX`] by more than one batch; the timer is armed for the driver's next deadline or earlier.

use crate::driver::{Driver, DriverEvent, StreamKey};
use crate::file::FileReceiver;
use crate::handler::Handler;
use crate::inbox::{HeartbeatBatch, Message};
use crate::request::Inquiry;
use crate::rt::Rt;
use crate::socket::{BLOCKED_PAUSE, Socket};
use futures_lite::future;
use quinn_proto::Transmit;
use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io;
use std::rc::Rc;
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

/// A turn gives way to other tasks after this.
const TURN_TIME_MAX: Duration = Duration::from_micros(500);
/// Bytes that are received before what they brought is acted on: one full batch of the kernel, so that small messages are
/// answered soon. While the socket is never found empty it doubles up to the second figure, about half a millisecond of
/// work: then few large acknowledgements let the sender send in few large batches.
const RECEIVED_BYTES_FIRST: usize = 64 << 10;
const RECEIVED_BYTES_MAX: usize = 512 << 10;
/// A receive counts as this many bytes at least: short datagrams cost time too.
const RECEIVE_BYTES_MIN: usize = 16 << 10;
/// After closing, connections are kept for so long that the peers hear of it.
const CLOSE_TIME_MAX: Duration = Duration::from_millis(500);
/// A pause after an error of the socket: it must not become a busy loop.
const ERROR_PAUSE: Duration = Duration::from_millis(5);

pub(crate) struct Shell {
    pub driver: RefCell<Driver>,
    /// None once all is closed: the port is free then, whoever still holds a handle.
    socket: RefCell<Option<Socket>>,
    handler: Rc<dyn Handler>,
    now: fn() -> Instant,
    /// Set while a turn runs: it will see what is changed.
    is_turning: Cell<bool>,
    /// Something to do for the timer task.
    kicked: Notify,
    is_closing: Cell<bool>,
    /// Nothing is sent or received any more.
    closed: Latch,
    /// Both tasks are gone.
    ended: Latch,
    tasks: Cell<usize>,
    /// The batch in hand, and whether the kernel has refused it.
    batch: RefCell<(Vec<u8>, Option<Transmit>)>,
    /// What the timer task sleeps for.
    armed: Cell<Option<Instant>>,
}

impl Shell {
    pub fn start<R: Rt>(
        rt: &R,
        driver: Driver,
        socket: Socket,
        watch: R::Watch,
        handler: Rc<dyn Handler>,
    ) -> Rc<Shell> {
        let shell = Rc::new(Shell {
            driver: RefCell::new(driver),
            socket: RefCell::new(Some(socket)),
            handler,
            now: R::now,
            is_turning: Cell::new(false),
            kicked: Notify::default(),
            is_closing: Cell::new(false),
            closed: Latch::default(),
            ended: Latch::default(),
            tasks: Cell::new(2),
            batch: RefCell::default(),
            armed: Cell::new(None),
        });
        let watch = Rc::new(watch);
        rt.spawn(shell.clone().run_receiver::<R>(watch.clone()));
        rt.spawn(shell.clone().run_timer::<R>(watch));
        shell
    }

    pub fn now(&self) -> Instant {
        (self.now)()
    }

    /// Changes the driver and sees to it that what follows from it happens.
    pub fn with_driver<T>(&self, change: impl FnOnce(&mut Driver) -> T) -> T {
        let mut driver = self.driver.borrow_mut();
        let outcome = change(&mut driver);
        let has_work = driver.has_work();
        drop(driver);
        if has_work {
            self.kick();
        }
        outcome
    }

    /// A handle of the owner is gone.
    pub fn release(&self, key: StreamKey) {
        self.with_driver(|driver| driver.release(key));
    }

    pub fn inbox(&self) -> Rc<Cell<usize>> {
        self.driver.borrow().inbox()
    }

    /// Something was queued: it leaves at the end of the turn, or in a turn of its own.
    pub fn kick(&self) {
        if !self.is_turning.get() {
            self.kicked.notify();
        }
    }

    /// Closes all connections and ends the tasks.
    pub async fn close(&self) {
        if !self.is_closing.replace(true) {
            self.driver.borrow_mut().close(self.now());
            self.kick();
        }
        self.ended.wait().await;
    }

    fn task_ended(&self) {
        self.tasks.set(self.tasks.get() - 1);
        if self.tasks.get() == 0 {
            self.ended.set();
        }
    }

    /// The owner has dropped a message of this length.
    pub fn message_dropped(&self) {
        // The driver may be in use by the turn whose handler has dropped the message.
        if let Ok(mut driver) = self.driver.try_borrow_mut()
            && driver.is_inbox_full()
        {
            driver.inbox_has_room();
            drop(driver);
            self.kick();
        }
    }

    async fn run_receiver<R: Rt>(self: Rc<Self>, watch: Rc<R::Watch>) {
        while !self.closed.is_set() {
            future::or(
                async {
                    if let Err(error) = R::readable(&watch).await {
                        tracing::warn!(%error, "waiting for datagrams");
                        R::sleep(ERROR_PAUSE).await;
                    }
                },
                self.closed.wait(),
            )
            .await;
            if self.closed.is_set() {
                break;
            }
            let mut since = self.now();
            let mut received_bytes_max = RECEIVED_BYTES_FIRST;
            loop {
                let outcome = self.receive(received_bytes_max);
                received_bytes_max = (received_bytes_max * 2).min(RECEIVED_BYTES_MAX);
                self.turn_and_rearm(since);
                match outcome {
                    Ok(true) => {}
                    Ok(false) => break,
                    Err(error) => {
                        tracing::warn!(%error, "receiving datagrams");
                        R::sleep(ERROR_PAUSE).await;
                        break;
                    }
                }
                if self.now().saturating_duration_since(since) >= TURN_TIME_MAX {
                    R::yield_now(&watch).await;
                    since = self.now();
                }
            }
        }
        drop(watch);
        self.task_ended();
    }

    async fn run_timer<R: Rt>(self: Rc<Self>, watch: Rc<R::Watch>) {
        let mut end: Option<Instant> = None;
        loop {
            let now = self.now();
            let has_more = self.turn(now);
            if self.is_closing.get() {
                let end = *end.get_or_insert(now + CLOSE_TIME_MAX);
                if now >= end || !self.driver.borrow().has_connections() {
                    break;
                }
            }
            if has_more {
                R::yield_now(&watch).await;
                continue;
            }
            let deadline = self.next_deadline(end);
            self.armed.set(deadline);
            match deadline {
                None => self.kicked.wait().await,
                Some(at) => {
                    let pause = at.saturating_duration_since(self.now());
                    future::or(self.kicked.wait(), R::sleep(pause)).await;
                }
            }
            self.armed.set(None);
        }
        drop(self.socket.take());
        drop(watch);
        self.closed.set();
        self.task_ended();
    }

    fn next_deadline(&self, end: Option<Instant>) -> Option<Instant> {
        let mut next = self.driver.borrow().poll_timeout();
        if self.batch.borrow().1.is_some() {
            let retry = self.now() + BLOCKED_PAUSE;
            next = Some(next.map_or(retry, |next| next.min(retry)));
        }
        next.into_iter().chain(end).min()
    }

    /// Receives once or a few times; answers whether there may be more.
    fn receive(&self, received_bytes_max: usize) -> io::Result<bool> {
        let mut socket = self.socket.borrow_mut();
        let Some(socket) = socket.as_mut() else { return Ok(false) };
        let mut driver = self.driver.borrow_mut();
        let mut received_bytes = 0;
        while received_bytes < received_bytes_max {
            let mut received = match socket.receive() {
                Ok(received) => received,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                // An ICMP answer to something that was sent: QUIC's timers deal with it.
                Err(error) if matches!(error.kind(), io::ErrorKind::ConnectionRefused | io::ErrorKind::Interrupted) => {
                    received_bytes += RECEIVE_BYTES_MIN;
                    continue;
                }
                Err(error) => return Err(error),
            };
            driver.metrics_mut().receives += 1;
            received_bytes += received.bytes.len().max(RECEIVE_BYTES_MIN);
            let now = self.now();
            while !received.bytes.is_empty() {
                let datagram = received.bytes.split_to(received.stride.min(received.bytes.len()));
                driver.handle_datagram(now, received.from, received.to, received.ecn, datagram);
            }
        }
        Ok(true)
    }

    /// Works off timers, events and what is to be sent; answers whether something is left because the time is used up.
    fn turn(self: &Rc<Self>, since: Instant) -> bool {
        if self.is_turning.replace(true) {
            return false;
        }
        let has_more = self.run_turn(since);
        self.is_turning.set(false);
        has_more
    }

    /// A turn beside the timer task's own: that one must wake up if there is more to do, or earlier than it sleeps for.
    fn turn_and_rearm(self: &Rc<Self>, since: Instant) {
        let has_more = self.turn(since);
        let next = self.driver.borrow().poll_timeout();
        let is_earlier = next.is_some_and(|next| self.armed.get().is_none_or(|armed| next < armed));
        if has_more || is_earlier || self.batch.borrow().1.is_some() {
            self.kicked.notify();
        }
    }

    fn run_turn(self: &Rc<Self>, since: Instant) -> bool {
        loop {
            let now = self.now();
            self.driver.borrow_mut().handle_timeouts(now);
            self.dispatch();
            let is_sent = self.send(now);
            let driver = self.driver.borrow();
            if !is_sent || !driver.has_work() {
                return false;
            }
            drop(driver);
            if self.now().saturating_duration_since(since) >= TURN_TIME_MAX {
                return true;
            }
        }
    }

    /// Sends one batch; false when the kernel has no room.
    fn send(&self, now: Instant) -> bool {
        let mut batch = self.batch.borrow_mut();
        let (bytes, waiting) = &mut *batch;
        let transmit = match waiting.take() {
            Some(transmit) => transmit,
            None => match self.driver.borrow_mut().poll_transmit(now, bytes) {
                Some(transmit) => transmit,
                None => return true,
            },
        };
        if self.socket.borrow().as_ref().is_none_or(|socket| socket.send(&transmit, bytes)) {
            return true;
        }
        self.driver.borrow_mut().metrics_mut().sends_blocked += 1;
        *waiting = Some(transmit);
        false
    }

    fn dispatch(self: &Rc<Self>) {
        loop {
            // A statement of its own: the borrow must end before the handler is called.
            let event = self.driver.borrow_mut().poll_event();
            match event {
                None => return,
                Some(DriverEvent::Message { from, group, payload }) => {
                    self.handler.message(Message::new(from, group, payload, self));
                }
                Some(DriverEvent::Heartbeats { from, payload }) => {
                    self.handler.heartbeats(HeartbeatBatch::new(from, payload));
                }
                Some(DriverEvent::Request { from, key, group, payload }) => {
                    self.handler.request(Inquiry::new(from, group, payload, key, self));
                }
                Some(DriverEvent::File { from, key, group, description, length }) => {
                    self.handler.file(FileReceiver::new(from, group, description, length, key, self));
                }
                Some(DriverEvent::State { peer, state }) => self.handler.state(peer, state),
            }
        }
    }
}

/// A wake-up for one task that is not lost when it does not wait yet.
#[derive(Default)]
struct Notify {
    is_set: Cell<bool>,
    waker: Cell<Option<Waker>>,
}

impl Notify {
    fn notify(&self) {
        self.is_set.set(true);
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    async fn wait(&self) {
        poll_fn(|context| {
            if self.is_set.replace(false) {
                return Poll::Ready(());
            }
            self.waker.set(Some(context.waker().clone()));
            Poll::Pending
        })
        .await;
    }
}

/// Set once, seen by all.
#[derive(Default)]
struct Latch {
    is_set: Cell<bool>,
    wakers: RefCell<Vec<Waker>>,
}

impl Latch {
    fn set(&self) {
        self.is_set.set(true);
        self.wakers.borrow_mut().drain(..).for_each(Waker::wake);
    }

    fn is_set(&self) -> bool {
        self.is_set.get()
    }

    async fn wait(&self) {
        poll_fn(|context| {
            if self.is_set() {
                return Poll::Ready(());
            }
            let mut wakers = self.wakers.borrow_mut();
            if !wakers.iter().any(|known| known.will_wake(context.waker())) {
                wakers.push(context.waker().clone());
            }
            Poll::Pending
        })
        .await;
    }
}
