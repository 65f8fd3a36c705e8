//! The state, and what may be asked of it.

use crate::{
    ContinuousQuery, DatabaseId, DecodeError, Holders, Node, PolicyId, ShardGroupId, Subscription, User,
    field_types::FieldTypes, policy::window_start_ns,
};
use rkyv::{Archive, Deserialize, Serialize, rancor::Error, util::AlignedVec};
use tidemill_column::{TIME_MAX, TIME_MIN};

/// All metadata.
#[derive(Clone, Debug, Default, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct Meta {
    /// In the order of creation.
    pub(crate) databases: Vec<Database>,
    pub(crate) databases_made: u32,
    pub(crate) policies_made: u32,
    pub(crate) groups_made: u64,
    pub(crate) continuous_queries_made: u64,
    pub(crate) field_types: FieldTypes,
    /// In the order of creation.
    pub(crate) users: Vec<User>,
    /// In the order in which they came.
    pub(crate) nodes: Vec<Node>,
    pub(crate) nodes_version: u64,
    /// By group.
    pub(crate) holders: Vec<Holders>,
}

/// A database, its retention policies and its continuous queries.
#[derive(Clone, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct Database {
    pub id: DatabaseId,
    pub name: String,
    /// May name a policy that was dropped since.
    pub default_policy: String,
    /// In the order of creation.
    pub policies: Vec<RetentionPolicy>,
    /// In the order of creation.
    pub continuous_queries: Vec<ContinuousQuery>,
}

/// How long points are kept, and in which pieces.
#[derive(Clone, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct RetentionPolicy {
    pub id: PolicyId,
    pub name: String,
    /// Zero: for ever.
    pub duration_ns: i64,
    pub shard_group_duration_ns: i64,
    pub replicas: u32,
    pub pool: PoolPolicy,
    /// By start, not overlapping.
    pub groups: Vec<ShardGroup>,
    /// In the order of creation.
    pub subscriptions: Vec<Subscription>,
}

/// What becomes of a retention policy's sealed files where there is a storage pool. What is absent is as the configuration
/// of the data nodes says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct PoolPolicy {
    /// Of each file.
    pub copies: Option<u8>,
    /// A file that has not changed for so long is handed over.
    pub after_ns: Option<u64>,
    /// Data nodes keep the blocks of files that the pool has.
    pub keeps_local: Option<bool>,
}

/// A time range of a retention policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct ShardGroup {
    pub id: ShardGroupId,
    pub start_ns: i64,
    /// Exclusive.
    pub end_ns: i64,
}

impl Meta {
    /// In the order of creation.
    pub fn databases(&self) -> &[Database] {
        &self.databases
    }

    pub fn database(&self, name: &str) -> Option<&Database> {
        self.databases.iter().find(|database| database.name == name)
    }

    pub fn database_by_id(&self, id: DatabaseId) -> Option<&Database> {
        self.databases.iter().find(|database| database.id == id)
    }

    /// Times of the shard groups that will be needed soon: behind the newest group of each policy, where that one ends
    /// after `now_ns` and at `until_ns` at the latest.
    pub fn groups_to_come(&self, now_ns: i64, until_ns: i64) -> Vec<(DatabaseId, PolicyId, i64)> {
        let policies =
            self.databases.iter().flat_map(|database| database.policies.iter().map(move |of| (database, of)));
        let to_come = |(database, policy): (&Database, &RetentionPolicy)| {
            let end_ns = policy.groups.last()?.end_ns;
            let is_due = now_ns < end_ns && end_ns <= until_ns && end_ns <= TIME_MAX;
            is_due.then_some((database.id, policy.id, end_ns))
        };
        policies.filter_map(to_come).collect()
    }

    /// Types of fields, by shard group.
    pub fn field_types(&self) -> &FieldTypes {
        &self.field_types
    }

    /// Byte form for a snapshot.
    pub fn encode(&self) -> Vec<u8> {
        let bytes = rkyv::to_bytes::<Error>(self).expect("metadata have no part that can fail to serialize");
        bytes.into_vec()
    }

    /// Reads [`Meta::encode`]'s form back, checked.
    pub fn decode(bytes: &[u8]) -> Result<Meta, DecodeError> {
        let mut aligned = AlignedVec::<16>::with_capacity(bytes.len());
        aligned.extend_from_slice(bytes);
        rkyv::from_bytes::<Meta, Error>(&aligned).map_err(|error| DecodeError(error.to_string()))
    }
}

impl Database {
    /// The policy of this name; `None` asks for the default one.
    pub fn policy(&self, name: Option<&str>) -> Option<&RetentionPolicy> {
        let name = name.unwrap_or(&self.default_policy);
        self.policies.iter().find(|policy| policy.name == name)
    }
}

impl ShardGroup {
    /// Whether a policy that keeps points for `duration_ns` (0: for ever) keeps no time of the group at `now_ns`.
    pub fn is_expired(&self, duration_ns: i64, now_ns: i64) -> bool {
        // The end is exclusive: the last time of the group is kept until one instant before.
        duration_ns > 0 && i128::from(self.end_ns) + i128::from(duration_ns) <= i128::from(now_ns)
    }
}

impl RetentionPolicy {
    /// The group that holds `time_ns`.
    pub fn group_at(&self, time_ns: i64) -> Option<&ShardGroup> {
        let after = self.groups.partition_point(|group| group.start_ns <= time_ns);
        self.groups[..after].last().filter(|group| time_ns < group.end_ns)
    }

    /// Groups that touch the inclusive range.
    pub fn groups_in(&self, min_ns: i64, max_ns: i64) -> impl Iterator<Item = &ShardGroup> {
        self.groups.iter().filter(move |group| group.start_ns <= max_ns && group.end_ns > min_ns)
    }

    /// Start and exclusive end of the group that would be made for `time_ns`: the window of the policy's shard group
    /// duration, clipped so that it overlaps no existing group.
    pub fn range_for(&self, time_ns: i64) -> (i64, i64) {
        let start = window_start_ns(time_ns, self.shard_group_duration_ns).max(TIME_MIN);
        let end = window_start_ns(time_ns, self.shard_group_duration_ns)
            .checked_add(self.shard_group_duration_ns)
            .unwrap_or(TIME_MAX + 1);
        let after = self.groups.partition_point(|group| group.start_ns <= time_ns);
        let start = self.groups[..after].last().map_or(start, |before| start.max(before.end_ns));
        let end = self.groups.get(after).map_or(end, |next| end.min(next.start_ns));
        (start, end)
    }
}
