//! Statements that change the metadata: databases, retention policies, shards.
//!
//! Invariant: what is dropped leaves the metadata of all cores before its points are dropped, so that no statement that
//! starts in between finds half of it.

use crate::query::{StatementError, pieces::Answer, sources::Session};
use tidemill_influxql::{AlterRetentionPolicy, CreateDatabase, CreateRetentionPolicy};
use tidemill_meta::{
    Applied, Command, DEFAULT_POLICY_NAME, PolicyChange, PolicySpec, ShardGroupId as MetaShardGroupId,
};
use tidemill_store::Command as StoreCommand;

pub(super) async fn create_database(session: &Session, create: CreateDatabase) -> Result<Answer, StatementError> {
    let policy = create.retention_policy.map(|policy| PolicySpec {
        name: policy.name.unwrap_or_else(|| DEFAULT_POLICY_NAME.to_owned()),
        duration_ns: policy.duration.unwrap_or(0),
        shard_group_duration_ns: policy.shard_duration.unwrap_or(0),
        replicas: policy.replication.unwrap_or(1),
    });
    let autocreate_policy = session.core.query_limits().autocreate_policy;
    change(session, Command::CreateDatabase { name: create.name, policy, autocreate_policy }).await
}

pub(super) async fn drop_database(session: &Session, name: String) -> Result<Answer, StatementError> {
    change(session, Command::DropDatabase { name }).await
}

pub(super) async fn create_policy(session: &Session, create: CreateRetentionPolicy) -> Result<Answer, StatementError> {
    let policy = PolicySpec {
        name: create.name,
        duration_ns: create.duration,
        shard_group_duration_ns: create.shard_duration.unwrap_or(0),
        replicas: create.replication,
    };
    change(session, Command::CreatePolicy { database: create.database, policy, default: create.default }).await
}

pub(super) async fn alter_policy(session: &Session, alter: AlterRetentionPolicy) -> Result<Answer, StatementError> {
    let change_of_policy = PolicyChange {
        duration_ns: alter.duration,
        shard_group_duration_ns: alter.shard_duration,
        replicas: alter.replication,
        default: alter.default,
    };
    let command = Command::AlterPolicy { database: alter.database, name: alter.name, change: change_of_policy };
    change(session, command).await
}

pub(super) async fn drop_policy(session: &Session, name: String, database: String) -> Result<Answer, StatementError> {
    change(session, Command::DropPolicy { database, name }).await
}

pub(super) async fn drop_shard(session: &Session, id: u64) -> Result<Answer, StatementError> {
    change(session, Command::DropShardGroup { group: MetaShardGroupId(id) }).await
}

/// Changes the metadata, and drops the points of what is gone from them.
pub(super) async fn change(session: &Session, command: Command) -> Result<Answer, StatementError> {
    let applied = session.core.change_meta(command).await?;
    if let Some(command) = points_to_drop(applied) {
        session.core.change_store(command).await?;
    }
    Ok(Answer::done())
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
    use tidemill_meta::DatabaseId;

    #[test]
    fn what_left_the_metadata_leaves_the_store() {
        assert_eq!(points_to_drop(Applied::default()), None);
        let groups = vec![MetaShardGroupId(3), MetaShardGroupId(4)];
        let applied = Applied { dropped_groups: groups.clone(), dropped_database: None };
        assert_eq!(points_to_drop(applied), Some(StoreCommand::DropShardGroups { groups: vec![3, 4] }));
        let applied = Applied { dropped_groups: groups, dropped_database: Some(DatabaseId(9)) };
        assert_eq!(points_to_drop(applied), Some(StoreCommand::DropDatabase { database: 9, groups: vec![3, 4] }));
    }
}
