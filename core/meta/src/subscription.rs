//! Subscriptions: who gets a copy of what is written to a retention policy.
//!
//! They go with their policy. Whether destinations make sense is for the proposer to check.

use crate::{Applied, Meta, MetaError};
use rkyv::{Archive, Deserialize, Serialize};

/// A subscription of a retention policy.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Archive, Serialize, Deserialize)]
pub struct Subscription {
    pub name: String,
    /// Every destination gets every batch; else one of them gets it.
    pub to_all: bool,
    /// URLs.
    pub destinations: Vec<String>,
}

impl Meta {
    pub(crate) fn create_subscription(
        &mut self,
        database: String,
        policy: String,
        subscription: Subscription,
    ) -> Result<Applied, MetaError> {
        let subscriptions = self.subscriptions_mut(&database, &policy)?;
        if subscriptions.iter().any(|known| known.name == subscription.name) {
            return Err(MetaError::SubscriptionExists);
        }
        subscriptions.push(subscription);
        Ok(Applied::default())
    }

    pub(crate) fn drop_subscription(
        &mut self,
        database: String,
        policy: String,
        name: &str,
    ) -> Result<Applied, MetaError> {
        let subscriptions = self.subscriptions_mut(&database, &policy)?;
        let position = subscriptions.iter().position(|known| known.name == name);
        subscriptions.remove(position.ok_or(MetaError::SubscriptionNotFound)?);
        Ok(Applied::default())
    }

    fn subscriptions_mut(&mut self, database: &str, policy: &str) -> Result<&mut Vec<Subscription>, MetaError> {
        let known = self.databases.iter_mut().find(|known| known.name == database);
        let known = known.ok_or_else(|| MetaError::DatabaseNotFound(database.to_owned()))?;
        let found = known.policies.iter_mut().find(|known| known.name == policy);
        found.map(|policy| &mut policy.subscriptions).ok_or_else(|| MetaError::PolicyNotFound(policy.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Command;

    fn create(meta: &mut Meta, database: &str, policy: &str, name: &str) -> Result<Applied, MetaError> {
        let destinations = vec!["udp://127.0.0.1:9".to_owned()];
        let subscription = Subscription { name: name.into(), to_all: true, destinations };
        meta.apply(Command::CreateSubscription { database: database.into(), policy: policy.into(), subscription })
    }

    fn drop(meta: &mut Meta, policy: &str, name: &str) -> Result<Applied, MetaError> {
        let (database, policy, name) = ("d".into(), policy.into(), name.into());
        meta.apply(Command::DropSubscription { database, policy, name })
    }

    #[test]
    fn subscriptions_live_with_their_policy() {
        let mut meta = Meta::default();
        meta.apply(Command::CreateDatabase { name: "d".into(), policy: None, autocreate_policy: true }).unwrap();
        create(&mut meta, "d", "autogen", "s").unwrap();
        let text = |result: Result<Applied, MetaError>| result.unwrap_err().to_string();
        assert_eq!(text(create(&mut meta, "d", "autogen", "s")), "subscription already exists");
        assert_eq!(text(create(&mut meta, "d", "x", "s")), "retention policy not found: x");
        assert_eq!(text(create(&mut meta, "x", "autogen", "s")), "database not found: x");
        assert_eq!(text(drop(&mut meta, "autogen", "t")), "subscription not found");
        assert_eq!(Meta::decode(&meta.encode()).unwrap(), meta);
        drop(&mut meta, "autogen", "s").unwrap();
        assert!(meta.databases()[0].policies[0].subscriptions.is_empty());
        create(&mut meta, "d", "autogen", "s").unwrap();
        meta.apply(Command::DropPolicy { database: "d".into(), name: "autogen".into() }).unwrap();
        assert_eq!(text(drop(&mut meta, "autogen", "s")), "retention policy not found: autogen");
    }
}
