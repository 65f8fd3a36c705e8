//! Applying commands.

use crate::{
    Applied, Command, Database, DatabaseId, Meta, PolicyChange, PolicyId, PolicySpec, PoolPolicy, RetentionPolicy,
    ShardGroup, ShardGroupId,
    policy::{DEFAULT_POLICY_NAME, HOUR_NS, check_name, normal_shard_group_duration_ns},
};
use rkyv::{Archive, Deserialize, Serialize};

/// Why a command changed nothing. The texts are upstream's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, Archive, Serialize, Deserialize)]
pub enum MetaError {
    #[error("database not found: {0}")]
    DatabaseNotFound(String),
    #[error("retention policy not found: {0}")]
    PolicyNotFound(String),
    #[error("retention policy already exists")]
    PolicyExists,
    #[error("retention policy conflicts with an existing policy")]
    PolicyConflicts,
    #[error("retention policy duration must be at least 1h0m0s")]
    PolicyDurationTooLow,
    #[error("retention policy duration must be greater than the shard duration")]
    PolicyDurationBelowShardGroup,
    #[error("replication factor must be greater than 0")]
    NoReplicas,
    #[error("{0}")]
    Name(String),
    #[error("no database or retention policy of this id any more")]
    IdGone,
    #[error("username required")]
    UsernameRequired,
    #[error("user already exists")]
    UserExists,
    #[error("user not found")]
    UserNotFound,
    #[error("continuous query already exists")]
    ContinuousQueryExists,
    #[error("subscription already exists")]
    SubscriptionExists,
    #[error("subscription not found")]
    SubscriptionNotFound,
    /// Of the cluster's nodes.
    #[error("{0}")]
    Node(String),
}

impl Meta {
    /// Applies one committed command. An error leaves the state as it was.
    pub fn apply(&mut self, command: Command) -> Result<Applied, MetaError> {
        match command {
            Command::CreateDatabase { name, policy, autocreate_policy } => {
                self.create_database(name, policy, autocreate_policy)
            }
            Command::DropDatabase { name } => Ok(self.drop_database(&name)),
            Command::CreatePolicy { database, policy, default } => self.create_policy(database, policy, default),
            Command::AlterPolicy { database, name, change } => self.alter_policy(database, name, change),
            Command::SetPoolPolicy { database, policy, pool } => {
                let known = self.database_mut(&database)?;
                let known = known.policies.iter_mut().find(|known| known.name == policy);
                known.ok_or(MetaError::PolicyNotFound(policy))?.pool = pool;
                Ok(Applied::default())
            }
            Command::DropPolicy { database, name } => Ok(self.drop_policy(&database, &name)),
            Command::CreateShardGroups { database, policy, times_ns } => {
                self.create_shard_groups(database, policy, &times_ns)
            }
            Command::DropShardGroup { group } => Ok(self.drop_shard_group(group)),
            Command::DefineFields { group, measurement, fields } => {
                self.field_types.define(group, measurement, fields);
                Ok(Applied::default())
            }
            Command::ForgetMeasurement { database, measurement } => {
                if let Some(database) = self.databases.iter().find(|known| known.id == database) {
                    let groups = database.policies.iter().flat_map(|policy| &policy.groups).map(|group| group.id);
                    self.field_types.forget_measurement(groups, &measurement);
                }
                Ok(Applied::default())
            }
            Command::CreateUser { name, password_hash, is_admin } => self.create_user(name, password_hash, is_admin),
            Command::DropUser { name } => self.drop_user(&name),
            Command::SetPassword { user, password_hash } => self.set_password(&user, password_hash),
            Command::SetAdmin { user, is_admin } => self.set_admin(&user, is_admin),
            Command::Grant { user, database, privilege } => self.grant(&user, database, privilege),
            Command::Revoke { user, database, privilege } => self.revoke(&user, database, privilege),
            Command::ForgetField { database, measurement, field } => {
                if let Some(database) = self.databases.iter().find(|known| known.id == database) {
                    let groups = database.policies.iter().flat_map(|policy| &policy.groups).map(|group| group.id);
                    self.field_types.forget_field(groups, &measurement, &field);
                }
                Ok(Applied::default())
            }
            Command::RetireShardGroups { now_ns } => Ok(self.retire_shard_groups(now_ns)),
            Command::CreateContinuousQuery { database, name, text } => {
                self.create_continuous_query(database, name, text)
            }
            Command::DropContinuousQuery { database, name } => Ok(self.drop_continuous_query(&database, &name)),
            Command::NoteContinuousQueryRun { id, ran_ns } => Ok(self.note_run(id, ran_ns)),
            Command::CreateSubscription { database, policy, subscription } => {
                self.create_subscription(database, policy, subscription)
            }
            Command::DropSubscription { database, policy, name } => self.drop_subscription(database, policy, &name),
            Command::FoundCluster { nodes, holders } => Ok(self.found_cluster(nodes, holders)),
            Command::AddNode(node) => self.add_node(node),
            Command::ReplaceNode { old, new } => self.replace_node(old, new),
            Command::DrainNode { node } => self.drain_node(node),
            Command::RemoveNode { node } => self.remove_node(node),
            Command::MoveReplica { group, from, to } => self.move_replica(group, from, to),
            Command::NoteHolders { group, voters } => Ok(self.note_holders(group, &voters)),
        }
    }

    fn retire_shard_groups(&mut self, now_ns: i64) -> Applied {
        let mut dropped_groups = Vec::new();
        for policy in self.databases.iter_mut().flat_map(|database| &mut database.policies) {
            let duration_ns = policy.duration_ns;
            policy.groups.retain(|group| {
                let is_kept = !group.is_expired(duration_ns, now_ns);
                if !is_kept {
                    dropped_groups.push(group.id);
                }
                is_kept
            });
        }
        dropped_groups.iter().for_each(|group| self.field_types.forget_group(*group));
        Applied { dropped_groups, ..Applied::default() }
    }

    fn create_database(
        &mut self,
        name: String,
        policy: Option<PolicySpec>,
        autocreate_policy: bool,
    ) -> Result<Applied, MetaError> {
        check_name(&name).map_err(invalid_name)?;
        if let Some(existing) = self.database(&name) {
            // Creating what is there is fine, unless it asks for a default policy of another kind.
            let Some(asked) = policy else { return Ok(Applied::default()) };
            let asked = checked_policy(&asked)?;
            let same = existing.default_policy == asked.name
                && existing.policy(None).is_some_and(|policy| same_policy(policy, &asked));
            return if same { Ok(Applied::default()) } else { Err(MetaError::PolicyConflicts) };
        }
        let policy = match policy {
            Some(policy) => Some(checked_policy(&policy)?),
            None if autocreate_policy => Some(checked_policy(&PolicySpec {
                name: DEFAULT_POLICY_NAME.to_string(),
                duration_ns: 0,
                shard_group_duration_ns: 0,
                replicas: 1,
            })?),
            None => None,
        };
        self.databases_made += 1;
        let mut database = Database {
            id: DatabaseId(self.databases_made),
            name,
            default_policy: String::new(),
            policies: Vec::new(),
            continuous_queries: Vec::new(),
        };
        if let Some(policy) = policy {
            database.default_policy = policy.name.clone();
            database.policies.push(self.new_policy(policy));
        }
        self.databases.push(database);
        Ok(Applied::default())
    }

    fn drop_database(&mut self, name: &str) -> Applied {
        let Some(position) = self.databases.iter().position(|database| database.name == name) else {
            return Applied::default();
        };
        let database = self.databases.remove(position);
        self.forget_privileges(name);
        let mut applied = Applied { dropped_database: Some(database.id), ..Applied::default() };
        for group in database.policies.iter().flat_map(|policy| &policy.groups) {
            self.field_types.forget_group(group.id);
            applied.dropped_groups.push(group.id);
        }
        applied
    }

    fn create_policy(&mut self, database: String, policy: PolicySpec, default: bool) -> Result<Applied, MetaError> {
        let policy = checked_policy(&policy)?;
        let known = self.database(&database).ok_or(MetaError::DatabaseNotFound(database.clone()))?;
        if let Some(existing) = known.policy(Some(&policy.name)) {
            let same = same_policy(existing, &policy) && (!default || known.default_policy == policy.name);
            return if same { Ok(Applied::default()) } else { Err(MetaError::PolicyExists) };
        }
        let made = self.new_policy(policy);
        let known = self.database_mut(&database)?;
        if default {
            known.default_policy = made.name.clone();
        }
        known.policies.push(made);
        Ok(Applied::default())
    }

    fn alter_policy(&mut self, database: String, name: String, change: PolicyChange) -> Result<Applied, MetaError> {
        let known = self.database_mut(&database)?;
        let policy = known.policies.iter_mut().find(|policy| policy.name == name);
        let policy = policy.ok_or(MetaError::PolicyNotFound(name.clone()))?;
        let duration_ns = change.duration_ns.unwrap_or(policy.duration_ns);
        let changed = checked_policy(&PolicySpec {
            name: name.clone(),
            duration_ns,
            shard_group_duration_ns: match change.shard_group_duration_ns {
                Some(asked) => normal_shard_group_duration_ns(asked, duration_ns),
                None => policy.shard_group_duration_ns,
            },
            replicas: change.replicas.unwrap_or(policy.replicas),
        })?;
        policy.duration_ns = changed.duration_ns;
        policy.shard_group_duration_ns = changed.shard_group_duration_ns;
        policy.replicas = changed.replicas;
        if change.default {
            known.default_policy = name;
        }
        Ok(Applied::default())
    }

    fn drop_policy(&mut self, database: &str, name: &str) -> Applied {
        let mut applied = Applied::default();
        let Ok(known) = self.database_mut(database) else { return applied };
        let Some(position) = known.policies.iter().position(|policy| policy.name == name) else { return applied };
        // The name of a dropped default stays: writes without a policy are then refused by that name, as upstream does.
        let policy = known.policies.remove(position);
        for group in policy.groups {
            self.field_types.forget_group(group.id);
            applied.dropped_groups.push(group.id);
        }
        applied
    }

    fn create_shard_groups(
        &mut self,
        database: DatabaseId,
        policy: PolicyId,
        times_ns: &[i64],
    ) -> Result<Applied, MetaError> {
        let mut groups_made = self.groups_made;
        let known = self.databases.iter_mut().find(|known| known.id == database).ok_or(MetaError::IdGone)?;
        let policy = known.policies.iter_mut().find(|known| known.id == policy).ok_or(MetaError::IdGone)?;
        for time_ns in times_ns {
            if policy.group_at(*time_ns).is_some() {
                continue;
            }
            let (start_ns, end_ns) = policy.range_for(*time_ns);
            assert!(start_ns <= *time_ns && *time_ns < end_ns, "group {start_ns}..{end_ns} for {time_ns}");
            groups_made += 1;
            let after = policy.groups.partition_point(|group| group.start_ns < start_ns);
            policy.groups.insert(after, ShardGroup { id: ShardGroupId(groups_made), start_ns, end_ns });
        }
        self.groups_made = groups_made;
        Ok(Applied::default())
    }

    fn drop_shard_group(&mut self, group: ShardGroupId) -> Applied {
        let mut applied = Applied::default();
        for policy in self.databases.iter_mut().flat_map(|database| &mut database.policies) {
            let before = policy.groups.len();
            policy.groups.retain(|known| known.id != group);
            if policy.groups.len() != before {
                self.field_types.forget_group(group);
                applied.dropped_groups.push(group);
                break;
            }
        }
        applied
    }

    fn new_policy(&mut self, spec: PolicySpec) -> RetentionPolicy {
        self.policies_made += 1;
        RetentionPolicy {
            id: PolicyId(self.policies_made),
            name: spec.name,
            duration_ns: spec.duration_ns,
            shard_group_duration_ns: spec.shard_group_duration_ns,
            replicas: spec.replicas,
            pool: PoolPolicy::default(),
            groups: Vec::new(),
            subscriptions: Vec::new(),
        }
    }

    fn database_mut(&mut self, name: &str) -> Result<&mut Database, MetaError> {
        let found = self.databases.iter_mut().find(|database| database.name == name);
        found.ok_or_else(|| MetaError::DatabaseNotFound(name.to_string()))
    }
}

fn invalid_name(why: &'static str) -> MetaError {
    MetaError::Name(why.to_owned())
}

/// The policy with its shard group duration filled in, if it keeps the rules.
fn checked_policy(asked: &PolicySpec) -> Result<PolicySpec, MetaError> {
    check_name(&asked.name).map_err(invalid_name)?;
    if asked.replicas == 0 {
        return Err(MetaError::NoReplicas);
    }
    if asked.duration_ns != 0 && asked.duration_ns < HOUR_NS {
        return Err(MetaError::PolicyDurationTooLow);
    }
    let shard_group_duration_ns = normal_shard_group_duration_ns(asked.shard_group_duration_ns, asked.duration_ns);
    if asked.duration_ns != 0 && asked.duration_ns < shard_group_duration_ns {
        return Err(MetaError::PolicyDurationBelowShardGroup);
    }
    Ok(PolicySpec { shard_group_duration_ns, ..asked.clone() })
}

fn same_policy(existing: &RetentionPolicy, asked: &PolicySpec) -> bool {
    existing.duration_ns == asked.duration_ns
        && existing.shard_group_duration_ns == asked.shard_group_duration_ns
        && existing.replicas == asked.replicas
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::FieldDefinition;
    use tidemill_column::{FieldType, TIME_MAX, TIME_MIN};

    fn spec(name: &str, duration_h: i64, shard_h: i64) -> PolicySpec {
        PolicySpec {
            name: name.into(),
            duration_ns: duration_h * HOUR_NS,
            shard_group_duration_ns: shard_h * HOUR_NS,
            replicas: 1,
        }
    }

    fn with_database(name: &str) -> Meta {
        let mut meta = Meta::default();
        meta.apply(Command::CreateDatabase { name: name.into(), policy: None, autocreate_policy: true }).unwrap();
        meta
    }

    fn groups(meta: &mut Meta, times_ns: &[i64]) -> Vec<ShardGroup> {
        let (database, policy) = (meta.databases[0].id, meta.databases[0].policies[0].id);
        meta.apply(Command::CreateShardGroups { database, policy, times_ns: times_ns.into() }).unwrap();
        meta.databases[0].policies[0].groups.clone()
    }

    #[test]
    fn what_the_pool_is_to_do_belongs_to_a_policy_and_goes_with_it() {
        let mut meta = Meta::default();
        let create = || Command::CreateDatabase { name: "d".into(), policy: None, autocreate_policy: true };
        meta.apply(create()).unwrap();
        let pool = PoolPolicy { copies: Some(3), after_ns: Some(0), keeps_local: None };
        let set = |policy: &str| Command::SetPoolPolicy { database: "d".into(), policy: policy.into(), pool };
        assert_eq!(meta.apply(set("no")), Err(MetaError::PolicyNotFound("no".into())));
        meta.apply(set("autogen")).unwrap();
        assert_eq!(Meta::decode(&meta.encode()).unwrap().database("d").unwrap().policies[0].pool, pool);
        meta.apply(Command::DropDatabase { name: "d".into() }).unwrap();
        meta.apply(create()).unwrap();
        assert_eq!(meta.database("d").unwrap().policies[0].pool, PoolPolicy::default());
    }

    #[test]
    fn texts_of_the_reference() {
        let mut meta = with_database("d");
        let create = |policy, default| Command::CreatePolicy { database: "d".into(), policy, default };
        let mut text = |command| meta.apply(command).unwrap_err().to_string();
        let elsewhere = Command::CreatePolicy { database: "nope".into(), policy: spec("a", 0, 0), default: false };
        assert_eq!(text(elsewhere), "database not found: nope");
        let low = PolicySpec { duration_ns: 1, ..spec("a", 0, 0) };
        assert_eq!(text(create(low, false)), "retention policy duration must be at least 1h0m0s");
        assert_eq!(
            text(create(spec("a", 2, 3), false)),
            "retention policy duration must be greater than the shard duration"
        );
        let none = PolicySpec { replicas: 0, ..spec("a", 0, 0) };
        assert_eq!(text(create(none, false)), "replication factor must be greater than 0");
        assert_eq!(text(create(spec("autogen", 2, 1), false)), "retention policy already exists");
        assert_eq!(text(create(spec("..", 2, 1), false)), "invalid name");
        assert!(meta.apply(create(spec("autogen", 0, 168), false)).is_ok());
        let again = |policy| Command::CreateDatabase { name: "d".into(), policy, autocreate_policy: true };
        assert!(meta.apply(again(None)).is_ok());
        assert_eq!(meta.apply(again(Some(spec("x", 0, 0)))), Err(MetaError::PolicyConflicts));
        let alter = Command::AlterPolicy { database: "d".into(), name: "no".into(), change: PolicyChange::default() };
        assert_eq!(meta.apply(alter).unwrap_err().to_string(), "retention policy not found: no");
    }

    #[test]
    fn groups_cover_all_times_without_overlap() {
        let mut meta = with_database("d");
        let times = [0, -1, TIME_MIN, TIME_MAX, 604_800_000_000_000 * 10];
        let made = groups(&mut meta, &times);
        assert!(made.windows(2).all(|pair| pair[0].end_ns <= pair[1].start_ns));
        let policy = &meta.databases[0].policies[0];
        assert!(times.iter().all(|time| policy.group_at(*time).is_some()));
        assert_eq!(groups(&mut meta, &times), made, "a second time makes no more");
        // A shorter duration is clipped between the groups that are there.
        let change = PolicyChange { shard_group_duration_ns: Some(HOUR_NS), ..PolicyChange::default() };
        meta.apply(Command::AlterPolicy { database: "d".into(), name: "autogen".into(), change }).unwrap();
        let made = groups(&mut meta, &[1_000_000_000_000_000_000]);
        assert!(made.windows(2).all(|pair| pair[0].end_ns <= pair[1].start_ns));
    }

    #[test]
    fn the_first_writer_of_a_field_decides_its_type_until_the_measurement_is_gone() {
        let mut meta = with_database("d");
        let group = groups(&mut meta, &[0])[0].id;
        let define = |field_type| Command::DefineFields {
            group,
            measurement: b"m".to_vec(),
            fields: vec![FieldDefinition::new(b"f", field_type)],
        };
        meta.apply(define(FieldType::Float)).unwrap();
        meta.apply(define(FieldType::Integer)).unwrap();
        assert_eq!(meta.field_types().field_type(group, b"m", b"f"), Some(FieldType::Float));
        let database = meta.databases[0].id;
        meta.apply(Command::ForgetMeasurement { database, measurement: b"m".to_vec() }).unwrap();
        meta.apply(define(FieldType::Integer)).unwrap();
        assert_eq!(meta.field_types().field_type(group, b"m", b"f"), Some(FieldType::Integer));
    }

    #[test]
    fn a_dropped_field_may_get_another_type_and_its_neighbours_keep_theirs() {
        let mut meta = with_database("d");
        let group = groups(&mut meta, &[0])[0].id;
        let define = |field_type| {
            let fields = [b"f", b"g"].map(|name| FieldDefinition::new(name, field_type)).to_vec();
            Command::DefineFields { group, measurement: b"m".to_vec(), fields }
        };
        meta.apply(define(FieldType::Float)).unwrap();
        let (database, measurement) = (meta.databases[0].id, b"m".to_vec());
        meta.apply(Command::ForgetField { database, measurement, field: b"f".to_vec() }).unwrap();
        assert_eq!(meta.field_types().field_type(group, b"m", b"f"), None);
        meta.apply(define(FieldType::String)).unwrap();
        let field_type = |field: &[u8]| meta.field_types().field_type(group, b"m", field);
        assert_eq!((field_type(b"f"), field_type(b"g")), (Some(FieldType::String), Some(FieldType::Float)));
    }

    #[test]
    fn a_group_is_retired_when_no_time_of_it_is_kept() {
        let mut meta = with_database("d");
        let forever = groups(&mut meta, &[0])[0].id;
        meta.apply(Command::CreatePolicy { database: "d".into(), policy: spec("short", 2, 1), default: false })
            .unwrap();
        let (database, policy) = (meta.databases[0].id, meta.databases[0].policies[1].id);
        let times_ns = vec![TIME_MIN, 0, HOUR_NS, TIME_MAX];
        meta.apply(Command::CreateShardGroups { database, policy, times_ns }).unwrap();
        let ids: Vec<ShardGroupId> = meta.databases[0].policies[1].groups.iter().map(|group| group.id).collect();
        let retire = |meta: &mut Meta, now_ns| {
            let applied = meta.apply(Command::RetireShardGroups { now_ns }).unwrap();
            applied.dropped_groups
        };
        assert_eq!(retire(&mut meta, TIME_MIN), []);
        // The last instant of the second group is kept for two hours.
        assert_eq!(retire(&mut meta, 3 * HOUR_NS - 1), ids[..1]);
        assert_eq!(retire(&mut meta, 3 * HOUR_NS), ids[1..2]);
        // A policy that keeps less retires more.
        let change = PolicyChange { duration_ns: Some(HOUR_NS), ..PolicyChange::default() };
        meta.apply(Command::AlterPolicy { database: "d".into(), name: "short".into(), change }).unwrap();
        assert_eq!(retire(&mut meta, 3 * HOUR_NS), ids[2..3]);
        assert_eq!(retire(&mut meta, i64::MAX), []);
        assert_eq!(meta.databases[0].policies[0].groups[0].id, forever);
    }

    #[test]
    fn drops_name_what_is_gone_and_ids_are_not_used_again() {
        let mut meta = with_database("d");
        let first = groups(&mut meta, &[0])[0].id;
        let applied = meta.apply(Command::DropDatabase { name: "d".into() }).unwrap();
        assert_eq!(applied.dropped_groups, [first]);
        assert_eq!(meta.apply(Command::DropDatabase { name: "d".into() }).unwrap(), Applied::default());
        meta.apply(Command::CreateDatabase { name: "d".into(), policy: None, autocreate_policy: true }).unwrap();
        assert!(groups(&mut meta, &[0])[0].id > first);
        assert_ne!(Some(meta.databases[0].id), applied.dropped_database);
    }

    #[test]
    fn bytes_of_state_and_commands_come_back_and_damage_is_an_error_not_a_panic() {
        let mut meta = with_database("d");
        groups(&mut meta, &[0, TIME_MAX]);
        let bytes = meta.encode();
        assert_eq!(Meta::decode(&bytes).unwrap(), meta);
        for cut in 0..bytes.len() {
            let _ = Meta::decode(&bytes[..cut]);
        }
        let command = Command::CreatePolicy { database: "d".into(), policy: spec("a", 3, 1), default: true };
        let bytes = command.encode();
        assert_eq!(Command::decode(&bytes).unwrap(), command);
        for bit in 0..bytes.len() * 8 {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            let _ = Command::decode(&damaged);
        }
    }

    #[test]
    fn groups_are_made_ahead_of_their_time_alone() {
        let mut meta = with_database("d");
        assert_eq!(meta.groups_to_come(0, TIME_MAX), [], "nothing was ever written");
        let end_ns = groups(&mut meta, &[0])[0].end_ns;
        let (database, policy) = (meta.databases[0].id, meta.databases[0].policies[0].id);
        assert_eq!(meta.groups_to_come(0, end_ns - 1), []);
        assert_eq!(meta.groups_to_come(0, end_ns), [(database, policy, end_ns)]);
        assert_eq!(meta.groups_to_come(end_ns, TIME_MAX), [], "nobody writes any more");
        groups(&mut meta, &[end_ns]);
        assert_eq!(meta.groups_to_come(0, end_ns), []);
        groups(&mut meta, &[TIME_MAX]);
        assert_eq!(meta.groups_to_come(0, i64::MAX), [], "time ends");
    }
}
