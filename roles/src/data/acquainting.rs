//! A node tells the others which data folder it has, before it takes part in anything with a new one.

use crate::{
    acquaintance::{Acquaintances, NoteError},
    data::{core::DataCore, message::CallError, metadata::META_GROUP},
    links::{Links, RemoteCall, RemoteReply},
    replica::ProposeError,
};
use futures_lite::future;
use std::{
    collections::BTreeSet,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tidemill_raft::NodeId;

/// For one node's answer.
const ANSWER_WAIT: Duration = Duration::from_secs(2);
/// Between two rounds: while this node waits for the others, and later, for those that were away and those that join.
const WAITING_PAUSE: Duration = Duration::from_millis(100);
const LATER_PAUSE: Duration = Duration::from_secs(2);

/// Whether this node may vote and store, told to all of its cores.
#[derive(Clone, Debug)]
pub struct TakesPart(Arc<AtomicBool>);

impl TakesPart {
    pub fn new(takes_part: bool) -> TakesPart {
        TakesPart(Arc::new(AtomicBool::new(takes_part)))
    }

    pub fn get(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    fn begin(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl DataCore {
    /// Another node says which folder it has; on the metadata's core.
    pub(super) fn note_folder(&self, node: NodeId, folder: u64) -> Result<(), CallError> {
        let refused = |why: String| CallError::Refused(ProposeError::Stopped(why));
        let known = self.acquaintances.as_ref().ok_or_else(|| refused("this core notes no folders".into()))?;
        known.note(node, folder).map_err(|error| match error {
            NoteError::Stranger(stranger) => refused(stranger.to_string()),
            error @ NoteError::Io(_) => CallError::Unknown(error.to_string()),
        })
    }

    /// Tells each other node of this one's folder until that has noted it, also those that join later; the server ends if one of them knows another
    /// folder of this node. To be run on the metadata's core.
    pub(super) async fn make_acquaintances(self: Rc<Self>, known: Rc<Acquaintances>) {
        let Some(links) = self.links.clone() else { return };
        let mut noted: BTreeSet<NodeId> = BTreeSet::new();
        while !self.context.shutdown.is_requested() {
            let roster = links.roster();
            let others: BTreeSet<NodeId> = roster.nodes.keys().copied().filter(|node| *node != roster.node).collect();
            for node in others.difference(&noted).copied().collect::<Vec<_>>() {
                match tell(&links, node, known.own).await {
                    Ok(true) => drop(noted.insert(node)),
                    Ok(false) => {}
                    Err(why) => {
                        tracing::error!(node = node.0, why, "this node cannot take part");
                        *self.refusal.borrow_mut() = Some(why);
                        return self.context.shutdown.request();
                    }
                }
            }
            // With this node they are a majority.
            if !self.takes_part.get() && noted.len() >= others.len() / 2 {
                match known.set_noted() {
                    Ok(()) => self.takes_part.begin(),
                    Err(error) => tracing::warn!(%error, "that others have noted this folder cannot be kept"),
                }
            }
            let pause = if self.takes_part.get() { LATER_PAUSE } else { WAITING_PAUSE };
            future::or(self.context.sleep(pause), self.context.shutdown.requested()).await;
        }
    }
}

/// Whether the node has noted the folder; an error if it knows another one.
async fn tell(links: &Links, node: NodeId, folder: u64) -> Result<bool, String> {
    if !links.is_connected(node, META_GROUP) {
        return Ok(false);
    }
    match links.call(node, META_GROUP, RemoteCall::Acquaint(folder), ANSWER_WAIT).await {
        Ok(RemoteReply::Done(Ok(()))) => Ok(true),
        Ok(RemoteReply::Done(Err(CallError::Refused(ProposeError::Stopped(why))))) => Err(why),
        _ => Ok(false),
    }
}
