//! `consistency=all`: a write that is committed is answered once every replica has it on the disk.
//!
//! The leader is asked after the commit: it confirms that it leads, so its log has the write, and then waits until all
//! members have said that they have that log up to there. What a member has said of its log stays true whoever leads.

use crate::{
    data::{
        core::DataCore,
        message::{Call, CallError, Reply},
        propose::{LEADER_PAUSE, ask_leader, other_answer},
    },
    links::{RemoteCall, RemoteReply},
    replica::ProposeError,
};
use futures_lite::future;
use std::{collections::BTreeSet, rc::Rc, time::Duration};
use tidemill_raft::{GroupId, NodeId};

/// How long a write waits for the last of the replicas.
pub(super) const ALL_WAIT: Duration = Duration::from_secs(10);
/// How often a leader looks how far the others are.
const DURABLE_PAUSE: Duration = Duration::from_millis(2);

impl DataCore {
    /// Returns once every replica of these partitions has what was committed before this call.
    pub(super) async fn await_all(self: &Rc<Self>, partitions: &BTreeSet<u32>) -> Result<(), CallError> {
        if self.links.is_none() {
            return Ok(());
        }
        let await_one = |partition: &u32| self.call(self.core_of(*partition), Call::AwaitAll(GroupId(*partition)));
        let calls: Vec<_> = partitions.iter().map(await_one).collect();
        for call in calls {
            match call.await? {
                Reply::Done(result) => result?,
                _ => unreachable!("waiting is answered as done"),
            }
        }
        Ok(())
    }

    /// As [`DataCore::await_all`], of a group of this core, led by whatever node.
    pub(super) async fn await_all_led(self: &Rc<Self>, group: GroupId) -> Result<(), CallError> {
        let Some(links) = self.links.clone() else { return Ok(()) };
        let waiting = async {
            loop {
                let leader = self.likely_leader(group);
                let asked = if leader == self.replicas.placement().node {
                    self.await_all_here(group).await
                } else if leader == NodeId(0) {
                    Err(ProposeError::NotLeader(leader).into())
                } else {
                    match ask_leader(&links, leader, group, RemoteCall::AwaitAll).await {
                        Ok(RemoteReply::Done(result)) => result,
                        Ok(_) => Err(other_answer(leader)),
                        Err(error) => Err(error),
                    }
                };
                match asked {
                    Ok(()) => return Ok(()),
                    Err(CallError::Refused(ProposeError::NotLeader(hint))) => self.note_refusal(group, leader, hint),
                    Err(_) => self.note_refusal(group, leader, NodeId(0)),
                }
                // Asking is of no consequence: whoever leads next is asked.
                self.context.sleep(LEADER_PAUSE).await;
            }
        };
        let late = async {
            self.context.sleep(ALL_WAIT).await;
            Err(CallError::Unknown(format!("not all replicas of partition {group} had it within {ALL_WAIT:?}")))
        };
        future::or(waiting, late).await
    }

    /// As [`DataCore::await_all`], at the node that leads the group. It may wait for ever.
    pub(super) async fn await_all_here(self: &Rc<Self>, group: GroupId) -> Result<(), CallError> {
        let not_leader = || CallError::from(ProposeError::NotLeader(self.replicas.leader(group)));
        self.replicas.read(group).await.map_err(|_| not_leader())?;
        let known = self.replicas.group(group).ok_or_else(not_leader)?;
        // At least the index of the read, up to which everything is applied here.
        let index = known.machine().applied();
        loop {
            match self.replicas.durable_everywhere(group) {
                None => return Err(not_leader()),
                Some(durable) if durable >= index => return Ok(()),
                Some(_) => self.context.sleep(DURABLE_PAUSE).await,
            }
        }
    }
}
