//! What a reader at this node must see: everything that any node acknowledged before it asked (I3).
//!
//! Of the groups that have a replica here a reader lets each leader say up to where that is, waits until the replica is
//! there, and then reads here. Other groups are read at nodes that do the same (`query::elsewhere`).

use crate::{
    data::{
        core::{DataCore, META_CORE},
        message::{Call, CallError, Reply},
        metadata::META_GROUP,
        propose::{LEADER_PAUSE, LEADER_WAIT_NS_MAX},
    },
    links::POOL_GROUP,
};
use futures_lite::future;
use std::{rc::Rc, time::Duration};
use tidemill_raft::GroupId;

/// Questions and answers may get lost, and so may leaders.
const ANSWER_WAIT: Duration = Duration::from_millis(500);

impl DataCore {
    /// Returns once this node shows what was acknowledged before this call.
    ///
    /// # Errors
    /// A group has no leader that can be reached: whatever would be answered might be old.
    pub async fn catch_up(self: &Rc<Self>) -> Result<(), CallError> {
        if self.links.is_none() {
            return Ok(());
        }
        let calls: Vec<_> = self.cores().map(|core| self.call(core, Call::CatchUp)).collect();
        for call in calls {
            done(call.await?)?;
        }
        Ok(())
    }

    /// As [`DataCore::catch_up`], for the metadata alone.
    pub async fn catch_up_meta(self: &Rc<Self>) -> Result<(), CallError> {
        if self.links.is_none() {
            return Ok(());
        }
        done(self.call(META_CORE, Call::CatchUpMeta).await?)
    }

    /// The groups of this core.
    pub(super) async fn catch_up_here(self: &Rc<Self>) -> Result<(), CallError> {
        let reads: Vec<_> = self
            .held()
            .into_iter()
            .map(|id| {
                let (this, id) = (self.clone(), GroupId(id));
                let read = async move { this.catch_up_partition(id).await };
                self.context.spawn(self.context.queues.latency, "catch up", read)
            })
            .collect();
        if self.meta_machine.is_some() {
            self.catch_up_meta_here().await?;
        }
        for read in reads {
            read.await?;
        }
        Ok(())
    }

    /// Returns once a partition of this core shows what was acknowledged before this call.
    ///
    /// # Errors
    /// It is none of this core, or its leader cannot be reached.
    pub(crate) async fn catch_up_partition(&self, id: GroupId) -> Result<(), CallError> {
        let Some(partition) = self.partitions.get(&id.0).filter(|_| self.is_held(id.0)) else {
            return Err(CallError::Unknown(format!("partition {id} is not held by this core of the node")));
        };
        self.read_group(id).await?;
        // Series without points leave the index of each replica in its own time.
        if let Err(error) = partition.settle().await {
            // Such a series stays in the index for now; a query of it names the damage.
            tracing::warn!(partition = id.0, %error, "deleted series cannot be looked at");
        }
        Ok(())
    }

    pub(super) async fn catch_up_meta_here(self: &Rc<Self>) -> Result<(), CallError> {
        let machine = self.meta_machine.as_ref().expect("the metadata's core has its machine");
        self.read_group(META_GROUP).await?;
        if machine.all_follow().await { Ok(()) } else { Err(CallError::Unknown("the core is stopping".into())) }
    }

    /// Returns once the replica here shows what was acknowledged before this call.
    pub(crate) async fn read_group(&self, group: GroupId) -> Result<(), CallError> {
        let begun_ns = self.context.clock.monotonic_ns();
        loop {
            let asked_ns = self.context.clock.monotonic_ns();
            let read = async { self.replicas.read(group).await.is_ok() };
            let limit = async {
                self.context.sleep(ANSWER_WAIT).await;
                false
            };
            if future::or(read, limit).await {
                self.confirmed.borrow_mut().insert(group, asked_ns);
                return Ok(());
            }
            if self.context.clock.monotonic_ns() - begun_ns > LEADER_WAIT_NS_MAX || self.stopping.get() {
                let what = match group {
                    META_GROUP => "the metadata".to_owned(),
                    POOL_GROUP => "the storage pool".to_owned(),
                    group => format!("partition {group}"),
                };
                return Err(CallError::Unknown(format!(
                    "{what}: no leader can be reached, and an answer might miss what was written"
                )));
            }
            self.context.sleep(LEADER_PAUSE).await;
        }
    }
}

fn done(reply: Reply) -> Result<(), CallError> {
    match reply {
        Reply::Done(result) => result,
        _ => unreachable!("catching up is answered as done"),
    }
}
