//! The data role behind the HTTP surface.

use crate::{
    access::{Gate, Offload, authorize_query, authorize_write},
    backup::snapshot,
    data::{DataCore, figures, statistics::statistics},
    query::{self, QueryPieces},
};
use std::{net::IpAddr, rc::Rc};
use tidemill_http::{
    Caller, Callers, ClusterOrder, Credentials, QueryRequest, Refusal, Service, SnapshotOutcome, SnapshotRequest,
    WriteOutcome, WriteRequest, WriteTarget,
};
use tidemill_influxql::{Statement, TimestampText};

const NO_ROWS: &str = "this node holds no rows, takes no writes and answers no queries: ask a data node";

/// Answers the requests of one core.
pub struct DataService {
    core: Rc<DataCore>,
    gate: Gate,
}

impl Offload for DataCore {
    async fn offload(&self, slow: impl FnOnce() -> bool + Send + 'static) -> bool {
        self.context().offload(slow).await
    }
}

impl DataService {
    pub fn new(core: Rc<DataCore>) -> DataService {
        let gate = Gate::new(core.access_options().clone());
        DataService { core, gate }
    }

    async fn figures(&self) -> Vec<figures::CoreFigures> {
        let mut all = Vec::new();
        for core in self.core.cores() {
            // A core that is stopping has nothing to show.
            all.extend(self.core.figures_of(core).await);
        }
        all
    }
}

impl Service for DataService {
    type Pieces = QueryPieces;

    async fn authenticate(&self, credentials: Option<Credentials>, peer: Option<IpAddr>) -> Result<Caller, Refusal> {
        let now_s = self.core.context().clock.now_ns().div_euclid(1_000_000_000);
        self.gate.authenticate(|| self.core.meta(), credentials, peer, now_s, &*self.core).await
    }

    fn is_proved(&self, text: &str, proof: &str) -> bool {
        self.gate.is_of_proxy(text, proof)
    }

    async fn placement(&self) -> Result<String, Refusal> {
        let told = self.core.placement().await;
        told.map(|value| value.to_string()).map_err(|error| Refusal::new(503, error.to_string()))
    }

    fn admit_to_insides(&self, caller: &Caller) -> Result<(), Refusal> {
        let is_admin = match caller {
            Caller::Anyone => true,
            Caller::Nobody => false,
            Caller::User(name) => self.core.meta().user(name).is_some_and(|user| user.is_admin),
        };
        if is_admin { Ok(()) } else { Err(Refusal::new(403, "error authorizing admin access")) }
    }

    fn admit_write(&self, target: &WriteTarget) -> Result<(), WriteOutcome> {
        let meta = self.core.meta();
        // In a cluster it may have been made at another node a moment ago: that is looked at with the points.
        if meta.database(&target.database).is_none() && !self.core.has_other_nodes() {
            return Err(WriteOutcome::DatabaseNotFound(target.database.clone()));
        }
        let authorized = authorize_write(&meta, &target.caller, &target.database);
        authorized.map_err(|text| WriteOutcome::Rejected(Refusal::new(403, text)))
    }

    async fn write(&self, request: WriteRequest) -> WriteOutcome {
        if self.core.holds_no_rows() {
            return WriteOutcome::Rejected(Refusal::new(400, NO_ROWS));
        }
        self.core.write(request).await
    }

    fn statement_text(&self, statement: &Statement, database: &str) -> String {
        query::qualified(&self.core.meta(), statement, database).to_string()
    }

    async fn query(&self, request: QueryRequest) -> Result<QueryPieces, Refusal> {
        if self.core.holds_no_rows() {
            return Err(Refusal::new(400, NO_ROWS));
        }
        let authorized = authorize_query(&self.core.meta(), &request.caller, &request.query, &request.database);
        authorized.map_err(|text| Refusal::new(403, text))?;
        let pieces = QueryPieces::start(self.core.clone(), request);
        let mut pieces = pieces.map_err(|text| Refusal::new(503, text))?;
        pieces.join_session().await.map_err(|(status, text)| Refusal::new(status, text))?;
        Ok(pieces)
    }

    async fn snapshot(&self, request: SnapshotRequest) -> Result<SnapshotOutcome, Refusal> {
        snapshot::answer(&self.core, request).await
    }

    async fn cluster(&self) -> Result<String, Refusal> {
        let Some(described) = self.core.describe_cluster().await else {
            return Err(Refusal::new(404, "this server is not a node of a cluster"));
        };
        described.map(|value| value.to_string()).map_err(|error| Refusal::new(503, error.to_string()))
    }

    async fn pool(&self) -> Result<String, Refusal> {
        self.core.describe_pool().await
    }

    async fn change_cluster(&self, order: ClusterOrder) -> Result<String, Refusal> {
        self.core.change_cluster(order).await
    }

    async fn entropy(&self, mends: bool) -> Result<String, Refusal> {
        if !self.core.has_other_nodes() {
            return Err(Refusal::new(404, "this server is not a node of a cluster"));
        }
        let examined = self.core.examine_cluster(mends).await;
        examined.map(|value| value.to_string()).map_err(|error| Refusal::new(503, error.to_string()))
    }

    async fn metrics_text(&self) -> String {
        figures::metrics_text(&self.figures().await)
    }

    async fn callers(&self) -> Callers {
        let mut all = Callers::new();
        for core in self.figures().await {
            for (caller, (writes, queries)) in core.http.callers {
                let counts = all.entry(caller).or_default();
                counts.0 += writes;
                counts.1 += queries;
            }
        }
        all
    }

    async fn debug_vars(&self) -> String {
        let clock = &self.core.context().clock;
        let kernel = self.core.context().kernel.fields();
        let kernel: serde_json::Map<_, _> =
            kernel.into_iter().map(|(name, value)| (name.into(), value.into())).collect();
        // A core that is stopping has nothing to show.
        let (statistics, figures) = statistics(&self.core).await.unwrap_or_default();
        let now_ns = clock.now_ns();
        let uptime_s = (now_ns - self.core.started_ns) / 1_000_000_000;
        let resident_bytes = figures.last().map_or(0, |core| core.process.resident_bytes);
        let mut members = vec![
            (
                "system".to_owned(),
                serde_json::json!({
                    "currentTime": TimestampText(now_ns).to_string(),
                    "started": TimestampText(self.core.started_ns).to_string(),
                    "uptime": uptime_s,
                    "cores": self.core.context().cores,
                }),
            ),
            ("cmdline".to_owned(), std::env::args().collect::<Vec<_>>().into()),
            ("memstats".to_owned(), serde_json::json!({ "Sys": resident_bytes })),
            ("kernel".to_owned(), kernel.into()),
            ("tidemill".to_owned(), figures::debug_vars(&figures)),
        ];
        // The statistic of that name has the same figures.
        for statistic in statistics.iter().filter(|statistic| statistic.name != "tidemill") {
            let tags: serde_json::Map<_, _> =
                statistic.tags.iter().map(|(key, value)| ((*key).to_owned(), value.as_str().into())).collect();
            let values = &statistic.values;
            let shown = serde_json::json!({ "name": statistic.name, "tags": tags, "values": values });
            members.push((statistic.key(), shown));
        }
        // One member a line, as upstream writes them.
        let lines = members.into_iter().map(|(key, value)| format!("{}: {value}", serde_json::Value::from(key)));
        format!("{{\n{}\n}}\n", lines.collect::<Vec<_>>().join(",\n"))
    }
}
