//! Whoever holds the partitions that another node asks about.

use super::{
    order::{ListText, Order, OrderError, QuestionText, ScanText, What, encode},
    piece::{Piece, RunImage},
};
use crate::{
    data::DataCore,
    links::{ReadOutlet, Unwanted},
    query::{
        account::{Account, RunningQuery},
        listing::{self, ListOrder, PageOrder},
        scan::{self, PartChunk, ScanOrder, ScanRequest},
    },
};
use bytes::Bytes;
use futures_lite::future;
use std::{rc::Rc, sync::Arc};
use tidemill_query::PartEncoder;
use tidemill_raft::GroupId;
use tidemill_reactor::chunk_stream;
use tidemill_store::{DatabaseId, ShardGroupId};

/// Chunks of a part that may wait to be sent.
const WINDOW: usize = 2;

/// Why there is no answer.
enum Refusal {
    Unwanted,
    Unready(String),
    Failed(String),
}

impl From<Unwanted> for Refusal {
    fn from(_: Unwanted) -> Refusal {
        Refusal::Unwanted
    }
}

impl From<OrderError> for Refusal {
    fn from(error: OrderError) -> Refusal {
        Refusal::Failed(error.to_string())
    }
}

/// Answers what another node asks about partitions of this core.
pub(crate) async fn serve(core: Rc<DataCore>, order: Bytes, outlet: ReadOutlet) {
    let answering = async {
        let last = match answer(&core, &order, &outlet).await {
            Ok(()) => return true,
            Err(Refusal::Unwanted) => return false,
            Err(Refusal::Unready(why)) => Piece::Unready(why),
            Err(Refusal::Failed(why)) => Piece::Failed(why),
        };
        outlet.send(encode(&last)).await.is_ok()
    };
    let is_answered = future::or(answering, async {
        outlet.given_up().await;
        false
    })
    .await;
    if is_answered {
        outlet.end().await;
    }
}

async fn answer(core: &Rc<DataCore>, order: &Bytes, outlet: &ReadOutlet) -> Result<(), Refusal> {
    let Order { partitions, what } = Order::decode(order)?;
    catch_up(core, &partitions).await?;
    let piece = match what {
        What::Scan(text) => {
            let [partition] = partitions[..] else { return Err(Refusal::Failed("a scan is of one partition".into())) };
            return send_scan(core, partition, &text, outlet).await;
        }
        What::Cost(text) => {
            let request = request_of(core, &text)?;
            let cost = scan::cost_of_partitions(core.clone(), request, &partitions).await;
            Piece::of_cost(&cost.map_err(Refusal::Failed)?)
        }
        What::Ask(text) => Piece::Found(found(core, &partitions, &text).await?),
        What::List(text) => Piece::Listed(listed(core, &partitions, &text).await?),
        What::Texts { source, ids } => {
            let order = PageOrder { source: source.source(), ids };
            Piece::Texts(listing::texts(core, &order))
        }
    };
    Ok(outlet.send(encode(&piece)).await?)
}

/// Returns once the partitions here show what was acknowledged before they were asked about.
async fn catch_up(core: &Rc<DataCore>, partitions: &[u32]) -> Result<(), Refusal> {
    let reads: Vec<_> = partitions
        .iter()
        .map(|id| {
            let (this, id) = (core.clone(), *id);
            let read = async move { this.catch_up_partition(GroupId(id)).await };
            core.context().spawn(core.context().queues.latency, "catch up for another node", read)
        })
        .collect();
    for read in reads {
        read.await.map_err(|error| Refusal::Unready(error.to_string()))?;
    }
    Ok(())
}

async fn found(
    core: &DataCore,
    partitions: &[u32],
    text: &QuestionText,
) -> Result<super::piece::FindingImage, Refusal> {
    let question = text.question()?;
    let mut finding = question.empty();
    for id in partitions {
        if let Some(partition) = core.partitions().get(id) {
            question.ask(partition, &mut finding);
        }
        core.context().yield_now_if_needed().await;
    }
    Ok(finding.into())
}

async fn listed(core: &Rc<DataCore>, partitions: &[u32], text: &ListText) -> Result<Vec<RunImage>, Refusal> {
    let (database, wanted, listed, rows_max) = text.parts()?;
    let order = ListOrder { database, wanted, listed, rows_max, query: query_of(core, text.query) };
    let runs = listing::gather_of(core.clone(), Arc::new(order), partitions.to_vec()).await;
    Ok(runs.map_err(|error| Refusal::Failed(error.to_string()))?.into_iter().map(RunImage::of).collect())
}

async fn send_scan(core: &Rc<DataCore>, partition: u32, text: &ScanText, outlet: &ReadOutlet) -> Result<(), Refusal> {
    let request = request_of(core, text)?;
    let account = Abandon(request.account.clone());
    let (producer, consumer) = chunk_stream(WINDOW);
    scan::run_scan(core.clone(), ScanOrder { what: request, parts: vec![(partition, producer)] });
    let chunks = consumer.arrive().await;
    let mut encoder = PartEncoder::default();
    let mut told = (0, 0);
    loop {
        let chunk = match chunks.next().await {
            // Between finding nothing and finding the producer gone, its last chunk may have come.
            None => chunks.next().await,
            chunk => chunk,
        };
        let counted = account.0.counted();
        let (points, series) = (counted.0 - told.0, counted.1 - told.1);
        told = counted;
        match chunk {
            Some(PartChunk::Outputs(outputs, _charge)) => {
                let bytes = encoder.encode(outputs);
                outlet.send(encode(&Piece::Outputs { points, series, bytes })).await?;
            }
            Some(PartChunk::End) => return Ok(outlet.send(encode(&Piece::End { points, series })).await?),
            Some(PartChunk::Failed(why)) => return Err(Refusal::Failed(why)),
            None => return Err(Refusal::Failed(format!("partition {partition} ended its part without saying so"))),
        }
        core.context().yield_now_if_needed().await;
    }
}

/// A part for which nobody waits any more stops at its next batch.
struct Abandon(Arc<Account>);

impl Drop for Abandon {
    fn drop(&mut self) {
        self.0.abandon();
    }
}

fn query_of(core: &DataCore, id: u64) -> Arc<RunningQuery> {
    let now_ns = core.context().clock.monotonic_ns();
    Arc::new(RunningQuery::of_another_node(id, now_ns, core.query_limits(), core.query_memory()))
}

fn request_of(core: &DataCore, text: &ScanText) -> Result<ScanRequest, Refusal> {
    let plan = text.recipe.plan()?;
    let scans = plan.all_scans();
    let scan = scans.get(text.number as usize).ok_or_else(|| Refusal::Failed("a plan has no such scan".into()))?;
    Ok(ScanRequest {
        scan: Arc::clone(scan),
        database: DatabaseId(text.database),
        groups: text.groups.iter().map(|group| ShardGroupId(*group)).collect(),
        account: Arc::new(Account::new(query_of(core, text.query), text.recipe.limits)),
        elsewhere: None,
    })
}
