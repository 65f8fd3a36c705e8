//! A scan's parts on the core that owns the partitions.
//!
//! Owns: the tasks that read series and send outputs to the merge. One task a partition, in the query queue.
//! Invariants: each part ends with [`PartChunk::End`] or [`PartChunk::Failed`], so that a stream which just stops is
//! noticed (I9); the partition's view is pinned before the first point is read, so that no move of data is seen twice
//! or not at all (I8); a part stops at its next batch once its consumer has gone.
//! Knows nothing of the merge and of the statement's text.

use crate::{
    data::{
        DataCore,
        question::{lossy, predicate},
    },
    query::{
        account::{Account, Charge},
        error::Stopped,
        series_cursors::{CursorStates, SeriesCursors},
    },
};
use std::{rc::Rc, sync::Arc};
use tidemill_line::series_key;
use tidemill_query::{PartDemand, PartExec, PartOutput, QueryError, ScanPlan, ScanSeries};
use tidemill_reactor::{ChunkProducer, ChunkProducerEnd, RingDisk};
use tidemill_store::{DatabaseId, Partition, ReadError, ScanField, SeriesId, ShardGroupId};

/// What a core is asked to scan.
pub struct ScanOrder {
    pub(super) scan: Arc<ScanPlan>,
    pub(super) database: DatabaseId,
    /// In ascending time.
    pub(super) groups: Arc<[ShardGroupId]>,
    /// Partitions of the core, each with the way to the merge.
    pub(super) parts: Vec<(u32, ChunkProducerEnd<PartChunk>)>,
    pub(super) account: Arc<Account>,
}

/// What a part sends.
pub enum PartChunk {
    /// In the order of the answer. The charge is the merge's once it has the chunk.
    Output(PartOutput, Charge),
    /// All of it was sent.
    End,
    /// Nothing more comes, and the answer cannot be completed.
    Failed(String),
}

/// Series between two turns of other tasks.
const SERIES_PER_TURN: usize = 256;
/// Bytes read between two looks at what the part holds: looking costs a walk over its batches.
const UNCHARGED_BYTES_MAX: usize = 1 << 20;
/// What a series takes beside its key and tags.
const SERIES_OVERHEAD_BYTES: usize = 160;

/// Runs the parts of a scan that live here; the outputs go through the order's streams.
pub fn run_scan(core: Rc<DataCore>, order: ScanOrder) {
    for (partition, chunks) in order.parts {
        let part = Part {
            core: core.clone(),
            number: partition,
            scan: order.scan.clone(),
            database: order.database,
            groups: order.groups.clone(),
            account: order.account.clone(),
        };
        let context = core.context();
        context.spawn(context.queues.query, "scan a partition", part.run(chunks)).detach();
    }
}

struct Part {
    core: Rc<DataCore>,
    number: u32,
    scan: Arc<ScanPlan>,
    database: DatabaseId,
    groups: Arc<[ShardGroupId]>,
    account: Arc<Account>,
}

/// Why a part does not come to its end.
#[derive(Debug, thiserror::Error)]
enum PartError {
    #[error(transparent)]
    Stopped(#[from] Stopped),
    #[error(transparent)]
    Query(#[from] QueryError),
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error("partition {0} is not on the core that was asked to scan it")]
    Elsewhere(u32),
}

/// The way to the merge. It is only walked once there is something to send: until then both ends work.
enum Outlet {
    Away(Option<ChunkProducerEnd<PartChunk>>),
    Here(ChunkProducer<PartChunk>),
}

impl Part {
    async fn run(self, chunks: ChunkProducerEnd<PartChunk>) {
        let mut outlet = Outlet::Away(Some(chunks));
        let last = match self.drive(&mut outlet).await {
            Ok(()) => PartChunk::End,
            Err(PartError::Stopped(Stopped::Abandoned)) => return,
            Err(error) => PartChunk::Failed(error.to_string()),
        };
        // A consumer that has gone does not mind.
        let _ = self.send(&mut outlet, last).await;
    }

    async fn drive(&self, outlet: &mut Outlet) -> Result<(), PartError> {
        let partition = self.core.partitions().get(&self.number).ok_or(PartError::Elsewhere(self.number))?.clone();
        let view = partition.view(&self.groups);
        let mut series_charge = self.account.charge();
        let (ids, series) = self.series(&partition, &mut series_charge).await?;
        let fields = self.fields(&partition);
        let mut cursors = SeriesCursors {
            partition: &*partition,
            view,
            database: self.database,
            fields,
            range: self.scan.time_range(),
            descending: self.scan.descending(),
            state: CursorStates::new(ids.len()),
            ids,
        };
        let mut part = PartExec::new(self.scan.clone(), series);
        let mut charge = self.account.charge();
        let mut uncharged_bytes = 0;
        loop {
            self.check()?;
            match part.poll() {
                PartDemand::Points(series) => {
                    let points = cursors.next(series).await?;
                    if let Some(points) = &points {
                        self.account.add_points(points.len() as u64)?;
                        uncharged_bytes += points.byte_size();
                    }
                    part.supply(series, points);
                    if uncharged_bytes > UNCHARGED_BYTES_MAX {
                        uncharged_bytes = 0;
                        charge.set(part.bytes_held())?;
                    }
                }
                PartDemand::Emit(output) => {
                    cursors.state.note_output();
                    let mut sent = self.account.charge();
                    sent.set(output.byte_size())?;
                    self.send(outlet, PartChunk::Output(output, sent)).await?;
                }
                PartDemand::Done => return Ok(()),
            }
            self.core.context().yield_now_if_needed().await;
        }
    }

    /// The series that may hold rows of interest, in the order of their ids.
    async fn series(
        &self,
        partition: &Partition<RingDisk>,
        charge: &mut Charge,
    ) -> Result<(Vec<SeriesId>, Vec<ScanSeries>), PartError> {
        let name = self.scan.measurement().as_bytes();
        let selected: Vec<SeriesId> = match partition.index(self.database) {
            Some(index) => index.select(name, &predicate(self.scan.tag_filter())).iter().map(SeriesId).collect(),
            None => Vec::new(),
        };
        self.account.add_series(selected.len() as u64)?;
        let mut series = Vec::with_capacity(selected.len());
        let mut bytes = 0;
        for ids in selected.chunks(SERIES_PER_TURN) {
            if let Some(index) = partition.index(self.database) {
                for id in ids {
                    let key = index.key(*id);
                    let tags = series_key::tags(key).map(|(tag, value)| (lossy(&tag), lossy(&value))).collect();
                    bytes += 3 * key.len() + SERIES_OVERHEAD_BYTES;
                    series.push(ScanSeries { key: key.into(), tags });
                }
            }
            charge.set(bytes)?;
            self.check()?;
            self.core.context().yield_now_if_needed().await;
        }
        // The database was dropped in between: nothing of it is left to scan.
        let ids = if series.len() == selected.len() { selected } else { Vec::new() };
        series.truncate(ids.len());
        Ok((ids, series))
    }

    fn fields(&self, partition: &Partition<RingDisk>) -> Vec<ScanField> {
        let index = partition.index(self.database);
        let measurement = self.scan.measurement().as_bytes();
        let ids = |name: &[u8]| index.as_ref().map_or_else(Vec::new, |index| index.field_ids(measurement, name));
        let field = |name: &String| ScanField { name: name.as_bytes().into(), ids: ids(name.as_bytes()) };
        self.scan.fields().iter().map(|(name, _)| field(name)).collect()
    }

    fn check(&self) -> Result<(), Stopped> {
        let context = self.core.context();
        if context.shutdown.is_requested() {
            return Err(Stopped::ShuttingDown);
        }
        self.account.check(context.clock.monotonic_ns())
    }

    async fn send(&self, outlet: &mut Outlet, chunk: PartChunk) -> Result<(), Stopped> {
        if let Outlet::Away(end) = outlet {
            let Some(end) = end.take() else { return Err(Stopped::Abandoned) };
            *outlet = Outlet::Here(end.arrive(&self.core.context().metrics).await);
        }
        match outlet {
            Outlet::Here(producer) => producer.send(chunk).await.map_err(|_| Stopped::Abandoned),
            Outlet::Away(_) => Err(Stopped::Abandoned),
        }
    }
}
