//! What is queued on its way to its partitions.
//!
//! One task a partition sends the oldest batch until its leader has said what became of it, and then the next one. The
//! metadata are looked at before each: points of what was dropped meanwhile are not stored.

use super::{GroupFigures, Handoff, HandoffQueue, Head, PushError, entry::QueuedBatch, figures::add};
use crate::{
    data::{DataCore, message::CallError},
    links::Links,
    replica::{Payload, ProposeError},
};
use futures_lite::future;
use std::{rc::Rc, time::Duration};
use tidemill_disk::Disk;
use tidemill_log::LogOptions;
use tidemill_meta::{DatabaseId, PolicyId, ShardGroupId};
use tidemill_raft::GroupId;
use tidemill_reactor::RingDisk;

/// How long one try to deliver takes at most; the next comes after a pause.
const DELIVERY_WAIT: Duration = Duration::from_secs(5);
/// How long a write waits until what is queued before it has left.
const PASSAGE_WAIT: Duration = Duration::from_secs(10);
/// A queue that is busy is tried again for so long.
const ROOM_WAIT_NS_MAX: u64 = 2_000_000_000;
/// Waits of stopping tasks are no longer than this.
const PAUSE_MAX: Duration = Duration::from_millis(200);

/// What is to be done with the batch at the head.
enum Fate {
    Delivered,
    Later,
    Dropped(String),
}

impl<D: Disk> Handoff<D> {
    /// Whether something of a group waits here.
    pub fn is_waiting(&self, group: GroupId) -> bool {
        self.queue().is_some_and(|queue| queue.is_waiting(group))
    }

    /// What waits of each group.
    pub fn waiting(&self) -> Vec<GroupFigures> {
        self.queue().map(|queue| queue.figures()).unwrap_or_default()
    }

    /// Nothing is queued any more.
    pub fn close(&self) {
        if let Some(queue) = self.queue() {
            queue.close();
        }
    }

    fn queue(&self) -> Option<Rc<HandoffQueue<D>>> {
        self.queue.borrow().clone()
    }

    fn changed(&self) {
        if let Some(queue) = self.queue() {
            queue.count(&self.figures);
        }
        self.changed.notify();
    }
}

impl DataCore {
    /// Opens what earlier runs left, before anything is written.
    pub(crate) async fn reopen_handoff(self: &Rc<Self>) -> Result<(), PushError> {
        if self.links.is_some() {
            self.open_handoff(false).await?;
            self.handoff.changed();
        }
        Ok(())
    }

    /// Keeps a batch, which has its identity, for a partition that has no majority now. Durable when it returns.
    pub(crate) async fn hand_off(self: &Rc<Self>, group: GroupId, image: &[u8]) -> Result<(), PushError> {
        let queued = self.queue_batch(group, image).await;
        let figures = &self.handoff.figures;
        match &queued {
            Ok(()) => {
                add(&figures.queued, 1);
                add(&figures.queued_bytes, image.len() as u64);
            }
            Err(_) => add(&figures.refused, 1),
        }
        self.handoff.changed();
        queued
    }

    async fn queue_batch(self: &Rc<Self>, group: GroupId, image: &[u8]) -> Result<(), PushError> {
        let queue = self.open_handoff(true).await?.ok_or(PushError::Busy)?;
        let begun_ns = self.context.clock.monotonic_ns();
        loop {
            let queued_ms = (self.context.clock.now_ns().max(0) / 1_000_000) as u64;
            match queue.push(group, queued_ms, image) {
                Ok(position) => return queue.durable(position).await,
                Err(PushError::Busy | PushError::DiskFull)
                    if self.context.clock.monotonic_ns() - begun_ns < ROOM_WAIT_NS_MAX =>
                {
                    // Often the next segment is not made yet.
                    future::or(queue.room(), self.context.sleep(PAUSE_MAX)).await;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// The queue of this core, if there is one or it is to be made.
    async fn open_handoff(self: &Rc<Self>, makes: bool) -> Result<Option<Rc<HandoffQueue<RingDisk>>>, PushError> {
        let _turn = self.handoff.opening.take().await;
        if let Some(queue) = self.handoff.queue() {
            return Ok(Some(queue));
        }
        let options = &self.options.handoff;
        let folder = format!("{}/{}", options.folder, self.context.core.index());
        let failed = |error: String| PushError::Failed(error);
        let disk = self.context.disk.clone();
        if !makes && disk.list(&folder).await.map_err(|error| failed(error.to_string()))?.is_empty() {
            return Ok(None);
        }
        disk.create_dir(&folder).await.map_err(|error| failed(error.to_string()))?;
        let bytes_max = options.bytes_max / self.context.cores as u64;
        let defaults = LogOptions::default();
        // Room for what may wait, and for what is kept because one partition of several is away.
        let segments_max = 2 * (bytes_max / defaults.segment_bytes) as usize + defaults.segments_max;
        let log = LogOptions { segments_max, new_log_id: self.context.seed.random_u64(), ..defaults };
        let queue = HandoffQueue::open(disk, &folder, log, bytes_max).await;
        let queue = Rc::new(queue.map_err(|error| failed(error.to_string()))?);
        *self.handoff.queue.borrow_mut() = Some(queue.clone());
        let run = queue.clone();
        let run = async move {
            if let Err(poisoned) = run.run().await {
                tracing::error!(%poisoned, "the hinted-handoff queue takes no more writes");
            }
        };
        self.context.spawn(self.context.queues.latency, "handoff log", run).detach();
        Ok(Some(queue))
    }

    /// Returns once what waits of a group has left; `false`: it takes too long.
    pub(crate) async fn outwait_handoff(&self, group: GroupId) -> bool {
        let begun_ns = self.context.clock.monotonic_ns();
        loop {
            let changed = self.handoff.changed.notified();
            if !self.handoff.is_waiting(group) {
                return true;
            }
            if self.context.clock.monotonic_ns() - begun_ns > PASSAGE_WAIT.as_nanos() as u64 || self.stopping.get() {
                return false;
            }
            future::or(changed, self.context.sleep(PAUSE_MAX)).await;
        }
    }

    /// Delivers what is queued, also by earlier runs, and lets go what becomes too old, until the node stops.
    pub(crate) async fn run_handoff(self: Rc<Self>) {
        let Some(links) = self.links.clone().filter(|_| self.options.handoff.is_enabled) else { return };
        let mut purged_ns = self.context.clock.monotonic_ns();
        while !self.context.shutdown.is_requested() {
            let changed = self.handoff.changed.notified();
            if let Some(queue) = self.handoff.queue() {
                for group in queue.waiting_groups() {
                    if self.handoff.delivering.borrow_mut().insert(group) {
                        let deliver = self.clone().deliver(links.clone(), queue.clone(), group);
                        self.context.spawn(self.context.queues.latency, "handoff", deliver).detach();
                    }
                }
                let now_ns = self.context.clock.monotonic_ns();
                if now_ns - purged_ns >= self.options.handoff.purge_interval.as_nanos() as u64 {
                    purged_ns = now_ns;
                    self.purge_handoff(&queue);
                }
            }
            let pause = self.options.handoff.purge_interval.min(PAUSE_MAX * 5);
            let stop = self.context.shutdown.requested();
            future::or(
                changed,
                future::or(self.context.sleep(pause), async {
                    stop.await;
                }),
            )
            .await;
        }
    }

    fn purge_handoff(&self, queue: &HandoffQueue<RingDisk>) {
        let now_ms = (self.context.clock.now_ns().max(0) / 1_000_000) as u64;
        let before_ms = now_ms.saturating_sub(self.options.handoff.age_max.as_millis() as u64);
        let purged = queue.purge(before_ms);
        for (group, batches, bytes) in &purged {
            add(&self.handoff.figures.purged, *batches);
            add(&self.handoff.figures.purged_bytes, *bytes);
            tracing::error!(
                partition = group.0,
                batches,
                bytes,
                "writes were lost that waited in the hinted-handoff queue for longer than hinted-handoff.max-age"
            );
        }
        if !purged.is_empty() {
            self.handoff.changed();
        }
    }

    async fn deliver(self: Rc<Self>, links: Rc<Links>, queue: Rc<HandoffQueue<RingDisk>>, group: GroupId) {
        let options = &self.options.handoff;
        let mut pause = options.retry_interval;
        while queue.is_waiting(group) && !self.context.shutdown.is_requested() {
            let head = match queue.head(group).await {
                Ok(Some(head)) => head,
                // Not durable yet.
                Ok(None) => {
                    self.context.sleep(Duration::from_millis(5)).await;
                    continue;
                }
                Err(error) => {
                    tracing::error!(partition = group.0, %error, "a write in the hinted-handoff queue cannot be read");
                    self.sleep_unless_stopping(options.retry_interval_max).await;
                    continue;
                }
            };
            let bytes = head.image.len() as u64;
            match self.deliver_one(&links, group, &head).await {
                Fate::Later => {
                    add(&self.handoff.figures.retries, 1);
                    self.sleep_unless_stopping(pause).await;
                    pause = (pause * 2).min(options.retry_interval_max);
                    continue;
                }
                Fate::Delivered => {
                    if queue.leave(group, head.index) {
                        add(&self.handoff.figures.delivered, 1);
                        add(&self.handoff.figures.delivered_bytes, bytes);
                    }
                }
                Fate::Dropped(why) => {
                    if queue.leave(group, head.index) {
                        add(&self.handoff.figures.dropped, 1);
                        add(&self.handoff.figures.dropped_bytes, bytes);
                        tracing::error!(
                            partition = group.0,
                            bytes,
                            why,
                            "a write of the hinted-handoff queue was dropped"
                        );
                    }
                }
            }
            pause = options.retry_interval;
            self.handoff.changed();
            if let Some(wait_ns) = (bytes * 1_000_000_000).checked_div(options.rate_bytes) {
                self.sleep_unless_stopping(Duration::from_nanos(wait_ns)).await;
            }
        }
        self.handoff.delivering.borrow_mut().remove(&group);
        self.handoff.changed();
    }

    async fn deliver_one(self: &Rc<Self>, links: &Rc<Links>, group: GroupId, head: &Head) -> Fate {
        let batch = QueuedBatch { queued_ms: head.queued_ms, image: &head.image };
        let place = match batch.batch() {
            Ok(batch) => {
                let header = batch.header();
                (DatabaseId(header.database), PolicyId(header.retention_policy), ShardGroupId(header.shard_group))
            }
            Err(error) => return Fate::Dropped(error.to_string()),
        };
        // A drop outwaits this, or is seen by it.
        let _typed = self.typed_writes.begin();
        if self.catch_up_meta().await.is_err() {
            return Fate::Later;
        }
        let is_wanted = {
            let meta = self.meta();
            let policies = meta.database_by_id(place.0).map(|database| &database.policies);
            let policy = policies.and_then(|policies| policies.iter().find(|policy| policy.id == place.1));
            policy.is_some_and(|policy| policy.groups.iter().any(|group| group.id == place.2))
        };
        if !is_wanted {
            return Fate::Dropped("its database, retention policy or shard group was dropped meanwhile".to_owned());
        }
        match self.resend(links, group, &Payload::Batch(head.image.clone()), DELIVERY_WAIT).await {
            Ok(_) => Fate::Delivered,
            Err(CallError::Refused(ProposeError::TooLarge(why))) => Fate::Dropped(why),
            Err(error @ (CallError::NewSeries(_) | CallError::Forgotten { .. })) => Fate::Dropped(error.to_string()),
            Err(CallError::Refused(_) | CallError::Unknown(_)) => Fate::Later,
        }
    }

    async fn sleep_unless_stopping(&self, pause: Duration) {
        let stop = self.context.shutdown.requested();
        future::or(self.context.sleep(pause), async {
            stop.await;
        })
        .await;
    }

    /// What waits in the queue of this core, and when the oldest of it was queued, for people and their tools.
    pub(crate) fn describe_handoff(&self) -> serde_json::Value {
        let groups = self.handoff.waiting().into_iter().map(|of_group| {
            serde_json::json!({
                "group": of_group.group.0,
                "batches": of_group.batches,
                "bytes": of_group.bytes,
                "oldest_ms": of_group.oldest_ms,
            })
        });
        let figures = &self.handoff.figures;
        serde_json::json!({
            "waiting": groups.collect::<Vec<_>>(),
            "queued": figures.queued.get(),
            "delivered": figures.delivered.get(),
            "retries": figures.retries.get(),
            "refused": figures.refused.get(),
            "purged": figures.purged.get(),
            "dropped": figures.dropped.get(),
        })
    }
}
