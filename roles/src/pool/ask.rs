//! Questions to the pool's masters, from any core of any node.

use super::answer_as_master;
use crate::{
    data::{
        DataCore, META_CORE,
        message::{Call, CallError, Reply},
        propose::other_answer,
    },
    links::{POOL_GROUP, RemoteCall, RemoteReply},
    replica::ProposeError,
};
use serde_json::json;
use std::{rc::Rc, time::Duration};
use tidemill_http::Refusal;
use tidemill_pool::{Change, MasterCall, MasterReply};
use tidemill_raft::NodeId;

/// A master that says nothing for so long is passed over.
const ANSWER_MAX: Duration = Duration::from_secs(2);

impl DataCore {
    /// Whether the cluster has a pool.
    pub fn has_pool(&self) -> bool {
        self.links.as_ref().is_some_and(|links| links.roster().holders(POOL_GROUP).next().is_some())
    }

    /// Asks the leader of the masters, whoever that is. It never answers that it is not the leader.
    pub async fn ask_master(self: &Rc<Self>, call: MasterCall) -> Result<MasterReply, CallError> {
        if !self.has_pool() {
            return Err(ProposeError::Stopped("this cluster has no storage pool".to_owned()).into());
        }
        // The core that has links to all masters, and on a master its machine.
        match self.call(META_CORE, Call::AskMaster(call)).await? {
            Reply::MasterAnswered(answer) => answer,
            _ => unreachable!("a master's answer is passed on as one"),
        }
    }

    /// How the pool stands, a JSON object.
    pub async fn describe_pool(self: &Rc<Self>) -> Result<String, Refusal> {
        if !self.has_pool() {
            return Err(Refusal::new(404, "this server is not a node of a cluster with a storage pool"));
        }
        match self.ask_master(MasterCall::Status).await {
            Ok(MasterReply::Status(text)) => Ok(text),
            Ok(other) => Err(Refusal::new(503, format!("the masters of the pool answer {other:?}"))),
            Err(error) => Err(Refusal::new(503, error.to_string())),
        }
    }

    /// Has the pool changed; what is done, a JSON object.
    pub async fn change_pool(self: &Rc<Self>, change: Change) -> Result<String, Refusal> {
        if !self.has_pool() {
            return Err(Refusal::new(404, "this server is not a node of a cluster with a storage pool"));
        }
        match self.ask_master(MasterCall::Change(change)).await {
            Ok(MasterReply::Changed(what)) => Ok(json!({ "what": what }).to_string()),
            Ok(MasterReply::Refused(why)) => Err(Refusal::new(409, why)),
            Ok(other) => Err(Refusal::new(503, format!("the masters of the pool answer {other:?}"))),
            Err(error) => Err(Refusal::new(503, error.to_string())),
        }
    }

    /// As [`DataCore::ask_master`], on the metadata's core.
    pub(crate) async fn ask_master_from_here(self: &Rc<Self>, call: MasterCall) -> Result<MasterReply, CallError> {
        let Some(links) = self.links.clone() else { return Ok(MasterReply::NotLeader { hint: 0 }) };
        let own = self.own_node();
        let bytes = call.encode();
        let attempt = async |leader: NodeId| {
            let reply = if leader == own {
                answer_as_master(self, own, &bytes).await
            } else {
                match links.call(leader, POOL_GROUP, RemoteCall::Pool(bytes.clone()), ANSWER_MAX).await {
                    Ok(RemoteReply::Pool(reply)) => {
                        MasterReply::decode(&reply).map_err(|error| CallError::Unknown(error.to_string()))?
                    }
                    Ok(_) => return Err(other_answer(leader)),
                    // Whatever is asked of masters may be asked twice.
                    Err(_) => return Err(ProposeError::NotLeader(leader).into()),
                }
            };
            match reply {
                MasterReply::NotLeader { hint } => Err(ProposeError::NotLeader(NodeId(hint)).into()),
                reply => Ok(reply),
            }
        };
        self.until_led(POOL_GROUP, attempt).await
    }
}
