//! How the pool stands, for people and their tools.

use crate::data::DataCore;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use tidemill_pool::{Leader, Pool};
use tidemill_raft::Term;

/// Lines of a list that may be long.
const LISTED_MAX: usize = 100;

/// As the leader of this term sees it.
pub(super) fn of(core: &DataCore, term: Term, pool: &Pool, leader: &Leader) -> Value {
    let now_ns = core.context().clock.monotonic_ns();
    let mut held: BTreeMap<u64, (u64, u64)> = BTreeMap::new();
    let (mut bytes, mut missing) = (0, 0);
    for file in pool.files().values() {
        bytes += file.size;
        missing += file.wanted().saturating_sub(pool.kept(file));
        for slave in &file.durable {
            let (files, bytes) = held.entry(*slave).or_default();
            (*files, *bytes) = (*files + 1, *bytes + file.size);
        }
    }
    let nowhere = pool
        .short()
        .iter()
        .filter_map(|id| pool.file(id))
        .filter(|file| file.was_complete && pool.present(file).next().is_none());
    let nowhere = nowhere.count();
    let copying: Vec<Value> = leader
        .copying()
        .take(LISTED_MAX)
        .map(|(file, slave)| json!({ "file": file.to_string(), "slave": slave, "bytes": pool.file(file).map(|file| file.size) }))
        .collect();
    let slaves: Vec<Value> = pool
        .slaves()
        .iter()
        .map(|(id, slave)| {
            let (files, bytes) = held.get(id).copied().unwrap_or_default();
            let session = leader.sessions().get(id);
            json!({
                "node": id,
                "domain": slave.domain,
                "state": if slave.is_lost { "lost" } else { slave.standing.name() },
                "standing": slave.standing.name(),
                "files": files,
                "bytes": bytes,
                "capacity_bytes": session.map(|session| session.capacity_bytes()),
                "free_bytes": session.map(|session| session.free_bytes()),
                "heard_ms": session.map(|session| now_ns.saturating_sub(session.heard_ns()) / 1_000_000),
                "copying": leader.copying().filter(|(_, slave)| slave == id).count(),
            })
        })
        .collect();
    let waiting: Vec<Value> = leader
        .waiting(pool)
        .into_iter()
        .map(|(partition, (files, why))| json!({ "partition": partition, "files": files, "why": why }))
        .collect();
    let failures = leader.failures().take(LISTED_MAX);
    let failures: Vec<Value> =
        failures.map(|(file, slave, why)| json!({ "file": file.to_string(), "slave": slave, "why": why })).collect();
    let counts = leader.counts();
    json!({
        "leader": core.own_node().0,
        "epoch": term.0,
        "slaves": slaves,
        "files": {
            "total": pool.files().len(),
            "bytes": bytes,
            "short": pool.short().len(),
            "missing_copies": missing,
            "nowhere": nowhere,
            "copying": leader.copying().count(),
            "excess": pool.excess().len(),
            "garbage": pool.garbage().len(),
        },
        "waiting": waiting,
        "copying": copying,
        "failures": failures,
        "unreported_partitions": leader.unreported(),
        "rebalancing": leader.is_rebalancing(),
        "since_election": {
            "placed_files": counts.placed_files,
            "placed_bytes": counts.placed_bytes,
            "repaired_files": counts.repaired_files,
            "repaired_bytes": counts.repaired_bytes,
            "fetches_failed": counts.fetches_failed,
            "deleted_files": counts.deleted_files,
            "slaves_lost": counts.slaves_lost,
            "slaves_regained": counts.slaves_regained,
        },
    })
}
