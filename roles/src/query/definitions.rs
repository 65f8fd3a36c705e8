//! Statements that change the metadata: databases, retention policies, shards.

use crate::query::{StatementError, pieces::Answer, sources::Session};
use tidemill_influxql::{AlterRetentionPolicy, CreateDatabase, CreateRetentionPolicy};
use tidemill_meta::{Command, DEFAULT_POLICY_NAME, PolicyChange, PolicySpec, ShardGroupId};

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
    change(session, Command::DropShardGroup { group: ShardGroupId(id) }).await
}

pub(super) async fn change(session: &Session, command: Command) -> Result<Answer, StatementError> {
    session.core.change_definitions(command).await?;
    Ok(Answer::done())
}
