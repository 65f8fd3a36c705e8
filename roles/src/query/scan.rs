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
        elsewhere::{self, Recipe},
        error::Stopped,
        series_cursors::{CursorStates, Next, SeriesCursors, Summaries},
    },
};
use std::{rc::Rc, sync::Arc};
use tidemill_line::series_key;
use tidemill_query::{BlockSummary, PartDemand, PartExec, PartOutput, QueryError, ScanPlan, ScanSeries};
use tidemill_reactor::{ChunkProducer, ChunkProducerEnd, RingDisk};
use tidemill_store::{CostCount, DatabaseId, Partition, ReadCost, ReadError, ScanField, SeriesId, ShardGroupId};

/// What a core is asked to scan.
pub struct ScanOrder {
    pub(super) what: ScanRequest,
    /// Partitions of the core, each with the way to the merge.
    pub(super) parts: Vec<(u32, ChunkProducerEnd<PartChunk>)>,
}

/// What a part sends.
pub enum PartChunk {
    /// In the order of the answer. The charge is the merge's once it has the chunk.
    Outputs(Vec<PartOutput>, Charge),
    /// All of it was sent.
    End,
    /// Nothing more comes, and the answer cannot be completed.
    Failed(String),
}

/// Series between two turns of other tasks.
const SERIES_PER_TURN: usize = 256;
/// Bytes read between two looks at what the part holds: looking costs a walk over its batches. Where memory is short,
/// this part of the budget of all queries: there may be a hundred parts at work.
const UNCHARGED_BYTES_MAX: usize = 1 << 20;
const UNCHARGED_PART: u64 = 1024;
/// Outputs that travel together. A group of one row is an output of its own, and a chunk costs about 100 us from core to
/// core: one by one, a thousand groups take a tenth of a second.
const CHUNK_OUTPUTS_MAX: usize = 256;
const CHUNK_BYTES_MAX: usize = 64 << 10;
/// Outputs do not wait longer for others to go with.
const CHUNK_WAIT_NS_MAX: u64 = 5_000_000;
/// What a series takes beside its key and tags.
const SERIES_OVERHEAD_BYTES: usize = 160;

/// Runs the parts of a scan that live here; the outputs go through the order's streams.
pub fn run_scan(core: Rc<DataCore>, order: ScanOrder) {
    for (partition, chunks) in order.parts {
        let part = Part { core: core.clone(), number: partition, request: order.what.clone() };
        let context = core.context();
        context.spawn(context.queues.query, "scan a partition", part.run(chunks)).detach();
    }
}

/// What the parts of a scan on this core would read. Nothing is read but the indexes of files.
///
/// # Errors
/// A file cannot be read, or the query was stopped.
pub async fn cost_of_scan(core: Rc<DataCore>, request: ScanRequest) -> Result<ScanCost, String> {
    let held = core.held();
    let mut all = elsewhere::cost(&core, &request).await?;
    all.add(&cost_of_partitions(core, request, &held).await?);
    Ok(all)
}

/// As [`cost_of_scan`], of these partitions, which this core holds.
pub(super) async fn cost_of_partitions(
    core: Rc<DataCore>,
    request: ScanRequest,
    partitions: &[u32],
) -> Result<ScanCost, String> {
    let mut all = ScanCost::default();
    for partition in partitions {
        let part = Part { core: core.clone(), number: *partition, request: request.clone() };
        all.add(&part.cost().await.map_err(|error| error.to_string())?);
    }
    Ok(all)
}

/// What is to be scanned; a core may be asked what that would cost.
#[derive(Clone)]
pub struct ScanRequest {
    pub(super) scan: Arc<ScanPlan>,
    pub(super) database: DatabaseId,
    /// In ascending time.
    pub(super) groups: Arc<[ShardGroupId]>,
    pub(super) account: Arc<Account>,
    /// For partitions that other nodes hold: how they come to the scan, and its place among those of the plan.
    pub(super) elsewhere: Option<(Arc<Recipe>, u32)>,
}

/// What a scan would read.
#[derive(Clone, Debug, Default)]
pub struct ScanCost {
    pub series: u64,
    pub read: ReadCost,
}

impl ScanCost {
    pub fn add(&mut self, other: &ScanCost) {
        self.series += other.series;
        self.read.add(&other.read);
    }
}

struct Part {
    core: Rc<DataCore>,
    number: u32,
    request: ScanRequest,
}

/// Why a part does not come to its end.
#[derive(Debug, thiserror::Error)]
pub(super) enum PartError {
    #[error(transparent)]
    Stopped(#[from] Stopped),
    #[error(transparent)]
    Query(#[from] QueryError),
    #[error(transparent)]
    Read(#[from] ReadError),
    /// What another node said.
    #[error("{0}")]
    Said(String),
    #[error("partition {0} is not on the core that was asked to scan it")]
    Elsewhere(u32),
}

/// The way to the merge. It is only walked once there is something to send: until then both ends work.
pub(super) struct PartOutlet<'a> {
    core: &'a DataCore,
    account: &'a Account,
    end: Option<ChunkProducerEnd<PartChunk>>,
    producer: Option<ChunkProducer<PartChunk>>,
    /// Outputs that gather for the next chunk, with their charge and the time of the first.
    gathered: Vec<PartOutput>,
    gathered_bytes: usize,
    gathered_since_ns: u64,
    charge: Charge,
}

impl<'a> PartOutlet<'a> {
    fn new(core: &'a DataCore, account: &'a Account, end: ChunkProducerEnd<PartChunk>) -> PartOutlet<'a> {
        PartOutlet {
            core,
            account,
            end: Some(end),
            producer: None,
            gathered: Vec::new(),
            gathered_bytes: 0,
            gathered_since_ns: 0,
            charge: account.charge(),
        }
    }

    /// Takes an output; sends what has gathered if that is enough.
    async fn push(&mut self, output: PartOutput) -> Result<(), Stopped> {
        if self.gathered.is_empty() {
            self.gathered_since_ns = self.core.context().clock.monotonic_ns();
        }
        self.gathered_bytes += output.byte_size();
        self.gathered.push(output);
        self.charge.set(self.gathered_bytes)?;
        if self.gathered.len() >= CHUNK_OUTPUTS_MAX || self.gathered_bytes >= CHUNK_BYTES_MAX {
            self.flush().await?;
        }
        Ok(())
    }

    /// Sends what has gathered for long enough.
    async fn flush_old(&mut self, now_ns: u64) -> Result<(), Stopped> {
        if !self.gathered.is_empty() && now_ns.saturating_sub(self.gathered_since_ns) > CHUNK_WAIT_NS_MAX {
            self.flush().await?;
        }
        Ok(())
    }

    async fn flush(&mut self) -> Result<(), Stopped> {
        if self.gathered.is_empty() {
            return Ok(());
        }
        let charge = std::mem::replace(&mut self.charge, self.account.charge());
        self.gathered_bytes = 0;
        let outputs = std::mem::take(&mut self.gathered);
        self.send(PartChunk::Outputs(outputs, charge)).await
    }

    pub(super) async fn send(&mut self, chunk: PartChunk) -> Result<(), Stopped> {
        if let Some(end) = self.end.take() {
            self.producer = Some(end.arrive(&self.core.context().metrics).await);
        }
        match &self.producer {
            Some(producer) => producer.send(chunk).await.map_err(|_| Stopped::Abandoned),
            None => Err(Stopped::Abandoned),
        }
    }
}

impl Part {
    async fn run(self, chunks: ChunkProducerEnd<PartChunk>) {
        let mut outlet = PartOutlet::new(&self.core, &self.request.account, chunks);
        let driven = if self.core.is_held(self.number) {
            self.drive(&mut outlet).await
        } else {
            elsewhere::scan(&self.core, &self.request, self.number, &mut outlet).await
        };
        let result = match driven {
            Ok(()) => outlet.flush().await.map_err(PartError::Stopped),
            failed => failed,
        };
        let last = match result {
            Ok(()) => PartChunk::End,
            Err(PartError::Stopped(Stopped::Abandoned)) => return,
            Err(error) => PartChunk::Failed(error.to_string()),
        };
        // A consumer that has gone does not mind.
        let _ = outlet.send(last).await;
    }

    async fn drive(&self, outlet: &mut PartOutlet<'_>) -> Result<(), PartError> {
        let partition = self.core.partitions().get(&self.number).ok_or(PartError::Elsewhere(self.number))?.clone();
        let view = partition.view(&self.request.groups);
        let mut series_charge = self.request.account.charge();
        let (ids, series) = self.series(&partition, &mut series_charge).await?;
        let fields = self.fields(&partition);
        let mut cursors = SeriesCursors {
            partition: &*partition,
            view,
            database: self.request.database,
            fields,
            types: self.request.scan.fields().iter().map(|(_, field_type)| *field_type).collect(),
            range: self.request.scan.time_range(),
            descending: self.request.scan.descending(),
            state: CursorStates::new(ids.len()),
            ids,
        };
        let mut part = PartExec::new(self.request.scan.clone(), series);
        let window = |time| self.request.scan.window_bounds(time);
        let mut charge = self.request.account.charge();
        let (mut uncharged_bytes, mut charged_cursor_bytes) = (0, 0);
        let uncharged_bytes_max = self.core.query_memory().bytes_max() / UNCHARGED_PART;
        let uncharged_bytes_max = (uncharged_bytes_max as usize).min(UNCHARGED_BYTES_MAX);
        loop {
            outlet.flush_old(self.check()?).await?;
            match part.poll() {
                PartDemand::Points(series) => {
                    let accepts = part.accepts_statistics(series);
                    let mut take = |blocks: &[BlockSummary]| part.supply_statistics(series, blocks);
                    let summaries = accepts.then_some(Summaries { window: &window, take: &mut take });
                    let (next, summarised) = cursors.next(series, summaries).await?;
                    self.request.account.add_points(summarised)?;
                    match next {
                        Next::More => {}
                        Next::End => part.supply(series, None),
                        Next::Rows(points) => {
                            self.request.account.add_points(points.len() as u64)?;
                            uncharged_bytes += points.byte_size();
                            part.supply(series, Some(points));
                        }
                    }
                    let cursor_bytes = cursors.state.bytes_held();
                    if uncharged_bytes + cursor_bytes.saturating_sub(charged_cursor_bytes) > uncharged_bytes_max {
                        (uncharged_bytes, charged_cursor_bytes) = (0, cursor_bytes);
                        charge.set(part.bytes_held() + cursor_bytes)?;
                    }
                }
                PartDemand::Emit(output) => {
                    cursors.state.note_output();
                    outlet.push(output).await?;
                }
                PartDemand::Done => return Ok(()),
            }
            self.core.context().yield_now_if_needed().await;
        }
    }

    async fn cost(&self) -> Result<ScanCost, PartError> {
        let partition = self.core.partitions().get(&self.number).ok_or(PartError::Elsewhere(self.number))?.clone();
        let view = partition.view(&self.request.groups);
        let mut series_charge = self.request.account.charge();
        let (ids, series) = self.series(&partition, &mut series_charge).await?;
        drop(series);
        let fields = self.fields(&partition);
        let mut count = CostCount::default();
        for id in &ids {
            let range = self.request.scan.time_range();
            count.add(&partition.cursor(&view, self.request.database, *id, &fields, range, false)).await?;
            self.check()?;
            self.core.context().yield_now_if_needed().await;
        }
        Ok(ScanCost { series: ids.len() as u64, read: count.total() })
    }

    /// The series that may hold rows of interest, in the order of their ids.
    async fn series(
        &self,
        partition: &Partition<RingDisk>,
        charge: &mut Charge,
    ) -> Result<(Vec<SeriesId>, Vec<ScanSeries>), PartError> {
        let name = self.request.scan.measurement().as_bytes();
        let selected: Vec<SeriesId> = match partition.index(self.request.database) {
            Some(index) => {
                index.select(name, &predicate(self.request.scan.tag_filter())).iter().map(SeriesId).collect()
            }
            None => Vec::new(),
        };
        self.request.account.add_series(selected.len() as u64)?;
        let mut series = Vec::with_capacity(selected.len());
        let mut bytes = 0;
        for ids in selected.chunks(SERIES_PER_TURN) {
            if let Some(index) = partition.index(self.request.database) {
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

    fn fields(&self, partition: &Partition<RingDisk>) -> Rc<[ScanField]> {
        let index = partition.index(self.request.database);
        let measurement = self.request.scan.measurement().as_bytes();
        let field = |name: &str| match &index {
            Some(index) => ScanField::of(index, measurement, name.as_bytes()),
            None => ScanField { name: name.as_bytes().into(), ids: Vec::new() },
        };
        self.request.scan.fields().iter().map(|(name, _)| field(name)).collect()
    }

    /// The monotonic time, if the part may go on.
    fn check(&self) -> Result<u64, Stopped> {
        let context = self.core.context();
        if context.shutdown.is_requested() {
            return Err(Stopped::ShuttingDown);
        }
        let now_ns = context.clock.monotonic_ns();
        self.request.account.check(now_ns).map(|()| now_ns)
    }
}
