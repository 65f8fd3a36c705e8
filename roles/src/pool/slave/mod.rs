//! A pool slave: files by their hash, for whoever asks.
//!
//! ```text
//! answer ─┬─ Fetch ──> line ─> fetch ─> part ─> files       files_folder of POOL_FILES ─> other slaves
//!         ├─ Read, List ──────────────────────> files <─┬── scrub
//!         └─ Delete ──────────────────────────> files   └── teller ─> the master, every second
//! ```
//!
//! Owns: the files ([`files`]), what is arriving ([`part`], [`fetch`]), the newest master heard of ([`epoch`]) and what the
//! masters were told ([`teller`]). Invariants: a file is told of, and `Stored` is said, after it is durable under its name;
//! a fetch goes on when its asker has gone, and there is one of a file; nothing that an older master orders is done; what
//! arrives at a time is bounded.
//! Knows nothing of where copies should be, nor of what files hold.

mod beats;
mod epoch;
mod fetch;
mod figures;
mod files;
mod part;
mod scrub;
mod teller;

pub use fetch::{FetchError, Way, fetch};
pub use figures::SlaveFigures;
pub use files::{FILES_FOLDER, Files};

use crate::{
    data::{DataCore, Founding, StartFailure, message::Message},
    pool::slave::{epoch::Epoch, figures::Counts, teller::Teller},
};
use futures_lite::future;
use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    io,
    rc::Rc,
    time::Duration,
};
use tidemill_disk::Notify;
use tidemill_pool::{Arriving, FileId, READ_BYTES_MAX, Source, StoreCall, StoreReply, Stored};
use tidemill_raft::NodeId;
use tidemill_reactor::{CoreContext, RingDisk};

/// Files that arrive at a time: two keep a link and a disk busy, each holds a few MiB.
const FETCHES_MAX: usize = 2;
/// Files that wait for their turn; more are refused, and asked for again.
const WAITING_MAX: usize = 1024;
/// Files in one answer.
const LISTED_MAX: usize = 4096;
/// A source that says nothing for so long is left for another.
const STALL: Duration = Duration::from_secs(5);
/// Before a source that failed is asked again.
const PAUSE: Duration = Duration::from_millis(500);
/// What begins to arrive and is not asked for again in so long is cleared away.
const PART_AGE_MAX: Duration = Duration::from_secs(3600);
/// Room that a fetch leaves: the logs of the metadata go on, and a filesystem that is full to the last block is slow.
const SPARE_BYTES: u64 = 64 << 20;

/// Of core 0, the only one that a slave has.
pub struct Slave {
    context: CoreContext<Message>,
    files: Files<RingDisk>,
    epoch: Epoch<RingDisk>,
    fetches: RefCell<BTreeMap<FileId, Rc<Fetching>>>,
    /// Of those, the ones that do not wait.
    running: Cell<usize>,
    one_ended: Notify,
    teller: RefCell<Teller>,
    is_scrubbing: Cell<bool>,
    counts: Counts,
}

/// A file that is wanted.
struct Fetching {
    size: u64,
    arrived: Cell<u64>,
    /// What came of it.
    outcome: RefCell<Option<Stored>>,
    ended: Notify,
}

impl Slave {
    pub async fn open(context: &CoreContext<Message>, founding: &Founding) -> Result<Rc<Slave>, StartFailure> {
        let node = founding.membership.as_ref().map_or(0, |membership| membership.options.node.0);
        let files = Files::open(context.disk.clone()).await?;
        tracing::info!(files = files.count(), bytes = files.bytes(), "files of the pool are here");
        Ok(Rc::new(Slave {
            context: context.clone(),
            files,
            epoch: Epoch::open(context.disk.clone()).await?,
            fetches: RefCell::default(),
            running: Cell::new(0),
            one_ended: Notify::new(),
            teller: RefCell::new(Teller::new(node, context.seed.random_u64())),
            is_scrubbing: Cell::new(false),
            counts: Counts::default(),
        }))
    }

    /// Begins what goes on until the core stops.
    pub fn start(self: &Rc<Self>, core: &Rc<DataCore>) {
        let context = &self.context;
        context.spawn(context.queues.latency, "beats of a slave", beats::run(self.clone(), core.clone())).detach();
        context.spawn(context.queues.background, "clear parts of files", self.clone().clear_parts()).detach();
    }

    /// What a master, a data node or another slave asks.
    pub async fn answer(self: &Rc<Self>, core: &Rc<DataCore>, _: NodeId, call: StoreCall) -> StoreReply {
        let told = match call {
            StoreCall::Read { file, offset, length } => return self.read(&file, offset, length).await,
            StoreCall::Fetch { epoch, file, size, sources } => match self.fenced(epoch).await {
                Some(fenced) => fenced,
                None => self.fetch(core, file, size, sources).await,
            },
            StoreCall::Delete { epoch, files } => match self.fenced(epoch).await {
                Some(fenced) => fenced,
                None => self.delete(&files).await,
            },
            StoreCall::Scrub { epoch } => match self.fenced(epoch).await {
                Some(fenced) => fenced,
                None => self.begin_scrub(),
            },
            StoreCall::Progress => Stored::Progress(self.arriving()),
            StoreCall::List { after } => Stored::Listed(self.files.list(after, LISTED_MAX)),
        };
        StoreReply::Told(told)
    }

    /// Why an order is not obeyed.
    async fn fenced(&self, epoch: u64) -> Option<Stored> {
        match self.epoch.hear(epoch).await {
            Ok(true) => None,
            Ok(false) => Some(Stored::Fenced { epoch: self.epoch.newest() }),
            Err(error) => Some(Stored::Failed { why: error.to_string() }),
        }
    }

    async fn read(&self, file: &FileId, offset: u64, length: u32) -> StoreReply {
        if length > READ_BYTES_MAX {
            let why = format!("{length} bytes are more than the {READ_BYTES_MAX} that one answer has");
            return StoreReply::Told(Stored::Failed { why });
        }
        match self.files.read(file, offset, length as usize).await {
            Ok(Some(bytes)) => {
                self.counts.read(bytes.len());
                StoreReply::Bytes(bytes)
            }
            Ok(None) => StoreReply::Told(Stored::NotFound),
            Err(error) => {
                // Whether it is the file or the disk is for the next scrub to find.
                tracing::error!(%file, %error, "a file of the pool cannot be read");
                self.counts.read_failed();
                StoreReply::Told(Stored::Failed { why: error.to_string() })
            }
        }
    }

    async fn delete(&self, files: &[FileId]) -> Stored {
        if let Some(file) = files.iter().find(|file| self.fetches.borrow().contains_key(file)) {
            return Stored::Failed { why: format!("{file} is on its way here") };
        }
        match self.files.remove(files).await {
            Ok(()) => Stored::Deleted,
            Err(error) => Stored::Failed { why: error.to_string() },
        }
    }

    fn arriving(&self) -> Vec<Arriving> {
        let fetches = self.fetches.borrow();
        fetches
            .iter()
            .map(|(file, fetching)| Arriving { file: *file, size: fetching.size, bytes: fetching.arrived.get() })
            .collect()
    }

    /// Answers when the file is durable, or will not come.
    async fn fetch(self: &Rc<Self>, core: &Rc<DataCore>, file: FileId, size: u64, sources: Vec<Source>) -> Stored {
        if let Some(found) = self.files.size(&file) {
            let why = || format!("{file} is here with {found} bytes, not {size}");
            return if found == size { Stored::Stored } else { Stored::Failed { why: why() } };
        }
        let known = self.fetches.borrow().get(&file).cloned();
        let fetching = match known {
            Some(fetching) => fetching,
            None if self.fetches.borrow().len() >= WAITING_MAX => {
                return Stored::Failed { why: format!("{WAITING_MAX} files are on their way here already") };
            }
            None => {
                let fetching = Rc::new(Fetching {
                    size,
                    arrived: Cell::new(0),
                    outcome: RefCell::default(),
                    ended: Notify::new(),
                });
                self.fetches.borrow_mut().insert(file, fetching.clone());
                let context = &self.context;
                let work = self.clone().run_fetch(core.clone(), file, fetching.clone(), sources);
                context.spawn(context.queues.background, "fetch a file of the pool", work).detach();
                fetching
            }
        };
        loop {
            let ended = fetching.ended.notified();
            if let Some(outcome) = &*fetching.outcome.borrow() {
                return outcome.clone();
            }
            ended.await;
        }
    }

    async fn run_fetch(self: Rc<Self>, core: Rc<DataCore>, file: FileId, fetching: Rc<Fetching>, sources: Vec<Source>) {
        self.take_turn().await;
        let shutdown = self.context.shutdown.clone();
        let outcome = future::or(self.get(&core, file, &fetching, &sources), async {
            shutdown.requested().await;
            Err("this slave stops".to_owned())
        })
        .await;
        self.running.set(self.running.get() - 1);
        self.one_ended.notify();
        let outcome = match outcome {
            Ok(()) => {
                self.counts.fetched(fetching.size);
                self.files.add(file, fetching.size);
                tracing::info!(%file, bytes = fetching.size, "a file of the pool is here");
                Stored::Stored
            }
            Err(why) => {
                self.counts.fetch_failed();
                tracing::warn!(%file, why, "a file of the pool did not come");
                Stored::Failed { why }
            }
        };
        *fetching.outcome.borrow_mut() = Some(outcome);
        // Not before it is one of the files: who asks meanwhile would begin again.
        self.fetches.borrow_mut().remove(&file);
        fetching.ended.notify();
    }

    async fn take_turn(&self) {
        loop {
            let ended = self.one_ended.notified();
            if self.running.get() < FETCHES_MAX {
                self.running.set(self.running.get() + 1);
                return;
            }
            ended.await;
        }
    }

    async fn get(
        &self,
        core: &Rc<DataCore>,
        file: FileId,
        fetching: &Fetching,
        sources: &[Source],
    ) -> Result<(), String> {
        let links = core.links.as_ref().ok_or("this node has no links")?;
        self.find_room(&file, fetching.size).await?;
        let wait = |duration| -> Box<dyn Fn() -> crate::replica::LocalFuture<'static, ()>> {
            let context = self.context.clone();
            Box::new(move || {
                let context = context.clone();
                Box::pin(async move { context.sleep(duration).await })
            })
        };
        let way = Way { sources: links.sources(), own: links.roster().node, stall: wait(STALL), pause: wait(PAUSE) };
        let fetched = fetch(&self.context.disk, (file, fetching.size), sources, &way, &fetching.arrived).await;
        fetched.map_err(|error| error.to_string())
    }

    /// Says so if there is no room, before the disk is filled with what will not be whole.
    async fn find_room(&self, file: &FileId, bytes: u64) -> Result<(), String> {
        let failed = |error: io::Error| error.to_string();
        // What is here of it has its room already.
        let wanted = bytes.saturating_sub(self.files.part_bytes(file).await.map_err(failed)?);
        let wanted = wanted.saturating_add(SPARE_BYTES);
        let (_, free) = self.context.disk.space().map_err(failed)?;
        if free >= wanted {
            return Ok(());
        }
        self.files.clear_parts(|file| self.fetches.borrow().contains_key(file)).await.map_err(failed)?;
        let (_, free) = self.context.disk.space().map_err(failed)?;
        if free >= wanted {
            return Ok(());
        }
        Err(format!("no room: {free} bytes are free, the file has {bytes}, and {SPARE_BYTES} are to be left"))
    }

    fn begin_scrub(self: &Rc<Self>) -> Stored {
        if !self.is_scrubbing.replace(true) {
            let context = &self.context;
            context.spawn(context.queues.background, "scrub files of the pool", self.clone().run_scrub()).detach();
        }
        Stored::Scrubbing
    }

    async fn run_scrub(self: Rc<Self>) {
        let mut pace = async |bytes: u64| {
            self.counts.scrubbed(bytes);
            self.context.yield_now_if_needed().await;
            !self.context.shutdown.is_requested()
        };
        match scrub::scrub(&self.files, &mut pace).await {
            Ok(found) => {
                self.counts.rotten(found.rotten);
                tracing::info!(
                    files = found.files,
                    bytes = found.bytes,
                    rotten = found.rotten,
                    "the files were read again"
                );
            }
            Err(error) => tracing::error!(%error, "the files were not all read again"),
        }
        self.is_scrubbing.set(false);
    }

    async fn clear_parts(self: Rc<Self>) {
        while !self.context.shutdown.is_requested() {
            future::or(self.context.sleep(PART_AGE_MAX), self.context.shutdown.requested()).await;
            let is_wanted = |file: &FileId| self.fetches.borrow().contains_key(file);
            if let Err(error) = self.files.clear_parts(is_wanted).await {
                tracing::warn!(%error, "parts of files that nobody wants");
            }
        }
    }
}
