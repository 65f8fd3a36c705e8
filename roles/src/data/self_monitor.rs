//! The server's statistics as points of a database of its own, as upstream's `[monitor]` keeps them.
//!
//! Owns: when they are written, and as what. Invariant: times are multiples of the interval, so that a server that was
//! started again goes on in step. A write that fails is told and tried no more: the next one has newer figures.
//! Knows nothing of what the statistics mean.

use crate::{
    data::{
        DataCore, META_CORE,
        statistics::{Statistic, statistics},
    },
    line_text::{push_field, push_time},
    query::host_name,
};
use futures_lite::future;
use std::{rc::Rc, time::Duration};
use tidemill_column::Value;
use tidemill_http::{Caller, Consistency, WriteRequest, WriteTarget};
use tidemill_line::{Precision, series_key::push_key};
use tidemill_meta::{Command, PolicySpec};

/// What the configuration says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MonitorOptions {
    pub is_enabled: bool,
    pub database: String,
    pub interval: Duration,
}

/// The retention policy that upstream makes.
const POLICY: &str = "monitor";
const HOUR_NS: i64 = 3_600_000_000_000;
const POLICY_DURATION_NS: i64 = 168 * HOUR_NS;
const SHARD_GROUP_DURATION_NS: i64 = 24 * HOUR_NS;

/// Writes statistics until the core stops. To be run on the metadata's core.
pub async fn run(core: Rc<DataCore>, options: MonitorOptions) {
    assert_eq!(core.context().core, META_CORE, "one core writes the statistics");
    let interval_ns = i64::try_from(options.interval.as_nanos()).unwrap_or(i64::MAX).max(1);
    loop {
        let context = core.context();
        let now_ns = context.clock.now_ns();
        let pause_ns = interval_ns - now_ns.rem_euclid(interval_ns);
        let pause = context.sleep(Duration::from_nanos(pause_ns.unsigned_abs()));
        future::or(pause, context.shutdown.requested()).await;
        if context.shutdown.is_requested() {
            return;
        }
        let now_ns = context.clock.now_ns();
        if let Err(error) = store(&core, &options.database, now_ns - now_ns.rem_euclid(interval_ns)).await {
            tracing::warn!(error, database = options.database, "the server's statistics were not written");
        }
    }
}

async fn store(core: &Rc<DataCore>, database: &str, time_ns: i64) -> Result<(), String> {
    make_policy(core, database).await?;
    let (all, _) = statistics(core).await.map_err(|error| error.to_string())?;
    let target = WriteTarget {
        database: database.to_owned(),
        retention_policy: Some(POLICY.to_owned()),
        precision: Precision::Nanosecond,
        unsigned: false,
        claim: None,
        session: None,
        consistency: Consistency::default(),
        caller: Caller::Anyone,
    };
    let body = lines(&all, &host_name(), time_ns);
    core.write(WriteRequest { target, body }).await.into_result()
}

/// Makes database and policy where they are missing: somebody may drop them at any time.
async fn make_policy(core: &Rc<DataCore>, database: &str) -> Result<(), String> {
    let policy = PolicySpec {
        name: POLICY.to_owned(),
        duration_ns: POLICY_DURATION_NS,
        shard_group_duration_ns: SHARD_GROUP_DURATION_NS,
        replicas: 1,
    };
    let command = {
        let meta = core.meta();
        match meta.database(database) {
            None => {
                Command::CreateDatabase { name: database.to_owned(), policy: Some(policy), autocreate_policy: false }
            }
            Some(known) if known.policy(Some(POLICY)).is_none() => {
                Command::CreatePolicy { database: database.to_owned(), policy, default: true }
            }
            Some(_) => return Ok(()),
        }
    };
    core.change_meta(command).await.map(drop).map_err(|error| error.to_string())
}

/// One line a statistic.
fn lines(all: &[Statistic], host: &str, time_ns: i64) -> Vec<u8> {
    let mut text = Vec::new();
    for statistic in all.iter().filter(|statistic| !statistic.values.is_empty()) {
        let tags = statistic.tags.iter().map(|(key, value)| (key.as_bytes(), value.as_bytes()));
        let tags: Vec<(&[u8], &[u8])> = tags.chain([(&b"hostname"[..], host.as_bytes())]).collect();
        push_key(statistic.name.as_bytes(), &tags, &mut text);
        for (number, (name, value)) in statistic.values.iter().enumerate() {
            let value = Value::Integer(i64::try_from(*value).unwrap_or(i64::MAX));
            // Every integer has a text.
            let _ = push_field(&mut text, number == 0, name.as_bytes(), &value);
        }
        push_time(&mut text, time_ns);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statistics_are_points_with_integers() {
        let statistic = Statistic {
            name: "httpd",
            tags: vec![("bind", "a b".to_owned()), ("none", String::new())],
            values: [("req", 3), ("writeReq", u64::MAX)].into(),
        };
        let empty = Statistic { name: "runtime", tags: Vec::new(), values: [].into() };
        let text = lines(&[statistic, empty], "h", 20);
        let expected = "httpd,bind=a\\ b,hostname=h req=3i,writeReq=9223372036854775807i 20\n";
        assert_eq!(String::from_utf8_lossy(&text), expected);
    }
}
