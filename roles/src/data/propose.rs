//! The way of an entry into the log of its group: admitted, counted, and taken by the node that leads the group.
//!
//! Invariants: a batch is admitted where its group is led, by that node's budgets and counts; a command that a leader may
//! have taken is never proposed a second time, and a batch only as the same one ([`super::resend`]).
//! Knows nothing of what entries say.

use crate::{
    data::{
        budget::Admission,
        core::DataCore,
        message::{Call, CallError, Reply},
        series_ledger::{Denial, Place},
        tag_values::Granted,
    },
    links::{CallFailure, Links, RemoteCall, RemoteReply},
    replica::{Outcome, Payload, ProposeError, Ticket},
};
use bytes::Bytes;
use std::{
    future::{self, Future},
    pin::Pin,
    rc::Rc,
    time::Duration,
};
use tidemill_raft::{GroupId, NodeId};
use tidemill_store::Applied;

/// How long a batch waits for room in the log before its request is refused, and the longest between two tries: making a
/// segment takes a fraction of a second on a busy device.
const LOG_WAIT_NS_MAX: u64 = 2_000_000_000;
const LOG_PAUSE: Duration = Duration::from_millis(20);
/// How long an entry or a reader waits for its group to have a leader: a few elections.
pub(super) const LEADER_WAIT_NS_MAX: u64 = 8_000_000_000;
pub(super) const LEADER_PAUSE: Duration = Duration::from_millis(20);
/// What another node has taken is waited for so long: its own waits are shorter.
const ANSWER_WAIT: Duration = Duration::from_secs(10);

/// A batch waits so long, so often, for the series of others to be counted: they are once they are in the log.
const COUNTING_PAUSE: Duration = Duration::from_millis(2);
const COUNTING_TRIES_MAX: u32 = 500;

/// A batch on its way.
pub type Proposal = Pin<Box<dyn Future<Output = Result<(), CallError>>>>;

/// An entry on its way.
pub(super) type Entering = Pin<Box<dyn Future<Output = Result<Outcome, CallError>>>>;

async fn outcome_of(ticket: Result<Ticket, ProposeError>) -> Result<Outcome, CallError> {
    match ticket?.outcome().await? {
        Outcome::Store(Applied::Forgotten { through }) => Err(CallError::Forgotten { through }),
        outcome => Ok(outcome),
    }
}

/// Gives an entry to the node that leads its group.
pub(super) async fn forward(
    links: &Links,
    leader: NodeId,
    group: GroupId,
    payload: &Payload,
) -> Result<Outcome, CallError> {
    let call = match payload {
        Payload::Batch(image) => RemoteCall::Propose(image.clone()),
        Payload::Command(bytes) | Payload::Logged(bytes) => RemoteCall::Command(bytes.clone()),
    };
    match ask_leader(links, leader, group, call).await? {
        RemoteReply::Done(result) => result.map(|()| Outcome::Store(Applied::Nothing)),
        _ => Err(other_answer(leader)),
    }
}

/// What another node says to what only the leader of a group can do.
pub(super) async fn ask_leader(
    links: &Links,
    leader: NodeId,
    group: GroupId,
    call: RemoteCall,
) -> Result<RemoteReply, CallError> {
    links.call(leader, group, call, ANSWER_WAIT).await.map_err(|failure| match failure {
        // Nothing has happened: the leader is asked again, or its successor.
        CallFailure::NotSent { to, .. } => ProposeError::NotLeader(to).into(),
        CallFailure::Unknown { .. } => CallError::Unknown(failure.to_string()),
    })
}

pub(crate) fn other_answer(node: NodeId) -> CallError {
    CallError::Unknown(format!("node {node} gave another answer than was asked for"))
}

impl DataCore {
    /// Sends a batch to the log of its partition, wherever that lives, at once; the future waits until it is applied.
    /// The batch stays proposed if the future is dropped, but for one that waits for room in the log. `may_queue`: if the
    /// partition has no majority, it is enough that this node keeps the batch.
    pub fn propose(self: &Rc<Self>, partition: u32, batch: Vec<u8>, may_queue: bool) -> Proposal {
        let (group, payload) = (GroupId(partition), Payload::Batch(batch.into()));
        let owner = self.core_of(partition);
        if owner == self.context.core {
            let outcome = self.propose_queued(group, payload, may_queue);
            return Box::pin(async move { outcome.await.map(drop) });
        }
        let call = self.call(owner, Call::Propose { group, payload, may_queue });
        Box::pin(async move {
            match call.await? {
                Reply::Proposed(result) => result,
                _ => unreachable!("a proposal is answered as one"),
            }
        })
    }

    /// Takes an entry into the log of a group of this core, or of the same group at the node that leads it, at once.
    pub(super) fn propose_led(self: &Rc<Self>, group: GroupId, payload: Payload) -> Entering {
        self.propose_queued(group, payload, false)
    }

    /// As [`DataCore::propose_led`]; a batch may come into the hinted-handoff queue instead.
    pub(super) fn propose_queued(self: &Rc<Self>, group: GroupId, payload: Payload, may_queue: bool) -> Entering {
        match &self.links {
            None => self.propose_here(group, payload),
            Some(links) => {
                let propose = self.clone().propose_wherever(links.clone(), group, payload, may_queue);
                Box::pin(self.context.spawn(self.context.queues.latency, "propose", propose))
            }
        }
    }

    async fn propose_wherever(
        self: Rc<Self>,
        links: Rc<Links>,
        group: GroupId,
        payload: Payload,
        may_queue: bool,
    ) -> Result<Outcome, CallError> {
        let payload = match payload {
            Payload::Batch(image) => return self.send_until_known(&links, group, image, may_queue).await,
            command => command,
        };
        let own = self.replicas.placement().node;
        let attempt = async |leader: NodeId| {
            if leader == own {
                self.propose_in_time(group, payload.clone()).await
            } else {
                forward(&links, leader, group, &payload).await
            }
        };
        self.until_led(group, attempt).await
    }

    /// Tries with whoever leads a group, until a leader decides. What a leader has certainly not taken goes to the next
    /// one; what nobody knows of is not tried again: it might overtake what was written since.
    pub(crate) async fn until_led<T>(
        &self,
        group: GroupId,
        attempt: impl AsyncFn(NodeId) -> Result<T, CallError>,
    ) -> Result<T, CallError> {
        let begun_ns = self.context.clock.monotonic_ns();
        loop {
            let leader = self.likely_leader(group);
            let tried =
                if leader == NodeId(0) { Err(ProposeError::NotLeader(leader).into()) } else { attempt(leader).await };
            let refused = match tried {
                Err(CallError::Refused(error @ (ProposeError::NotLeader(_) | ProposeError::Overtaken))) => error,
                decided => return decided,
            };
            if let ProposeError::NotLeader(hint) = refused {
                self.note_refusal(group, leader, hint);
            }
            if self.context.clock.monotonic_ns() - begun_ns > LEADER_WAIT_NS_MAX || self.stopping.get() {
                return Err(refused.into());
            }
            self.context.sleep(LEADER_PAUSE).await;
        }
    }

    /// As [`DataCore::propose_here`]; without a majority of several nodes nothing is decided, and nobody waits for ever.
    pub(super) async fn propose_in_time(
        self: &Rc<Self>,
        group: GroupId,
        payload: Payload,
    ) -> Result<Outcome, CallError> {
        if self.links.is_none() {
            return self.propose_here(group, payload).await;
        }
        let limit = async {
            self.context.sleep(ANSWER_WAIT).await;
            Err(CallError::Unknown(format!("no majority of the nodes had it within {ANSWER_WAIT:?}")))
        };
        futures_lite::future::or(self.propose_here(group, payload), limit).await
    }

    /// Takes an entry into the log of a group of this core, at once unless its series have to be counted first.
    pub(super) fn propose_here(self: &Rc<Self>, group: GroupId, payload: Payload) -> Entering {
        let image = match payload {
            Payload::Batch(image) => image,
            // Commands pass: a flush is what makes room.
            Payload::Command(_) | Payload::Logged(_) => {
                return Box::pin(outcome_of(self.replicas.propose(group, payload)));
            }
        };
        match self.admit_batch(group, &image, None) {
            Ok(place) => match self.enter(group, image, place) {
                Ok(ticket) => Box::pin(outcome_of(Ok(ticket))),
                Err((ProposeError::Busy(_), Some(image))) => Box::pin(self.clone().propose_later(group, image)),
                Err((error, _)) => Box::pin(future::ready(Err(error.into()))),
            },
            Err(Denial::Refused(error)) => Box::pin(future::ready(Err(error))),
            Err(denial) => Box::pin(self.clone().propose_counted(group, image, denial)),
        }
    }

    /// The log has no room at the moment: often its next segment is not made yet. A refusal would send the client into
    /// pauses that are longer than that takes.
    async fn propose_later(self: Rc<Self>, group: GroupId, mut image: Bytes) -> Result<Outcome, CallError> {
        let begun_ns = self.context.clock.monotonic_ns();
        let mut refused = ProposeError::Busy("the log has no room");
        while self.context.clock.monotonic_ns() - begun_ns < LOG_WAIT_NS_MAX {
            futures_lite::future::or(self.replicas.log().room(), self.context.sleep(LOG_PAUSE)).await;
            match self.admit_batch(group, &image, None) {
                Ok(place) => match self.enter(group, image, place) {
                    Ok(ticket) => return outcome_of(Ok(ticket)).await,
                    Err((error @ ProposeError::Busy(_), Some(returned))) => (refused, image) = (error, returned),
                    Err((error, _)) => return Err(error.into()),
                },
                Err(Denial::Refused(error)) => return Err(error),
                Err(denial) => return self.propose_counted(group, image, denial).await,
            }
        }
        Err(refused.into())
    }

    /// Asks for the values that the batch brings, and waits until what else is on its way is counted.
    async fn propose_counted(
        self: Rc<Self>,
        group: GroupId,
        image: Bytes,
        mut denial: Denial,
    ) -> Result<Outcome, CallError> {
        let mut granted = Granted::new(&self.tags, self.ledger.counts());
        let mut waiting = None;
        for _ in 0..COUNTING_TRIES_MAX {
            match denial {
                Denial::Refused(error) => return Err(error),
                Denial::NewValues(values) => self.ask_values(&image, values, &mut granted).await?,
                Denial::Counting => {
                    waiting.get_or_insert_with(|| self.ledger.wait(&image));
                    self.context.sleep(COUNTING_PAUSE).await;
                }
            }
            match self.admit_batch(group, &image, Some(&granted)) {
                Ok(place) => {
                    let ticket = self.enter(group, image, place).map_err(|(error, _)| error)?;
                    granted.entered();
                    drop(waiting);
                    return outcome_of(Ok(ticket)).await;
                }
                Err(next) => denial = next,
            }
        }
        Err(ProposeError::Busy("the series of other requests are being counted").into())
    }

    /// A batch that the log is only too busy for is given back.
    fn enter(&self, group: GroupId, image: Bytes, place: Place) -> Result<Ticket, (ProposeError, Option<Bytes>)> {
        let bytes = image.len();
        match self.replicas.propose_or_return(group, Payload::Batch(image)) {
            Ok(ticket) => {
                self.ledger.enter(group.0, place);
                self.held.add_rows(bytes);
                Ok(ticket)
            }
            Err((error, payload)) => {
                self.ledger.give_back(group.0, place);
                let image =
                    payload.and_then(|payload| if let Payload::Batch(image) = payload { Some(image) } else { None });
                Err((error, image))
            }
        }
    }

    /// Whether a batch may go into the log of a partition of this core. What it takes is to be given back or entered.
    fn admit_batch(&self, group: GroupId, image: &[u8], granted: Option<&Granted>) -> Result<Place, Denial> {
        let busy = |why| Denial::Refused(ProposeError::Busy(why).into());
        if self.budget.admit(self.held.rows_bytes()) == Admission::Refused {
            return Err(busy("the memory budget of rows that are in no file yet is used up"));
        }
        let queued = self.replicas.queued_bytes();
        // Twice: in the log's buffer, and beside it until it is applied.
        if queued > 0 && queued + 2 * image.len() > self.budget.log_queue_bytes_max {
            return Err(busy("too much waits for its commit"));
        }
        self.admit_series(group.0, image).map_err(|refusal| Denial::Refused(refusal.into()))?;
        let Some(partition) = self.partitions.get(&group.0) else { return Ok(Place::default()) };
        let fresh = self.tags.admit(partition, image, self.ledger.coming(group.0), granted)?;
        self.ledger.admit(group.0, partition, image, fresh)
    }
}
