//! `meta.db`: upstream's databases, retention policies and shard groups (`tsm-format`, section 8).
//!
//! Owns: the protobuf messages of that file, both ways, as far as data need them; of users, continuous queries and
//! subscriptions only the names are read, so that a reader can say what it leaves behind.
//! Invariants: reading allocates a bounded multiple of its input; unknown fields are skipped. The file carries no
//! checksum.
//! Knows nothing of what the names mean to Tidemill.

#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic))]

use crate::protobuf::{self, Field, bytes_tag, push_bytes, push_varint, varint_tag};

/// The whole file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MetaData {
    pub databases: Vec<Database>,
    pub users: Vec<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Database {
    pub name: String,
    pub default_policy: String,
    pub policies: Vec<RetentionPolicy>,
    pub continuous_queries: Vec<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RetentionPolicy {
    pub name: String,
    /// 0: for ever.
    pub duration_ns: i64,
    pub shard_group_duration_ns: i64,
    pub replicas: u32,
    pub groups: Vec<ShardGroup>,
    pub subscriptions: Vec<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ShardGroup {
    pub id: u64,
    pub start_ns: i64,
    /// First instant behind the group.
    pub end_ns: i64,
    /// 0: it is not deleted.
    pub deleted_at_ns: i64,
    /// Ids of its shards: names of folders.
    pub shards: Vec<u64>,
}

impl ShardGroup {
    /// Whether upstream has dropped the group: its folders may be there still, but nobody sees them. A time of the year
    /// one is upstream's "never".
    pub fn is_deleted(&self) -> bool {
        self.deleted_at_ns > 0
    }
}

/// A `meta.db` cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MetaDbError {
    #[error("the meta.db is damaged")]
    Malformed,
    #[error("a name in the meta.db is no UTF-8")]
    Name,
}

impl From<protobuf::Malformed> for MetaDbError {
    fn from(_: protobuf::Malformed) -> MetaDbError {
        MetaDbError::Malformed
    }
}

/// # Errors
/// If a message is cut or a name is no text.
pub fn read(bytes: &[u8]) -> Result<MetaData, MetaDbError> {
    let mut data = MetaData::default();
    protobuf::for_each_field(bytes, |tag, field| {
        match (tag, field) {
            (tag, Field::Bytes(message)) if tag == bytes_tag(5) => data.databases.push(database_of(message)?),
            (tag, Field::Bytes(message)) if tag == bytes_tag(6) => data.users.push(name_of(message)?),
            _ => {}
        }
        Ok::<(), MetaDbError>(())
    })?;
    Ok(data)
}

/// Appends a `meta.db` that holds `data`, of a cluster of this id. Users, continuous queries and subscriptions have
/// more to them than a name and are not written.
pub fn write(data: &MetaData, cluster_id: u64, out: &mut Vec<u8>) {
    let groups = || data.databases.iter().flat_map(|known| &known.policies).flat_map(|policy| &policy.groups);
    let group_id_max = groups().map(|group| group.id).max().unwrap_or(0);
    let shard_id_max = groups().flat_map(|group| &group.shards).copied().max().unwrap_or(0);
    for (number, value) in [(1, 1), (2, 1), (3, cluster_id)] {
        push_varint(varint_tag(number), value, out);
    }
    for database in &data.databases {
        let mut message = Vec::new();
        push_bytes(bytes_tag(1), database.name.as_bytes(), &mut message);
        push_bytes(bytes_tag(2), database.default_policy.as_bytes(), &mut message);
        for policy in &database.policies {
            push_bytes(bytes_tag(3), &policy_message(policy), &mut message);
        }
        push_bytes(bytes_tag(5), &message, out);
    }
    for (number, value) in [(7, 0), (8, group_id_max), (9, shard_id_max)] {
        push_varint(varint_tag(number), value, out);
    }
}

fn policy_message(policy: &RetentionPolicy) -> Vec<u8> {
    let mut message = Vec::new();
    push_bytes(bytes_tag(1), policy.name.as_bytes(), &mut message);
    push_varint(varint_tag(2), policy.duration_ns.cast_unsigned(), &mut message);
    push_varint(varint_tag(3), policy.shard_group_duration_ns.cast_unsigned(), &mut message);
    push_varint(varint_tag(4), policy.replicas.into(), &mut message);
    for group in &policy.groups {
        let mut inner = Vec::new();
        push_varint(varint_tag(1), group.id, &mut inner);
        push_varint(varint_tag(2), group.start_ns.cast_unsigned(), &mut inner);
        push_varint(varint_tag(3), group.end_ns.cast_unsigned(), &mut inner);
        push_varint(varint_tag(4), group.deleted_at_ns.cast_unsigned(), &mut inner);
        for shard in &group.shards {
            let mut shard_message = Vec::new();
            push_varint(varint_tag(1), *shard, &mut shard_message);
            push_bytes(bytes_tag(5), &shard_message, &mut inner);
        }
        push_bytes(bytes_tag(5), &inner, &mut message);
    }
    message
}

fn database_of(message: &[u8]) -> Result<Database, MetaDbError> {
    let mut database = Database::default();
    protobuf::for_each_field(message, |tag, field| {
        if let Field::Bytes(bytes) = field {
            match tag {
                tag if tag == bytes_tag(1) => database.name = text_of(bytes)?,
                tag if tag == bytes_tag(2) => database.default_policy = text_of(bytes)?,
                tag if tag == bytes_tag(3) => database.policies.push(policy_of(bytes)?),
                tag if tag == bytes_tag(4) => database.continuous_queries.push(name_of(bytes)?),
                _ => {}
            }
        }
        Ok::<(), MetaDbError>(())
    })?;
    Ok(database)
}

fn policy_of(message: &[u8]) -> Result<RetentionPolicy, MetaDbError> {
    let mut policy = RetentionPolicy::default();
    protobuf::for_each_field(message, |tag, field| {
        match (tag, field) {
            (tag, Field::Bytes(bytes)) if tag == bytes_tag(1) => policy.name = text_of(bytes)?,
            (tag, Field::Varint(value)) if tag == varint_tag(2) => policy.duration_ns = value.cast_signed(),
            (tag, Field::Varint(value)) if tag == varint_tag(3) => policy.shard_group_duration_ns = value.cast_signed(),
            (tag, Field::Varint(value)) if tag == varint_tag(4) => policy.replicas = value as u32,
            (tag, Field::Bytes(bytes)) if tag == bytes_tag(5) => policy.groups.push(group_of(bytes)?),
            (tag, Field::Bytes(bytes)) if tag == bytes_tag(6) => policy.subscriptions.push(name_of(bytes)?),
            _ => {}
        }
        Ok::<(), MetaDbError>(())
    })?;
    Ok(policy)
}

fn group_of(message: &[u8]) -> Result<ShardGroup, MetaDbError> {
    let mut group = ShardGroup::default();
    protobuf::for_each_field(message, |tag, field| {
        match (tag, field) {
            (tag, Field::Varint(value)) if tag == varint_tag(1) => group.id = value,
            (tag, Field::Varint(value)) if tag == varint_tag(2) => group.start_ns = value.cast_signed(),
            (tag, Field::Varint(value)) if tag == varint_tag(3) => group.end_ns = value.cast_signed(),
            (tag, Field::Varint(value)) if tag == varint_tag(4) => group.deleted_at_ns = value.cast_signed(),
            (tag, Field::Bytes(bytes)) if tag == bytes_tag(5) => group.shards.push(id_of(bytes)?),
            _ => {}
        }
        Ok::<(), MetaDbError>(())
    })?;
    Ok(group)
}

/// The varint that is field 1 of a message.
fn id_of(message: &[u8]) -> Result<u64, MetaDbError> {
    let mut id = 0;
    protobuf::for_each_field(message, |tag, field| {
        if let (0x08, Field::Varint(value)) = (tag, field) {
            id = value;
        }
        Ok::<(), MetaDbError>(())
    })?;
    Ok(id)
}

/// The text that is field 1 of a message.
fn name_of(message: &[u8]) -> Result<String, MetaDbError> {
    let mut name = String::new();
    protobuf::for_each_field(message, |tag, field| {
        if let (0x0a, Field::Bytes(bytes)) = (tag, field) {
            name = text_of(bytes)?;
        }
        Ok::<(), MetaDbError>(())
    })?;
    Ok(name)
}

fn text_of(bytes: &[u8]) -> Result<String, MetaDbError> {
    std::str::from_utf8(bytes).map(str::to_owned).map_err(|_| MetaDbError::Name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn meta_data() -> impl Strategy<Value = MetaData> {
        let group = (any::<u64>(), any::<i64>(), any::<i64>(), 0i64..2, proptest::collection::vec(any::<u64>(), 0..3))
            .prop_map(|(id, start_ns, end_ns, deleted_at_ns, shards)| ShardGroup {
                id,
                start_ns,
                end_ns,
                deleted_at_ns,
                shards,
            });
        let policy = (".{0,6}", any::<i64>(), any::<i64>(), any::<u32>(), proptest::collection::vec(group, 0..4))
            .prop_map(|(name, duration_ns, shard_group_duration_ns, replicas, groups)| RetentionPolicy {
                name,
                duration_ns,
                shard_group_duration_ns,
                replicas,
                groups,
                subscriptions: Vec::new(),
            });
        let database = (".{0,6}", ".{0,6}", proptest::collection::vec(policy, 0..4)).prop_map(
            |(name, default_policy, policies)| Database {
                name,
                default_policy,
                policies,
                continuous_queries: Vec::new(),
            },
        );
        proptest::collection::vec(database, 0..4).prop_map(|databases| MetaData { databases, users: Vec::new() })
    }

    proptest! {
        #[test]
        fn what_was_written_is_read(data in meta_data(), cluster in any::<u64>(), at in any::<prop::sample::Index>(), to in any::<u8>()) {
            let mut bytes = Vec::new();
            write(&data, cluster, &mut bytes);
            prop_assert_eq!(read(&bytes), Ok(data));
            let at = at.index(bytes.len());
            bytes[at] = to;
            let _ = read(&bytes);
            let _ = read(&bytes[..at]);
        }

        #[test]
        fn any_bytes_are_read_or_not(bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
            let _ = read(&bytes);
        }
    }

    #[test]
    fn what_is_left_behind_is_named() {
        // Data { Databases: [{ Name "d", ContinuousQueries [{ Name "c", Query "q" }] }], Users [{ Name "u" }] }
        let bytes = b"\x08\x01\x2a\x0d\x0a\x01d\x12\x00\x22\x06\x0a\x01c\x12\x01q\x32\x03\x0a\x01u";
        let data = read(bytes).unwrap();
        assert_eq!(data.users, ["u"]);
        assert_eq!(data.databases[0].continuous_queries, ["c"]);
        assert_eq!(read(b"\x2a\x03\x0a\x01\xff"), Err(MetaDbError::Name));
        assert_eq!(read(b"\x2a\x7f"), Err(MetaDbError::Malformed));
    }
}
