//! Damaged files are fetched again from other replicas: by the scrub, and when an operator asks for it.
//!
//! Invariant: a file is replaced only by bytes with the hash that this node's manifest has of it.

use crate::{
    data::{
        core::{DataCore, META_CORE},
        message::{Call, CallError, Reply},
        metadata::META_GROUP,
        propose::other_answer,
    },
    links::{CallFailure, Duty, RemoteCall, RemoteReply},
    replica::{FilePart, Sources, take_in},
};
use serde_json::{Value, json};
use std::{rc::Rc, time::Duration};
use tidemill_raft::{GroupId, NodeId};
use tidemill_reactor::RingDisk;
use tidemill_store::{FileRecord, Partition};

/// A node that says nothing for so long is away.
const ANSWER_WAIT: Duration = Duration::from_secs(1);
/// For reading all of a node's files.
const EXAMINATION_MAX: Duration = Duration::from_secs(24 * 3600);

/// Before a node whose answer was lost is asked once more.
const AGAIN_PAUSE: Duration = Duration::from_millis(500);

impl DataCore {
    /// Fetches a file from whatever other node has it.
    pub(super) async fn mend(&self, partition: u32, record: &FileRecord) -> Result<NodeId, String> {
        let links = self.links.as_ref().ok_or("this server has no other nodes")?;
        let _turn = self.mending.take().await;
        let known = self.partitions.get(&partition).ok_or("no such partition on this core")?;
        let sources = links.sources();
        let mut failure = "no other node has the partition".to_owned();
        for node in self.holders_elsewhere(GroupId(partition)) {
            match fetch(known, sources.as_ref(), (node, GroupId(partition)), record).await {
                Ok(()) => {
                    self.scrub_figures.mended.set(self.scrub_figures.mended.get() + 1);
                    tracing::info!(partition, file = record.name(), from = node.0, "a damaged file was fetched again");
                    return Ok(node);
                }
                Err(why) => failure = format!("node {node}: {why}"),
            }
        }
        Err(failure)
    }

    /// Nodes that take queries, with their addresses.
    pub(crate) fn data_nodes(&self) -> Vec<(NodeId, String)> {
        let Some(links) = &self.links else { return Vec::new() };
        let roster = links.roster();
        let takes_queries = roster.nodes.iter().filter(|(_, member)| matches!(member.duty, Duty::Data { .. }));
        takes_queries.map(|(node, member)| (*node, member.address.to_string())).collect()
    }

    pub(crate) fn own_node(&self) -> NodeId {
        self.replicas.placement().node
    }

    /// Asks another node for what is no group's.
    pub(crate) async fn ask_node(self: &Rc<Self>, node: NodeId, call: RemoteCall) -> Result<RemoteReply, CallError> {
        match self.call(META_CORE, Call::AskNode(node, call)).await? {
            Reply::Answered(answer) => answer.map_err(|failure| CallError::Unknown(failure.to_string())),
            _ => unreachable!("a question to a node is answered as one"),
        }
    }

    /// As [`DataCore::ask_node`], on the metadata's core, which has links to all nodes.
    pub(super) async fn ask_node_from_here(&self, node: NodeId, call: RemoteCall) -> Result<RemoteReply, CallFailure> {
        let limit = if matches!(call, RemoteCall::Examine { .. }) { EXAMINATION_MAX } else { ANSWER_WAIT };
        match &self.links {
            Some(links) => links.call(node, META_GROUP, call, limit).await,
            None => Err(CallFailure::NotSent { to: node, why: "this server has no other nodes".into() }),
        }
    }

    /// As [`DataCore::examine`], of all nodes that can be reached.
    pub async fn examine_cluster(self: &Rc<Self>, mends: bool) -> Result<Value, CallError> {
        let mut asked = Vec::new();
        for (node, _) in self.data_nodes() {
            let this = self.clone();
            let ask = async move {
                if node == this.own_node() {
                    return this.examine(mends).await;
                }
                let ask = || this.ask_node(node, RemoteCall::Examine { mends });
                let answered = match ask().await {
                    // Of two connections that meet after a start one is given up. Asking again does no harm.
                    Err(_) => {
                        this.context.sleep(AGAIN_PAUSE).await;
                        ask().await
                    }
                    answered => answered,
                };
                match answered? {
                    RemoteReply::Description(bytes) => {
                        serde_json::from_slice(&bytes).map_err(|error| CallError::Unknown(error.to_string()))
                    }
                    _ => Err(other_answer(node)),
                }
            };
            asked.push((node, self.context.spawn(self.context.queues.latency, "examine nodes", ask)));
        }
        let mut nodes = Vec::new();
        for (node, answer) in asked {
            nodes.push(answer.await.unwrap_or_else(|error| json!({ "node": node.0, "error": error.to_string() })));
        }
        Ok(json!({ "nodes": nodes }))
    }

    /// Reads all files of this node; an object that tells what is damaged, and, if it was to be `mended`, what came of
    /// that.
    pub async fn examine(self: &Rc<Self>, mends: bool) -> Result<Value, CallError> {
        let calls: Vec<_> = self.cores().map(|core| self.call(core, Call::Examine { mends })).collect();
        let (mut files, mut bytes, mut damaged) = (0, 0, Vec::new());
        for call in calls {
            match call.await? {
                Reply::Examined(part) => {
                    files += part["files"].as_u64().unwrap_or(0);
                    bytes += part["bytes"].as_u64().unwrap_or(0);
                    damaged.extend(part["damaged"].as_array().into_iter().flatten().cloned());
                }
                _ => unreachable!("files are examined as asked"),
            }
        }
        let node = self.replicas.placement().node.0;
        Ok(json!({ "node": node, "files": files, "bytes": bytes, "damaged": damaged }))
    }

    /// As [`DataCore::examine`], of this core.
    pub(super) async fn examine_here(self: &Rc<Self>, mends: bool) -> Value {
        let (mut files, mut bytes, mut damaged) = (0_u64, 0_u64, Vec::new());
        for (id, partition) in &self.partitions {
            for record in partition.file_records() {
                let mut pace = async |_: u64| {
                    self.context.yield_now_if_needed().await;
                    !self.stopping.get()
                };
                let scrubbed = partition.scrub(&record, &mut pace).await;
                files += 1;
                bytes += record.size;
                if scrubbed.findings.is_empty() {
                    continue;
                }
                let findings: Vec<String> = scrubbed.findings.iter().take(4).map(ToString::to_string).collect();
                let mut told = json!({ "partition": id, "file": record.name(), "findings": findings });
                if mends {
                    match self.mend(*id, &record).await {
                        Ok(node) => told["mended_from"] = node.0.into(),
                        Err(why) => told["error"] = why.into(),
                    }
                }
                damaged.push(told);
            }
        }
        json!({ "files": files, "bytes": bytes, "damaged": damaged })
    }
}

async fn fetch(
    partition: &Partition<RingDisk>,
    sources: &dyn Sources,
    (node, group): (NodeId, GroupId),
    record: &FileRecord,
) -> Result<(), String> {
    let wanted = partition.wanted(record);
    let mut inflow = sources.open(node, group, FilePart::head(wanted.source.as_str(), wanted.size)).await?;
    let mut arriving = partition.receive(&wanted).await.map_err(|error| error.to_string())?;
    take_in(&mut *inflow, &mut arriving).await?;
    if !partition.has_file(record) {
        return Err("the file is not needed any more".to_owned());
    }
    arriving.finish().await.map_err(|error| error.to_string())?;
    partition.take_mended(record).await.map_err(|error| error.to_string())
}
