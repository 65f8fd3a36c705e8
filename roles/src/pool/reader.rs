//! Blocks of files that are in the pool.
//!
//! Owns: where the copies of a file are, as far as this core has asked; which of them is asked first; what is read before
//! it is asked for. A copy that fails or is slow is followed by the next one; when those that are known are at their end
//! the masters are asked anew, and then every slave whether it has the file: no word of a master is needed to read what a
//! slave has.
//! Invariant: a read gives exactly the bytes that were asked for, or an error that says what was tried. Whether they are
//! the right ones is for whoever knows their checksums.

use super::masters::Masters;
use crate::{
    data::message::Message,
    links::{Duty, Links, POOL_FILES, RemoteCall, RemoteReply},
};
use bytes::Bytes;
use std::{
    cell::{Cell, RefCell},
    collections::{BTreeMap, BTreeSet},
    future::{Future, poll_fn},
    io,
    pin::Pin,
    rc::Rc,
    task::Poll,
    time::Duration,
};
use tidemill_pool::{FileId, MasterCall, MasterReply, READ_BYTES_MAX, StoreCall, StoreReply, Stored};
use tidemill_raft::NodeId;
use tidemill_reactor::CoreContext;
use tidemill_store::{LocalFuture, PoolBlocks};

/// Another copy is asked beside one that has not answered for so long.
const SLOW: Duration = Duration::from_millis(200);
/// A copy that has not answered by then does not.
const ANSWER_MAX: Duration = Duration::from_secs(5);
/// Files whose places are remembered: 64 bytes each and their copies.
const PLACES_MAX: usize = 32 << 10;
/// A reader in order that asks for so much at a time goes on.
const AHEAD_FROM_BYTES: usize = 64 << 10;
/// Files that are read ahead at a time, with up to two reads each in memory.
const AHEAD_MAX: usize = 16;

/// The pool, as the partitions of one core read it.
#[derive(Clone)]
pub struct PoolReader(Rc<Reader>);

struct Reader {
    links: Rc<Links>,
    context: CoreContext<Message>,
    masters: Masters,
    /// By file, the slaves that have it, in the order in which they are asked.
    places: RefCell<BTreeMap<[u8; 32], Vec<NodeId>>>,
    /// Where the last read of a file ended.
    ends: RefCell<BTreeMap<[u8; 32], u64>>,
    /// Oldest first.
    ahead: RefCell<Vec<Ahead>>,
    figures: Cell<ReaderFigures>,
}

/// What is read before it is asked for.
struct Ahead {
    file: [u8; 32],
    /// Of the first byte that is ready.
    offset: u64,
    ready: Vec<u8>,
    coming: Option<LocalFuture<'static, Result<Bytes, String>>>,
}

/// What was read.
#[derive(Clone, Copy, Debug, Default)]
pub struct ReaderFigures {
    pub reads: u64,
    pub bytes: u64,
    /// Questions to slaves beyond the first of a read.
    pub retries: u64,
    /// Of the reads those that found their bytes here, or on their way.
    pub ahead: u64,
    /// No copy could be read.
    pub failures: u64,
}

type Asking<'a> = Pin<Box<dyn Future<Output = (NodeId, Result<Bytes, String>)> + 'a>>;

impl PoolReader {
    pub fn new(links: Rc<Links>, context: CoreContext<Message>) -> PoolReader {
        PoolReader(Rc::new(Reader {
            links,
            context,
            masters: Masters::default(),
            places: RefCell::default(),
            ends: RefCell::default(),
            ahead: RefCell::default(),
            figures: Cell::default(),
        }))
    }

    pub fn figures(&self) -> ReaderFigures {
        self.0.figures.get()
    }
}

impl PoolBlocks for PoolReader {
    fn read(&self, file: [u8; 32], offset: u64, length: usize) -> LocalFuture<'_, io::Result<Vec<u8>>> {
        Box::pin(async move {
            let reader = &self.0;
            reader.count(|figures| figures.reads += 1);
            match reader.read(file, offset, length).await {
                Ok(bytes) => {
                    reader.count(|figures| figures.bytes += length as u64);
                    Ok(bytes)
                }
                Err(why) => {
                    reader.count(|figures| figures.failures += 1);
                    let file = FileId(file);
                    Err(io::Error::other(format!("no copy of file {file} in the storage pool can be read: {why}")))
                }
            }
        })
    }

    fn distrust(&self, file: [u8; 32], _offset: u64) {
        // What was read ahead may be of the same copy.
        self.0.ahead.borrow_mut().retain(|ahead| ahead.file != file);
        if let Some(first) = self.0.places.borrow().get(&file).and_then(|nodes| nodes.first().copied()) {
            tracing::warn!(slave = first.0, file = %FileId(file), "a damaged block came from the pool");
            self.0.put_last(&file, first);
        }
    }
}

impl Reader {
    fn count(&self, change: impl FnOnce(&mut ReaderFigures)) {
        let mut figures = self.figures.get();
        change(&mut figures);
        self.figures.set(figures);
    }

    async fn read(self: &Rc<Self>, file: [u8; 32], offset: u64, length: usize) -> Result<Vec<u8>, String> {
        let found = {
            let mut ahead = self.ahead.borrow_mut();
            let position = ahead.iter().position(|known| known.file == file && known.offset == offset);
            position.map(|position| ahead.remove(position))
        };
        let is_in_order = self.ends.borrow().get(&file) == Some(&offset);
        let mut stream = found.unwrap_or(Ahead { file, offset, ready: Vec::new(), coming: None });
        if stream.ready.len() < length
            && let Some(coming) = stream.coming.take()
            && let Ok(bytes) = coming.await
        {
            stream.ready.extend_from_slice(&bytes);
        }
        if stream.ready.is_empty() {
            stream.ready = self.fetch(file, offset, length).await?;
        } else {
            self.count(|figures| figures.ahead += 1);
            if stream.ready.len() < length {
                let (from, missing) = (offset + stream.ready.len() as u64, length - stream.ready.len());
                stream.ready.extend(self.fetch(file, from, missing).await?);
            }
        }
        let rest = stream.ready.split_off(length);
        let bytes = std::mem::replace(&mut stream.ready, rest);
        stream.offset += length as u64;
        self.note_end(file, stream.offset);
        if is_in_order && length >= AHEAD_FROM_BYTES {
            self.go_on(stream);
        }
        Ok(bytes)
    }

    /// All bytes of a range.
    async fn fetch(self: &Rc<Self>, file: [u8; 32], offset: u64, length: usize) -> Result<Vec<u8>, String> {
        let mut bytes = Vec::with_capacity(length);
        while bytes.len() < length {
            let asked = (length - bytes.len()).min(READ_BYTES_MAX as usize);
            let part = self.fetch_part(file, offset + bytes.len() as u64, asked, asked).await?;
            bytes.extend_from_slice(&part);
        }
        Ok(bytes)
    }

    fn note_end(&self, file: [u8; 32], end: u64) {
        let mut ends = self.ends.borrow_mut();
        if ends.len() >= PLACES_MAX {
            ends.clear();
        }
        ends.insert(file, end);
    }

    /// Reads on behind what is ready.
    fn go_on(self: &Rc<Self>, mut stream: Ahead) {
        if stream.coming.is_none() && stream.ready.len() < READ_BYTES_MAX as usize {
            let (this, file, from) = (self.clone(), stream.file, stream.offset + stream.ready.len() as u64);
            let fetch = async move { this.fetch_part(file, from, READ_BYTES_MAX as usize, 0).await };
            stream.coming = Some(Box::pin(self.context.spawn(self.context.queues.query, "read the pool ahead", fetch)));
        }
        let mut ahead = self.ahead.borrow_mut();
        if ahead.len() >= AHEAD_MAX {
            ahead.remove(0);
        }
        ahead.push(stream);
    }

    /// Up to `length` bytes, and at least `least`.
    async fn fetch_part(&self, file: [u8; 32], offset: u64, length: usize, least: usize) -> Result<Bytes, String> {
        let mut failures = Vec::new();
        let mut asked = BTreeSet::new();
        for round in 0..3 {
            let known = self.places.borrow().get(&file).cloned();
            let nodes = match (round, known) {
                (0, Some(known)) => known,
                (0, None) => continue,
                (1, _) => self.look_up(file).await.unwrap_or_else(|why| {
                    failures.push(why);
                    Vec::new()
                }),
                _ => self.slaves().into_iter().filter(|node| !asked.contains(node)).collect(),
            };
            asked.extend(nodes.iter().copied());
            if let Some(bytes) = self.ask_in_turn(file, nodes, (offset, length, least), &mut failures).await {
                return Ok(bytes);
            }
        }
        failures.dedup();
        Err(failures.join("; "))
    }

    fn slaves(&self) -> Vec<NodeId> {
        let roster = self.links.roster();
        let slaves = roster.nodes.iter().filter(|(_, member)| member.duty == Duty::PoolSlave);
        slaves.map(|(node, _)| *node).collect()
    }

    /// Asks a master where a file is.
    async fn look_up(&self, file: [u8; 32]) -> Result<Vec<NodeId>, String> {
        let reply = self.masters.ask(&self.links, &MasterCall::Where(vec![FileId(file)])).await?;
        let MasterReply::Located(located) = reply else { return Err("a master answered something else".to_owned()) };
        let nodes = located.into_iter().filter(|(known, _)| known.0 == file).flat_map(|(_, nodes)| nodes);
        let mut nodes: Vec<NodeId> = nodes.map(NodeId).collect();
        // Each reader begins with another copy of those that can be reached.
        let near = nodes.iter().position(|node| !self.links.is_connected(*node, POOL_FILES)).unwrap_or(nodes.len());
        if near > 0 {
            let own = self.links.roster().node.0;
            nodes[..near].rotate_left((own as usize + usize::from(file[0])) % near);
        }
        let mut places = self.places.borrow_mut();
        if places.len() >= PLACES_MAX {
            places.clear();
        }
        places.insert(file, nodes.clone());
        Ok(nodes)
    }

    fn put_last(&self, file: &[u8; 32], node: NodeId) {
        if let Some(nodes) = self.places.borrow_mut().get_mut(file) {
            let before = nodes.len();
            nodes.retain(|known| *known != node);
            if nodes.len() < before {
                nodes.push(node);
            }
        }
    }

    /// Asks one after the other, the next one also while the one before is slow.
    async fn ask_in_turn(
        &self,
        file: [u8; 32],
        nodes: Vec<NodeId>,
        (offset, length, least): (u64, usize, usize),
        failures: &mut Vec<String>,
    ) -> Option<Bytes> {
        let call = StoreCall::Read { file: FileId(file), offset, length: length as u32 }.encode();
        let mut nodes = nodes.into_iter();
        let mut waiting: Vec<Asking<'_>> = Vec::new();
        let mut is_first = true;
        loop {
            if let Some(node) = nodes.next() {
                if !std::mem::take(&mut is_first) {
                    self.count(|figures| figures.retries += 1);
                }
                let call = call.clone();
                waiting.push(Box::pin(async move { (node, self.ask(node, call, least).await) }));
            }
            if waiting.is_empty() {
                return None;
            }
            let mut slow = Box::pin(self.context.sleep(SLOW));
            let answered = poll_fn(|cx| {
                for (number, asking) in waiting.iter_mut().enumerate() {
                    if let Poll::Ready(answer) = asking.as_mut().poll(cx) {
                        return Poll::Ready(Some((number, answer)));
                    }
                }
                slow.as_mut().poll(cx).map(|_| None)
            });
            match answered.await {
                Some((_, (_, Ok(bytes)))) => return Some(bytes),
                Some((number, (node, Err(why)))) => {
                    drop(waiting.swap_remove(number));
                    self.put_last(&file, node);
                    failures.push(format!("node {node}: {why}"));
                }
                None => {}
            }
        }
    }

    async fn ask(&self, node: NodeId, call: Bytes, least: usize) -> Result<Bytes, String> {
        let asked = self.links.call(node, POOL_FILES, RemoteCall::PoolStore(call), ANSWER_MAX).await;
        let RemoteReply::Pool(reply) = asked.map_err(|error| error.to_string())? else {
            return Err("it answered something else".to_owned());
        };
        match StoreReply::decode(&reply) {
            Ok(StoreReply::Bytes(bytes)) if bytes.len() >= least => Ok(bytes),
            Ok(StoreReply::Bytes(bytes)) => Err(format!("it has {} bytes there instead of {least}", bytes.len())),
            Ok(StoreReply::Told(Stored::NotFound)) => Err("it does not have the file".to_owned()),
            Ok(StoreReply::Told(Stored::Failed { why })) => Err(why),
            Ok(StoreReply::Told(_)) => Err("it answered something else".to_owned()),
            Err(error) => Err(error.to_string()),
        }
    }
}
