//! What a statement may be run by, and whether it changes anything.

use crate::select::{Measurement, SelectStatement, Source};
use crate::statement::{Privilege, ShowCardinality, Statement};

/// One thing that a user who is no admin must have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RequiredPrivilege {
    /// To be an admin.
    Admin,
    Database {
        database: String,
        privilege: Privilege,
    },
}

impl Statement {
    /// What running the statement takes; all of it must be held. `default_database` is the request's, perhaps empty.
    pub fn required_privileges(&self, default_database: &str) -> Vec<RequiredPrivilege> {
        let on = |database: Option<&str>, privilege| {
            let database = database.unwrap_or(default_database).to_owned();
            vec![RequiredPrivilege::Database { database, privilege }]
        };
        match self {
            Self::ShowDatabases => Vec::new(),
            Self::Select(select) => of_select(select, default_database),
            Self::Explain(explain) => of_select(&explain.statement, default_database),
            Self::ShowSeries(show) => on(show.database.as_deref(), Privilege::Read),
            Self::ShowMeasurements(show) => on(show.database.as_deref(), Privilege::Read),
            Self::ShowTagKeys(show) => on(show.database.as_deref(), Privilege::Read),
            Self::ShowTagValues(show) => on(show.database.as_deref(), Privilege::Read),
            Self::ShowFieldKeys(show) => on(show.database.as_deref(), Privilege::Read),
            Self::ShowRetentionPolicies { database } => on(database.as_deref(), Privilege::Read),
            Self::ShowSeriesCardinality(show) | Self::ShowMeasurementCardinality(show) if !show.is_exact() => {
                on(show.database.as_deref(), Privilege::Read)
            }
            Self::ShowSeriesCardinality(show)
            | Self::ShowMeasurementCardinality(show)
            | Self::ShowTagKeyCardinality(show)
            | Self::ShowFieldKeyCardinality(show) => of_cardinality(show, default_database),
            Self::ShowTagValuesCardinality(show) => of_cardinality(&show.clauses, default_database),
            Self::ShowContinuousQueries | Self::ShowQueries => on(None, Privilege::Read),
            Self::Delete(_) | Self::DropSeries(_) => on(None, Privilege::Write),
            Self::DropRetentionPolicy { database, .. } | Self::DropContinuousQuery { database, .. } => {
                on(Some(database), Privilege::Write)
            }
            Self::CreateContinuousQuery(create) => {
                let mut required = on(Some(&create.database), Privilege::Read);
                if let Some(database) = create.source.target.as_ref().and_then(|target| target.database.as_deref()) {
                    required.extend(on(Some(database), Privilege::Write));
                }
                required
            }
            Self::AlterRetentionPolicy(_)
            | Self::CreateDatabase(_)
            | Self::CreateRetentionPolicy(_)
            | Self::CreateSubscription(_)
            | Self::CreateUser(_)
            | Self::DropDatabase { .. }
            | Self::DropField { .. }
            | Self::DropMeasurement { .. }
            | Self::DropShard { .. }
            | Self::DropSubscription { .. }
            | Self::DropUser { .. }
            | Self::Grant { .. }
            | Self::GrantAdmin { .. }
            | Self::KillQuery { .. }
            | Self::Revoke { .. }
            | Self::RevokeAdmin { .. }
            | Self::SetPassword { .. }
            | Self::ShowDiagnostics { .. }
            | Self::ShowGrants { .. }
            | Self::ShowShardGroups
            | Self::ShowShards
            | Self::ShowStats { .. }
            | Self::ShowSubscriptions
            | Self::ShowUsers => vec![RequiredPrivilege::Admin],
        }
    }

    /// Whether the statement changes neither data nor metadata nor what is running.
    pub fn is_read_only(&self) -> bool {
        match self {
            Self::Select(select) => select.target.is_none(),
            Self::Explain(explain) => !explain.analyze || explain.statement.target.is_none(),
            Self::ShowContinuousQueries
            | Self::ShowDatabases
            | Self::ShowDiagnostics { .. }
            | Self::ShowFieldKeyCardinality(_)
            | Self::ShowFieldKeys(_)
            | Self::ShowGrants { .. }
            | Self::ShowMeasurementCardinality(_)
            | Self::ShowMeasurements(_)
            | Self::ShowQueries
            | Self::ShowRetentionPolicies { .. }
            | Self::ShowSeries(_)
            | Self::ShowSeriesCardinality(_)
            | Self::ShowShardGroups
            | Self::ShowShards
            | Self::ShowStats { .. }
            | Self::ShowSubscriptions
            | Self::ShowTagKeyCardinality(_)
            | Self::ShowTagKeys(_)
            | Self::ShowTagValues(_)
            | Self::ShowTagValuesCardinality(_)
            | Self::ShowUsers => true,
            _ => false,
        }
    }

    /// The warning that goes with the answer when the statement came by GET, if upstream gives one.
    pub fn read_only_context_warning(&self) -> Option<String> {
        let is_exempt = matches!(self, Self::Delete(_) | Self::Explain(_));
        (!is_exempt && !self.is_read_only())
            .then(|| format!("deprecated use of '{self}' in a read only context, please use a POST request instead"))
    }
}

fn of_measurement(measurement: &Measurement, default_database: &str, privilege: Privilege) -> RequiredPrivilege {
    let database = measurement.database.as_deref().unwrap_or(default_database).to_owned();
    RequiredPrivilege::Database { database, privilege }
}

fn of_sources(sources: &[Source], default_database: &str, required: &mut Vec<RequiredPrivilege>) {
    for source in sources {
        match source {
            Source::Measurement(measurement) => {
                required.push(of_measurement(measurement, default_database, Privilege::Read));
            }
            Source::Subquery(select) => required.extend(of_select(select, default_database)),
        }
    }
}

fn of_select(select: &SelectStatement, default_database: &str) -> Vec<RequiredPrivilege> {
    let mut required = Vec::new();
    of_sources(&select.sources, default_database, &mut required);
    required.extend(select.target.iter().map(|target| of_measurement(target, default_database, Privilege::Write)));
    required
}

fn of_cardinality(show: &ShowCardinality, default_database: &str) -> Vec<RequiredPrivilege> {
    let mut required = Vec::new();
    of_sources(&show.sources, default_database, &mut required);
    required
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parser::parse_statement;

    #[test]
    fn required() {
        let read = |database: &str| (Some(database.to_owned()), Privilege::Read);
        let write = |database: &str| (Some(database.to_owned()), Privilege::Write);
        let admin = || vec![(None, Privilege::All)];
        for (text, expected) in [
            ("SHOW DATABASES", vec![]),
            ("SELECT v FROM n", vec![read("d")]),
            ("SELECT v FROM other..n, n", vec![read("other"), read("d")]),
            ("SELECT v FROM (SELECT v FROM other.rp.n)", vec![read("other")]),
            ("SELECT v INTO t..x FROM n", vec![read("d"), write("t")]),
            ("EXPLAIN SELECT v FROM n", vec![read("d")]),
            ("SHOW SERIES ON x", vec![read("x")]),
            ("SHOW SERIES CARDINALITY", vec![read("d")]),
            ("SHOW SERIES EXACT CARDINALITY", vec![]),
            ("SHOW SERIES CARDINALITY FROM x..m", vec![read("x")]),
            ("SHOW TAG KEY CARDINALITY", vec![]),
            ("SHOW QUERIES", vec![read("d")]),
            ("DELETE FROM n", vec![write("d")]),
            ("DROP SERIES FROM n", vec![write("d")]),
            ("DROP RETENTION POLICY r ON x", vec![write("x")]),
            ("DROP CONTINUOUS QUERY c ON x", vec![write("x")]),
            ("CREATE CONTINUOUS QUERY c ON x BEGIN SELECT v INTO t FROM n END", vec![read("x")]),
            ("CREATE CONTINUOUS QUERY c ON x BEGIN SELECT v INTO y..t FROM n END", vec![read("x"), write("y")]),
            ("DROP MEASUREMENT n", admin()),
            ("CREATE DATABASE x", admin()),
            ("SHOW USERS", admin()),
            ("KILL QUERY 1", admin()),
        ] {
            let found: Vec<_> = parse_statement(text)
                .unwrap()
                .required_privileges("d")
                .into_iter()
                .map(|required| match required {
                    RequiredPrivilege::Admin => (None, Privilege::All),
                    RequiredPrivilege::Database { database, privilege } => (Some(database), privilege),
                })
                .collect();
            assert_eq!(found, expected, "{text}");
        }
    }

    #[test]
    fn read_only_and_the_warning() {
        for (text, is_read_only, is_warned) in [
            ("SELECT v FROM n", true, false),
            ("SELECT v INTO x FROM n", false, true),
            ("DELETE FROM n", false, false),
            ("DROP SERIES FROM n", false, true),
            ("KILL QUERY 1", false, true),
            ("SHOW USERS", true, false),
            ("EXPLAIN SELECT v FROM n", true, false),
        ] {
            let statement = parse_statement(text).unwrap();
            assert_eq!(statement.is_read_only(), is_read_only, "{text}");
            assert_eq!(statement.read_only_context_warning().is_some(), is_warned, "{text}");
        }
        let create = parse_statement("create user u with password 'secret'").unwrap();
        assert_eq!(
            create.read_only_context_warning().unwrap(),
            "deprecated use of 'CREATE USER u WITH PASSWORD [REDACTED]' in a read only context, \
             please use a POST request instead"
        );
        assert!(!format!("{create:?}").contains("secret"));
    }
}
