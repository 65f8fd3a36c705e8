//! Whoever asks: which holder, and what is made of its answer.

use super::{
    order::{ListText, Order, QuestionText, ScanText, What, encode},
    piece::Piece,
};
use crate::{
    data::{
        DataCore,
        message::CallError,
        question::{Finding, Question},
    },
    links::{CallFailure, RemoteRead, core_of},
    query::{
        StatementError,
        account::Account,
        error::Stopped,
        listing::{ListOrder, PageOrder, Run},
        scan::{PartChunk, PartError, PartOutlet, ScanCost, ScanRequest},
    },
};
use bytes::Bytes;
use futures_lite::future;
use std::{collections::BTreeMap, pin::pin, rc::Rc, time::Duration};
use tidemill_column::Strings;
use tidemill_query::PartDecoder;
use tidemill_raft::{GroupId, NodeId};
use tidemill_store::ReadCost;

/// A holder that has said nothing for so long is given up: it waits for its leader itself, but not for as long.
const FIRST_PIECE_WAIT: Duration = Duration::from_secs(10);
/// Between two looks at whether a query may go on while a holder works.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Why partitions elsewhere were not read.
#[derive(Clone, Debug, thiserror::Error)]
pub(super) enum ReadFailure {
    #[error(transparent)]
    Call(#[from] CallFailure),
    /// Another holder may know more.
    #[error("node {0}: {1}")]
    Unready(NodeId, String),
    #[error("{0}")]
    Failed(String),
    #[error("node {0} gave another answer than was asked for")]
    OtherAnswer(NodeId),
    #[error("node {0} has said nothing for {FIRST_PIECE_WAIT:?}")]
    Silent(NodeId),
    #[error("no other node holds partition {0}")]
    Nowhere(u32),
}

impl From<ReadFailure> for CallError {
    fn from(failure: ReadFailure) -> CallError {
        CallError::Unknown(failure.to_string())
    }
}

/// What the partitions that come to this core and are held elsewhere have to say.
///
/// # Errors
/// Some of them can be read nowhere.
pub(crate) async fn ask(core: &Rc<DataCore>, question: &Question, finding: &mut Finding) -> Result<(), CallError> {
    let mut joined = Vec::new();
    each(core, &What::Ask(QuestionText::of(question)), |node, piece| match piece {
        Piece::Found(found) => match found.finding(finding) {
            Some(found) => {
                joined.push(found);
                Ok(())
            }
            None => Err(ReadFailure::OtherAnswer(node)),
        },
        _ => Err(ReadFailure::OtherAnswer(node)),
    })
    .await?;
    joined.into_iter().for_each(|found| finding.join(found));
    Ok(())
}

/// The runs of a list that those partitions have.
///
/// # Errors
/// Some of them can be read nowhere, or the query holds more than it may.
pub(in crate::query) async fn list(core: &Rc<DataCore>, order: &ListOrder) -> Result<Vec<Run>, StatementError> {
    let mut images = Vec::new();
    let what = What::List(ListText::of(order));
    let taken = each(core, &what, |node, piece| match piece {
        Piece::Listed(runs) => {
            images.extend(runs);
            Ok(())
        }
        _ => Err(ReadFailure::OtherAnswer(node)),
    });
    taken.await.map_err(CallError::from)?;
    images.into_iter().map(|image| image.run(&order.query).map_err(StatementError::from)).collect()
}

/// What scanning those partitions would read.
///
/// # Errors
/// Some of them can be read nowhere.
pub(in crate::query) async fn cost(core: &Rc<DataCore>, request: &ScanRequest) -> Result<ScanCost, String> {
    let mut all = ScanCost::default();
    let Some(text) = text_of(request) else { return Ok(all) };
    let what = What::Cost(text);
    let added = each(core, &what, |node, piece| match piece {
        Piece::Cost { series, cached_values, files, blocks, block_bytes } => {
            all.add(&ScanCost { series, read: ReadCost { cached_values, files, blocks, block_bytes } });
            Ok(())
        }
        _ => Err(ReadFailure::OtherAnswer(node)),
    });
    added.await.map_err(|failure| failure.to_string())?;
    Ok(all)
}

/// The texts of a page of a list of one of those partitions.
///
/// # Errors
/// The partition can be read nowhere.
pub(crate) async fn texts(core: &Rc<DataCore>, page: &PageOrder) -> Result<Strings, CallError> {
    let partition = page.source.partition;
    let order = encode(&Order { partitions: vec![partition], what: What::texts(page) });
    let mut failure = ReadFailure::Nowhere(partition);
    for node in core.holders_elsewhere(GroupId(partition)) {
        match only_piece(core, node, GroupId(partition), order.clone()).await {
            Ok(Piece::Texts(texts)) if texts.is_sound() => return Ok(texts),
            Ok(_) => failure = ReadFailure::OtherAnswer(node),
            Err(error) => failure = error,
        }
        if matches!(failure, ReadFailure::Failed(_)) {
            break;
        }
    }
    Err(failure.into())
}

/// Runs the part of a scan of a partition that is held elsewhere; the outputs go through `outlet`.
pub(in crate::query) async fn scan(
    core: &Rc<DataCore>,
    request: &ScanRequest,
    partition: u32,
    outlet: &mut PartOutlet<'_>,
) -> Result<(), PartError> {
    let Some(text) = text_of(request) else { return Err(PartError::Elsewhere(partition)) };
    let (group, order) = (GroupId(partition), encode(&Order { partitions: vec![partition], what: What::Scan(text) }));
    let account = &request.account;
    let mut failure = ReadFailure::Nowhere(partition);
    for node in core.holders_elsewhere(group) {
        let begun = begin(core, account, node, group, order.clone()).await?;
        let (mut read, first) = match begun {
            Ok(begun) => begun,
            Err(ReadFailure::Failed(why)) => return Err(PartError::Said(why)),
            Err(error) => {
                failure = error;
                continue;
            }
        };
        // From here on the merge has some of this holder's outputs, which another one might cut in other pieces.
        let mut decoder = PartDecoder::new(request.scan.clone());
        let mut piece = first;
        loop {
            match piece {
                Piece::End { points, series } => {
                    account.add_points(points)?;
                    account.add_series(series)?;
                    return Ok(());
                }
                Piece::Outputs { points, series, bytes } => {
                    account.add_points(points)?;
                    account.add_series(series)?;
                    let mut charge = account.charge();
                    // The image and what is made of it.
                    charge.set(2 * bytes.len())?;
                    let outputs = decoder.decode(&bytes).map_err(|error| PartError::Said(error.to_string()))?;
                    charge.set(bytes.len())?;
                    drop(bytes);
                    outlet.send(PartChunk::Outputs(outputs, charge)).await?;
                }
                Piece::Failed(why) | Piece::Unready(why) => return Err(PartError::Said(why)),
                _ => return Err(PartError::Said(ReadFailure::OtherAnswer(node).to_string())),
            }
            let next = watched(core, account, next_piece(&mut read)).await?;
            piece = next.map_err(|failure| PartError::Said(format!("partition {partition}: {failure}")))?;
        }
    }
    Err(PartError::Said(failure.to_string()))
}

fn text_of(request: &ScanRequest) -> Option<ScanText> {
    let (recipe, number) = request.elsewhere.clone()?;
    Some(ScanText {
        recipe,
        number,
        database: request.database.0,
        groups: request.groups.iter().map(|group| group.0).collect(),
        query: request.account.query_id(),
    })
}

/// A scan that has begun at a holder, with its first piece.
async fn begin(
    core: &Rc<DataCore>,
    account: &Account,
    node: NodeId,
    group: GroupId,
    order: Bytes,
) -> Result<Result<(RemoteRead, Piece), ReadFailure>, Stopped> {
    let opening = async {
        let links = core.links.as_ref().ok_or(ReadFailure::Nowhere(group.0))?;
        let mut read = links.read(node, group, order).await?;
        match next_piece(&mut read).await? {
            Piece::Unready(why) => Err(ReadFailure::Unready(node, why)),
            Piece::Failed(why) => Err(ReadFailure::Failed(why)),
            piece => Ok((read, piece)),
        }
    };
    watched(core, account, opening).await
}

/// Waits for something of another node, unless the query is to stop.
async fn watched<T>(core: &DataCore, account: &Account, waiting: impl Future<Output = T>) -> Result<T, Stopped> {
    let mut waiting = pin!(waiting);
    loop {
        let look = async {
            core.context().sleep(LOOK_EVERY).await;
            None
        };
        if let Some(done) = future::or(async { Some((&mut waiting).await) }, look).await {
            return Ok(done);
        }
        if core.context().shutdown.is_requested() {
            return Err(Stopped::ShuttingDown);
        }
        account.check(core.context().clock.monotonic_ns())?;
    }
}

async fn next_piece(read: &mut RemoteRead) -> Result<Piece, ReadFailure> {
    let node = read.node();
    let bytes = read.next().await?.ok_or(ReadFailure::OtherAnswer(node))?;
    Piece::decode(&bytes).map_err(|_| ReadFailure::OtherAnswer(node))
}

/// Asks a holder something that has one piece for an answer.
async fn only_piece(core: &Rc<DataCore>, node: NodeId, group: GroupId, order: Bytes) -> Result<Piece, ReadFailure> {
    let links = core.links.as_ref().ok_or(ReadFailure::Nowhere(group.0))?;
    let asking = async {
        let mut read = links.read(node, group, order).await?;
        match next_piece(&mut read).await? {
            Piece::Unready(why) => Err(ReadFailure::Unready(node, why)),
            Piece::Failed(why) => Err(ReadFailure::Failed(why)),
            piece => Ok(piece),
        }
    };
    future::or(asking, async {
        core.context().sleep(FIRST_PIECE_WAIT).await;
        Err(ReadFailure::Silent(node))
    })
    .await
}

/// Asks about all partitions that come to this core and are held elsewhere: of each data group one holder, on all cores
/// that have any of them.
async fn each(
    core: &Rc<DataCore>,
    what: &What,
    mut take: impl FnMut(NodeId, Piece) -> Result<(), ReadFailure>,
) -> Result<(), ReadFailure> {
    let mut groups: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
    core.gated_elsewhere().for_each(|id| groups.entry(core.data_group_of(id)).or_default().push(id));
    let asked: Vec<_> = groups
        .into_values()
        .map(|partitions| {
            let (this, what) = (core.clone(), what.clone());
            let asking = async move { pieces_of(&this, &partitions, &what).await };
            core.context().spawn(core.context().queues.query, "ask elsewhere", asking)
        })
        .collect();
    for answer in asked {
        for (node, piece) in answer.await? {
            take(node, piece)?;
        }
    }
    Ok(())
}

/// The answers of one holder about partitions of one data group.
async fn pieces_of(core: &Rc<DataCore>, partitions: &[u32], what: &What) -> Result<Vec<(NodeId, Piece)>, ReadFailure> {
    let first = partitions.first().copied().unwrap_or_default();
    let mut failure = ReadFailure::Nowhere(first);
    'holders: for node in core.holders_elsewhere(GroupId(first)) {
        let Some(cores) = core.cores_of(node) else { continue };
        let mut by_core: BTreeMap<u16, Vec<u32>> = BTreeMap::new();
        partitions.iter().for_each(|id| by_core.entry(core_of(GroupId(*id), cores)).or_default().push(*id));
        let asked: Vec<_> = by_core
            .into_values()
            .map(|partitions| {
                let (this, group) = (core.clone(), GroupId(partitions[0]));
                let order = encode(&Order { partitions, what: what.clone() });
                let asking = async move { only_piece(&this, node, group, order).await };
                core.context().spawn(core.context().queues.query, "ask a core elsewhere", asking)
            })
            .collect();
        let mut pieces = Vec::new();
        for answer in asked {
            match answer.await {
                Ok(piece) => pieces.push((node, piece)),
                Err(error @ ReadFailure::Failed(_)) => return Err(error),
                Err(error) => {
                    failure = error;
                    continue 'holders;
                }
            }
        }
        return Ok(pieces);
    }
    Err(failure)
}
