//! Shard groups that are made before their time comes, so that the first write into one does not wait for it.

use crate::data::{
    core::{DataCore, META_CORE},
    metadata::META_GROUP,
};
use futures_lite::future;
use std::{rc::Rc, time::Duration};
use tidemill_meta::Command as MetaCommand;

/// What the configuration says of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PrecreationOptions {
    pub is_enabled: bool,
    pub check_interval: Duration,
    /// How long before a group ends the next one is made.
    pub advance_period: Duration,
}

impl Default for PrecreationOptions {
    /// As upstream's.
    fn default() -> PrecreationOptions {
        PrecreationOptions {
            is_enabled: true,
            check_interval: Duration::from_secs(10 * 60),
            advance_period: Duration::from_secs(30 * 60),
        }
    }
}

impl DataCore {
    /// Makes groups that will be needed soon, until the core stops. In a cluster one node does it for all.
    pub(super) async fn precreate_groups(self: Rc<Self>, options: PrecreationOptions) {
        assert!(self.context.core == META_CORE, "one core of a node looks after the metadata");
        loop {
            future::or(self.context.sleep(options.check_interval), self.context.shutdown.requested()).await;
            if self.context.shutdown.is_requested() {
                return;
            }
            if !self.decides(META_GROUP) {
                continue;
            }
            let now_ns = self.context.clock.now_ns();
            let until_ns = now_ns.saturating_add(i64::try_from(options.advance_period.as_nanos()).unwrap_or(i64::MAX));
            let due = self.meta().groups_to_come(now_ns, until_ns);
            for (database, policy, time_ns) in due {
                let command = MetaCommand::CreateShardGroups { database, policy, times_ns: vec![time_ns] };
                if let Err(error) = self.change_meta(command).await {
                    tracing::warn!(%error, "a shard group is made when it is written to");
                }
            }
        }
    }
}
