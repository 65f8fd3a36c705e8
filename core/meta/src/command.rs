//! What may change the metadata. Commands are entries of the metadata's log.

use crate::{
    ContinuousQueryId, DatabaseId, DatabasePrivilege, DecodeError, Holders, Node, PasswordHash, PolicyId, PoolPolicy,
    ShardGroupId, Subscription,
};
use rkyv::{Archive, Deserialize, Serialize, rancor::Error, util::AlignedVec};
use tidemill_column::FieldType;

/// First byte of a command in a log.
pub const COMMAND_PREFIX: u8 = 2;

/// One change. Values of a clock are the proposer's.
#[derive(Clone, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub enum Command {
    CreateDatabase {
        name: String,
        policy: Option<PolicySpec>,
        autocreate_policy: bool,
    },
    DropDatabase {
        name: String,
    },
    CreatePolicy {
        database: String,
        policy: PolicySpec,
        default: bool,
    },
    AlterPolicy {
        database: String,
        name: String,
        change: PolicyChange,
    },
    DropPolicy {
        database: String,
        name: String,
    },
    /// Makes the groups that hold these times, where they are missing.
    CreateShardGroups {
        database: DatabaseId,
        policy: PolicyId,
        times_ns: Vec<i64>,
    },
    DropShardGroup {
        group: ShardGroupId,
    },
    /// Fixes the types of fields that have none yet in this group.
    DefineFields {
        group: ShardGroupId,
        measurement: Vec<u8>,
        fields: Vec<FieldDefinition>,
    },
    /// No series of the measurement is left: its fields may get other types.
    ForgetMeasurement {
        database: DatabaseId,
        measurement: Vec<u8>,
    },
    /// The hash was made of a password by the proposer, with a salt of its own.
    CreateUser {
        name: String,
        password_hash: PasswordHash,
        is_admin: bool,
    },
    DropUser {
        name: String,
    },
    SetPassword {
        user: String,
        password_hash: PasswordHash,
    },
    SetAdmin {
        user: String,
        is_admin: bool,
    },
    Grant {
        user: String,
        database: String,
        privilege: DatabasePrivilege,
    },
    Revoke {
        user: String,
        database: String,
        privilege: DatabasePrivilege,
    },
    /// The field's points are gone or about to go: it may get another type.
    ForgetField {
        database: DatabaseId,
        measurement: Vec<u8>,
        field: Vec<u8>,
    },
    /// Drops the groups of which no time is kept any more at `now_ns`.
    RetireShardGroups {
        now_ns: i64,
    },
    /// The text is the normalised statement.
    CreateContinuousQuery {
        database: String,
        name: String,
        text: String,
    },
    DropContinuousQuery {
        database: String,
        name: String,
    },
    /// The run that was due at `ran_ns` has succeeded.
    NoteContinuousQueryRun {
        id: ContinuousQueryId,
        ran_ns: i64,
    },
    CreateSubscription {
        database: String,
        policy: String,
        subscription: Subscription,
    },
    DropSubscription {
        database: String,
        policy: String,
        name: String,
    },
    /// The nodes and groups that the configuration of the founders names; no effect on a cluster that is founded.
    FoundCluster {
        nodes: Vec<Node>,
        holders: Vec<Holders>,
    },
    AddNode(Node),
    ReplaceNode {
        old: u64,
        new: u64,
    },
    DrainNode {
        node: u64,
    },
    RemoveNode {
        node: u64,
    },
    MoveReplica {
        group: u32,
        from: u64,
        to: u64,
    },
    /// The voters of a group are these, and no change of them is under way.
    NoteHolders {
        group: u32,
        voters: Vec<u64>,
    },
    /// In the place of what was said before.
    SetPoolPolicy {
        database: String,
        policy: String,
        pool: PoolPolicy,
    },
}

/// A retention policy as it is asked for. Zero durations: for ever, and the default shard group duration.
#[derive(Clone, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct PolicySpec {
    pub name: String,
    pub duration_ns: i64,
    pub shard_group_duration_ns: i64,
    pub replicas: u32,
}

/// What ALTER RETENTION POLICY changes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct PolicyChange {
    pub duration_ns: Option<i64>,
    pub shard_group_duration_ns: Option<i64>,
    pub replicas: Option<u32>,
    pub default: bool,
}

/// A field's name and the code of its type.
#[derive(Clone, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct FieldDefinition {
    pub name: Vec<u8>,
    pub type_code: u8,
}

impl FieldDefinition {
    pub fn new(name: &[u8], field_type: FieldType) -> FieldDefinition {
        FieldDefinition { name: name.to_vec(), type_code: field_type.code() }
    }
}

/// What a command did, for whoever must act on it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct Applied {
    /// Groups that are gone: their files may be removed.
    pub dropped_groups: Vec<ShardGroupId>,
    /// The database that is gone, with all of its series.
    pub dropped_database: Option<DatabaseId>,
}

impl Command {
    /// Byte form for the log: one byte that tells a command from the other entries of a log, then the archive.
    pub fn encode(&self) -> Vec<u8> {
        let body = rkyv::to_bytes::<Error>(self).expect("a command has no part that can fail to serialize");
        let mut bytes = Vec::with_capacity(1 + body.len());
        bytes.push(COMMAND_PREFIX);
        bytes.extend_from_slice(&body);
        bytes
    }

    /// Reads [`Command::encode`]'s form back, checked.
    pub fn decode(bytes: &[u8]) -> Result<Command, DecodeError> {
        let Some((&COMMAND_PREFIX, body)) = bytes.split_first() else {
            return Err(DecodeError("not the first byte of a command".to_owned()));
        };
        let mut aligned = AlignedVec::<16>::with_capacity(body.len());
        aligned.extend_from_slice(body);
        rkyv::from_bytes::<Command, Error>(&aligned).map_err(|error| DecodeError(error.to_string()))
    }
}
