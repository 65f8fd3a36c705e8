//! What the names of a statement mean: databases, retention policies, measurements, conditions of SHOW statements.
//!
//! Owns: the defaults of a request ([`Session`]) and the look-ups with upstream's errors.
//! Knows nothing of how statements are executed.

use crate::{
    data::{
        DataCore, question,
        question::{About, Filter, Finding, MeasurementTest, Question, Wanted},
    },
    query::{StatementError, account::RunningQuery},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    rc::Rc,
    sync::Arc,
};
use tidemill_column::FieldType;
use tidemill_http::Caller;
use tidemill_influxql::{Expr, Measurement, MeasurementName, Source, TimeContext, TimeRange, split_time};
use tidemill_meta::{Database, Meta};
use tidemill_store::DatabaseId;

/// What a request gives to all of its statements.
pub(super) struct Session {
    pub core: Rc<DataCore>,
    pub query: Arc<RunningQuery>,
    pub caller: Caller,
    /// Empty when the request named none.
    pub database: String,
    pub retention_policy: Option<String>,
    /// Rows of a piece.
    pub chunk_rows: usize,
    /// What `now()` is.
    pub now_ns: i64,
}

/// The id as the store has it.
pub(super) fn store_id(database: &Database) -> DatabaseId {
    DatabaseId(database.id.0)
}

impl Session {
    /// The database that a statement or a source names, or the request's.
    pub fn database_name<'a>(&'a self, named: Option<&'a str>) -> Result<&'a str, StatementError> {
        let name = named.filter(|name| !name.is_empty()).unwrap_or(&self.database);
        if name.is_empty() { Err(StatementError::DatabaseRequired) } else { Ok(name) }
    }

    /// The id of that database.
    pub fn database_id(&self, named: Option<&str>) -> Result<DatabaseId, StatementError> {
        let name = self.database_name(named)?;
        let meta = self.core.meta();
        meta.database(name).map(store_id).ok_or_else(|| StatementError::DatabaseNotFound(name.to_owned()))
    }

    /// Upstream looks at the databases of all sources before anything else.
    pub fn check_sources(&self, sources: &[Source]) -> Result<(), StatementError> {
        for source in sources {
            match source {
                Source::Measurement(measurement) => {
                    let name = self.database_name(measurement.database.as_deref())?;
                    let meta = self.core.meta();
                    let not_found = || StatementError::DatabaseNotFound(name.to_owned());
                    let database = meta.database(name).ok_or_else(not_found)?;
                    let policy = measurement.retention_policy.as_deref().or(self.retention_policy.as_deref());
                    if policy.is_none() && database.default_policy.is_empty() {
                        return Err(StatementError::NoDefaultPolicy(name.to_owned()));
                    }
                }
                Source::Subquery(select) => self.check_sources(&select.sources)?,
            }
        }
        Ok(())
    }

    /// Whether the policy that a name leaves to the request has shard groups in a time range.
    pub fn has_groups(
        &self,
        database_name: &str,
        policy: Option<&str>,
        range: TimeRange,
    ) -> Result<bool, StatementError> {
        let meta = self.core.meta();
        let not_found = || StatementError::DatabaseNotFound(database_name.to_owned());
        let database = meta.database(database_name).ok_or_else(not_found)?;
        let policy = policy.or(self.retention_policy.as_deref()).unwrap_or(&database.default_policy);
        let not_found = || match policy {
            "" => StatementError::NoDefaultPolicy(database_name.to_owned()),
            policy => StatementError::PolicyNotFound(policy.to_owned()),
        };
        let policy = database.policy(Some(policy)).ok_or_else(not_found)?;
        Ok(policy.groups_in(range.min_or_first(), range.max_or_last()).next().is_some())
    }

    /// A condition's time range and the rest of it.
    pub fn split_time(&self, condition: Option<&Expr>) -> Result<(TimeRange, Option<Expr>), StatementError> {
        Ok(split_time(condition, &TimeContext::utc(self.now_ns))?)
    }

    /// Asks all indexes of a database.
    pub async fn ask(
        &self,
        database: DatabaseId,
        measurements: Option<Vec<MeasurementTest>>,
        filter: Filter,
        about: About,
    ) -> Result<Finding, StatementError> {
        let wanted = Wanted { measurements, filter };
        Ok(self.core.ask(Question { database, wanted, about }).await?)
    }

    /// What the WHERE of a SHOW statement means.
    pub async fn wanted_where(
        &self,
        database: DatabaseId,
        measurements: Option<Vec<MeasurementTest>>,
        condition: Option<&Expr>,
    ) -> Result<Wanted, StatementError> {
        let Some(condition) = condition.cloned() else {
            return Ok(Wanted { measurements, filter: Filter::All });
        };
        let fields = self.fields_in_question(database, &measurements, &condition).await?;
        Ok(Wanted { measurements, filter: Filter::Where { condition, fields } })
    }

    /// As [`Session::ask`], with the WHERE of a SHOW statement.
    pub async fn ask_where(
        &self,
        database: DatabaseId,
        measurements: Option<Vec<MeasurementTest>>,
        condition: Option<&Expr>,
        about: About,
    ) -> Result<Finding, StatementError> {
        let wanted = self.wanted_where(database, measurements, condition).await?;
        Ok(self.core.ask(Question { database, wanted, about }).await?)
    }

    /// Names of measurements that are meant and have series.
    pub async fn measurements(
        &self,
        database: DatabaseId,
        tests: Option<Vec<MeasurementTest>>,
    ) -> Result<Vec<String>, StatementError> {
        match self.ask(database, tests, Filter::All, About::Measurements).await? {
            Finding::Names(names) => Ok(names.into_keys().collect()),
            _ => unreachable!("measurements are found by name"),
        }
    }

    /// The names of a condition that are fields, by measurement: an unqualified name of a field is not a tag.
    async fn fields_in_question(
        &self,
        database: DatabaseId,
        tests: &Option<Vec<MeasurementTest>>,
        condition: &Expr,
    ) -> Result<BTreeMap<String, BTreeSet<String>>, StatementError> {
        let names: BTreeSet<&str> = condition
            .var_refs()
            .into_iter()
            .filter(|name| name.data_type.is_none() && name.name != "_name")
            .map(|name| name.name.as_str())
            .collect();
        if names.is_empty() {
            return Ok(BTreeMap::new());
        }
        let tests = tests.as_ref().map(|tests| tests.iter().map(copy).collect());
        let measurements = self.measurements(database, tests).await?;
        let meta = self.core.meta();
        let Some(database) = meta.database_by_id(tidemill_meta::DatabaseId(database.0)) else {
            return Ok(BTreeMap::new());
        };
        let mut fields = BTreeMap::new();
        for measurement in measurements {
            let known: BTreeSet<String> = fields_of(&meta, database, &measurement)
                .into_iter()
                .map(|(name, _)| name)
                .filter(|name| names.contains(name.as_str()))
                .collect();
            if !known.is_empty() {
                fields.insert(measurement, known);
            }
        }
        Ok(fields)
    }
}

/// All fields that a measurement has in any shard group of a database, once for each of its types, sorted.
pub(super) fn fields_of(meta: &Meta, database: &Database, measurement: &str) -> BTreeSet<(String, FieldType)> {
    let groups = database.policies.iter().flat_map(|policy| &policy.groups);
    groups
        .flat_map(|group| meta.field_types().fields(group.id, measurement.as_bytes()))
        .map(|(name, field_type)| (question::lossy(name), field_type))
        .collect()
}

/// The measurements that the sources of a SHOW statement mean; `None`: all.
pub(super) fn tests_of(sources: &[Source]) -> Option<Vec<MeasurementTest>> {
    if sources.is_empty() {
        return None;
    }
    let measurements = sources.iter().filter_map(|source| match source {
        Source::Measurement(measurement) => Some(measurement),
        Source::Subquery(_) => None,
    });
    Some(measurements.filter_map(test_of).collect())
}

/// Which measurements one source means.
pub(super) fn test_of(measurement: &Measurement) -> Option<MeasurementTest> {
    match &measurement.name {
        MeasurementName::Name(name) => Some(MeasurementTest::Name(name.clone())),
        MeasurementName::Regex(regex) => Some(MeasurementTest::Regex(regex.clone())),
        MeasurementName::OfSource => None,
    }
}

pub(super) fn copy(test: &MeasurementTest) -> MeasurementTest {
    match test {
        MeasurementTest::Name(name) => MeasurementTest::Name(name.clone()),
        MeasurementTest::Regex(regex) => MeasurementTest::Regex(regex.clone()),
    }
}
