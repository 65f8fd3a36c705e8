//! The data role behind the HTTP surface.

use crate::{
    data::{DataCore, figures},
    query::QueryPieces,
};
use std::rc::Rc;
use tidemill_http::{QueryRequest, Refusal, Service, WriteOutcome, WriteRequest, WriteTarget};

/// Answers the requests of one core.
pub struct DataService {
    core: Rc<DataCore>,
    started_ns: i64,
}

impl DataService {
    pub fn new(core: Rc<DataCore>) -> DataService {
        let started_ns = core.context().clock.now_ns();
        DataService { core, started_ns }
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

    fn admit_write(&self, target: &WriteTarget) -> Result<(), WriteOutcome> {
        match self.core.meta().database(&target.database) {
            Some(_) => Ok(()),
            None => Err(WriteOutcome::DatabaseNotFound(target.database.clone())),
        }
    }

    async fn write(&self, request: WriteRequest) -> WriteOutcome {
        self.core.write(request).await
    }

    async fn query(&self, request: QueryRequest) -> Result<QueryPieces, Refusal> {
        QueryPieces::start(self.core.clone(), request).map_err(|text| Refusal::new(503, text))
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
