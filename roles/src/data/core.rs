//! One core of the data role.

use crate::{
    access::AccessOptions,
    acquaintance::Acquaintances,
    backup::{Entry, snapshot::link_partition},
    data::{
        acquainting::TakesPart,
        budget::Budget,
        elsewhere::LeadersElsewhere,
        figures::{CoreFigures, WriteFigures},
        memory_gauge::MemoryGauge,
        message::{Call, CallError, Message, Reply},
        metadata::{META_GROUP, MetaMachine},
        propose::other_answer,
        question::{Finding, Question},
        scrub::ScrubFigures,
        sender::Senders,
        series_ledger::SeriesLedger,
        tag_values::TagLedger,
        typed_writes::TypedWrites,
    },
    handoff::Handoff,
    links::{Links, RemoteCall, RemoteReply},
    options::Options,
    pool::PoolParts,
    query::{
        QueryLimits, QueryMemory, StatementError,
        continuous::ContinuousFigures,
        elsewhere,
        listing::{self, ListOrder, PageOrder, Run},
        scan,
    },
    replica::{Outcome, Payload, Replicas},
    subscriber::Subscribers,
    udp::UdpListener,
};
use std::{
    cell::{Cell, Ref, RefCell},
    collections::BTreeMap,
    future::Future,
    path::Path,
    pin::Pin,
    rc::Rc,
    sync::Arc,
    time::Duration,
};
use tidemill_column::Strings;
use tidemill_disk::Notify;
use tidemill_http::metrics::HttpMetrics;
use tidemill_line::{Batch, PartitionMap, Splitter};
use tidemill_meta::{Meta, Node};
use tidemill_raft::{GroupId, LogIndex, NodeId};
use tidemill_reactor::{CoreContext, CoreId, Pending, RingDisk, SendError};
use tidemill_store::{Applied, Command as StoreCommand, DatabaseId, Partition, ReadCache, SeriesIndex, Turn};

/// The core that the metadata's group lives on.
pub const META_CORE: CoreId = CoreId(0);
/// Everything that lives on one core.
pub struct DataCore {
    pub(crate) context: CoreContext<Message>,
    pub(crate) options: Arc<Options>,
    /// ns since the epoch.
    pub(crate) started_ns: i64,
    pub(crate) budget: Budget,
    pub(crate) partition_map: PartitionMap,
    pub(crate) leaders: LeadersElsewhere,
    pub(crate) takes_part: TakesPart,
    /// Of a cluster's node, only on [`META_CORE`].
    pub(crate) acquaintances: Option<Rc<Acquaintances>>,
    /// Why the others do not let this node take part.
    pub(crate) refusal: RefCell<Option<String>>,
    pub(crate) partitions: BTreeMap<u32, Rc<Partition<RingDisk>>>,
    pub(crate) replicas: Replicas<RingDisk>,
    /// To the other nodes; none without a cluster.
    pub(crate) links: Option<Rc<Links>>,
    pub(crate) pool: PoolParts,
    /// Only on [`META_CORE`].
    pub(crate) meta_machine: Option<Rc<MetaMachine<RingDisk>>>,
    pub(crate) meta: RefCell<Meta>,
    pub(crate) replies: Pending<Reply>,
    pub(crate) cache: Rc<ReadCache>,
    pub(crate) held: Rc<Held>,
    /// When a group's leader was asked, of which the answer was waited for last; monotonic ns.
    pub(crate) confirmed: RefCell<BTreeMap<GroupId, u64>>,
    pub(crate) senders: Senders,
    pub(crate) handoff: Handoff<RingDisk>,
    pub(crate) ledger: Rc<SeriesLedger>,
    pub(crate) tags: Rc<TagLedger>,
    /// Of those who count the values of tags.
    pub(crate) counting: Turn,
    pub(crate) gauge: Arc<MemoryGauge>,
    pub(crate) query_memory: Arc<QueryMemory>,
    /// Parsers that no request uses now.
    pub(crate) parsers: RefCell<Vec<(Batch, Splitter)>>,
    pub(crate) figures: WriteFigures,
    pub(crate) typed_writes: TypedWrites,
    pub(crate) scrub_figures: ScrubFigures,
    /// Of those who fetch a file again.
    pub(crate) mending: Turn,
    /// Counted on [`META_CORE`] alone.
    pub(crate) continuous_figures: ContinuousFigures,
    pub(crate) http_metrics: Rc<HttpMetrics>,
    pub(crate) subscribers: Arc<Subscribers>,
    pub(crate) udp: Arc<[Arc<UdpListener>]>,
    /// The core has the metadata.
    pub(crate) met: Cell<bool>,
    /// The version of the nodes that the links go by.
    pub(crate) nodes_followed: Cell<Option<u64>>,
    /// Nodes that the log of the metadata brought before the start, decided or not.
    pub(crate) nodes_expected: RefCell<Arc<[Node]>>,
    /// Cores that have nothing to ask any more.
    pub(crate) parted: Cell<usize>,
    /// `met` or `parted` changed.
    pub(crate) met_changed: Notify,
    pub(crate) stopping: Cell<bool>,
}

/// Above what a write of another node can take, all of its waits together.
const OUTWAIT_MAX: Duration = Duration::from_secs(20);

/// How often subscriptions are looked for that went with their database or policy.
const SUBSCRIPTIONS_PAUSE: Duration = Duration::from_secs(1);

/// A snapshot waits so long for the flush of a partition.
const FLUSH_NS_MAX: u64 = 60_000_000_000;

/// What this core holds of the parts of its budget that are counted here.
#[derive(Default)]
pub struct Held {
    /// What the memtables held when they were last measured.
    rows_measured_bytes: Cell<usize>,
    /// What was proposed since.
    rows_added_bytes: Cell<usize>,
    /// Indexes of series, after the newest applied entry.
    pub index_bytes: Cell<usize>,
    /// Values of tags that are counted; on the core of the metadata.
    pub tag_values_bytes: Cell<usize>,
    /// Bodies that are parsed and cut.
    pub parsing_bytes: Cell<usize>,
    /// Buffers of parsers that no request uses now.
    pub parsers_bytes: Cell<usize>,
    /// Entries were applied: there may be work.
    pub changed: Notify,
}

impl Held {
    /// Rows that are in no file.
    pub fn rows_bytes(&self) -> usize {
        self.rows_measured_bytes.get() + self.rows_added_bytes.get()
    }

    pub fn add_rows(&self, bytes: usize) {
        self.rows_added_bytes.set(self.rows_added_bytes.get() + bytes);
    }

    /// Takes a measurement. What is proposed and not applied yet is left out until the next one; it is bounded by the
    /// log's queue.
    pub fn measure_rows(&self, bytes: usize) {
        self.rows_measured_bytes.set(bytes);
        self.rows_added_bytes.set(0);
    }
}

impl DataCore {
    pub fn context(&self) -> &CoreContext<Message> {
        &self.context
    }

    /// The core's copy of the metadata.
    pub fn meta(&self) -> Ref<'_, Meta> {
        self.meta.borrow()
    }

    /// Partitions that live on this core of this node.
    pub fn partitions(&self) -> &BTreeMap<u32, Rc<Partition<RingDisk>>> {
        &self.partitions
    }

    /// Partitions of all data groups.
    pub fn partition_count(&self) -> u32 {
        self.partition_map.count()
    }

    /// Whether this node has no part in any partition, and takes no writes and queries.
    pub fn holds_no_rows(&self) -> bool {
        self.options.cluster.as_ref().is_some_and(|cluster| cluster.role() != "data")
    }

    /// Whether a stop was asked for and requests are over.
    pub fn is_stopping(&self) -> bool {
        self.stopping.get()
    }

    /// Whether other nodes change what this one has.
    pub fn has_other_nodes(&self) -> bool {
        self.links.is_some()
    }

    /// Where a partition lives, or, if other nodes hold it, the core with the links to them.
    pub fn core_of(&self, partition: u32) -> CoreId {
        CoreId((partition as usize % self.context.cores) as u16)
    }

    pub fn access_options(&self) -> &AccessOptions {
        &self.options.access
    }

    pub fn query_limits(&self) -> &QueryLimits {
        &self.options.query
    }

    /// What the queries of the process hold.
    pub fn query_memory(&self) -> &Arc<QueryMemory> {
        &self.query_memory
    }

    /// All cores, this one included.
    pub fn cores(&self) -> impl Iterator<Item = CoreId> + use<> {
        (0..self.context.cores as u16).map(CoreId)
    }

    /// Serves the subscriptions that the metadata have now.
    pub fn follow_subscriptions(&self) {
        self.subscribers.follow(&self.meta());
    }

    /// Serves the subscriptions that the metadata have, those that go with what is dropped included. To be run on
    /// [`META_CORE`].
    pub async fn keep_subscriptions(self: Rc<Self>) {
        while !self.context.shutdown.is_requested() {
            self.follow_subscriptions();
            futures_lite::future::or(self.context.sleep(SUBSCRIPTIONS_PAUSE), self.context.shutdown.requested()).await;
        }
    }

    /// Proposes a command to every partition; returns once all have applied it and their indexes show it.
    pub async fn change_store(self: &Rc<Self>, command: StoreCommand) -> Result<(), CallError> {
        let calls: Vec<_> = self.cores().map(|core| self.call(core, Call::ChangeStore(command.clone()))).collect();
        for call in calls {
            match call.await? {
                Reply::Done(result) => result?,
                _ => unreachable!("a change of the store is answered as one"),
            }
        }
        Ok(())
    }

    /// Returns once the writes, of all nodes, that may have looked field types up before this call have ended.
    pub async fn outwait_writes(self: &Rc<Self>) -> Result<(), CallError> {
        self.outwait_other_nodes().await;
        self.outwait_own_writes().await
    }

    /// Returns once the other nodes show the metadata as they are here, and their writes that went by older ones have
    /// ended.
    pub(super) async fn outwait_other_nodes(self: &Rc<Self>) {
        let Some(links) = &self.links else { return };
        let own = self.replicas.placement().node;
        let nodes = links.roster();
        let nodes = nodes.nodes.keys().copied();
        let others: Vec<_> = nodes
            .filter(|node| *node != own)
            .map(|node| {
                let this = self.clone();
                let outwait = async move { this.outwait_node(node).await };
                self.context.spawn(self.context.queues.latency, "outwait writes", outwait)
            })
            .collect();
        for other in others {
            other.await;
        }
    }

    async fn outwait_node(self: &Rc<Self>, node: NodeId) {
        let answered = match self.call(META_CORE, Call::OutwaitNode(node)).await {
            Ok(Reply::Done(result)) => result,
            Ok(_) => unreachable!("waiting is answered as done"),
            Err(error) => Err(error),
        };
        // A node that does not answer follows when it can be reached again, and without the others it stores nothing.
        if let Err(error) = answered {
            tracing::warn!(%error, "a node did not say that its writes had ended");
        }
    }

    /// As [`DataCore::outwait_other_nodes`], of one node; on the metadata's core, which is the one that has links to it.
    async fn outwait_node_from_here(&self, node: NodeId) -> Result<(), CallError> {
        let Some(links) = &self.links else { return Ok(()) };
        match links.call(node, META_GROUP, RemoteCall::OutwaitWrites, OUTWAIT_MAX).await {
            Ok(RemoteReply::Done(result)) => result,
            Ok(_) => Err(other_answer(node)),
            Err(failure) => Err(CallError::Unknown(failure.to_string())),
        }
    }

    /// As [`DataCore::outwait_writes`], of this node.
    pub(super) async fn outwait_own_writes(self: &Rc<Self>) -> Result<(), CallError> {
        let calls: Vec<_> = self.cores().map(|core| self.call(core, Call::OutwaitWrites)).collect();
        for call in calls {
            call.await?;
        }
        Ok(())
    }

    async fn change_store_here(self: &Rc<Self>, command: StoreCommand) -> Result<(), CallError> {
        let proposals: Vec<_> = self
            .gated()
            .filter_map(|id| {
                let command = command.of_partition(id, &self.partition_map)?;
                Some((id, self.propose_led(GroupId(id), Payload::Command(command.encode().into()))))
            })
            .collect();
        let mut settling = Vec::new();
        for (id, proposal) in proposals {
            let mut has_deleted = proposal.await? == Outcome::Store(Applied::Deleted);
            // What other nodes hold, a reader finds settled there.
            let Some(partition) = self.partitions.get(&id).filter(|_| self.is_held(id)) else { continue };
            if self.links.is_some() {
                // Another node may have taken the entry: here it shows when this replica is as far.
                self.read_group(GroupId(id)).await?;
                has_deleted = true;
            }
            let task = has_deleted.then(|| {
                // A million series take a second: writes go first.
                let (queue, partition) = (self.context.queues.background, partition.clone());
                self.context.spawn(queue, "settle deletes", async move { partition.settle().await })
            });
            settling.push((id, partition, task));
        }
        for (id, partition, task) in settling {
            if let Some(task) = task {
                task.await.map_err(|error| CallError::Unknown(error.to_string()))?;
            }
            self.ledger.count(id, partition);
        }
        Ok(())
    }

    /// Looks something up in all indexes.
    pub async fn ask(self: &Rc<Self>, question: Question) -> Result<Finding, CallError> {
        let question = Arc::new(question);
        let calls: Vec<_> = self.cores().map(|core| self.call(core, Call::Ask(question.clone()))).collect();
        let mut finding = question.empty();
        for call in calls {
            match call.await? {
                Reply::Found(part) => finding.join(part?),
                _ => unreachable!("a question is answered as one"),
            }
        }
        Ok(finding)
    }

    /// What all partitions have of a list, in sorted runs.
    pub async fn list(self: &Rc<Self>, order: ListOrder) -> Result<Vec<Run>, StatementError> {
        let order = Arc::new(order);
        let calls: Vec<_> = self.cores().map(|core| self.call(core, Call::List(order.clone()))).collect();
        let mut runs = Vec::new();
        for call in calls {
            match call.await? {
                Reply::Listed(part) => runs.extend(part?),
                _ => unreachable!("a list is answered as one"),
            }
        }
        Ok(runs)
    }

    /// The texts of some rows of a list; the mail is on its way when this returns.
    pub fn texts(self: &Rc<Self>, order: PageOrder) -> impl Future<Output = Result<Strings, CallError>> + use<> {
        let call = self.call(self.core_of(order.source.partition), Call::Texts(order));
        async move {
            match call.await? {
                Reply::Texts(texts) => texts,
                _ => unreachable!("texts are answered as such"),
            }
        }
    }

    /// The series of a database in a partition of this core; absent while nothing was written to it there.
    pub fn index(&self, partition: u32, database: DatabaseId) -> Option<Ref<'_, SeriesIndex>> {
        self.partitions.get(&partition)?.index(database)
    }

    /// Starts a scan on a core; its outputs come through the order's streams.
    pub async fn send_scan(self: &Rc<Self>, core: CoreId, order: scan::ScanOrder) -> Result<(), CallError> {
        match self.call(core, Call::Scan(order)).await? {
            Reply::Done(result) => result,
            _ => unreachable!("a scan is answered as one"),
        }
    }

    /// What a core's part of a scan would read.
    pub async fn cost_of(self: &Rc<Self>, core: CoreId, order: scan::ScanRequest) -> Result<scan::ScanCost, CallError> {
        match self.call(core, Call::Cost(order)).await? {
            Reply::Cost(cost) => cost.map_err(CallError::Unknown),
            _ => unreachable!("a cost is answered as one"),
        }
    }

    /// Flushes all partitions and links their files into the snapshot of this name; the files of each core.
    pub async fn snapshot_partitions(self: &Rc<Self>, name: &str) -> Result<Vec<Vec<Entry>>, CallError> {
        let calls: Vec<_> =
            self.cores().map(|core| self.call(core, Call::SnapshotPartitions(name.to_owned()))).collect();
        let mut linked = Vec::new();
        for call in calls {
            match call.await? {
                Reply::Linked(entries) => linked.push(entries?),
                _ => unreachable!("links are answered as such"),
            }
        }
        Ok(linked)
    }

    async fn snapshot_here(self: &Rc<Self>, name: &str) -> Result<Vec<Entry>, CallError> {
        let mut wanted = Vec::new();
        for (id, partition) in &self.partitions {
            let applied = partition.applied();
            if partition.has_unflushed_rows() || partition.has_work() {
                self.propose_led(GroupId(*id), Payload::Command(self.options.flush().encode().into())).await?;
                wanted.push((*id, applied));
            }
        }
        for (id, applied) in wanted {
            self.flush_beyond(id, applied).await?;
        }
        let mut entries = Vec::new();
        for (id, partition) in &self.partitions {
            entries.extend(link_partition(self, name, *id, partition).await?);
        }
        Ok(entries)
    }

    /// Waits until everything up to an index is in files, and helps.
    async fn flush_beyond(&self, partition: u32, applied: LogIndex) -> Result<(), CallError> {
        let begun_ns = self.context.clock.monotonic_ns();
        let machine = &self.partitions[&partition];
        while machine.flushed().0 <= applied {
            machine.maintain().await.map_err(|error| CallError::Unknown(error.to_string()))?;
            if self.context.clock.monotonic_ns() - begun_ns > FLUSH_NS_MAX {
                return Err(CallError::Unknown(format!("partition {partition} was not flushed in time")));
            }
            self.context.sleep(Duration::from_millis(5)).await;
        }
        Ok(())
    }

    /// The metadata as their snapshot has them.
    pub async fn snapshot_of_meta(self: &Rc<Self>) -> Result<Vec<u8>, CallError> {
        match self.call(META_CORE, Call::SnapshotMeta).await? {
            Reply::Bytes(bytes) => Ok(bytes),
            _ => unreachable!("the metadata are answered as bytes"),
        }
    }

    /// Where all files are.
    pub fn data_dir(&self) -> &Path {
        &self.options.data_dir
    }

    /// What a core counts.
    pub async fn figures_of(self: &Rc<Self>, core: CoreId) -> Result<CoreFigures, CallError> {
        match self.call(core, Call::Figures).await? {
            Reply::Figures(figures) => Ok(*figures),
            _ => unreachable!("figures are answered as such"),
        }
    }

    /// Asks a core, this one included. The mail is on its way when this returns.
    pub(crate) fn call(
        self: &Rc<Self>,
        core: CoreId,
        call: Call,
    ) -> Pin<Box<dyn Future<Output = Result<Reply, CallError>>>> {
        let this = self.clone();
        if core == self.context.core {
            return Box::pin(async move { Ok(this.answer(call).await) });
        }
        let (token, answer) = self.replies.register();
        let sent = match self.context.mail.try_send_to(core, Message::Call { token, call }) {
            Err(SendError::Full(mail)) => Err(mail),
            Err(SendError::Closed(_)) => {
                self.replies.abandon(token);
                Ok(())
            }
            Ok(()) => Ok(()),
        };
        Box::pin(async move {
            if let Err(mail) = sent
                && this.context.mail.send_to(core, mail).await.is_err()
            {
                this.replies.abandon(token);
            }
            answer.await.map_err(|_| CallError::Unknown(format!("{core} has ended")))
        })
    }

    async fn answer(self: &Rc<Self>, call: Call) -> Reply {
        match call {
            Call::Propose { group, payload, may_queue } => {
                Reply::Proposed(self.propose_queued(group, payload, may_queue).await.map(drop))
            }
            Call::ChangeMeta(command) => Reply::MetaChanged(self.change_meta_from_here(command).await),
            Call::FollowMeta(change) => self.follow_meta(&change),
            Call::ChangeStore(command) => Reply::Done(self.change_store_here(command).await),
            Call::CatchUp => Reply::Done(self.catch_up_here().await),
            Call::CatchUpTo(bound) => Reply::CaughtUp(self.catch_up_to_here(bound).await),
            Call::CatchUpMeta => Reply::Done(self.catch_up_meta_here().await),
            Call::OutwaitWrites => {
                self.typed_writes.outwait().await;
                Reply::Done(Ok(()))
            }
            Call::OutwaitNode(node) => Reply::Done(self.outwait_node_from_here(node).await),
            Call::AwaitAll(group) => Reply::Done(self.await_all_led(group).await),
            Call::Examine { mends } => {
                let (queue, this) = (self.context.queues.background, self.clone());
                let examine = async move { this.examine_here(mends).await };
                Reply::Examined(self.context.spawn(queue, "examine files", examine).await)
            }
            Call::AskMaster(call) => Reply::MasterAnswered(self.ask_master_from_here(call).await),
            Call::AskNode(node, call) => Reply::Answered(self.ask_node_from_here(node, call).await),
            Call::Describe => Reply::Description(self.describe_replicas().await),
            Call::Leads => Reply::Leads(self.leads()),
            Call::HandOver { group, to } => Reply::Done(self.hand_over_wherever(group, to).await),
            Call::Ask(question) => {
                let mut finding = question.empty();
                for id in self.held() {
                    question.ask(&self.partitions[&id], &mut finding);
                    self.context.yield_now_if_needed().await;
                }
                let joined = elsewhere::ask(self, &question, &mut finding).await;
                Reply::Found(joined.map(|()| finding))
            }
            Call::List(order) => {
                // A list of millions takes its time beside other queries, not beside writes.
                let (queue, this) = (self.context.queues.query, self.clone());
                Reply::Listed(self.context.spawn(queue, "sort a list", listing::gather(this, order)).await)
            }
            Call::Texts(order) if self.is_held(order.source.partition) => {
                Reply::Texts(Ok(listing::texts(self, &order)))
            }
            Call::Texts(order) => Reply::Texts(elsewhere::texts(self, &order).await),
            Call::LargeTags => Reply::LargeTags(self.large_tags()),
            Call::CountTagValues(question) => Reply::TagValuesCounted(self.count_tag_values(question).await),
            Call::CollectTagValues(tag) => Reply::TagValuesCollected(self.collect_tag_values(tag).await),
            Call::Scan(order) => {
                scan::run_scan(self.clone(), order);
                Reply::Done(Ok(()))
            }
            Call::Cost(order) => Reply::Cost(scan::cost_of_scan(self.clone(), order).await),
            Call::Figures => Reply::Figures(Box::new(CoreFigures::of(self))),
            Call::SnapshotPartitions(name) => Reply::Linked(self.snapshot_here(&name).await),
            Call::SnapshotMeta => {
                let machine = self.meta_machine.as_ref().expect("the metadata's core has its machine");
                Reply::Bytes(machine.encoded())
            }
        }
    }

    /// Reads the core's mail until the other cores have ended or the core stops.
    pub(crate) async fn read_mail(self: Rc<Self>) {
        while let Some((from, message)) = self.context.mail.receive().await {
            match message {
                Message::Reply { token, reply } => {
                    // Nobody waits any more if the asker was dropped; a write goes on all the same.
                    let _ = self.replies.complete(token, reply);
                }
                Message::Metadata { meta, expected } => {
                    *self.meta.borrow_mut() = Meta::clone(&meta);
                    *self.nodes_expected.borrow_mut() = expected;
                    self.met.set(true);
                    self.met_changed.notify();
                }
                Message::Parting => {
                    self.parted.set(self.parted.get() + 1);
                    self.met_changed.notify();
                }
                Message::Epoch { .. } => unreachable!("the epoch is told before the mail is read"),
                // In the order of the mail: the copies of the metadata must not overtake each other.
                Message::Call { token, call: Call::FollowMeta(change) } => {
                    let reply = self.follow_meta(&change);
                    self.reply(from, token, reply);
                }
                Message::Call { token, call } => {
                    let this = self.clone();
                    let answer = async move {
                        let reply = this.answer(call).await;
                        this.reply(from, token, reply);
                    };
                    self.context.spawn(self.context.queues.latency, "answer a core", answer).detach();
                }
            }
        }
    }

    /// Sends a reply without making the reader of the mail wait.
    fn reply(self: &Rc<Self>, to: CoreId, token: tidemill_reactor::Token, reply: Reply) {
        if let Err(SendError::Full(mail)) = self.context.mail.try_send_to(to, Message::Reply { token, reply }) {
            let mailbox = self.context.mail.clone();
            let send = async move {
                let _ = mailbox.send_to(to, mail).await;
            };
            self.context.spawn(self.context.queues.latency, "reply to a core", send).detach();
        }
    }
}
