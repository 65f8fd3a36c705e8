//! Metadata of the database: databases, retention policies, shard groups, the types of fields, continuous queries,
//! subscriptions and the users, as a deterministic state machine.
//!
//! Owns: [`Meta`] (the state), [`Command`] (what may change it) and their byte form for the log and the snapshot.
//! Invariants: the same commands in the same order make the same state, byte for byte; a clock value travels inside the
//! command that needs it; ids are never used twice; a field's type is fixed once per shard group by its first writer.
//! Knows nothing of partitions' contents, of disks and of who proposes.

mod apply;
mod command;
mod continuous_query;
mod field_types;
mod id;
mod node;
mod policy;
mod state;
mod subscription;
mod user;

pub use apply::MetaError;
pub use command::{Applied, COMMAND_PREFIX, Command, FieldDefinition, PolicyChange, PolicySpec};
pub use continuous_query::ContinuousQuery;
pub use field_types::FieldTypes;
pub use id::{ContinuousQueryId, DatabaseId, PolicyId, ShardGroupId};
pub use node::{Holders, NODES_MAX, Node, NodeDuty, NodeState};
pub use policy::{DEFAULT_POLICY_NAME, default_shard_group_duration_ns};
pub use state::{Database, Meta, PoolPolicy, RetentionPolicy, ShardGroup};
pub use subscription::Subscription;
pub use user::{DatabasePrivilege, PasswordHash, User};

/// A stored command or snapshot that does not decode.
#[derive(Debug, thiserror::Error)]
#[error("metadata bytes do not decode: {0}")]
pub struct DecodeError(String);
