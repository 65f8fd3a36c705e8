//! What leaves the metadata leaves the store, and what is too old leaves both.
//!
//! Invariants: what is dropped leaves the metadata of all cores before its points are dropped, so that no statement that
//! starts in between finds half of it; a shard group is retired when no time of it is kept any more, by a clock value
//! that travels in the log. What a stop or an error leaves between the two steps is finished by
//! [`DataCore::drop_orphans`].
//! Knows nothing of statements.

use crate::data::{
    core::{DataCore, META_CORE},
    message::MetaChangeError,
    metadata::META_GROUP,
};
use futures_lite::future;
use std::{rc::Rc, time::Duration};
use tidemill_meta::{Applied, Command as MetaCommand};
use tidemill_store::Command as StoreCommand;

impl DataCore {
    /// Changes the metadata at all nodes that can be reached, and drops the points of what is gone from them.
    pub async fn change_definitions(self: &Rc<Self>, command: MetaCommand) -> Result<(), MetaChangeError> {
        let applied = self.change_meta(command).await?;
        // Whoever asks another node next is to find what was changed; and no write that went by the old lands behind a drop.
        self.outwait_other_nodes().await;
        if let Some(command) = points_to_drop(applied) {
            self.change_store(command).await?;
        }
        Ok(())
    }

    /// Retires shard groups, until the core stops. To be run on every core.
    pub(crate) async fn enforce_retention(self: Rc<Self>, check_interval: Duration) {
        loop {
            future::or(self.context.sleep(check_interval), self.context.shutdown.requested()).await;
            if self.context.shutdown.is_requested() {
                return;
            }
            // In a cluster one node does it for all.
            if self.context.core == META_CORE && self.decides(META_GROUP) && self.has_expired_groups() {
                let retire = MetaCommand::RetireShardGroups { now_ns: self.context.clock.now_ns() };
                if let Err(error) = self.change_definitions(retire).await {
                    tracing::warn!(%error, "what is too old will be dropped at the next check");
                }
            }
            self.drop_orphans().await;
        }
    }

    /// An entry of the log for nothing is spared.
    fn has_expired_groups(&self) -> bool {
        let now_ns = self.context.clock.now_ns();
        let meta = self.meta();
        let mut policies = meta.databases().iter().flat_map(|database| &database.policies);
        policies.any(|policy| policy.groups.iter().any(|group| group.is_expired(policy.duration_ns, now_ns)))
    }
}

fn points_to_drop(applied: Applied) -> Option<StoreCommand> {
    let groups: Vec<u64> = applied.dropped_groups.into_iter().map(|group| group.0).collect();
    match applied.dropped_database {
        Some(database) => Some(StoreCommand::DropDatabase { database: database.0, groups }),
        None if groups.is_empty() => None,
        None => Some(StoreCommand::DropShardGroups { groups }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidemill_meta::{DatabaseId, ShardGroupId};

    #[test]
    fn what_left_the_metadata_leaves_the_store() {
        assert_eq!(points_to_drop(Applied::default()), None);
        let groups = vec![ShardGroupId(3), ShardGroupId(4)];
        let applied = Applied { dropped_groups: groups.clone(), dropped_database: None };
        assert_eq!(points_to_drop(applied), Some(StoreCommand::DropShardGroups { groups: vec![3, 4] }));
        let applied = Applied { dropped_groups: groups, dropped_database: Some(DatabaseId(9)) };
        assert_eq!(points_to_drop(applied), Some(StoreCommand::DropDatabase { database: 9, groups: vec![3, 4] }));
    }
}
