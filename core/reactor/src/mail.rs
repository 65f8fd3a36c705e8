//! Mail between cores.
//!
//! Owns: one bounded queue per ordered pair of cores (the executor's single-producer queues) and one inbox per core.
//! Invariants:
//! - At most `mail_capacity` mails wait per pair, and as many in an inbox; waits are counted.
//! - Mails of one sending task to one core arrive in the order they were sent.
//! - **The rule against deadlock: whoever takes mails out of the inbox never awaits a send** (nor anything that waits for
//!   one). It answers with `try_send_to`, or spawns a task that sends. With the rule, an inbox is always emptied, so every
//!   send ends, even when all queues are full in both directions.
//!
//! Knows nothing of what the mails say.

use crate::{core_id::CoreId, metrics::CoreMetrics, shutdown::Shutdown};
use futures_lite::future;
use glommio::{
    GlommioError, ResourceType, TaskQueueHandle,
    channels::shared_channel::{self, ConnectedReceiver, ConnectedSender, SharedReceiver, SharedSender},
};
use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    future::{Future, poll_fn},
    rc::Rc,
    sync::Arc,
    task::{Poll, Waker},
    time::Duration,
};

/// A send could not be done.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum SendError<M> {
    /// Only of `try_send_to`: no room now.
    #[error("the mail queue of the other core is full")]
    Full(M),
    /// The other core has ended.
    #[error("the other core has ended")]
    Closed(M),
}

impl<M> SendError<M> {
    /// The mail that was not sent.
    pub fn into_mail(self) -> M {
        match self {
            SendError::Full(mail) | SendError::Closed(mail) => mail,
        }
    }
}

/// Waiting for room polls: 50 us is about the shortest sleep of the executor, and the executor's own wait for room never
/// ends when the other side closes while its queue is full.
const ROOM_WAIT_MIN: Duration = Duration::from_micros(50);
const ROOM_WAIT_MAX: Duration = Duration::from_millis(1);

/// The ends of all queues, made before the cores start; each core takes its own.
pub(crate) struct MailEnds<M: Send + 'static> {
    outgoing: Vec<Option<SharedSender<M>>>,
    incoming: Vec<Option<SharedReceiver<M>>>,
}

pub(crate) fn make_ends<M: Send + 'static>(cores: usize, capacity: usize) -> Vec<MailEnds<M>> {
    let mut ends: Vec<MailEnds<M>> = (0..cores)
        .map(|_| MailEnds {
            outgoing: (0..cores).map(|_| None).collect(),
            incoming: (0..cores).map(|_| None).collect(),
        })
        .collect();
    for from in 0..cores {
        for to in (0..cores).filter(|to| *to != from) {
            let (sender, receiver) = shared_channel::new_bounded(capacity);
            ends[from].outgoing[to] = Some(sender);
            ends[to].incoming[from] = Some(receiver);
        }
    }
    ends
}

/// Polls a future at least every [`TICK`]. The executor's channels find their peer by a wake-up that a core misses when it
/// parks at the wrong moment: seen as a start that hung with one core asleep and the other one waiting for it.
pub(crate) async fn ticking<T>(future: impl Future<Output = T>) -> T {
    let ticks = async {
        loop {
            glommio::timer::sleep(TICK).await;
        }
    };
    future::or(future, ticks).await
}

/// Meeting a peer takes microseconds; a missed wake-up costs this much.
const TICK: Duration = Duration::from_millis(1);

struct Inbox<M> {
    mails: RefCell<VecDeque<(CoreId, M)>>,
    capacity: usize,
    reader: RefCell<Option<Waker>>,
    /// Forwarders that wait for room; one per peer.
    forwarders: RefCell<Vec<Waker>>,
    open_peers: Cell<usize>,
    closed: Cell<bool>,
}

struct Shared<M: Send + 'static> {
    me: CoreId,
    senders: Vec<Option<ConnectedSender<M>>>,
    inbox: Rc<Inbox<M>>,
    metrics: Arc<CoreMetrics>,
}

/// A core's mail: sends to all cores, itself included, and its inbox. Clones share both.
pub struct Mail<M: Send + 'static>(Rc<Shared<M>>);

impl<M: Send + 'static> Clone for Mail<M> {
    fn clone(&self) -> Self {
        Mail(self.0.clone())
    }
}

impl<M: Send + 'static> Mail<M> {
    /// Connects with all other cores; none when a stop is requested before they are all there.
    pub(crate) async fn connect(
        me: CoreId,
        ends: MailEnds<M>,
        capacity: usize,
        queue: TaskQueueHandle,
        shutdown: &Shutdown,
        metrics: Arc<CoreMetrics>,
    ) -> Option<Mail<M>> {
        // Every core meets its peers in ascending order, so the lowest pair that has not met yet is always reached by
        // both sides.
        let meet_all = async move {
            let mut senders = Vec::new();
            let mut receivers = Vec::new();
            for (peer, (sender, receiver)) in ends.outgoing.into_iter().zip(ends.incoming).enumerate() {
                let (Some(sender), Some(receiver)) = (sender, receiver) else {
                    senders.push(None);
                    continue;
                };
                let (sender, receiver) = future::zip(sender.connect(), receiver.connect()).await;
                senders.push(Some(sender));
                receivers.push((CoreId(u16::try_from(peer).expect("cores are counted in u16")), receiver));
            }
            Some((senders, receivers))
        };
        let stopped = async {
            shutdown.requested().await;
            None
        };
        let (senders, receivers) = future::or(ticking(meet_all), stopped).await?;
        let inbox = Rc::new(Inbox {
            mails: RefCell::default(),
            capacity,
            reader: RefCell::default(),
            forwarders: RefCell::default(),
            open_peers: Cell::new(receivers.len()),
            closed: Cell::new(false),
        });
        for (from, receiver) in receivers {
            let forward = forward(from, receiver, inbox.clone(), metrics.clone());
            glommio::spawn_local_into(forward, queue).expect("the queue was made by this executor").detach();
        }
        Some(Mail(Rc::new(Shared { me, senders, inbox, metrics })))
    }

    pub fn me(&self) -> CoreId {
        self.0.me
    }

    /// Sends, waiting for room. Errors: the other core has ended.
    ///
    /// # Panics
    /// If there is no such core.
    pub async fn send_to(&self, core: CoreId, mail: M) -> Result<(), SendError<M>> {
        let mut mail = match self.try_send_to(core, mail) {
            Err(SendError::Full(mail)) => mail,
            done => return done,
        };
        self.0.metrics.mail_waits.add(1);
        let mut wait = ROOM_WAIT_MIN;
        loop {
            glommio::timer::sleep(wait).await;
            wait = (wait * 2).min(ROOM_WAIT_MAX);
            mail = match self.try_send_to(core, mail) {
                Err(SendError::Full(mail)) => mail,
                done => return done,
            };
        }
    }

    /// Sends if there is room now; an error gives the mail back.
    ///
    /// # Panics
    /// If there is no such core.
    pub fn try_send_to(&self, core: CoreId, mail: M) -> Result<(), SendError<M>> {
        let shared = &*self.0;
        let sent = match &shared.senders[core.index()] {
            None => shared.inbox.push(shared.me, mail),
            Some(sender) => sender.try_send(mail).map_err(|error| match error {
                GlommioError::WouldBlock(ResourceType::Channel(mail)) => SendError::Full(mail),
                GlommioError::Closed(ResourceType::Channel(mail)) => SendError::Closed(mail),
                other => unreachable!("a queue between cores is full or closed: {other}"),
            }),
        };
        if sent.is_ok() {
            shared.metrics.mail_sent.add(1);
        }
        sent
    }

    /// The next mail and the core it is from; none when all other cores have ended (or `close` was called) and the inbox
    /// is empty. On a single core it waits for its own mail for ever.
    ///
    /// One task reads the inbox: a second reader would take the first one's wake.
    pub async fn receive(&self) -> Option<(CoreId, M)> {
        let (inbox, metrics) = (&self.0.inbox, &self.0.metrics);
        poll_fn(|context| {
            if let Some(mail) = inbox.pop() {
                metrics.mail_received.add(1);
                metrics.mail_depth.set(inbox.mails.borrow().len() as u64);
                return Poll::Ready(Some(mail));
            }
            let peers_ended = self.0.senders.len() > 1 && inbox.open_peers.get() == 0;
            if peers_ended || inbox.closed.get() {
                return Poll::Ready(None);
            }
            *inbox.reader.borrow_mut() = Some(context.waker().clone());
            Poll::Pending
        })
        .await
    }

    /// The next mail if there is one now.
    pub fn try_receive(&self) -> Option<(CoreId, M)> {
        let mail = self.0.inbox.pop();
        if mail.is_some() {
            self.0.metrics.mail_received.add(1);
            self.0.metrics.mail_depth.set(self.0.inbox.mails.borrow().len() as u64);
        }
        mail
    }

    /// Ends `receive` once the inbox is empty; other cores' mails that come later are dropped with the core.
    pub fn close(&self) {
        self.0.inbox.closed.set(true);
        self.0.inbox.wake_reader();
    }
}

impl<M> Inbox<M> {
    fn push(&self, from: CoreId, mail: M) -> Result<(), SendError<M>> {
        let mut mails = self.mails.borrow_mut();
        if mails.len() >= self.capacity {
            return Err(SendError::Full(mail));
        }
        mails.push_back((from, mail));
        drop(mails);
        self.wake_reader();
        Ok(())
    }

    fn pop(&self) -> Option<(CoreId, M)> {
        let mail = self.mails.borrow_mut().pop_front()?;
        let waiting = std::mem::take(&mut *self.forwarders.borrow_mut());
        waiting.into_iter().for_each(Waker::wake);
        Some(mail)
    }

    fn wake_reader(&self) {
        if let Some(waker) = self.reader.borrow_mut().take() {
            waker.wake();
        }
    }
}

/// Moves the mails of one peer into the inbox. It is the only one that polls the peer's queue: each poll of an empty
/// queue stores a waker in the executor, which many readers would pile up.
async fn forward<M: Send + 'static>(
    from: CoreId,
    receiver: ConnectedReceiver<M>,
    inbox: Rc<Inbox<M>>,
    metrics: Arc<CoreMetrics>,
) {
    while let Some(mail) = receiver.recv().await {
        let mut mail = Some(mail);
        poll_fn(|context| {
            let Some(unsent) = mail.take() else { return Poll::Ready(()) };
            match inbox.push(from, unsent) {
                Ok(()) => Poll::Ready(()),
                Err(full) => {
                    mail = Some(full.into_mail());
                    inbox.forwarders.borrow_mut().push(context.waker().clone());
                    Poll::Pending
                }
            }
        })
        .await;
        metrics.mail_depth.set(inbox.mails.borrow().len() as u64);
    }
    inbox.open_peers.set(inbox.open_peers.get() - 1);
    inbox.wake_reader();
}
