//! Getting a file from those who have it.
//!
//! ```text
//! chunks missing ─ runs of 16 ─> worker of a source ─ range of the file ─> fill, hash, write, note
//!        ^                              │
//!        └── what did not arrive ───────┘ the source failed or stalled
//! ```
//!
//! Owns: which source is asked for which chunks. Invariants: each chunk is asked for by one worker at a time; a source that
//! fails gives its chunks back; a whole whose hash is wrong is fetched again from one source after the other, because one
//! of them has other bytes than it should.
//! Knows nothing of who ordered the file.

use super::part::{Part, discard};
use crate::{
    links::POOL_FILES,
    pool::slave::files::name_of,
    replica::{FilePart, LocalFuture, Sources},
};
use futures_lite::future;
use std::{
    cell::{Cell, RefCell},
    collections::{BTreeMap, BTreeSet, VecDeque},
    future::poll_fn,
    io,
    ops::Range,
    task::Poll,
};
use tidemill_disk::{Disk, Notify, WriteBehind};
use tidemill_pool::{CHUNK_BYTES, ChunkValue, FileId, Source, chunk_value};
use tidemill_raft::{GroupId, NodeId};

/// Chunks that a source is asked for at a time: so long that the question does not count, so short that all sources end
/// about together.
const RUN_CHUNKS: u32 = 16;
/// Writes of one worker at a time, while the next chunk is filled.
const WRITES_MAX: usize = 2;
/// Workers of one file. Each holds up to four chunks.
const WORKERS_MAX: usize = 4;
/// Workers of a source, if there are no others: one asks while the other's last chunks arrive.
const WORKERS_ALONE: usize = 2;
/// Failures one behind the other after which a source is not asked any more for this file.
const FAILURES_MAX: u32 = 3;

/// The way to the sources.
pub struct Way {
    pub sources: Box<dyn Sources>,
    /// This node, which is no source.
    pub own: NodeId,
    /// Resolves when a source has said nothing for too long.
    pub stall: Box<dyn Fn() -> LocalFuture<'static, ()>>,
    /// Before a source that failed is asked again.
    pub pause: Box<dyn Fn() -> LocalFuture<'static, ()>>,
}

/// Why a file is not here.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// Nothing of the file is kept.
    #[error("no room: {0}")]
    NoRoom(io::Error),
    #[error("this slave's disk: {0}")]
    Disk(#[from] io::Error),
    #[error("no source gives all of it: {0}")]
    Sources(String),
    #[error("none of the sources has these bytes: {0}")]
    Wrong(String),
}

/// Where to ask for a file.
#[derive(Clone, Debug)]
struct Origin {
    node: NodeId,
    group: GroupId,
    name: String,
}

/// Gets a file and gives it its name, durably. `arrived` tells how many bytes are here.
pub async fn fetch<D: Disk>(
    disk: &D,
    (file, size): (FileId, u64),
    sources: &[Source],
    way: &Way,
    arrived: &Cell<u64>,
) -> Result<(), FetchError> {
    let fetched = fetch_part(disk, (file, size), sources, way, arrived).await;
    match fetched {
        Err(FetchError::Disk(error)) if error.kind() == io::ErrorKind::StorageFull => {
            // What is here of it would keep others out that have room to be whole.
            discard(disk, &file).await?;
            Err(FetchError::NoRoom(error))
        }
        Err(FetchError::Wrong(why)) => {
            discard(disk, &file).await?;
            Err(FetchError::Wrong(why))
        }
        other => other,
    }
}

async fn fetch_part<D: Disk>(
    disk: &D,
    (file, size): (FileId, u64),
    sources: &[Source],
    way: &Way,
    arrived: &Cell<u64>,
) -> Result<(), FetchError> {
    let origins = origins(&file, sources, way.own);
    if size == 0 || origins.is_empty() {
        return Err(FetchError::Sources(format!("a file of {size} bytes, {} sources", origins.len())));
    }
    let part = Part::open(disk.clone(), file, size).await?;
    arrived.set(part.arrived_bytes());
    gather(&part, &origins, way, arrived).await?;
    if !part.is_right() {
        fetch_singly(&part, &origins, way, arrived).await?;
    }
    part.finish().await?;
    Ok(())
}

/// The whole is not what it should be: what one source alone gives may be.
async fn fetch_singly<D: Disk>(
    part: &Part<D>,
    origins: &[Origin],
    way: &Way,
    arrived: &Cell<u64>,
) -> Result<(), FetchError> {
    let file = part.journal.borrow().file();
    tracing::warn!(%file, "what came from the sources together is not this file: they are asked one by one");
    let mut failures = Vec::new();
    for origin in origins {
        let count = part.journal.borrow().count();
        (0..count).for_each(|number| part.forget(number));
        match gather(part, std::slice::from_ref(origin), way, arrived).await {
            Ok(()) if part.is_right() => return Ok(()),
            Ok(()) => {
                tracing::error!(%file, node = origin.node.0, "a node has other bytes under the name of this file");
                failures.push(format!("node {} has other bytes", origin.node));
            }
            Err(FetchError::Sources(why)) => failures.push(why),
            Err(error) => return Err(error),
        }
    }
    Err(FetchError::Wrong(failures.join("; ")))
}

fn origins(file: &FileId, sources: &[Source], own: NodeId) -> Vec<Origin> {
    let origin = |source: &Source| match source {
        Source::Slave(node) => Origin { node: NodeId(*node), group: POOL_FILES, name: name_of(file) },
        Source::Data { node, partition, name } => {
            Origin { node: NodeId(*node), group: GroupId(*partition), name: name.clone() }
        }
    };
    sources.iter().map(origin).filter(|origin| origin.node != own).collect()
}

/// What the workers of one file share.
struct Gathering<'a, D: Disk> {
    part: &'a Part<D>,
    way: &'a Way,
    arrived: &'a Cell<u64>,
    under_way: RefCell<BTreeSet<u32>>,
    /// A run has ended, well or not.
    ended: Notify,
    broken: RefCell<Option<io::Error>>,
    /// The last one of each node.
    failures: RefCell<BTreeMap<NodeId, String>>,
}

enum RunError {
    Source(String),
    Disk(io::Error),
}

/// Gets the chunks that are missing.
async fn gather<D: Disk>(part: &Part<D>, origins: &[Origin], way: &Way, arrived: &Cell<u64>) -> Result<(), FetchError> {
    let gathering = Gathering {
        part,
        way,
        arrived,
        under_way: RefCell::default(),
        ended: Notify::new(),
        broken: RefCell::default(),
        failures: RefCell::default(),
    };
    let workers = if origins.len() == 1 { WORKERS_ALONE } else { origins.len().min(WORKERS_MAX) };
    // More sources than workers: who fails is followed by the next.
    let next = Cell::new(0);
    let work = || async {
        // A source alone has two workers.
        while let Some(origin) = origins.get(next.replace(next.get() + 1) % origins.len().max(1)) {
            gathering.work(origin).await;
            let is_last = next.get() >= origins.len();
            if is_last || gathering.is_over() {
                return;
            }
        }
    };
    all((0..workers).map(|_| Box::pin(work()) as LocalFuture<'_, ()>).collect()).await;
    part.save().await?;
    if let Some(error) = gathering.broken.take() {
        return Err(error.into());
    }
    if part.journal.borrow().missing().next().is_none() {
        return Ok(());
    }
    let failures = gathering.failures.take();
    Err(FetchError::Sources(failures.into_values().collect::<Vec<_>>().join("; ")))
}

impl<D: Disk> Gathering<'_, D> {
    /// Asks a source for runs until nothing is missing or it has failed too often.
    async fn work(&self, origin: &Origin) {
        let mut failures = 0;
        while failures < FAILURES_MAX {
            let Some(run) = self.take_run().await else { return };
            let outcome = self.get(origin, run.clone()).await;
            self.under_way.borrow_mut().retain(|number| !run.contains(number));
            self.ended.notify();
            match outcome {
                Ok(()) => failures = 0,
                Err(RunError::Disk(error)) => {
                    self.broken.borrow_mut().get_or_insert(error);
                    self.ended.notify();
                    return;
                }
                Err(RunError::Source(why)) => {
                    failures += 1;
                    tracing::debug!(node = origin.node.0, why, "a part of a file did not come");
                    self.failures.borrow_mut().insert(origin.node, format!("node {}: {why}", origin.node));
                    if failures < FAILURES_MAX {
                        (self.way.pause)().await;
                    }
                }
            }
        }
    }

    fn is_over(&self) -> bool {
        self.broken.borrow().is_some() || self.part.journal.borrow().missing().next().is_none()
    }

    /// Chunks that nobody else asks for; waits while others may give theirs back. None when there is nothing to do.
    async fn take_run(&self) -> Option<Range<u32>> {
        loop {
            let ended = self.ended.notified();
            if self.is_over() {
                return None;
            }
            if let Some(run) = self.next_run() {
                self.under_way.borrow_mut().extend(run.clone());
                return Some(run);
            }
            ended.await;
        }
    }

    fn next_run(&self) -> Option<Range<u32>> {
        let journal = self.part.journal.borrow();
        let under_way = self.under_way.borrow();
        let mut free = journal.missing().filter(|number| !under_way.contains(number));
        let first = free.next()?;
        let more = free.zip(first + 1..first + RUN_CHUNKS).take_while(|(free, next)| free == next).count();
        Some(first..first + 1 + more as u32)
    }

    async fn get(&self, origin: &Origin, run: Range<u32>) -> Result<(), RunError> {
        let (begin, _) = self.part.journal.borrow().place(run.start);
        let (last, last_bytes) = self.part.journal.borrow().place(run.end - 1);
        let part = FilePart { name: origin.name.clone(), offset: begin, length: last + last_bytes as u64 - begin };
        let mut inflow = self.in_time(self.way.sources.open(origin.node, origin.group, part)).await?;
        let mut writing = WriteBehind::new(self.part.file.clone(), begin, CHUNK_BYTES, WRITES_MAX);
        let mut hashed = VecDeque::new();
        let mut outcome = Ok(());
        for number in run.clone() {
            let (count, (_, bytes)) = (self.part.journal.borrow().count(), self.part.journal.borrow().place(number));
            let room = &mut writing.room()[..bytes];
            let filled = match self.in_time(inflow.fill(room)).await {
                Ok(filled) => filled,
                Err(error) => {
                    outcome = Err(error);
                    break;
                }
            };
            if filled < bytes {
                outcome = Err(RunError::Source("its file is shorter".to_owned()));
                break;
            }
            hashed.push_back((number, chunk_value(number, count, &writing.room()[..bytes])));
            writing.advance(bytes).await.map_err(RunError::Disk)?;
            self.note_written(&mut hashed, writing.written()).await?;
        }
        writing.flush().await.map_err(RunError::Disk)?;
        self.note_written(&mut hashed, u64::MAX).await?;
        outcome?;
        // The transport's checksum follows the bytes.
        let end = self.in_time(inflow.fill(&mut [0])).await;
        if !matches!(end, Ok(0)) {
            run.for_each(|number| self.part.forget(number));
            self.arrived.set(self.part.arrived_bytes());
            return Err(end.err().unwrap_or_else(|| RunError::Source("its file is longer".to_owned())));
        }
        Ok(())
    }

    /// Notes the chunks before `written`.
    async fn note_written(&self, hashed: &mut VecDeque<(u32, ChunkValue)>, written: u64) -> Result<(), RunError> {
        while let Some((number, value)) = hashed.front().copied() {
            let (begin, bytes) = self.part.journal.borrow().place(number);
            if begin + bytes as u64 > written {
                break;
            }
            hashed.pop_front();
            self.part.note(number, value).await.map_err(RunError::Disk)?;
            self.arrived.set(self.part.arrived_bytes());
        }
        Ok(())
    }

    async fn in_time<T>(&self, work: impl Future<Output = Result<T, String>>) -> Result<T, RunError> {
        let work = async { work.await.map_err(RunError::Source) };
        future::or(work, async {
            (self.way.stall)().await;
            Err(RunError::Source("it stalls".to_owned()))
        })
        .await
    }
}

/// Runs them at the same time, to the end of all.
async fn all(mut running: Vec<LocalFuture<'_, ()>>) {
    poll_fn(|context| {
        running.retain_mut(|future| future.as_mut().poll(context).is_pending());
        if running.is_empty() { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
}

#[cfg(test)]
mod tests;
