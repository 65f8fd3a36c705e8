//! Statements other than `SELECT` as text. Passwords print as `[REDACTED]`, so such a text does not parse again.

use std::fmt::{Display, Formatter, Result};

use crate::duration::{DurationText, GoDurationText};
use crate::print::{
    QuotedIdent, QuotedString, write_condition, write_count, write_dimensions, write_list, write_order, write_sources,
};
use crate::select::{Measurement, MeasurementName};
use crate::statement::{
    AlterRetentionPolicy, CreateContinuousQuery, CreateDatabase, CreateRetentionPolicy, CreateSubscription, CreateUser,
    Privilege, Query, ShowCardinality, ShowFieldKeys, ShowMeasurements, ShowSeries, ShowTagKeys, ShowTagValues,
    ShowTagValuesCardinality, Statement, SubscriptionMode, TagKeyFilter,
};

impl Display for Query {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> Result {
        for (index, statement) in self.statements.iter().enumerate() {
            if index > 0 {
                formatter.write_str(";\n")?;
            }
            statement.fmt(formatter)?;
        }
        Ok(())
    }
}

impl Display for Statement {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> Result {
        match self {
            Self::AlterRetentionPolicy(statement) => statement.fmt(formatter),
            Self::CreateContinuousQuery(statement) => statement.fmt(formatter),
            Self::CreateDatabase(statement) => statement.fmt(formatter),
            Self::CreateRetentionPolicy(statement) => statement.fmt(formatter),
            Self::CreateSubscription(statement) => statement.fmt(formatter),
            Self::CreateUser(statement) => statement.fmt(formatter),
            Self::Delete(statement) => {
                formatter.write_str("DELETE")?;
                write_measurements(&statement.sources, formatter)?;
                write_condition(statement.condition.as_ref(), formatter)
            }
            Self::DropSeries(statement) => {
                formatter.write_str("DROP SERIES")?;
                write_measurements(&statement.sources, formatter)?;
                write_condition(statement.condition.as_ref(), formatter)
            }
            Self::Explain(statement) => {
                formatter.write_str(if statement.analyze { "EXPLAIN ANALYZE " } else { "EXPLAIN " })?;
                statement.statement.fmt(formatter)
            }
            Self::Select(statement) => statement.fmt(formatter),
            Self::ShowFieldKeyCardinality(statement) => write_cardinality("FIELD KEY", statement, formatter),
            Self::ShowFieldKeys(statement) => statement.fmt(formatter),
            Self::ShowMeasurementCardinality(statement) => write_cardinality("MEASUREMENT", statement, formatter),
            Self::ShowMeasurements(statement) => statement.fmt(formatter),
            Self::ShowSeries(statement) => statement.fmt(formatter),
            Self::ShowSeriesCardinality(statement) => write_cardinality("SERIES", statement, formatter),
            Self::ShowTagKeyCardinality(statement) => write_cardinality("TAG KEY", statement, formatter),
            Self::ShowTagKeys(statement) => statement.fmt(formatter),
            Self::ShowTagValues(statement) => statement.fmt(formatter),
            Self::ShowTagValuesCardinality(statement) => statement.fmt(formatter),
            other => write_short(other, formatter),
        }
    }
}

/// The statements that are names between keywords.
fn write_short(statement: &Statement, formatter: &mut Formatter<'_>) -> Result {
    match statement {
        Statement::DropContinuousQuery { name, database } => {
            write!(formatter, "DROP CONTINUOUS QUERY {} ON {}", QuotedIdent(name), QuotedIdent(database))
        }
        Statement::DropDatabase { name } => write!(formatter, "DROP DATABASE {}", QuotedIdent(name)),
        Statement::DropField { name, measurement } => {
            write!(formatter, "DROP FIELD {} FROM {}", QuotedIdent(name), QuotedIdent(measurement))
        }
        Statement::DropMeasurement { name } => write!(formatter, "DROP MEASUREMENT {}", QuotedIdent(name)),
        Statement::DropRetentionPolicy { name, database } => {
            write!(formatter, "DROP RETENTION POLICY {} ON {}", QuotedIdent(name), QuotedIdent(database))
        }
        Statement::DropShard { id } => write!(formatter, "DROP SHARD {id}"),
        Statement::DropSubscription { name, database, retention_policy } => write!(
            formatter,
            "DROP SUBSCRIPTION {} ON {}.{}",
            QuotedIdent(name),
            QuotedIdent(database),
            QuotedIdent(retention_policy)
        ),
        Statement::DropUser { name } => write!(formatter, "DROP USER {}", QuotedIdent(name)),
        Statement::Grant { privilege, database, user } => {
            write!(formatter, "GRANT {privilege} ON {} TO {}", QuotedIdent(database), QuotedIdent(user))
        }
        Statement::GrantAdmin { user } => write!(formatter, "GRANT ALL PRIVILEGES TO {}", QuotedIdent(user)),
        Statement::KillQuery { id, host: None } => write!(formatter, "KILL QUERY {id}"),
        Statement::KillQuery { id, host: Some(host) } => {
            write!(formatter, "KILL QUERY {id} ON {}", QuotedIdent(host))
        }
        Statement::Revoke { privilege, database, user } => {
            write!(formatter, "REVOKE {privilege} ON {} FROM {}", QuotedIdent(database), QuotedIdent(user))
        }
        Statement::RevokeAdmin { user } => write!(formatter, "REVOKE ALL PRIVILEGES FROM {}", QuotedIdent(user)),
        Statement::SetPassword { user, password } => {
            write!(formatter, "SET PASSWORD FOR {} = {password}", QuotedIdent(user))
        }
        Statement::ShowDiagnostics { module } => write_module("SHOW DIAGNOSTICS", module.as_deref(), formatter),
        Statement::ShowGrants { user } => write!(formatter, "SHOW GRANTS FOR {}", QuotedIdent(user)),
        Statement::ShowRetentionPolicies { database } => {
            formatter.write_str("SHOW RETENTION POLICIES")?;
            write_on(database.as_deref(), formatter)
        }
        Statement::ShowStats { module } => write_module("SHOW STATS", module.as_deref(), formatter),
        Statement::ShowContinuousQueries => formatter.write_str("SHOW CONTINUOUS QUERIES"),
        Statement::ShowDatabases => formatter.write_str("SHOW DATABASES"),
        Statement::ShowQueries => formatter.write_str("SHOW QUERIES"),
        Statement::ShowShardGroups => formatter.write_str("SHOW SHARD GROUPS"),
        Statement::ShowShards => formatter.write_str("SHOW SHARDS"),
        Statement::ShowSubscriptions => formatter.write_str("SHOW SUBSCRIPTIONS"),
        Statement::ShowUsers => formatter.write_str("SHOW USERS"),
        // The statements with clauses print themselves.
        _ => Ok(()),
    }
}

impl Display for Privilege {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> Result {
        formatter.write_str(match self {
            Self::Read => "READ",
            Self::Write => "WRITE",
            Self::All => "ALL PRIVILEGES",
        })
    }
}

fn write_module(statement: &str, module: Option<&str>, formatter: &mut Formatter<'_>) -> Result {
    formatter.write_str(statement)?;
    match module {
        Some(module) => write!(formatter, " FOR {}", QuotedString(module)),
        None => Ok(()),
    }
}

fn write_on(database: Option<&str>, formatter: &mut Formatter<'_>) -> Result {
    match database {
        Some(database) => write!(formatter, " ON {}", QuotedIdent(database)),
        None => Ok(()),
    }
}

fn write_measurements(sources: &[Measurement], formatter: &mut Formatter<'_>) -> Result {
    if sources.is_empty() {
        return Ok(());
    }
    formatter.write_str(" FROM ")?;
    write_list(sources, formatter)
}

fn write_cardinality(what: &str, statement: &ShowCardinality, formatter: &mut Formatter<'_>) -> Result {
    let exact = if statement.exact { " EXACT" } else { "" };
    write!(formatter, "SHOW {what}{exact} CARDINALITY")?;
    write_on(statement.database.as_deref(), formatter)?;
    write_sources(&statement.sources, formatter)?;
    write_cardinality_rest(statement, formatter)
}

fn write_cardinality_rest(statement: &ShowCardinality, formatter: &mut Formatter<'_>) -> Result {
    write_condition(statement.condition.as_ref(), formatter)?;
    write_dimensions(&statement.dimensions, formatter)?;
    write_count("LIMIT", statement.limit, formatter)?;
    write_count("OFFSET", statement.offset, formatter)
}

impl Display for ShowTagValuesCardinality {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> Result {
        let exact = if self.clauses.exact { " EXACT" } else { "" };
        write!(formatter, "SHOW TAG VALUES{exact} CARDINALITY")?;
        write_on(self.clauses.database.as_deref(), formatter)?;
        write_sources(&self.clauses.sources, formatter)?;
        self.key.fmt(formatter)?;
        write_cardinality_rest(&self.clauses, formatter)
    }
}

impl Display for TagKeyFilter {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> Result {
        formatter.write_str(" WITH KEY ")?;
        match self {
            Self::Equal(key) => write!(formatter, "= {}", QuotedIdent(key)),
            Self::NotEqual(key) => write!(formatter, "!= {}", QuotedIdent(key)),
            Self::Matches(regex) => write!(formatter, "=~ {regex}"),
            Self::NotMatches(regex) => write!(formatter, "!~ {regex}"),
            Self::In(keys) => {
                let quoted: Vec<QuotedIdent<'_>> = keys.iter().map(|key| QuotedIdent(key)).collect();
                formatter.write_str("IN (")?;
                write_list(&quoted, formatter)?;
                formatter.write_str(")")
            }
        }
    }
}

impl Display for ShowFieldKeys {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> Result {
        formatter.write_str("SHOW FIELD KEYS")?;
        write_on(self.database.as_deref(), formatter)?;
        write_sources(&self.sources, formatter)?;
        write_order(self.order, formatter)?;
        write_count("LIMIT", self.limit, formatter)?;
        write_count("OFFSET", self.offset, formatter)
    }
}

impl Display for ShowMeasurements {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> Result {
        formatter.write_str("SHOW MEASUREMENTS")?;
        write_on(self.database.as_deref(), formatter)?;
        if let Some(measurement) = &self.with_measurement {
            let operator = if matches!(measurement.name, MeasurementName::Regex(_)) { "=~" } else { "=" };
            write!(formatter, " WITH MEASUREMENT {operator} {measurement}")?;
        }
        write_condition(self.condition.as_ref(), formatter)?;
        write_order(self.order, formatter)?;
        write_count("LIMIT", self.limit, formatter)?;
        write_count("OFFSET", self.offset, formatter)
    }
}

impl Display for ShowSeries {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> Result {
        formatter.write_str("SHOW SERIES")?;
        write_on(self.database.as_deref(), formatter)?;
        write_sources(&self.sources, formatter)?;
        write_condition(self.condition.as_ref(), formatter)?;
        write_order(self.order, formatter)?;
        write_count("LIMIT", self.limit, formatter)?;
        write_count("OFFSET", self.offset, formatter)
    }
}

impl Display for ShowTagKeys {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> Result {
        formatter.write_str("SHOW TAG KEYS")?;
        write_on(self.database.as_deref(), formatter)?;
        write_sources(&self.sources, formatter)?;
        write_condition(self.condition.as_ref(), formatter)?;
        write_order(self.order, formatter)?;
        write_count("LIMIT", self.limit, formatter)?;
        write_count("OFFSET", self.offset, formatter)?;
        write_count("SLIMIT", self.slimit, formatter)?;
        write_count("SOFFSET", self.soffset, formatter)
    }
}

impl Display for ShowTagValues {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> Result {
        formatter.write_str("SHOW TAG VALUES")?;
        write_on(self.database.as_deref(), formatter)?;
        write_sources(&self.sources, formatter)?;
        self.key.fmt(formatter)?;
        write_condition(self.condition.as_ref(), formatter)?;
        write_order(self.order, formatter)?;
        write_count("LIMIT", self.limit, formatter)?;
        write_count("OFFSET", self.offset, formatter)
    }
}

impl Display for AlterRetentionPolicy {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> Result {
        let (name, database) = (QuotedIdent(&self.name), QuotedIdent(&self.database));
        write!(formatter, "ALTER RETENTION POLICY {name} ON {database}")?;
        if let Some(duration) = self.duration {
            write!(formatter, " DURATION {}", DurationText(duration))?;
        }
        if let Some(replication) = self.replication {
            write!(formatter, " REPLICATION {replication}")?;
        }
        if let Some(duration) = self.shard_duration {
            write!(formatter, " SHARD DURATION {}", DurationText(duration))?;
        }
        formatter.write_str(if self.default { " DEFAULT" } else { "" })
    }
}

impl Display for CreateContinuousQuery {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> Result {
        let (name, database) = (QuotedIdent(&self.name), QuotedIdent(&self.database));
        write!(formatter, "CREATE CONTINUOUS QUERY {name} ON {database} ")?;
        if self.resample_every.is_some() || self.resample_for.is_some() {
            formatter.write_str("RESAMPLE ")?;
        }
        if let Some(every) = self.resample_every {
            write!(formatter, "EVERY {} ", DurationText(every))?;
        }
        if let Some(range) = self.resample_for {
            write!(formatter, "FOR {} ", DurationText(range))?;
        }
        formatter.write_str("BEGIN ")?;
        self.source.fmt(formatter)?;
        formatter.write_str(" END")
    }
}

/// Upstream prints the durations of `CREATE DATABASE` in Go's notation. That of a part of a second is not InfluxQL,
/// so those are printed in ours.
fn write_database_duration(nanoseconds: i64, formatter: &mut Formatter<'_>) -> Result {
    if nanoseconds % 1_000_000_000 == 0 {
        GoDurationText(nanoseconds).fmt(formatter)
    } else {
        DurationText(nanoseconds).fmt(formatter)
    }
}

impl Display for CreateDatabase {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> Result {
        write!(formatter, "CREATE DATABASE {}", QuotedIdent(&self.name))?;
        let Some(policy) = &self.retention_policy else { return Ok(()) };
        formatter.write_str(" WITH")?;
        if let Some(duration) = policy.duration {
            formatter.write_str(" DURATION ")?;
            write_database_duration(duration, formatter)?;
        }
        if let Some(replication) = policy.replication {
            write!(formatter, " REPLICATION {replication}")?;
        }
        if let Some(duration) = policy.shard_duration {
            formatter.write_str(" SHARD DURATION ")?;
            write_database_duration(duration, formatter)?;
        }
        match &policy.name {
            Some(name) => write!(formatter, " NAME {}", QuotedIdent(name)),
            None => Ok(()),
        }
    }
}

impl Display for CreateRetentionPolicy {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> Result {
        let (name, database) = (QuotedIdent(&self.name), QuotedIdent(&self.database));
        let (duration, replication) = (DurationText(self.duration), self.replication);
        write!(
            formatter,
            "CREATE RETENTION POLICY {name} ON {database} DURATION {duration} REPLICATION {replication}"
        )?;
        if let Some(duration) = self.shard_duration {
            write!(formatter, " SHARD DURATION {}", DurationText(duration))?;
        }
        formatter.write_str(if self.default { " DEFAULT" } else { "" })
    }
}

impl Display for CreateSubscription {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> Result {
        let mode = match self.mode {
            SubscriptionMode::All => "ALL",
            SubscriptionMode::Any => "ANY",
        };
        let (name, database) = (QuotedIdent(&self.name), QuotedIdent(&self.database));
        let retention_policy = QuotedIdent(&self.retention_policy);
        write!(formatter, "CREATE SUBSCRIPTION {name} ON {database}.{retention_policy} DESTINATIONS {mode} ")?;
        let quoted: Vec<QuotedString<'_>> = self.destinations.iter().map(|one| QuotedString(one)).collect();
        write_list(&quoted, formatter)
    }
}

impl Display for CreateUser {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> Result {
        write!(formatter, "CREATE USER {} WITH PASSWORD {}", QuotedIdent(&self.name), self.password)?;
        formatter.write_str(if self.admin { " WITH ALL PRIVILEGES" } else { "" })
    }
}
