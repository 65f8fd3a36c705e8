//! The data role behind the HTTP surface.

use crate::{
    access::{Gate, Offload, authorize_query, authorize_write},
    backup::snapshot,
    data::{DataCore, figures},
    query::QueryPieces,
};
use std::{net::IpAddr, rc::Rc};
use tidemill_http::{
    Caller, Credentials, QueryRequest, Refusal, Service, SnapshotOutcome, SnapshotRequest, WriteOutcome, WriteRequest,
    WriteTarget,
};

/// Answers the requests of one core.
pub struct DataService {
    core: Rc<DataCore>,
    gate: Gate,
    started_ns: i64,
}

impl Offload for DataCore {
    async fn offload(&self, slow: impl FnOnce() -> bool + Send + 'static) -> bool {
        self.context().offload(slow).await
    }
}

impl DataService {
    pub fn new(core: Rc<DataCore>) -> DataService {
        let started_ns = core.context().clock.now_ns();
        let gate = Gate::new(core.access_options().clone());
        DataService { core, gate, started_ns }
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
        if meta.database(&target.database).is_none() {
            return Err(WriteOutcome::DatabaseNotFound(target.database.clone()));
        }
        let authorized = authorize_write(&meta, &target.caller, &target.database);
        authorized.map_err(|text| WriteOutcome::Rejected(Refusal::new(403, text)))
    }

    async fn write(&self, request: WriteRequest) -> WriteOutcome {
        self.core.write(request).await
    }

    async fn query(&self, request: QueryRequest) -> Result<QueryPieces, Refusal> {
        let authorized = authorize_query(&self.core.meta(), &request.caller, &request.query, &request.database);
        authorized.map_err(|text| Refusal::new(403, text))?;
        QueryPieces::start(self.core.clone(), request).map_err(|text| Refusal::new(503, text))
    }

    async fn snapshot(&self, request: SnapshotRequest) -> Result<SnapshotOutcome, Refusal> {
        snapshot::answer(&self.core, request).await
    }

    async fn metrics_text(&self) -> String {
        figures::metrics_text(&self.figures().await)
    }

    async fn debug_vars(&self) -> String {
        let clock = &self.core.context().clock;
        let kernel = self.core.context().kernel.fields();
        let kernel: serde_json::Map<_, _> =
            kernel.into_iter().map(|(name, value)| (name.into(), value.into())).collect();
        let mut vars = serde_json::json!({
            "system": {
                "started": self.started_ns / 1_000_000_000,
                "uptime": (clock.now_ns() - self.started_ns) / 1_000_000_000,
                "cores": self.core.context().cores,
            },
            "cmdline": std::env::args().collect::<Vec<_>>(),
            "kernel": kernel,
        });
        vars["tidemill"] = figures::debug_vars(&self.figures().await);
        format!("{vars:#}\n")
    }
}
