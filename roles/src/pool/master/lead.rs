//! The loop of the masters' leader: it looks, has decided what is to change, and gives orders.

use super::Master;
use crate::{
    data::{DataCore, message::CallError},
    links::{POOL_FILES, RemoteCall, RemoteReply},
};
use futures_lite::future;
use std::{collections::BTreeMap, rc::Rc, time::Duration};
use tidemill_meta::{NodeDuty, NodeState};
use tidemill_pool::{Command, FetchOrder, FileId, Leader, StoreCall, StoreReply, Stored};
use tidemill_raft::{NodeId, Term};

/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// A file of the largest size over a slow link is there within this; a connection that breaks is noticed at once.
const FETCH_MAX: Duration = Duration::from_secs(3600);
/// Files are unlinked and the folder is synced within this, or nobody knows.
const ORDER_MAX: Duration = Duration::from_secs(30);

/// One leadership.
pub(super) struct Lead {
    pub term: Term,
    pub leader: Leader,
}

impl Master {
    /// Leads, whenever this node does, until the core stops.
    pub(super) async fn run(self: Rc<Self>, core: Rc<DataCore>) {
        while !core.replicas.is_stopped() && !core.is_stopping() {
            let woken = self.wake.notified();
            if let Some(term) = self.take_lead(&core)
                && let Err(error) = self.act(&core, term).await
            {
                tracing::debug!(%error, "the masters of the pool have not decided");
            }
            future::or(woken, core.context().sleep(LOOK_EVERY)).await;
        }
    }

    /// One look, and what follows from it.
    async fn act(self: &Rc<Self>, core: &Rc<DataCore>, term: Term) -> Result<(), CallError> {
        for command in self.membership_changes(core) {
            self.decide(core, command).await?;
        }
        let now_ns = core.context().clock.monotonic_ns();
        let Some(steps) = self.with_leader(term, |leader| leader.look(&self.machine.pool(), now_ns)) else {
            return Ok(());
        };
        for order in steps.fetches {
            self.order_fetch(core, term, order);
        }
        for (slave, files) in steps.deletes {
            self.order_deletes(core, term, slave, files);
        }
        for slave in steps.scrubs {
            self.order_scrub(core, term, slave);
        }
        // All at once into the log, and then their ends.
        let mut decided = Vec::new();
        for command in steps.commands {
            log(&command);
            decided.push(Box::pin(self.decide(core, command)));
        }
        let mut outcome = Ok(());
        for decision in join(decided).await {
            outcome = outcome.and(decision.map(drop));
        }
        outcome
    }

    /// What the metadata say of the slaves and the log does not.
    fn membership_changes(&self, core: &DataCore) -> Vec<Command> {
        let (meta, pool) = (core.meta(), self.machine.pool());
        let nodes = meta.nodes().iter().filter(|node| node.state != NodeState::Gone);
        let slaves: BTreeMap<u64, String> = nodes
            .filter_map(|node| match &node.duty {
                // Nobody shares a domain without a name.
                NodeDuty::PoolSlave { domain } => {
                    Some((node.id, domain.clone().unwrap_or_else(|| format!("node {}", node.id))))
                }
                _ => None,
            })
            .collect();
        if slaves.is_empty() && meta.nodes().is_empty() {
            return Vec::new();
        }
        let is_other = |slave: u64, domain: &str| pool.slaves().get(&slave).is_none_or(|known| known.domain != domain);
        let come = slaves.iter().filter(|(slave, domain)| is_other(**slave, domain));
        let mut changes: Vec<Command> =
            come.map(|(slave, domain)| Command::Admit { slave: *slave, domain: domain.clone() }).collect();
        let went = pool.slaves().keys().filter(|slave| !slaves.contains_key(slave));
        changes.extend(went.map(|slave| Command::Remove { slave: *slave }));
        changes
    }

    fn order_fetch(self: &Rc<Self>, core: &Rc<DataCore>, term: Term, order: FetchOrder) {
        let (this, asker) = (self.clone(), core.clone());
        let FetchOrder { slave, file, size, sources } = order;
        let fetch = async move {
            let call = StoreCall::Fetch { epoch: term.0, file, size, sources };
            let outcome = match ask_slave(&asker, slave, &call, FETCH_MAX).await {
                Ok(StoreReply::Told(Stored::Stored)) => Ok(()),
                Ok(StoreReply::Told(Stored::Failed { why })) => Err(why),
                Ok(other) => Err(unexpected(&other)),
                Err(why) => Err(why),
            };
            if let Err(why) = &outcome {
                tracing::debug!(%file, slave, why, "a slave has not got a file");
            }
            let now_ns = asker.context().clock.monotonic_ns();
            this.with_leader(term, |leader| leader.fetched(slave, file, size, outcome, now_ns));
            this.wake.notify();
        };
        core.context().spawn(core.context().queues.background, "have a file copied", fetch).detach();
    }

    fn order_deletes(self: &Rc<Self>, core: &Rc<DataCore>, term: Term, slave: u64, files: Vec<FileId>) {
        let (this, asker) = (self.clone(), core.clone());
        let delete = async move {
            let call = StoreCall::Delete { epoch: term.0, files: files.clone() };
            let is_known = match ask_slave(&asker, slave, &call, ORDER_MAX).await {
                Ok(StoreReply::Told(Stored::Deleted)) => true,
                other => {
                    tracing::debug!(slave, ?other, "a slave has not said that it deleted files");
                    false
                }
            };
            let now_ns = asker.context().clock.monotonic_ns();
            this.with_leader(term, |leader| leader.deleted(slave, &files, is_known, now_ns));
        };
        core.context().spawn(core.context().queues.background, "have files deleted", delete).detach();
    }

    fn order_scrub(&self, core: &Rc<DataCore>, term: Term, slave: u64) {
        let asker = core.clone();
        let scrub = async move {
            let answer = ask_slave(&asker, slave, &StoreCall::Scrub { epoch: term.0 }, ORDER_MAX).await;
            if !matches!(answer, Ok(StoreReply::Told(Stored::Scrubbing))) {
                tracing::warn!(slave, ?answer, "a slave has not begun to read its files again");
            }
        };
        core.context().spawn(core.context().queues.background, "have files scrubbed", scrub).detach();
    }
}

/// What is worth a line of the operator's log.
fn log(command: &Command) {
    match command {
        Command::Lose { slave } => tracing::warn!(slave, "a slave of the pool is lost: its files are copied again"),
        Command::Regain { slave } => tracing::info!(slave, "a slave of the pool is back"),
        Command::Miss { slave, files } => {
            tracing::warn!(slave, files = files.len(), "a slave of the pool has not got files that it had")
        }
        _ => {}
    }
}

fn unexpected(reply: &StoreReply) -> String {
    match reply {
        StoreReply::Told(Stored::Fenced { epoch }) => format!("another master leads since term {epoch}"),
        _ => "it answered something else".to_owned(),
    }
}

async fn ask_slave(core: &DataCore, slave: u64, call: &StoreCall, limit: Duration) -> Result<StoreReply, String> {
    let links = core.links.as_ref().ok_or("this server has no other nodes")?;
    match links.call(NodeId(slave), POOL_FILES, RemoteCall::PoolStore(call.encode()), limit).await {
        Ok(RemoteReply::Pool(bytes)) => StoreReply::decode(&bytes).map_err(|error| error.to_string()),
        Ok(_) => Err("it answered something else".to_owned()),
        Err(failure) => Err(failure.to_string()),
    }
}

/// Runs futures side by side.
async fn join<T>(futures: Vec<impl Future<Output = T> + Unpin>) -> Vec<T> {
    let mut futures: Vec<_> = futures.into_iter().map(|future| (future, None)).collect();
    std::future::poll_fn(move |context| {
        let mut is_ready = true;
        for (future, ended) in futures.iter_mut().filter(|(_, ended)| ended.is_none()) {
            match std::pin::Pin::new(future).poll(context) {
                std::task::Poll::Ready(value) => *ended = Some(value),
                std::task::Poll::Pending => is_ready = false,
            }
        }
        if !is_ready {
            return std::task::Poll::Pending;
        }
        std::task::Poll::Ready(futures.drain(..).filter_map(|(_, ended)| ended).collect())
    })
    .await
}
