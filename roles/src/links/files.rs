//! Files of partitions on their way from node to node.
//!
//! ```text
//! asks    number ─ request (name, size, number) ──────────────> checks the name, opens
//!         waits for the file of this number <── file (number) ─ 512 KiB read, queued when there is room, ..
//!         pieces to whoever installs         <── reply ──────── sent, or why not
//! ```
//!
//! The request stays open until the file is sent: if either side gives up, the other one learns of it.
//! Invariants: a name has no way out of the group's folder; the last piece is handed out only after the checksum of the
//! whole file was right.

use super::{
    call::Answerer,
    encoding::{Answered, Asked, encode_answered},
    end::Links,
    metrics::count,
};
use crate::replica::{LocalFuture, Pieces, Sources};
use bytes::{Bytes, BytesMut};
use futures_lite::future;
use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    rc::Rc,
    time::Duration,
};
use tidemill_disk::{BLOCK_BYTES, Disk, DiskFile, Notify, Purpose};
use tidemill_peer::{FileReceiver, GlommioRt, Inquiry, PeerId, Request, Rt};
use tidemill_raft::{GroupId, NodeId};

/// Read at one go: large enough that a disk is busy, small enough that its copy is no stall.
const PIECE_BYTES: usize = 512 << 10;
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

/// The first `size` bytes of a file in `folder` of a disk.
pub fn read_file<D: Disk>(
    disk: D,
    folder: String,
    name: String,
    size: u64,
) -> LocalFuture<'static, Result<Box<dyn Pieces>, String>> {
    Box::pin(async move {
        if !is_plain(&name) {
            return Err(format!("{name:?} is not the name of a file"));
        }
        let path = format!("{folder}/{name}");
        let file = disk.open(&path, Purpose::Data).await.map_err(|error| error.to_string())?;
        let length = file.len().await.map_err(|error| error.to_string())?;
        if length < size {
            return Err(format!("{path} has {length} bytes, not {size}"));
        }
        Ok(Box::new(Reading { file: Some(file), path, offset: 0, size }) as Box<dyn Pieces>)
    })
}

struct Reading<F> {
    /// None at the end.
    file: Option<F>,
    path: String,
    offset: u64,
    size: u64,
}

impl<F: DiskFile> Pieces for Reading<F> {
    fn next(&mut self) -> LocalFuture<'_, Result<Option<Bytes>, String>> {
        Box::pin(async move {
            let failed = |error: std::io::Error| error.to_string();
            let left = self.size - self.offset;
            if left == 0 {
                if let Some(file) = self.file.take() {
                    file.close().await.map_err(failed)?;
                }
                return Ok(None);
            }
            let Some(file) = &self.file else { return Ok(None) };
            let read = file.read_at(self.offset, PIECE_BYTES).await.map_err(failed)?;
            let count = read.as_ref().len().min(usize::try_from(left).unwrap_or(usize::MAX));
            if count == 0 {
                return Err(format!("{} ends too early", self.path));
            }
            self.offset += count as u64;
            // A buffer of the disk stays on its core, what the transport holds need not: so it is copied.
            Ok(Some(Bytes::copy_from_slice(&read.as_ref()[..count])))
        })
    }
}

/// A file that another node wants.
pub(super) struct FileOrder {
    pub to: PeerId,
    pub group: GroupId,
    pub name: String,
    pub size: u64,
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
        tracing::info!(to = %order.to, group = order.group.0, name = order.name, why, "a file was not sent");
    }
    // If the other node is gone it knows that the file is not whole.
    let _ = inquiry.finish_with(encode_answered(links.roster().shape, &Answered::File(outcome))).await;
}

async fn send_file(links: &Links, answerer: Rc<dyn Answerer>, order: &FileOrder) -> Result<(), String> {
    if !is_plain(&order.name) {
        return Err(format!("{:?} is not the name of a file", order.name));
    }
    let mut pieces = answerer.open_file(order.group, order.name.clone(), order.size).await?;
    let peers = links.peers().ok_or("this node is stopping")?;
    let number = order.number.to_le_bytes();
    let sender = peers.send_file(order.to, u64::from(order.group.0), &number, order.size).await;
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
    size: u64,
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
            wanted.from == file.from && u64::from(wanted.group.0) == file.group && wanted.size == file.length
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

    fn expect(&self, from: PeerId, group: GroupId, size: u64) -> Expected<'_> {
        let number = self.next.replace(self.next.get() + 1);
        let arrival = Rc::new(Arrival { from, group, size, file: RefCell::default(), is_here: Notify::new() });
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
    fn open(
        &self,
        from: NodeId,
        group: GroupId,
        name: String,
        size: u64,
    ) -> LocalFuture<'_, Result<Box<dyn Pieces>, String>> {
        Box::pin(async move {
            let links = &self.links;
            count(&links.counts.files_asked);
            let peer = links.roster().peer(from, group).ok_or("no other node of the cluster has it")?;
            let expected = links.arrivals.expect(peer, group, size);
            let asked = Asked::File { name, size, number: expected.number };
            let opening = async {
                let mut request = links.ask(from, group, &asked).await.map_err(|failure| failure.to_string())?;
                let file =
                    future::or(async { Ok(expected.file().await) }, async { Err(reason(links, &mut request).await) })
                        .await?;
                Ok((request, file))
            };
            let (request, file) = in_time(opening).await?;
            let arriving = Arriving { links: links.clone(), request, file, left: size, is_whole: false };
            Ok(Box::new(arriving) as Box<dyn Pieces>)
        })
    }
}

struct Arriving {
    links: Rc<Links>,
    request: Request,
    file: FileReceiver,
    left: u64,
    is_whole: bool,
}

impl Pieces for Arriving {
    fn next(&mut self) -> LocalFuture<'_, Result<Option<Bytes>, String>> {
        Box::pin(async move {
            if self.is_whole {
                return Ok(None);
            }
            // One more than is left: only a block that is not filled was checked to be the last.
            let length = usize::try_from(self.left + 1).unwrap_or(usize::MAX).min(PIECE_BYTES);
            let mut block = BytesMut::zeroed(length);
            let filled = in_time(async { Ok(self.file.fill(&mut block).await) }).await?;
            let count = match filled {
                Ok(count) => count,
                Err(error) => {
                    let why = future::or(reason(&self.links, &mut self.request), async {
                        GlommioRt::sleep(REASON_TIME_MAX).await;
                        error.to_string()
                    });
                    return Err(why.await);
                }
            };
            self.is_whole = count < length;
            self.left = self.left.saturating_sub(count as u64);
            block.truncate(count);
            Ok((count > 0).then(|| block.freeze()))
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
