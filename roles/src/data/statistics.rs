//! Figures of the server under upstream's names, for SHOW STATS and `/debug/vars`.
//!
//! Invariant: a name of upstream stands for what it stands for there; what only this server counts is in the statistic
//! `tidemill`. Of upstream's statistics those of its storage engine are missing, which have no meaning here.

use crate::{
    data::{
        DataCore,
        figures::{CoreFigures, counted_figures},
        message::CallError,
        question::{About, Filter, Finding, Question, Wanted},
    },
    query::RunningQueries,
    udp::UdpListener,
};
use std::{
    collections::BTreeMap,
    rc::Rc,
    sync::atomic::{AtomicU64, Ordering},
};
use tidemill_http::metrics::{Endpoint, EndpointSnapshot};
use tidemill_store::DatabaseId;

/// One statistic: integers under a name and tags.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Statistic {
    pub name: &'static str,
    /// Sorted by key.
    pub tags: Vec<(&'static str, String)>,
    /// Sorted by name.
    pub values: BTreeMap<&'static str, u64>,
}

impl Statistic {
    fn new<const N: usize>(name: &'static str, values: [(&'static str, u64); N]) -> Statistic {
        Statistic { name, tags: Vec::new(), values: values.into() }
    }

    fn tagged(mut self, tags: Vec<(&'static str, String)>) -> Statistic {
        self.tags = tags;
        self
    }

    /// The key in `/debug/vars`.
    pub fn key(&self) -> String {
        let values = self.tags.iter().map(|(_, value)| format!(":{value}"));
        self.name.to_owned() + &values.collect::<String>()
    }
}

/// All statistics, by name and tags, with the figures that they were made of.
///
/// # Errors
/// A core is stopping.
pub async fn statistics(core: &Rc<DataCore>) -> Result<(Vec<Statistic>, Vec<CoreFigures>), CallError> {
    let mut figures = Vec::new();
    for one in core.cores() {
        figures.push(core.figures_of(one).await?);
    }
    let mut all = of_process(core, &figures);
    all.extend(of_subscriptions(core));
    all.extend(core.udp.iter().map(|listener| of_udp(listener)));
    all.extend(of_databases(core).await?);
    all.sort_by(|a, b| (a.name, &a.tags).cmp(&(b.name, &b.tags)));
    Ok((all, figures))
}

fn of_process(core: &DataCore, figures: &[CoreFigures]) -> Vec<Statistic> {
    let sum = |value: &dyn Fn(&CoreFigures) -> u64| figures.iter().map(value).sum::<u64>();
    let queries = RunningQueries::of_process().figures();
    let rows = sum(&|core| core.write.rows.get());
    let resident_bytes = figures.last().map_or(0, |core| core.process.resident_bytes);
    let mut all = vec![
        Statistic::new(
            "cq",
            [
                ("queryOk", sum(&|core| core.continuous.succeeded.get())),
                ("queryFail", sum(&|core| core.continuous.failed.get())),
            ],
        ),
        Statistic::new(
            "queryExecutor",
            [
                ("queriesActive", queries.active),
                ("queriesExecuted", queries.started),
                ("queriesFinished", queries.finished),
                ("queryDurationNs", queries.duration_ns),
            ],
        ),
        Statistic::new("runtime", [("Sys", resident_bytes)]),
        Statistic::new(
            "write",
            [
                ("req", sum(&|core| core.write.requests.get())),
                ("pointReq", rows),
                ("pointReqLocal", rows),
                ("subWriteOk", core.subscribers.figures().taken),
                ("subWriteDrop", core.subscribers.figures().dropped),
            ],
        ),
        of_http(core, figures, rows),
        Statistic {
            name: "tidemill",
            tags: Vec::new(),
            values: counted_figures().map(|(name, value)| (name, sum(&|core| value(core)))).collect(),
        },
    ];
    for core in figures {
        for ((database, name), run) in &*core.continuous.last_runs.borrow() {
            let positive = |ns: i64| u64::try_from(ns).unwrap_or(0);
            let values = [
                ("durationNs", run.duration_ns),
                ("pointsWrittenOK", run.points),
                ("startTime", positive(run.range.0)),
                ("endTime", positive(run.range.1)),
            ];
            let tags = vec![("cq", name.clone()), ("db", database.clone())];
            all.push(Statistic::new("cq_query", values).tagged(tags));
        }
    }
    all
}

fn of_http(core: &DataCore, figures: &[CoreFigures], rows: u64) -> Statistic {
    let of = |wanted: Option<Endpoint>, value: &dyn Fn(&EndpointSnapshot) -> u64| -> u64 {
        let endpoints = figures.iter().flat_map(|core| Endpoint::ALL.iter().zip(&core.http.endpoints));
        endpoints
            .filter(|(one, _)| wanted.is_none_or(|wanted| wanted == **one))
            .map(|(_, figures)| value(figures))
            .sum()
    };
    let requests = |figures: &EndpointSnapshot| figures.status_counts.iter().sum();
    let class = |class: usize| move |figures: &EndpointSnapshot| figures.status_counts[class - 1];
    let duration_ns = |figures: &EndpointSnapshot| figures.latency_us_sum.saturating_mul(1_000);
    let (query, write) = (Some(Endpoint::Query), Some(Endpoint::Write));
    let values = [
        ("req", of(None, &requests)),
        ("reqDurationNs", of(None, &duration_ns)),
        ("clientError", of(None, &class(4))),
        ("serverError", of(None, &class(5))),
        ("pingReq", of(Some(Endpoint::Ping), &requests)),
        ("queryReq", of(query, &requests)),
        ("queryReqDurationNs", of(query, &duration_ns)),
        ("queryRespBytes", of(query, &|figures| figures.response_bytes)),
        ("writeReq", of(write, &requests)),
        ("writeReqBytes", of(write, &|figures| figures.request_bytes)),
        ("writeReqDurationNs", of(write, &duration_ns)),
        ("pointsWrittenOK", rows),
    ];
    Statistic::new("httpd", values).tagged(vec![("bind", core.options.http_addr.to_string())])
}

/// One statistic for all subscriptions, and one for each destination.
fn of_subscriptions(core: &DataCore) -> Vec<Statistic> {
    let mut each = Vec::new();
    let (mut points_written, mut write_failures) = (0, 0);
    for lane in core.subscribers.lane_figures() {
        for destination in lane.destinations {
            points_written += destination.points_written;
            write_failures += destination.write_failures;
            let values = [("pointsWritten", destination.points_written), ("writeFailures", destination.write_failures)];
            each.push(Statistic::new("subscriber", values).tagged(vec![
                ("database", lane.database.clone()),
                ("destination", destination.url),
                ("mode", lane.mode.to_owned()),
                ("name", lane.name.clone()),
                ("retention_policy", lane.retention_policy.clone()),
            ]));
        }
    }
    let create_failures = core.subscribers.figures().create_failures;
    let values =
        [("createFailures", create_failures), ("pointsWritten", points_written), ("writeFailures", write_failures)];
    each.push(Statistic::new("subscriber", values));
    each
}

fn of_udp(listener: &UdpListener) -> Statistic {
    let figures = listener.figures();
    let value = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    let values = [
        ("bytesRx", value(&figures.bytes_received)),
        ("pointsRx", value(&figures.points_received)),
        ("pointsTx", value(&figures.points_written)),
        ("batchesTx", value(&figures.batches_written)),
        ("batchesTxFail", value(&figures.batches_failed)),
        ("readFail", value(&figures.read_failures)),
    ];
    Statistic::new("udp", values).tagged(vec![("bind", listener.options().addr.to_string())])
}

async fn of_databases(core: &Rc<DataCore>) -> Result<Vec<Statistic>, CallError> {
    let databases: Vec<(DatabaseId, String)> =
        core.meta().databases().iter().map(|one| (DatabaseId(one.id.0), one.name.clone())).collect();
    let mut all = Vec::new();
    for (database, name) in databases {
        let wanted = Wanted { measurements: None, filter: Filter::All };
        let question = Question { database, wanted, about: About::SeriesCount };
        let Finding::Counts(counts) = core.ask(question).await? else { unreachable!("series are counted") };
        let values = [("numMeasurements", counts.len() as u64), ("numSeries", counts.values().sum())];
        all.push(Statistic::new("database", values).tagged(vec![("database", name)]));
    }
    Ok(all)
}
