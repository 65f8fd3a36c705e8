//! What an index statement is about: databases, measurements in them, and the condition on tags.

use crate::{
    data::question::{About, Filter, Finding, MeasurementTest},
    query::{
        StatementError,
        listing::{ListOrder, Listed, Run},
        point_search::{FoundTags, tags_with_points},
        sources::{Session, copy, fields_of, store_id, test_of, tests_of},
    },
};
use std::{
    collections::{BTreeMap, BTreeSet},
    rc::Rc,
};
use tidemill_column::FieldType;
use tidemill_influxql::{Expr, Source, TagKeyFilter, TimeRange};
use tidemill_meta::DatabaseId as MetaDatabaseId;
use tidemill_store::DatabaseId;

/// The databases that are asked, with the measurements that are meant (`None`: all).
pub(super) struct Scope {
    databases: BTreeMap<DatabaseId, Option<Vec<MeasurementTest>>>,
    condition: Option<Expr>,
    /// The condition with its time range, where it has one.
    timed: Option<(Expr, TimeRange)>,
}

/// The fields of measurements, with their types.
pub(super) type FieldsByMeasurement = BTreeMap<String, BTreeSet<(String, FieldType)>>;

impl Scope {
    /// One database, whatever databases and policies the sources name: upstream ignores them in SHOW TAG KEYS and SHOW
    /// TAG VALUES. Without a shard in the time range there is nothing to see.
    pub fn of_database(
        session: &Session,
        database: Option<&str>,
        sources: &[Source],
        condition: Option<&Expr>,
    ) -> Result<Scope, StatementError> {
        let id = session.database_id(database)?;
        let whole = condition;
        let (range, condition) = session.split_time(condition)?;
        let is_seen = range == TimeRange::default() || {
            let meta = session.core.meta();
            let known = meta.database_by_id(MetaDatabaseId(id.0));
            let mut policies = known.into_iter().flat_map(|known| &known.policies);
            policies.any(|policy| policy.groups_in(range.min_or_first(), range.max_or_last()).next().is_some())
        };
        let databases = if is_seen { BTreeMap::from([(id, tests_of(sources))]) } else { BTreeMap::new() };
        Ok(Scope { databases, condition, timed: timed(whole, range) })
    }

    /// The databases of the sources, of those whose retention policy has a shard in the time range.
    pub fn of_policies(
        session: &Session,
        database: Option<&str>,
        sources: &[Source],
        condition: Option<&Expr>,
    ) -> Result<Scope, StatementError> {
        if sources.is_empty() {
            session.has_groups(session.database_name(database)?, None, TimeRange::default())?;
            return Scope::of_database(session, database, sources, condition);
        }
        let whole = condition;
        let (range, condition) = session.split_time(condition)?;
        let mut databases: BTreeMap<DatabaseId, Option<Vec<MeasurementTest>>> = BTreeMap::new();
        for source in sources {
            let Source::Measurement(measurement) = source else { continue };
            let name = session.database_name(measurement.database.as_deref().or(database))?;
            if session.has_groups(name, measurement.retention_policy.as_deref(), range)? {
                let id = session.core.meta().database(name).map(store_id);
                let tests = id.map(|id| databases.entry(id).or_default().get_or_insert_default());
                tests.into_iter().for_each(|tests| tests.extend(test_of(measurement)));
            }
        }
        Ok(Scope { databases, condition, timed: timed(whole, range) })
    }

    /// The tags of series that have points in the time range; `None` without one. See [`tags_with_points`].
    pub async fn tags_in_time(
        &self,
        session: &Rc<Session>,
        keys: Option<&TagKeyFilter>,
    ) -> Result<Option<Vec<FoundTags>>, StatementError> {
        let Some((condition, range)) = &self.timed else { return Ok(None) };
        let mut found = Vec::new();
        for (database, tests) in &self.databases {
            let name = session.core.meta().database_by_id(MetaDatabaseId(database.0)).map(|known| known.name.clone());
            let Some(name) = name else { continue };
            let tests = tests.as_ref().map(|tests| tests.iter().map(copy).collect());
            let Finding::Names(measurements) = session.ask(*database, tests, Filter::All, About::TagKeys).await? else {
                unreachable!("tag keys are found by measurement")
            };
            let database = (*database, name.as_str());
            found.push(tags_with_points(session, database, &measurements, keys, condition, *range).await?);
        }
        Ok(Some(found))
    }

    /// What all of the databases know.
    pub async fn ask(&self, session: &Session, about: About) -> Result<Finding, StatementError> {
        let mut finding = empty(&about);
        for (database, tests) in &self.databases {
            let tests = tests.as_ref().map(|tests| tests.iter().map(copy).collect());
            let about = copy_of(&about);
            finding.join(session.ask_where(*database, tests, self.condition.as_ref(), about).await?);
        }
        Ok(finding)
    }

    /// The runs of lists over all of the databases.
    pub async fn list(
        &self,
        session: &Session,
        listed: impl Fn() -> Listed,
        rows_max: Option<u64>,
    ) -> Result<Vec<Run>, StatementError> {
        let mut runs = Vec::new();
        for (database, tests) in &self.databases {
            let tests = tests.as_ref().map(|tests| tests.iter().map(copy).collect());
            let wanted = session.wanted_where(*database, tests, self.condition.as_ref()).await?;
            let query = session.query.clone();
            let order = ListOrder { database: *database, wanted, listed: listed(), rows_max, query };
            runs.extend(session.core.list(order).await?);
        }
        Ok(runs)
    }

    /// The fields of the measurements that have series.
    pub async fn fields(&self, session: &Session) -> Result<FieldsByMeasurement, StatementError> {
        let mut fields = FieldsByMeasurement::new();
        for (database, tests) in &self.databases {
            let tests = tests.as_ref().map(|tests| tests.iter().map(copy).collect());
            let found = session.ask_where(*database, tests, self.condition.as_ref(), About::Measurements).await?;
            let Finding::Names(names) = found else { unreachable!("measurements are found by name") };
            let meta = session.core.meta();
            let Some(known) = meta.database_by_id(MetaDatabaseId(database.0)) else { continue };
            for measurement in names.into_keys() {
                let of_database = fields_of(&meta, known, &measurement);
                fields.entry(measurement).or_default().extend(of_database);
            }
        }
        Ok(fields)
    }
}

fn timed(condition: Option<&Expr>, range: TimeRange) -> Option<(Expr, TimeRange)> {
    condition.filter(|_| range != TimeRange::default()).map(|condition| (condition.clone(), range))
}

/// The answer of no database.
fn empty(about: &About) -> Finding {
    match about {
        About::Measurements | About::TagKeys | About::Series => Finding::Names(BTreeMap::new()),
        About::TagValueCount(_) => Finding::Distinct(BTreeMap::new()),
        About::SeriesCount => Finding::Counts(BTreeMap::new()),
    }
}

fn copy_of(about: &About) -> About {
    match about {
        About::Measurements => About::Measurements,
        About::TagKeys => About::TagKeys,
        About::Series => About::Series,
        About::TagValueCount(keys) => About::TagValueCount(keys.clone()),
        About::SeriesCount => About::SeriesCount,
    }
}
