//! Files of partitions on their way from node to node.
//!
//! ```text
//! asks    number ─ request (name, range, number) ─────────────> checks the name, opens
//!         waits for the file of this number <── file (number) ─ 512 KiB read, queued when there is room, ..
//!         blocks of whoever takes it         <── reply ──────── sent, or why not
//! ```
//!
//! The request stays open until the file is sent: if either side gives up, the other one learns of it.
//! Invariants: a name has no way out of the group's folder; what is read goes to the transport in the memory that it was
//! read into, and what arrives is put once into the memory that it is written from; the end is told only after the checksum
//! of all that was asked for was right.

use super::{
    call::Answerer,
    encoding::{Answered, Asked, encode_answered},
    end::Links,
    metrics::count,
};
use crate::replica::{FilePart, Inflow, LocalFuture, Pieces, Sources};
use bytes::Bytes;
use futures_lite::future;
use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    rc::Rc,
    time::Duration,
};
use tidemill_disk::{BLOCK_BYTES, Disk, DiskFile, Notify, Purpose, ReadAhead};
use tidemill_peer::{FileReceiver, GlommioRt, Inquiry, PeerId, Request, Rt, lend};
use tidemill_raft::{GroupId, NodeId};

/// Read at one go: large enough that a disk is busy.
const PIECE_BYTES: usize = 512 << 10;
/// Reads under way: the disk works while the wire does.
const READS_MAX: usize = 4;
const _: () = assert!(PIECE_BYTES.is_multiple_of(BLOCK_BYTES));
/// A node that does not go on for so long has a disk that hangs; another try may find another node.
const PAUSE_MAX: Duration = Duration::from_secs(30);
/// For the reason why a file broke off, which follows it.
const REASON_TIME_MAX: Duration = Duration::from_secs(1);
const NAME_BYTES_MAX: usize = 128;
const NUMBER_BYTES: usize = size_of::<u64>();

/// Whether a name of a file stays below a folder: at most one folder and a name, of letters, digits, `.`, `_` and `-`,
/// neither of them hidden.
pub fn is_plain(name: &str) -> bool {
    let part = |part: &str| {
        let is_fine = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        !part.is_empty() && part.len() <= NAME_BYTES_MAX && !part.starts_with('.') && part.bytes().all(is_fine)
    };
    name.split_once('/').map_or_else(|| part(name), |(folder, file)| part(folder) && part(file))
}

/// Bytes of a file in `folder` of a disk.
pub fn read_file<D: Disk>(
    disk: D,
    folder: String,
    part: FilePart,
) -> LocalFuture<'static, Result<Box<dyn Pieces>, String>> {
    Box::pin(async move {
        let FilePart { name, offset, length } = part;
        if !is_plain(&name) {
            return Err(format!("{name:?} is not the name of a file"));
        }
        let path = format!("{folder}/{name}");
        let file = disk.open(&path, Purpose::Data).await.map_err(|error| error.to_string())?;
        let end =
            offset.checked_add(length).ok_or_else(|| format!("{length} bytes from {offset} are none of {path}"))?;
        let size = file.len().await.map_err(|error| error.to_string())?;
        if size < end {
            return Err(format!("{path} has {size} bytes, not {end}"));
        }
        let file = Rc::new(file);
        let reading = ReadAhead::new(file.clone(), offset..end, PIECE_BYTES, READS_MAX);
        Ok(Box::new(Reading { open: Some((file, reading)), path }) as Box<dyn Pieces>)
    })
}

struct Reading<F: DiskFile> {
    /// None at the end.
    open: Option<(Rc<F>, ReadAhead<F>)>,
    path: String,
}

impl<F: DiskFile> Pieces for Reading<F> {
    fn next(&mut self) -> LocalFuture<'_, Result<Option<Bytes>, String>> {
        Box::pin(async move {
            let failed = |error: std::io::Error| format!("{}: {error}", self.path);
            let Some((_, reading)) = &mut self.open else { return Ok(None) };
            if let Some((buffer, part)) = reading.next().await.map_err(failed)? {
                // The transport holds the disk's own buffer until the other node has acknowledged what is in it.
                return Ok(Some(lend(buffer).slice(part)));
            }
            if let Some((file, reading)) = self.open.take() {
                drop(reading);
                if let Some(file) = Rc::into_inner(file) {
                    file.close().await.map_err(failed)?;
                }
            }
            Ok(None)
        })
    }
}

/// A file that another node wants.
pub(super) struct FileOrder {
    pub to: PeerId,
    pub group: GroupId,
    pub part: FilePart,
    pub number: u64,
}

/// Sends a file, and then says so.
pub(super) async fn serve_file(links: Rc<Links>, answerer: Rc<dyn Answerer>, inquiry: Inquiry, order: FileOrder) {
    let outcome = future::or(async { Some(send_file(&links, answerer, &order).await) }, async {
        inquiry.given_up().await;
        None
    })
    .await;
    let Some(outcome) = outcome else { return };
    count(if outcome.is_ok() { &links.counts.files_sent } else { &links.counts.files_refused });
    if let Err(why) = &outcome {
        tracing::info!(to = %order.to, group = order.group.0, name = order.part.name, why, "a file was not sent");
    }
    // If the other node is gone it knows that the file is not whole.
    let _ = inquiry.finish_with(encode_answered(links.roster().shape, &Answered::File(outcome))).await;
}

async fn send_file(links: &Links, answerer: Rc<dyn Answerer>, order: &FileOrder) -> Result<(), String> {
    if !is_plain(&order.part.name) {
        return Err(format!("{:?} is not the name of a file", order.part.name));
    }
    let mut pieces = answerer.open_file(order.group, order.part.clone()).await?;
    let peers = links.peers().ok_or("this node is stopping")?;
    let number = order.number.to_le_bytes();
    let sender = peers.send_file(order.to, u64::from(order.group.0), &number, order.part.length).await;
    let mut sender = sender.map_err(|error| error.to_string())?;
    while let Some(piece) = pieces.next().await? {
        sender.write(piece).await.map_err(|error| error.to_string())?;
    }
    sender.finish().await.map_err(|error| error.to_string())
}

/// Files that were asked for and have not begun to arrive, by their numbers.
#[derive(Default)]
pub(super) struct Arrivals {
    next: Cell<u64>,
    awaited: RefCell<BTreeMap<u64, Rc<Arrival>>>,
}

struct Arrival {
    from: PeerId,
    group: GroupId,
    length: u64,
    file: RefCell<Option<FileReceiver>>,
    is_here: Notify,
}

impl Arrivals {
    /// A file has begun to arrive; one that nobody waits for is refused.
    pub fn arrived(&self, file: FileReceiver) {
        let Ok(number) = <[u8; NUMBER_BYTES]>::try_from(&file.description[..]) else { return };
        let number = u64::from_le_bytes(number);
        let mut awaited = self.awaited.borrow_mut();
        let is_wanted = awaited.get(&number).is_some_and(|wanted| {
            wanted.from == file.from && u64::from(wanted.group.0) == file.group && wanted.length == file.length
        });
        if !is_wanted {
            drop(awaited);
            return drop(file);
        }
        if let Some(wanted) = awaited.remove(&number) {
            *wanted.file.borrow_mut() = Some(file);
            wanted.is_here.notify();
        }
    }

    fn expect(&self, from: PeerId, group: GroupId, length: u64) -> Expected<'_> {
        let number = self.next.replace(self.next.get() + 1);
        let arrival = Rc::new(Arrival { from, group, length, file: RefCell::default(), is_here: Notify::new() });
        self.awaited.borrow_mut().insert(number, arrival.clone());
        Expected { arrivals: self, number, arrival }
    }
}

/// While it lives a file of this number is let in.
struct Expected<'a> {
    arrivals: &'a Arrivals,
    number: u64,
    arrival: Rc<Arrival>,
}

impl Expected<'_> {
    async fn file(&self) -> FileReceiver {
        loop {
            let here = self.arrival.is_here.notified();
            if let Some(file) = self.arrival.file.borrow_mut().take() {
                return file;
            }
            here.await;
        }
    }
}

impl Drop for Expected<'_> {
    fn drop(&mut self) {
        self.arrivals.awaited.borrow_mut().remove(&self.number);
    }
}

/// The way to the files of other nodes.
pub(super) struct RemoteFiles {
    links: Rc<Links>,
}

impl RemoteFiles {
    pub fn new(links: &Rc<Links>) -> RemoteFiles {
        RemoteFiles { links: links.clone() }
    }
}

impl Sources for RemoteFiles {
    fn open(&self, from: NodeId, group: GroupId, part: FilePart) -> LocalFuture<'_, Result<Box<dyn Inflow>, String>> {
        Box::pin(async move {
            let links = &self.links;
            count(&links.counts.files_asked);
            let peer = links.roster().peer(from, group).ok_or("no other node of the cluster has it")?;
            let expected = links.arrivals.expect(peer, group, part.length);
            let asked = Asked::File { part, number: expected.number };
            let opening = async {
                let mut request = links.ask(from, group, &asked).await.map_err(|failure| failure.to_string())?;
                let file =
                    future::or(async { Ok(expected.file().await) }, async { Err(reason(links, &mut request).await) })
                        .await?;
                Ok((request, file))
            };
            let (request, file) = in_time(opening).await?;
            Ok(Box::new(Arriving { links: links.clone(), request, file }) as Box<dyn Inflow>)
        })
    }
}

struct Arriving {
    links: Rc<Links>,
    request: Request,
    file: FileReceiver,
}

impl Inflow for Arriving {
    fn fill<'a>(&'a mut self, block: &'a mut [u8]) -> LocalFuture<'a, Result<usize, String>> {
        Box::pin(async move {
            let error = match in_time(async { Ok(self.file.fill(block).await) }).await? {
                Ok(count) => return Ok(count),
                Err(error) => error,
            };
            let why = future::or(reason(&self.links, &mut self.request), async {
                GlommioRt::sleep(REASON_TIME_MAX).await;
                error.to_string()
            });
            Err(why.await)
        })
    }
}

/// Why a file does not come.
async fn reason(links: &Links, request: &mut Request) -> String {
    match links.answer(request).await {
        Ok(Answered::File(Err(why))) => why,
        Ok(_) => "the file was not sent".to_owned(),
        Err(why) => why,
    }
}

async fn in_time<T>(work: impl Future<Output = Result<T, String>>) -> Result<T, String> {
    future::or(work, async {
        GlommioRt::sleep(PAUSE_MAX).await;
        Err(format!("nothing came for {PAUSE_MAX:?}"))
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names_of_a_partition_are_plain() {
        for name in ["MANIFEST", "index-000000001", "g12/000000001-000000001.tsm", "a_b"] {
            assert!(is_plain(name), "{name}");
        }
        let long = "a".repeat(NAME_BYTES_MAX + 1);
        for name in
            ["", "/", "..", "../x", "g1/..", "g1/../x", "/etc/passwd", "a/b/c", "g1//x", ".hidden", "g1/.x", "a\0", "é"]
        {
            assert!(!is_plain(name), "{name:?}");
        }
        assert!(!is_plain(&long) && !is_plain("a\\b") && !is_plain("a b"));
    }

    proptest! {
        #[test]
        fn a_plain_name_leads_one_folder_down_at_most(name in "[a-c./]{0,12}") {
            if is_plain(&name) {
                let path = std::path::Path::new(&name);
                prop_assert!(path.components().all(|part| matches!(part, std::path::Component::Normal(_))));
                prop_assert!(path.components().count() <= 2);
            }
        }
    }
}
