//! A batch until its fate is known: sent again, as the same batch, to whoever leads its partition.
//!
//! A leader may be lost between its commit and its answer. The batch is then sent to its successor with the identity that
//! it had, and the partition stores it or says that it is there (I6).
//! With `consistency=any` a batch that finds no majority is kept by this node (see [`crate::handoff`]).
//! Invariants: what was sent once is refused to the client only if it certainly is not stored, and never will be; success
//! is said after a leader has said it.

use crate::{
    data::{
        core::DataCore,
        message::CallError,
        propose::{LEADER_PAUSE, forward},
        sender::Outstanding,
    },
    links::Links,
    replica::{Outcome, Payload, ProposeError},
};
use futures_lite::future;
use std::{rc::Rc, time::Duration};
use tidemill_line::PartitionBatch;
use tidemill_raft::{GroupId, NodeId};
use tidemill_store::Applied;

/// How long a write is tried before it is answered that nobody knows what became of it: a few elections.
pub(super) const WRITE_WAIT: Duration = Duration::from_secs(10);
/// How long a write that may be queued waits for a majority.
const ANY_WAIT: Duration = Duration::from_secs(2);
/// How often one who waits for a leader's answer looks whether another node leads now.
const SUCCESSION_PAUSE: Duration = Duration::from_millis(50);
/// A node of another data group that has not answered for so long may have lost the lead.
const SILENCE_MAX: Duration = Duration::from_secs(2);
const FORGOTTEN: &str = "the partition remembers no sender that is so old; this one begins anew";

impl DataCore {
    /// Gives a batch its identity.
    pub(super) fn identified(&self, group: GroupId, image: bytes::Bytes) -> (Payload, Outstanding<'_>) {
        let node = self.replicas.placement().node;
        let outstanding = self.senders.begin(group.0, node, self.context.clock.now_ns());
        let mut image = image.try_into_mut().unwrap_or_else(|shared| (&shared[..]).into());
        let is_stamped = outstanding.identity.stamp(&mut image);
        assert!(is_stamped, "an image of the splitter has a header");
        (Payload::Batch(image.freeze()), outstanding)
    }

    /// Sends a batch until a leader has said what became of it. What waits here for its partition goes first. `may_queue`:
    /// while the partition has no majority, it is kept here.
    pub(super) async fn send_until_known(
        self: &Rc<Self>,
        links: &Rc<Links>,
        group: GroupId,
        image: bytes::Bytes,
        may_queue: bool,
    ) -> Result<Outcome, CallError> {
        let may_queue = may_queue && self.options.handoff.is_enabled;
        if !may_queue && self.handoff.is_waiting(group) && !self.outwait_handoff(group).await {
            return Err(ProposeError::Busy("earlier writes of this node wait in its hinted-handoff queue").into());
        }
        // A proxy's: whoever sends it again, it is the same batch.
        if PartitionBatch::header_of(&image).is_some_and(|header| header.session != 0) {
            return self.resend(links, group, &Payload::Batch(image), WRITE_WAIT).await;
        }
        // At once behind that look: what is queued later has a later identity.
        let (payload, outstanding) = self.identified(group, image);
        let sent = if self.handoff.is_waiting(group) {
            Err(ProposeError::NotLeader(NodeId(0)).into())
        } else {
            let limit = if may_queue { ANY_WAIT } else { WRITE_WAIT };
            self.resend(links, group, &payload, limit).await
        };
        match (sent, payload) {
            (Err(CallError::Forgotten { through }), _) => {
                self.senders.renew(outstanding.partition(), through);
                Err(CallError::Forgotten { through })
            }
            (Err(error), Payload::Batch(image)) if may_queue && (is_leaderless(&error) || is_unknown(&error)) => {
                match self.hand_off(group, &image).await {
                    Ok(()) => Ok(Outcome::Store(Applied::Nothing)),
                    Err(refused) if is_unknown(&error) => Err(CallError::Unknown(format!("{error}; {refused}"))),
                    Err(refused) => Err(refused.into()),
                }
            }
            (sent, _) => sent,
        }
    }

    /// As [`DataCore::send_until_known`], of a batch that has its identity.
    pub(crate) async fn resend(
        self: &Rc<Self>,
        links: &Rc<Links>,
        group: GroupId,
        payload: &Payload,
        limit: Duration,
    ) -> Result<Outcome, CallError> {
        let begun_ns = self.context.clock.monotonic_ns();
        // Why it may be stored although nobody has said so.
        let mut doubt: Option<String> = None;
        loop {
            let spent = Duration::from_nanos(self.context.clock.monotonic_ns() - begun_ns);
            let left = limit.saturating_sub(spent);
            let leader = self.likely_leader(group);
            let tried = self.try_once(links, group, payload, leader, left).await;
            match &tried {
                Err(CallError::Refused(ProposeError::NotLeader(hint))) => self.note_refusal(group, leader, *hint),
                Err(CallError::Unknown(_)) => self.note_refusal(group, leader, NodeId(0)),
                _ => {}
            }
            let refused = match (tried, &doubt) {
                (Ok(outcome), _) => return Ok(outcome),
                (Err(CallError::Unknown(why)), _) => {
                    self.figures.resent.set(self.figures.resent.get() + 1);
                    doubt = Some(why);
                    None
                }
                (Err(CallError::Forgotten { .. }), Some(why)) => {
                    return Err(CallError::Unknown(format!("{why}; {FORGOTTEN}")));
                }
                // Nothing has happened, now or before.
                (Err(error), None) if !is_leaderless(&error) => return Err(error),
                (Err(error), _) => Some(error),
            };
            let is_late = self.context.clock.monotonic_ns() - begun_ns >= limit.as_nanos() as u64;
            if is_late || self.stopping.get() {
                return Err(match (doubt, refused) {
                    (Some(why), _) => CallError::Unknown(why),
                    (None, Some(error)) => error,
                    (None, None) => unreachable!("what is neither refused nor unknown was taken"),
                });
            }
            self.context.sleep(LEADER_PAUSE).await;
        }
    }

    /// Asks a node that is said to lead.
    async fn try_once(
        self: &Rc<Self>,
        links: &Rc<Links>,
        group: GroupId,
        payload: &Payload,
        leader: NodeId,
        left: Duration,
    ) -> Result<Outcome, CallError> {
        if leader == NodeId(0) {
            return Err(ProposeError::NotLeader(leader).into());
        }
        let asking = async {
            if leader == self.replicas.placement().node {
                self.propose_here(group, payload.clone()).await
            } else {
                forward(links, leader, group, payload).await
            }
        };
        let succession = async {
            loop {
                self.context.sleep(SUCCESSION_PAUSE).await;
                let now = self.likely_leader(group);
                if now != leader && now != NodeId(0) {
                    return Err(CallError::Unknown(format!("node {leader} did not answer and does not lead any more")));
                }
            }
        };
        // Who leads elsewhere is not seen from here: another holder may know.
        let silence = async {
            if self.takes_part_in(group) {
                return future::pending().await;
            }
            self.context.sleep(SILENCE_MAX).await;
            Err(CallError::Unknown(format!("node {leader} did not answer for {SILENCE_MAX:?}")))
        };
        let late = async {
            self.context.sleep(left).await;
            Err(CallError::Unknown("no majority of the replicas had the write in time".to_owned()))
        };
        future::or(asking, future::or(succession, future::or(silence, late))).await
    }
}

fn is_unknown(error: &CallError) -> bool {
    matches!(error, CallError::Unknown(_))
}

fn is_leaderless(error: &CallError) -> bool {
    matches!(error, CallError::Refused(ProposeError::NotLeader(_) | ProposeError::Overtaken))
}
