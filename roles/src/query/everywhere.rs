//! The queries of all nodes of a cluster: which run, and how one is stopped.
//!
//! Numbers of queries tell the node that they run at, so that they name one query of the whole cluster.

use crate::{
    data::{DataCore, propose::other_answer},
    links::{RemoteCall, RemoteReply},
    query::{
        StatementError,
        answer_table::{TableColumn, table},
        pieces::Answer,
        running::{KillError, RunningQueries},
        show::running_text,
        sources::Session,
    },
};
use serde_json::{Value, json};
use std::rc::Rc;
use tidemill_raft::NodeId;

/// The lower bits of a query's number count the queries of its node.
const COUNT_BITS: u32 = 32;

/// Lets the numbers of queries tell this node.
pub(crate) fn number_queries(node: NodeId) {
    RunningQueries::of_process().number_from(node.0 << COUNT_BITS);
}

/// A query, wherever it runs.
struct Row {
    id: i64,
    node: u64,
    host: String,
    text: String,
    database: String,
    duration: String,
    status: &'static str,
}

/// The queries of this node, for another one.
pub(crate) fn list(now_ns: u64) -> Value {
    let queries = RunningQueries::of_process().list();
    let told = queries.iter().map(|query| {
        json!({
            "id": query.id,
            "query": query.text,
            "database": query.database,
            "duration_ns": now_ns.saturating_sub(query.started_ns),
            "killed": query.is_killed(),
        })
    });
    told.collect::<Vec<_>>().into()
}

/// Stops a query of this node; the text of why not, if it does not.
pub(crate) fn kill_here(id: u64) -> Option<String> {
    RunningQueries::of_process().kill(id).err().map(|error| error.to_string())
}

/// SHOW QUERIES in a cluster, this one included.
pub(super) async fn queries(session: &Session) -> Result<Answer, StatementError> {
    let core = &session.core;
    let mut asked = Vec::new();
    for (node, host) in core.data_nodes() {
        let this = core.clone();
        let own = node == core.own_node();
        let ask = async move {
            if own {
                return Some(list(this.context().clock.monotonic_ns()));
            }
            match this.ask_node(node, RemoteCall::Queries).await {
                Ok(RemoteReply::Description(bytes)) => serde_json::from_slice(&bytes).ok(),
                _ => None,
            }
        };
        asked.push((node, host, core.context().spawn(core.context().queues.latency, "queries", ask)));
    }
    let mut rows = Vec::new();
    for (node, host, answer) in asked {
        match answer.await {
            Some(told) => rows.extend(told.as_array().into_iter().flatten().map(|query| row(node, &host, query))),
            // No silent partial answers.
            None => rows.push(Row {
                id: 0,
                node: node.0,
                host,
                text: String::new(),
                database: String::new(),
                duration: String::new(),
                status: "unreachable",
            }),
        }
    }
    let texts = |text: &dyn Fn(&Row) -> &str| TableColumn::Texts(rows.iter().map(|row| text(row).to_owned()).collect());
    let columns = vec![
        ("qid", TableColumn::Integers(rows.iter().map(|row| row.id).collect())),
        ("node_id", TableColumn::Integers(rows.iter().map(|row| row.node as i64).collect())),
        ("tcp_host", texts(&|row| &row.host)),
        ("query", texts(&|row| &row.text)),
        ("database", texts(&|row| &row.database)),
        ("duration", texts(&|row| &row.duration)),
        ("status", texts(&|row| row.status)),
    ];
    Ok(Answer::of(vec![table("", columns)]))
}

fn row(node: NodeId, host: &str, query: &Value) -> Row {
    let text = |key: &str| query[key].as_str().unwrap_or_default().to_owned();
    Row {
        id: query["id"].as_i64().unwrap_or_default(),
        node: node.0,
        host: host.to_owned(),
        text: text("query"),
        database: text("database"),
        duration: running_text(query["duration_ns"].as_u64().unwrap_or_default()),
        status: if query["killed"] == Value::Bool(true) { "killed" } else { "running" },
    }
}

/// KILL QUERY, at whatever node it runs; `host` is an address of SHOW QUERIES, or the number of a node.
pub(super) async fn kill(core: &Rc<DataCore>, id: u64, host: Option<&str>) -> Result<Answer, StatementError> {
    let invalid = |text: String| StatementError::Invalid(text);
    let nodes = core.data_nodes();
    let of_id = NodeId(id >> COUNT_BITS);
    let node = match host {
        None if of_id == NodeId(0) => core.own_node(),
        None => of_id,
        Some(host) => {
            let is_meant = |node: &NodeId, address: &str| address == host || node.0.to_string() == host;
            let found = nodes.iter().find(|(node, address)| is_meant(node, address));
            found.map(|(node, _)| *node).ok_or_else(|| invalid(format!("no such host: {host}")))?
        }
    };
    if !nodes.iter().any(|(known, _)| *known == node) {
        return Err(invalid(KillError::Unknown(id).to_string()));
    }
    // Beside a host the count of that node is enough.
    let id = if of_id == NodeId(0) { node.0 << COUNT_BITS | id } else { id };
    let refused = if node == core.own_node() {
        kill_here(id)
    } else {
        match core.ask_node(node, RemoteCall::KillQuery(id)).await {
            Ok(RemoteReply::Description(bytes)) => {
                let told: Value = serde_json::from_slice(&bytes).unwrap_or_default();
                told.as_str().map(ToOwned::to_owned)
            }
            Ok(_) => Some(other_answer(node).to_string()),
            Err(error) => Some(error.to_string()),
        }
    };
    refused.map_or_else(|| Ok(Answer::done()), |why| Err(invalid(why)))
}
