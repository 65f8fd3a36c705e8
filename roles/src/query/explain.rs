//! EXPLAIN and EXPLAIN ANALYZE.
//!
//! EXPLAIN tells what would be read, by the indexes of series and files: values in memory, files, blocks and their
//! bytes. The lines are upstream's; one scan may serve several calls, and its figures then stand with each of them.
//! EXPLAIN ANALYZE runs the statement, INTO left aside, and tells what that took.

use crate::query::{
    StatementError,
    account::Account,
    answer_table::list,
    pieces::Answer,
    scan::{ScanCost, ScanRequest},
    select::{Prepared, Select, plan},
    sources::Session,
};
use std::{collections::BTreeSet, future::Future, pin::Pin, rc::Rc, sync::Arc};
use tidemill_influxql::{GoDurationText, SelectStatement};
use tidemill_query::SourceIndex;

/// EXPLAIN.
pub(super) async fn explain(session: &Rc<Session>, select: &SelectStatement) -> Result<Answer, StatementError> {
    let (_, prepared) = plan(session, select).await?;
    let account = Arc::new(Account::new(session.query.clone(), session.core.query_limits().select));
    let mut lines = Vec::new();
    explain_plan(session, &prepared, &account, &mut lines).await?;
    Ok(Answer::of(list("", "QUERY PLAN", lines, session.chunk_rows)))
}

/// EXPLAIN ANALYZE.
pub(super) async fn analyze(session: &Rc<Session>, select: &SelectStatement) -> Result<Answer, StatementError> {
    let clock = &session.core.context().clock;
    let begun_ns = clock.monotonic_ns();
    let (compiled, prepared) = plan(session, select).await?;
    let planned_ns = clock.monotonic_ns();
    let account = Arc::new(Account::new(session.query.clone(), session.core.query_limits().select));
    let cost = cost_of(session, &prepared, &account).await?;
    let executing_ns = clock.monotonic_ns();
    let mut running = Select::of(session.clone(), &compiled, &prepared);
    let (mut rows, mut series, mut last) = (0, 0, None);
    while let Some(piece) = running.next().await? {
        rows += piece.row_count();
        let key = (piece.name.clone(), piece.tags.clone());
        if last.as_ref() != Some(&key) {
            series += 1;
            last = Some(key);
        }
    }
    let executed_ns = clock.monotonic_ns();
    let (points, _) = running.account().counted();
    let duration = |ns: u64| GoDurationText(i64::try_from(ns).unwrap_or(i64::MAX)).to_string();
    let (planning_ns, execution_ns) = (planned_ns - begun_ns, executed_ns - executing_ns);
    let mut select = Node::new("select");
    select.add("execution_time", duration(execution_ns));
    select.add("planning_time", duration(planning_ns));
    select.add("total_time", duration(planning_ns + execution_ns));
    select.add("series", series);
    select.add("rows", rows);
    let mut scan = Node::new("scan");
    let explanations = prepared.plan.explanations();
    explanations.iter().for_each(|of| scan.add("expression", of.expression.as_deref().unwrap_or("<nil>")));
    scan.add("partitions", session.core.partition_count());
    scan.add("shards", groups(&prepared).len());
    scan.add("series", cost.series);
    scan.add("points", points);
    scan.add("cached_values", cost.read.cached_values);
    scan.add("files", cost.read.files);
    scan.add("blocks", cost.read.blocks);
    scan.add("block_bytes", cost.read.block_bytes);
    select.children.push(scan);
    let mut lines = vec![".".to_owned()];
    select.push_lines("", true, &mut lines);
    Ok(Answer::of(list("", "EXPLAIN ANALYZE", lines, session.chunk_rows)))
}

/// A node of a tree that is shown as text.
struct Node {
    text: String,
    children: Vec<Node>,
}

impl Node {
    fn new(text: impl Into<String>) -> Node {
        Node { text: text.into(), children: Vec::new() }
    }

    fn add(&mut self, name: &str, value: impl std::fmt::Display) {
        self.children.push(Node::new(format!("{name}: {value}")));
    }

    fn push_lines(&self, prefix: &str, is_last: bool, lines: &mut Vec<String>) {
        let (branch, below) = if is_last { ("└── ", "    ") } else { ("├── ", "│   ") };
        lines.push(format!("{prefix}{branch}{}", self.text));
        let prefix = format!("{prefix}{below}");
        for (number, child) in self.children.iter().enumerate() {
            child.push_lines(&prefix, number + 1 == self.children.len(), lines);
        }
    }
}

/// The lines of a statement and of those in its FROM.
fn explain_plan<'a>(
    session: &'a Session,
    prepared: &'a Prepared,
    account: &'a Arc<Account>,
    lines: &'a mut Vec<String>,
) -> Pin<Box<dyn Future<Output = Result<(), StatementError>> + 'a>> {
    Box::pin(async move {
        let cost = cost_of(session, prepared, account).await?;
        let shards = groups(prepared).len();
        for explanation in prepared.plan.explanations() {
            if !lines.is_empty() {
                lines.push(String::new());
            }
            lines.push(format!("EXPRESSION: {}", explanation.expression.as_deref().unwrap_or("<nil>")));
            if !explanation.auxiliary.is_empty() {
                lines.push(format!("AUXILIARY FIELDS: {}", explanation.auxiliary.join(", ")));
            }
            lines.push(format!("NUMBER OF SHARDS: {shards}"));
            lines.push(format!("NUMBER OF SERIES: {}", cost.series));
            lines.push(format!("CACHED VALUES: {}", cost.read.cached_values));
            lines.push(format!("NUMBER OF FILES: {}", cost.read.files));
            lines.push(format!("NUMBER OF BLOCKS: {}", cost.read.blocks));
            lines.push(format!("SIZE OF BLOCKS: {}", cost.read.block_bytes));
        }
        for inner in &prepared.inner {
            explain_plan(session, &inner.prepared, account, lines).await?;
        }
        Ok(())
    })
}

/// The shard groups that the scans of a statement read.
fn groups(prepared: &Prepared) -> BTreeSet<u64> {
    prepared.targets.iter().flat_map(|target| target.groups.iter()).map(|group| group.0).collect()
}

/// What the scans of a statement read, on all cores; those of several calls over the same measurement count once.
async fn cost_of(session: &Session, prepared: &Prepared, account: &Arc<Account>) -> Result<ScanCost, StatementError> {
    let mut all = ScanCost::default();
    let mut seen = BTreeSet::new();
    for scan in prepared.plan.all_scans() {
        let SourceIndex::Measurement(source) = scan.source() else { continue };
        let fields: Vec<&str> = scan.fields().iter().map(|(name, _)| name.as_str()).collect();
        if !seen.insert((source, scan.measurement(), fields)) {
            continue;
        }
        let target = &prepared.targets[source];
        for core in session.core.cores() {
            let order = ScanRequest {
                scan: scan.clone(),
                database: target.database,
                groups: target.groups.clone(),
                account: account.clone(),
                elsewhere: prepared.elsewhere(scan),
            };
            all.add(&session.core.cost_of(core, order).await?);
        }
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trees_are_drawn() {
        let mut root = Node::new("select");
        root.add("a", 1);
        let mut child = Node::new("scan");
        child.add("b", 2);
        root.children.push(child);
        let mut lines = Vec::new();
        root.push_lines("", true, &mut lines);
        assert_eq!(lines, ["└── select", "    ├── a: 1", "    └── scan", "        └── b: 2"]);
    }
}
