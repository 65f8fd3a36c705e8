//! All statements other than the parts of `SELECT`.
//!
//! Owns the statement list of a request as written. `None` for a database means "the request's default".
//! Limits and offsets of 0 mean "not set". It does not know which databases, users or policies exist.

use crate::expression::Expr;
use crate::regex_literal::RegexLiteral;
use crate::select::{Measurement, SelectStatement, SortOrder, Source};

/// The statements of one request, in order; empty statements between semicolons are not kept.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct Query {
    pub statements: Vec<Statement>,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Statement {
    AlterRetentionPolicy(AlterRetentionPolicy),
    CreateContinuousQuery(CreateContinuousQuery),
    CreateDatabase(CreateDatabase),
    CreateRetentionPolicy(CreateRetentionPolicy),
    CreateSubscription(CreateSubscription),
    CreateUser(CreateUser),
    Delete(Delete),
    DropContinuousQuery { name: String, database: String },
    DropDatabase { name: String },
    DropField { name: String, measurement: String },
    DropMeasurement { name: String },
    DropRetentionPolicy { name: String, database: String },
    DropSeries(DropSeries),
    DropShard { id: u64 },
    DropSubscription { name: String, database: String, retention_policy: String },
    DropUser { name: String },
    Explain(Explain),
    Grant { privilege: Privilege, database: String, user: String },
    GrantAdmin { user: String },
    KillQuery { id: u64, host: Option<String> },
    Revoke { privilege: Privilege, database: String, user: String },
    RevokeAdmin { user: String },
    Select(SelectStatement),
    SetPassword { user: String, password: Password },
    ShowContinuousQueries,
    ShowDatabases,
    ShowDiagnostics { module: Option<String> },
    ShowFieldKeyCardinality(ShowCardinality),
    ShowFieldKeys(ShowFieldKeys),
    ShowGrants { user: String },
    ShowMeasurementCardinality(ShowCardinality),
    ShowMeasurements(ShowMeasurements),
    ShowQueries,
    ShowRetentionPolicies { database: Option<String> },
    ShowSeries(ShowSeries),
    ShowSeriesCardinality(ShowCardinality),
    ShowShardGroups,
    ShowShards,
    ShowStats { module: Option<String> },
    ShowSubscriptions,
    ShowTagKeyCardinality(ShowCardinality),
    ShowTagKeys(ShowTagKeys),
    ShowTagValues(ShowTagValues),
    ShowTagValuesCardinality(ShowTagValuesCardinality),
    ShowUsers,
}

/// What a user may do with a database.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Privilege {
    Read,
    Write,
    All,
}

/// Durations are nanoseconds; 0 is infinite. At least one of the options is set.
#[derive(Clone, Debug, PartialEq)]
pub struct AlterRetentionPolicy {
    pub name: String,
    pub database: String,
    pub duration: Option<i64>,
    pub replication: Option<u32>,
    pub shard_duration: Option<i64>,
    pub default: bool,
}

#[derive(Clone, Debug, PartialEq)]
pub struct CreateContinuousQuery {
    pub name: String,
    pub database: String,
    /// `RESAMPLE EVERY`, nanoseconds.
    pub resample_every: Option<i64>,
    /// `RESAMPLE FOR`, nanoseconds.
    pub resample_for: Option<i64>,
    /// Always has a target.
    pub source: SelectStatement,
}

/// Durations are nanoseconds; 0 is infinite.
#[derive(Clone, Debug, PartialEq)]
pub struct CreateDatabase {
    pub name: String,
    /// What stood after `WITH`; at least one of its parts is set.
    pub retention_policy: Option<DatabaseRetentionPolicy>,
}

/// The policy that `CREATE DATABASE .. WITH` describes.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct DatabaseRetentionPolicy {
    pub duration: Option<i64>,
    pub replication: Option<u32>,
    pub shard_duration: Option<i64>,
    pub name: Option<String>,
}

/// Durations are nanoseconds; a retention duration of 0 is infinite.
#[derive(Clone, Debug, PartialEq)]
pub struct CreateRetentionPolicy {
    pub name: String,
    pub database: String,
    pub duration: i64,
    pub replication: u32,
    pub shard_duration: Option<i64>,
    pub default: bool,
}

#[derive(Clone, Debug, PartialEq)]
pub struct CreateSubscription {
    pub name: String,
    pub database: String,
    pub retention_policy: String,
    pub mode: SubscriptionMode,
    pub destinations: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SubscriptionMode {
    /// Every destination gets every batch.
    All,
    /// One destination gets a batch.
    Any,
}

#[derive(Clone, Debug, PartialEq)]
pub struct CreateUser {
    pub name: String,
    pub password: Password,
    pub admin: bool,
}

/// A password as given. It must not reach a log or `SHOW QUERIES`, so neither `{:?}` nor `{}` shows it.
#[derive(Clone, PartialEq, Eq)]
pub struct Password(String);

impl Password {
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The password itself.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for Password {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("[REDACTED]")
    }
}

impl std::fmt::Display for Password {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("[REDACTED]")
    }
}

/// At least one of sources and condition is set. The sources have neither database nor retention policy.
#[derive(Clone, Debug, PartialEq)]
pub struct Delete {
    pub sources: Vec<Measurement>,
    pub condition: Option<Expr>,
}

/// At least one of sources and condition is set. The sources have neither database nor retention policy.
#[derive(Clone, Debug, PartialEq)]
pub struct DropSeries {
    pub sources: Vec<Measurement>,
    pub condition: Option<Expr>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Explain {
    pub analyze: bool,
    pub statement: SelectStatement,
}

#[derive(Clone, Debug, PartialEq, Default)]
pub struct ShowSeries {
    pub database: Option<String>,
    pub sources: Vec<Source>,
    pub condition: Option<Expr>,
    pub order: Option<SortOrder>,
    pub limit: u64,
    pub offset: u64,
}

#[derive(Clone, Debug, PartialEq, Default)]
pub struct ShowMeasurements {
    pub database: Option<String>,
    /// `WITH MEASUREMENT =` a name or `=~` a regular expression.
    pub with_measurement: Option<Measurement>,
    pub condition: Option<Expr>,
    pub order: Option<SortOrder>,
    pub limit: u64,
    pub offset: u64,
}

#[derive(Clone, Debug, PartialEq, Default)]
pub struct ShowTagKeys {
    pub database: Option<String>,
    pub sources: Vec<Source>,
    pub condition: Option<Expr>,
    pub order: Option<SortOrder>,
    pub limit: u64,
    pub offset: u64,
    /// Accepted and printed; upstream gives it no effect.
    pub slimit: u64,
    /// Accepted and printed; upstream gives it no effect.
    pub soffset: u64,
}

#[derive(Clone, Debug, PartialEq)]
pub struct ShowTagValues {
    pub database: Option<String>,
    pub sources: Vec<Source>,
    pub key: TagKeyFilter,
    pub condition: Option<Expr>,
    pub order: Option<SortOrder>,
    pub limit: u64,
    pub offset: u64,
}

/// `WITH KEY ..`
#[derive(Clone, Debug, PartialEq)]
pub enum TagKeyFilter {
    Equal(String),
    NotEqual(String),
    Matches(RegexLiteral),
    NotMatches(RegexLiteral),
    In(Vec<String>),
}

impl TagKeyFilter {
    /// Whether a tag key passes.
    pub fn accepts(&self, key: &str) -> bool {
        match self {
            Self::Equal(wanted) => key == wanted,
            Self::NotEqual(unwanted) => key != unwanted,
            Self::Matches(regex) => regex.is_match(key.as_bytes()),
            Self::NotMatches(regex) => !regex.is_match(key.as_bytes()),
            Self::In(wanted) => wanted.iter().any(|one| one == key),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Default)]
pub struct ShowFieldKeys {
    pub database: Option<String>,
    pub sources: Vec<Source>,
    pub order: Option<SortOrder>,
    pub limit: u64,
    pub offset: u64,
}

/// The clauses that the cardinality statements share.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct ShowCardinality {
    pub database: Option<String>,
    /// `EXACT` was written. Any clause makes the answer exact as well, see [`ShowCardinality::is_exact`].
    pub exact: bool,
    pub sources: Vec<Source>,
    pub condition: Option<Expr>,
    pub dimensions: Vec<Expr>,
    pub limit: u64,
    pub offset: u64,
}

impl ShowCardinality {
    /// True with `EXACT` or any of the clauses that an estimate cannot honour.
    pub fn is_exact(&self) -> bool {
        self.exact
            || !self.sources.is_empty()
            || self.condition.is_some()
            || !self.dimensions.is_empty()
            || self.limit > 0
            || self.offset > 0
    }
}

#[derive(Clone, Debug, PartialEq)]
pub struct ShowTagValuesCardinality {
    pub key: TagKeyFilter,
    pub clauses: ShowCardinality,
}
