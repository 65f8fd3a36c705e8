//! Questions of data nodes to the masters of the pool.
//!
//! Owns: who is asked first. A master that does not lead names the one that does; whoever answered last is asked first the
//! next time. Knows nothing of what is asked.

use crate::links::{Duty, Links, POOL_GROUP, RemoteCall, RemoteReply};
use std::{cell::Cell, collections::VecDeque, time::Duration};
use tidemill_pool::{MasterCall, MasterReply};
use tidemill_raft::NodeId;

/// A master that says nothing for so long is passed over.
const ANSWER_MAX: Duration = Duration::from_secs(2);
/// Questions to get one answer: leaders may change meanwhile.
const TRIES_MAX: usize = 12;

/// The masters, as one core asks them.
#[derive(Default)]
pub struct Masters {
    /// Zero: nobody has answered yet.
    likely: Cell<u64>,
}

impl Masters {
    /// # Errors
    /// If none of them can say, with the last reason why.
    pub async fn ask(&self, links: &Links, call: &MasterCall) -> Result<MasterReply, String> {
        let roster = links.roster();
        let is_master = |node: &NodeId| roster.nodes.get(node).is_some_and(|member| member.duty == Duty::PoolMaster);
        let mut next: VecDeque<NodeId> = roster.nodes.keys().copied().filter(is_master).collect();
        let likely = NodeId(self.likely.get());
        if is_master(&likely) {
            next.push_front(likely);
        }
        let encoded = call.encode();
        let mut failure = "the cluster has no pool masters".to_owned();
        for _ in 0..TRIES_MAX {
            let Some(node) = next.pop_front() else { break };
            let asked = links.call(node, POOL_GROUP, RemoteCall::Pool(encoded.clone()), ANSWER_MAX).await;
            let reply = match asked {
                Ok(RemoteReply::Pool(bytes)) => MasterReply::decode(&bytes).map_err(|error| error.to_string()),
                Ok(_) => Err(format!("node {node} answered something else")),
                Err(error) => Err(error.to_string()),
            };
            match reply {
                Ok(MasterReply::NotLeader { hint }) => {
                    failure = format!("node {node} does not lead the pool masters");
                    if hint != node.0 && is_master(&NodeId(hint)) {
                        next.push_front(NodeId(hint));
                    }
                }
                Ok(MasterReply::Failed(why)) => failure = format!("node {node}: {why}"),
                Ok(reply) => {
                    self.likely.set(node.0);
                    return Ok(reply);
                }
                Err(why) => failure = why,
            }
        }
        Err(failure)
    }
}
