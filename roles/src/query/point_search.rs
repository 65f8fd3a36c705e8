//! Statements about series that only their points can answer: which points a DELETE with a condition on fields means,
//! and which series of a SHOW statement have points in a time range. Extensions, both.
//!
//! Owns: the SELECTs that find them, one for each measurement and retention policy, and the commands that delete what
//! was found. Invariant: a command names the points themselves, so that its effect does not depend on when it is
//! applied; a point that is written anew between being found and being deleted goes too.
//! Knows nothing of how a SELECT is executed.

use crate::query::{StatementError, account::Charge, select::Select, sources::Session};
use std::{
    collections::{BTreeMap, BTreeSet},
    rc::Rc,
};
use tidemill_influxql::{
    BinaryOperator, Expr, Field, Measurement, MeasurementName, SelectStatement, Source, TagKeyFilter, TimeContext,
    TimeRange, WildcardKind,
};
use tidemill_line::series_key;
use tidemill_query::{ResultColumn, ResultSeries};
use tidemill_store::{Command as StoreCommand, DatabaseId, Measurements, SeriesTimes, TagCondition};

/// Points and bytes of series keys that one command names: it travels in one entry of each log.
const POINTS_PER_COMMAND: usize = 8192;
const KEY_BYTES_PER_COMMAND: usize = 256 << 10;
/// What a tag takes beside its texts.
const TAG_BYTES: usize = 64;

/// A retention policy that has shard groups in the range of a statement.
struct Policy {
    name: String,
    id: u32,
}

/// Tags of series, by measurement: keys and values, those without a value left out.
pub(super) struct FoundTags {
    pub by_measurement: BTreeMap<String, BTreeSet<Vec<(String, String)>>>,
    charge: Charge,
}

/// Deletes the points of these measurements, in all retention policies, that satisfy a condition.
pub(super) async fn delete_points(
    session: &Rc<Session>,
    database: DatabaseId,
    measurements: &[String],
    condition: &Expr,
    range: TimeRange,
) -> Result<(), StatementError> {
    for policy in policies(session, database, range) {
        for measurement in measurements {
            let source = source(session.database.clone(), &policy, measurement);
            let statement = statement(source, Some(condition.clone()), vec![Expr::Wildcard(WildcardKind::All)], 0);
            let mut select = Select::start(session.clone(), &statement).await?;
            let mut doomed = Doomed::new(database, policy.id);
            while let Some(piece) = select.next().await? {
                doomed.take(&piece);
                if doomed.is_full() {
                    session.core.change_store(doomed.command()).await?;
                }
            }
            if doomed.points > 0 {
                session.core.change_store(doomed.command()).await?;
            }
        }
    }
    Ok(())
}

/// The tags of series that have points which satisfy a condition with a time range: those that pass `keys`, each of
/// them by itself, or all of a series together without it.
pub(super) async fn tags_with_points(
    session: &Rc<Session>,
    database: (DatabaseId, &str),
    measurements: &BTreeMap<String, BTreeSet<String>>,
    keys: Option<&TagKeyFilter>,
    condition: &Expr,
    range: TimeRange,
) -> Result<FoundTags, StatementError> {
    let mut found = FoundTags { by_measurement: BTreeMap::new(), charge: session.query.charge() };
    let mut bytes = 0;
    for policy in policies(session, database.0, range) {
        for (measurement, tag_keys) in measurements {
            let Some(condition) = of_measurement(condition, measurement) else { continue };
            let dimensions: Vec<Vec<Expr>> = match keys {
                None => vec![vec![Expr::Wildcard(WildcardKind::All)]],
                Some(keys) => {
                    let wanted = tag_keys.iter().filter(|key| keys.accepts(key));
                    wanted.map(|key| vec![Expr::var_ref(key.as_str())]).collect()
                }
            };
            for dimensions in dimensions {
                let source = source(database.1.to_owned(), &policy, measurement);
                let statement = statement(source, Some(condition.clone()), dimensions, 1);
                let mut select = Select::start(session.clone(), &statement).await?;
                while let Some(piece) = select.next().await? {
                    let tags: Vec<(String, String)> =
                        piece.tags.iter().filter(|(_, value)| !value.is_empty()).cloned().collect();
                    bytes += tags.iter().map(|(key, value)| key.len() + value.len() + TAG_BYTES).sum::<usize>();
                    found.by_measurement.entry(measurement.clone()).or_default().insert(tags);
                    found.charge.set(bytes)?;
                }
            }
        }
    }
    Ok(found)
}

fn policies(session: &Session, database: DatabaseId, range: TimeRange) -> Vec<Policy> {
    let meta = session.core.meta();
    let Some(known) = meta.database_by_id(tidemill_meta::DatabaseId(database.0)) else { return Vec::new() };
    let (min, max) = (range.min_or_first(), range.max_or_last());
    let touched = known.policies.iter().filter(|policy| policy.groups_in(min, max).next().is_some());
    touched.map(|policy| Policy { name: policy.name.clone(), id: policy.id.0 }).collect()
}

fn source(database: String, policy: &Policy, measurement: &str) -> Source {
    Source::Measurement(Measurement {
        database: Some(database),
        retention_policy: Some(policy.name.clone()),
        name: MeasurementName::Name(measurement.to_owned()),
    })
}

/// All fields of a measurement: a point is there if one of them has a value.
fn statement(source: Source, condition: Option<Expr>, dimensions: Vec<Expr>, limit: u64) -> SelectStatement {
    let fields = vec![Field::new(Expr::Wildcard(WildcardKind::Field))];
    SelectStatement { fields, sources: vec![source], condition, dimensions, limit, ..SelectStatement::default() }
}

/// The condition for one measurement, whose name is what `_name` is; `None` if nothing can satisfy it.
fn of_measurement(condition: &Expr, measurement: &str) -> Option<Expr> {
    let is_name = |expr: &Expr| matches!(expr, Expr::VarRef(name) if name.name == "_name" && name.data_type.is_none());
    let named = condition.clone().rewrite(&mut |expr| {
        let Expr::Binary { operator, left, right } = &expr else { return expr };
        if !is_name(left) {
            return expr;
        }
        match (operator, &**right) {
            (BinaryOperator::Equal, Expr::String(name)) => Expr::Boolean(name == measurement),
            (BinaryOperator::NotEqual, Expr::String(name)) => Expr::Boolean(name != measurement),
            (BinaryOperator::RegexMatch, Expr::Regex(regex)) => Expr::Boolean(regex.is_match(measurement.as_bytes())),
            (BinaryOperator::RegexNotMatch, Expr::Regex(regex)) => {
                Expr::Boolean(!regex.is_match(measurement.as_bytes()))
            }
            _ => expr,
        }
    });
    // Without a time at hand, `now()` stays as it is.
    let reduced = named.reduce(&TimeContext { now_ns: None, zone_offset_ns: &|_| 0 });
    (reduced != Expr::Boolean(false)).then_some(reduced)
}

/// Points that were found and are to be deleted by the next command.
struct Doomed {
    database: DatabaseId,
    policy: u32,
    series: Vec<SeriesTimes>,
    points: usize,
    key_bytes: usize,
}

impl Doomed {
    fn new(database: DatabaseId, policy: u32) -> Doomed {
        Doomed { database, policy, series: Vec::new(), points: 0, key_bytes: 0 }
    }

    /// Takes rows of one series.
    fn take(&mut self, piece: &ResultSeries) {
        let Some(ResultColumn::Time(times)) = piece.values.first() else { return };
        let tags: Vec<(&[u8], &[u8])> =
            piece.tags.iter().map(|(key, value)| (key.as_bytes(), value.as_bytes())).collect();
        let key = series_key::format_key(piece.name.as_bytes(), &tags);
        self.points += times.len();
        match self.series.last_mut() {
            Some(last) if last.key == key => last.times.extend_from_slice(times),
            _ => {
                self.key_bytes += key.len();
                self.series.push(SeriesTimes { key, times: times.clone() });
            }
        }
    }

    fn is_full(&self) -> bool {
        self.points >= POINTS_PER_COMMAND || self.key_bytes >= KEY_BYTES_PER_COMMAND
    }

    /// The command that deletes what was taken; nothing is left then.
    fn command(&mut self) -> StoreCommand {
        let mut series = std::mem::take(&mut self.series);
        (self.points, self.key_bytes) = (0, 0);
        series.sort_by(|a, b| a.key.cmp(&b.key));
        let times = || series.iter().flat_map(|one| &one.times).copied();
        let (min_time, max_time) = (times().min().unwrap_or(0), times().max().unwrap_or(0));
        StoreCommand::Delete {
            database: self.database.0,
            measurements: Measurements::Points { policy: self.policy, series },
            condition: TagCondition::All,
            min_time,
            max_time,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidemill_influxql::parse_expr;

    #[test]
    fn names_of_measurements_are_decided_before_points_are_read() {
        let condition = |text: &str| of_measurement(&parse_expr(text).unwrap(), "cpu").map(|expr| expr.to_string());
        assert_eq!(condition("_name = 'mem' AND time > 5"), None);
        assert_eq!(condition("_name = 'cpu' AND host = 'a'"), Some("host = 'a'".to_owned()));
        assert_eq!(condition("_name !~ /c.u/ OR host = 'a'"), Some("host = 'a'".to_owned()));
        assert_eq!(condition("time > now() - 1h"), Some("time > now() - 1h".to_owned()));
    }

    #[test]
    fn a_command_names_the_points_of_each_series_once() {
        let piece = |host: &str, times: &[i64]| ResultSeries {
            name: "c p,u".into(),
            tags: [("dc".to_owned(), String::new()), ("host".to_owned(), host.to_owned())].into(),
            columns: ["time".to_owned()].into(),
            values: vec![ResultColumn::Time(times.to_vec())],
            partial: false,
        };
        let mut doomed = Doomed::new(DatabaseId(3), 4);
        doomed.take(&piece("b", &[5, 7]));
        doomed.take(&piece("b", &[9]));
        doomed.take(&piece("a=", &[1]));
        assert!(!doomed.is_full());
        let series = vec![
            SeriesTimes { key: b"c\\ p\\,u,host=a\\=".to_vec(), times: vec![1] },
            SeriesTimes { key: b"c\\ p\\,u,host=b".to_vec(), times: vec![5, 7, 9] },
        ];
        let measurements = Measurements::Points { policy: 4, series };
        let condition = TagCondition::All;
        let expected = StoreCommand::Delete { database: 3, measurements, condition, min_time: 1, max_time: 9 };
        assert_eq!(doomed.command(), expected);
        assert_eq!(doomed.points, 0);
        doomed.take(&piece("c", &(0..POINTS_PER_COMMAND as i64).collect::<Vec<_>>()));
        assert!(doomed.is_full());
    }
}
