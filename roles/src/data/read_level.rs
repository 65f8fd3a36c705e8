//! How new what a query shows must be, as the request asks: `read=linearizable|bounded|session|eventual`.
//!
//! Statements that change something, or decide what is changed, are linearizable whatever is asked.
//! Invariants: `bounded` shows all that was acknowledged before the bound, measured by this node's own clock between its
//! questions to the leaders; `session` shows all that the given token stands for.

use crate::data::{
    core::DataCore,
    message::{Call, CallError, Reply},
    metadata::META_GROUP,
    propose::LEADER_WAIT_NS_MAX,
    session_token::SessionToken,
};
use futures_lite::future;
use std::{collections::BTreeSet, rc::Rc, time::Duration};
use tidemill_http::WriteOutcome;
use tidemill_raft::{GroupId, LogIndex};

/// What a core's replicas must show before they are read.
#[derive(Clone, Debug)]
pub enum ReadBound {
    /// All that was acknowledged so long before the question.
    Staleness(Duration),
    /// Up to these indices; of groups that are not named, all that was acknowledged before the question.
    Token(SessionToken),
}

impl DataCore {
    /// Returns once this node shows what was acknowledged so long before this call.
    pub async fn catch_up_bounded(self: &Rc<Self>, staleness: Duration) -> Result<(), CallError> {
        self.catch_up_to(ReadBound::Staleness(staleness)).await.map(drop)
    }

    /// Returns once this node shows what a token stands for; with a token of what it shows now.
    pub async fn catch_up_session(self: &Rc<Self>, token: SessionToken) -> Result<SessionToken, CallError> {
        self.catch_up_to(ReadBound::Token(token)).await
    }

    /// What the client's session has seen behind a write to these partitions; it is durable, and its place in the logs is
    /// at most where their leaders are now.
    pub(super) async fn written_in_session(self: &Rc<Self>, session: &str, touched: &BTreeSet<u32>) -> WriteOutcome {
        // A text that is no token says nothing of what was seen before.
        let mut token: SessionToken = session.parse().unwrap_or_default();
        let mut rest = token.clone();
        touched.iter().for_each(|partition| rest.forget(GroupId(*partition)));
        // Those that are not touched need not be waited for.
        let known = self.groups_of_node().filter(|group| !touched.contains(&group.0));
        known.for_each(|group| rest.raise(group, LogIndex(0)));
        match self.catch_up_session(rest).await {
            Ok(shown) => {
                for group in touched.iter().map(|id| GroupId(*id)) {
                    match shown.index_of(group) {
                        Some(index) => token.raise(group, index),
                        // Other nodes hold it: whoever reads it next asks its leader.
                        None => token.forget(group),
                    }
                }
                WriteOutcome::WrittenInSession(token.to_string())
            }
            // It is written all the same, and the client sees it with its next linearizable query.
            Err(_) => WriteOutcome::Written,
        }
    }

    fn groups_of_node(&self) -> impl Iterator<Item = GroupId> + use<> {
        (0..self.partition_count()).chain([META_GROUP.0]).map(GroupId)
    }

    async fn catch_up_to(self: &Rc<Self>, bound: ReadBound) -> Result<SessionToken, CallError> {
        let mut shown = SessionToken::default();
        if self.links.is_none() {
            return Ok(shown);
        }
        let calls: Vec<_> = self.cores().map(|core| self.call(core, Call::CatchUpTo(bound.clone()))).collect();
        for call in calls {
            match call.await? {
                Reply::CaughtUp(part) => shown.join(part?),
                _ => unreachable!("catching up to a bound is answered as that"),
            }
        }
        Ok(shown)
    }

    /// As [`DataCore::catch_up_to`], of the groups of this core.
    pub(super) async fn catch_up_to_here(self: &Rc<Self>, bound: ReadBound) -> Result<SessionToken, CallError> {
        let reads: Vec<_> = self
            .groups()
            .filter(|group| self.takes_part_in(*group))
            .map(|group| {
                let (this, bound) = (self.clone(), bound.clone());
                let read = async move { this.reach(group, &bound).await };
                self.context.spawn(self.context.queues.latency, "catch up", read)
            })
            .collect();
        for read in reads {
            read.await?;
        }
        if let Some(machine) = &self.meta_machine
            && !machine.all_follow().await
        {
            return Err(CallError::Unknown("the core is stopping".into()));
        }
        let mut shown = SessionToken::default();
        for group in self.groups().filter(|group| self.takes_part_in(*group)) {
            if let Some(known) = self.replicas.group(group) {
                shown.raise(group, known.machine().applied());
            }
        }
        Ok(shown)
    }

    async fn reach(self: &Rc<Self>, group: GroupId, bound: &ReadBound) -> Result<(), CallError> {
        match bound {
            ReadBound::Staleness(staleness) => {
                let now_ns = self.context.clock.monotonic_ns();
                let asked_ns = self.confirmed.borrow().get(&group).copied();
                let is_new = |asked_ns: u64| now_ns.saturating_sub(asked_ns) <= staleness.as_nanos() as u64;
                if asked_ns.is_some_and(is_new) { Ok(()) } else { self.read_group(group).await }
            }
            ReadBound::Token(token) => match token.index_of(group) {
                None => self.read_group(group).await,
                Some(index) => self.await_applied(group, index).await,
            },
        }
    }

    async fn await_applied(&self, group: GroupId, index: LogIndex) -> Result<(), CallError> {
        let Some(known) = self.replicas.group(group) else { return Ok(()) };
        let reached = async {
            known.applied_up_to(index).await;
            Ok(())
        };
        let late = async {
            self.context.sleep(Duration::from_nanos(LEADER_WAIT_NS_MAX)).await;
            Err(CallError::Unknown(format!(
                "partition {group}: this node has not caught up with what the session has seen"
            )))
        };
        future::or(reached, late).await
    }
}
