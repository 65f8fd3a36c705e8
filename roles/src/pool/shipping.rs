//! The hand-over of a partition's sealed files to the pool, by its leader.
//!
//! One task a core. For each partition that this node leads it looks which sealed files have not changed for as long as
//! their retention policy says, asks the masters for copies of them until there are enough that are durable, and then
//! proposes the hand-over: from that entry on the blocks are the pool's. It tells the masters again and again what the
//! partition has in the pool, so that what it does not need any more is deleted there.
//! Invariants: a file is handed over only when the masters have said, in answer to a question of this leader, that
//! enough slaves have it for good; what is told to the masters holds every file that any replica may still read.
//! Knows nothing of slaves: the masters choose them, and the slaves fetch the files from the nodes that are named.

use super::masters::Masters;
use crate::{
    data::DataCore,
    links::{Duty, Links},
    replica::Payload,
};
use futures_lite::future;
use std::{
    cell::Cell,
    collections::{BTreeMap, BTreeSet},
    rc::Rc,
    time::Duration,
};
use tidemill_pool::{FileId, MasterCall, MasterReply, Place, Report, Source};
use tidemill_raft::{GroupId, LogIndex};
use tidemill_reactor::RingDisk;
use tidemill_store::{Command, FileRecord, HandedFile, Partition, Tier};

/// Between two looks at the files, and two questions about the same file.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Between two reports of a partition; nothing is deleted in the pool before all partitions have reported.
const REPORT_EVERY_NS: u64 = 5_000_000_000;
/// Files of a partition that are asked for at one look, oldest first.
const PLACES_AT_ONCE: usize = 64;
/// For an entry that is proposed, and for a majority to agree on what there is.
const WAIT_MAX: Duration = Duration::from_secs(5);

/// What shipping does, of one core.
#[derive(Default)]
pub struct ShippingFigures {
    pub files: Cell<u64>,
    pub bytes: Cell<u64>,
    /// Files that are due and not handed over yet, of partitions that are led here.
    pub waiting_files: Cell<u64>,
    pub waiting_bytes: Cell<u64>,
    /// Partitions whose files the pool cannot take.
    pub short: Cell<u64>,
}

/// What a retention policy asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Wishes {
    copies: u8,
    after_ns: u64,
    tier: Tier,
}

/// A sealed file as it was last seen.
struct Seen {
    since_ns: u64,
    deletes: usize,
}

/// Of one partition that is led here.
#[derive(Default)]
struct Shipment {
    seen: BTreeMap<[u8; 32], Seen>,
    /// The masters were asked for copies of these.
    asked: BTreeSet<[u8; 32]>,
    /// What was reported last, with the copies that are wanted.
    reported: BTreeMap<[u8; 32], u8>,
    /// Files that are not needed here any more, until every replica has the entry by which they went.
    parting: BTreeMap<[u8; 32], (LogIndex, u8)>,
    reported_ns: Option<u64>,
    /// Why files stay, as it was last logged.
    why: Option<String>,
    waiting: (u64, u64),
}

struct Shipper {
    core: Rc<DataCore>,
    links: Rc<Links>,
    masters: Masters,
    partitions: BTreeMap<u32, Shipment>,
}

/// Ships what the partitions of this core have, until the core stops.
pub async fn run(core: Rc<DataCore>) {
    let Some(links) = core.links.clone() else { return };
    let mut shipper = Shipper { core, links, masters: Masters::default(), partitions: BTreeMap::new() };
    while !shipper.is_over() {
        shipper.core.context().sleep(LOOK_EVERY).await;
        if shipper.has_pool() {
            shipper.look().await;
        }
    }
}

impl Shipper {
    fn is_over(&self) -> bool {
        self.core.stopping.get() || self.core.context().shutdown.is_requested()
    }

    fn has_pool(&self) -> bool {
        let roster = self.links.roster();
        roster.nodes.values().any(|member| member.duty == Duty::PoolMaster)
    }

    async fn look(&mut self) {
        let core = self.core.clone();
        let led: BTreeSet<u32> =
            core.partitions.keys().copied().filter(|id| core.replicas.leads(GroupId(*id))).collect();
        self.partitions.retain(|id, _| led.contains(id));
        for id in led {
            let mut shipment = self.partitions.remove(&id).unwrap_or_default();
            let partition = &core.partitions[&id];
            if let Err(why) = self.ship(id, partition, &mut shipment).await {
                tracing::debug!(partition = id, why, "files are not handed over now");
            }
            self.partitions.insert(id, shipment);
            if self.is_over() {
                return;
            }
        }
        let shipments = || self.partitions.values();
        let figures = &core.pool.shipping;
        figures.waiting_files.set(shipments().map(|shipment| shipment.waiting.0).sum());
        figures.waiting_bytes.set(shipments().map(|shipment| shipment.waiting.1).sum());
        figures.short.set(shipments().filter(|shipment| shipment.why.is_some()).count() as u64);
    }

    async fn ship(&self, id: u32, partition: &Rc<Partition<RingDisk>>, shipment: &mut Shipment) -> Result<(), String> {
        let group = GroupId(id);
        // A leader that is new, or none any more, does not know what was handed over last.
        let term = self.term(group).ok_or("the group is not here")?;
        let read = async { self.core.replicas.read(group).await.is_ok() };
        if !future::or(read, async { !self.sleep(WAIT_MAX).await }).await || self.term(group) != Some(term) {
            return Err("no majority says that this node leads".to_owned());
        }
        let now_ns = self.core.context().clock.monotonic_ns();
        let files = partition.sealed_files();
        shipment.see(&files, now_ns);
        self.report(id, term, partition, shipment, now_ns).await?;
        let copying: BTreeSet<u64> =
            partition.group_files().iter().filter(|files| files.is_copying).map(|files| files.shard_group.0).collect();
        let is_due = |file: &&FileRecord| {
            let wishes = self.wishes(file.database, file.policy);
            let age_ns = shipment.seen.get(&file.hash).map_or(0, |seen| now_ns - seen.since_ns);
            file.tier < wishes.tier && age_ns >= wishes.after_ns && !copying.contains(&file.shard_group)
        };
        let mut due: Vec<&FileRecord> = files.iter().filter(is_due).collect();
        due.sort_by_key(|file| (file.min_time, file.generation, file.sequence));
        shipment.waiting = (due.len() as u64, due.iter().map(|file| file.size).sum());
        let mut ready: BTreeMap<(u64, Tier), Vec<&FileRecord>> = BTreeMap::new();
        let mut whys = Vec::new();
        for file in due.into_iter().take(PLACES_AT_ONCE) {
            let wishes = self.wishes(file.database, file.policy);
            shipment.asked.insert(file.hash);
            match self.place(id, term, file, wishes.copies).await {
                Ok((durable, _)) if durable >= usize::from(wishes.copies) => {
                    ready.entry((file.shard_group, wishes.tier)).or_default().push(file);
                }
                Ok((_, why)) => whys.extend(why),
                Err(why) => {
                    whys.push(why);
                    break;
                }
            }
        }
        shipment.say(id, whys.into_iter().next());
        for ((shard_group, tier), files) in ready {
            self.hand_over(group, term, shard_group, tier, &files).await?;
            shipment.waiting.0 -= files.len() as u64;
            shipment.waiting.1 -= files.iter().map(|file| file.size).sum::<u64>();
        }
        Ok(())
    }

    fn term(&self, group: GroupId) -> Option<u64> {
        self.core.replicas.group(group).map(|group| group.term().0)
    }

    async fn sleep(&self, time: Duration) -> bool {
        self.core.context().sleep(time).await;
        true
    }

    /// What is to become of the files of a retention policy; those of one that is gone are on their way out.
    fn wishes(&self, database: u32, policy: u32) -> Wishes {
        let meta = self.core.meta();
        let known = meta.databases().iter().find(|known| known.id.0 == database);
        let known = known.and_then(|known| known.policies.iter().find(|known| known.id.0 == policy));
        let pool = known.map(|known| known.pool).unwrap_or_default();
        let defaults = &self.core.options.pool;
        let keeps_local = pool.keeps_local.unwrap_or(defaults.keeps_local);
        Wishes {
            copies: pool.copies.unwrap_or(defaults.copies),
            after_ns: pool.after_ns.unwrap_or(defaults.after.as_nanos() as u64),
            tier: if keeps_local { Tier::Both } else { Tier::Pool },
        }
    }

    /// How many slaves have a file for good, and why there are not more.
    async fn place(
        &self,
        partition: u32,
        term: u64,
        file: &FileRecord,
        copies: u8,
    ) -> Result<(usize, Option<String>), String> {
        let own = self.core.replicas.placement().node;
        let nodes = std::iter::once(own).chain(self.core.holders_elsewhere(GroupId(partition)));
        let name = format!("g{}/{}", file.shard_group, file.name());
        let call = MasterCall::Place(Place {
            partition,
            term,
            file: FileId(file.hash),
            size: file.size,
            min_time: file.min_time,
            max_time: file.max_time,
            copies,
            sources: nodes.map(|node| Source::Data { node: node.0, partition, name: name.clone() }).collect(),
        });
        match self.masters.ask(&self.links, &call).await? {
            MasterReply::Placed(placed) => Ok((placed.durable.len(), placed.why)),
            MasterReply::Fenced { term } => Err(format!("the masters have heard of a leader of term {term}")),
            MasterReply::Refused(why) => Err(why),
            other => Err(format!("a master answered {other:?}")),
        }
    }

    async fn hand_over(
        &self,
        group: GroupId,
        term: u64,
        shard_group: u64,
        tier: Tier,
        files: &[&FileRecord],
    ) -> Result<(), String> {
        // What was asked as the leader of one term is not proposed as that of another.
        if self.term(group) != Some(term) {
            return Err("the leader has changed".to_owned());
        }
        let handed: Vec<HandedFile> = files.iter().map(|file| file.handed()).collect();
        let command = Command::HandOver { shard_group, files: handed, keeps_local: tier == Tier::Both };
        let proposed = self.core.replicas.propose(group, Payload::Command(command.encode().into()));
        let ticket = proposed.map_err(|error| error.to_string())?;
        let outcome = future::or(async { Some(ticket.outcome().await) }, async {
            self.core.context().sleep(WAIT_MAX).await;
            None
        });
        match outcome.await {
            Some(Ok(_)) => {}
            Some(Err(lost)) => return Err(lost.to_string()),
            None => return Err("a hand-over was not decided in time".to_owned()),
        }
        let bytes: u64 = files.iter().map(|file| file.size).sum();
        let figures = &self.core.pool.shipping;
        figures.files.set(figures.files.get() + files.len() as u64);
        figures.bytes.set(figures.bytes.get() + bytes);
        tracing::info!(partition = group.0, shard_group, files = files.len(), bytes, "handed over to the storage pool");
        Ok(())
    }

    /// Tells the masters what the partition has in the pool or on its way there.
    async fn report(
        &self,
        id: u32,
        term: u64,
        partition: &Partition<RingDisk>,
        shipment: &mut Shipment,
        now_ns: u64,
    ) -> Result<(), String> {
        if shipment.reported_ns.is_some_and(|last| now_ns - last < REPORT_EVERY_NS) {
            return Ok(());
        }
        let index = partition.applied();
        let records: BTreeMap<[u8; 32], FileRecord> =
            partition.sealed_files().into_iter().map(|record| (record.hash, record)).collect();
        let asked = shipment.asked.iter().copied().filter(|hash| records.contains_key(hash));
        let copies = |hash: &[u8; 32]| match records.get(hash) {
            Some(record) => self.wishes(record.database, record.policy).copies,
            None => self.core.options.pool.copies,
        };
        let present: BTreeMap<[u8; 32], u8> =
            partition.pool_files().into_iter().chain(asked).map(|hash| (hash, copies(&hash))).collect();
        // A replica that has not applied the entry yet by which a file went may have to read it.
        let everywhere = self.core.replicas.durable_everywhere(GroupId(id)).unwrap_or(LogIndex(0));
        for (hash, copies) in &shipment.reported {
            if !present.contains_key(hash) {
                shipment.parting.entry(*hash).or_insert((index, *copies));
            }
        }
        shipment.parting.retain(|hash, (went, _)| *went > everywhere && !present.contains_key(hash));
        shipment.asked.retain(|hash| records.get(hash).is_some_and(|record| record.tier == Tier::Local));
        let parting = shipment.parting.iter().map(|(hash, (_, copies))| (FileId(*hash), *copies));
        let mut files: Vec<(FileId, u8)> = present.iter().map(|(hash, copies)| (FileId(*hash), *copies)).collect();
        files.extend(parting);
        let call = MasterCall::Report(Report { partition: id, term, index: index.0, files });
        match self.masters.ask(&self.links, &call).await? {
            MasterReply::Reported => {
                shipment.reported_ns = Some(now_ns);
                shipment.reported = present;
                Ok(())
            }
            MasterReply::Fenced { term } => Err(format!("the masters have heard of a leader of term {term}")),
            other => Err(format!("a report was answered by {other:?}")),
        }
    }
}

impl Shipment {
    fn see(&mut self, files: &[FileRecord], now_ns: u64) {
        let mut before = std::mem::take(&mut self.seen);
        for file in files {
            let deletes = file.tombstones.len();
            let known = before.remove(&file.hash).filter(|seen| seen.deletes == deletes);
            self.seen.insert(file.hash, known.unwrap_or(Seen { since_ns: now_ns, deletes }));
        }
    }

    /// Logs why files stay, once.
    fn say(&mut self, partition: u32, why: Option<String>) {
        if self.why == why {
            return;
        }
        match &why {
            Some(why) => tracing::warn!(partition, why, "files stay here: the storage pool does not take them"),
            None => tracing::info!(partition, "the storage pool takes files again"),
        }
        self.why = why;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(hash: u8, deletes: u64) -> FileRecord {
        let tombstone = |index| tidemill_store::Tombstone {
            index,
            measurements: tidemill_store::Measurements::All,
            condition: tidemill_store::TagCondition::All,
            field: None,
            min_time: 0,
            max_time: 1,
        };
        FileRecord {
            database: 1,
            policy: 1,
            shard_group: 1,
            generation: 1,
            sequence: 1,
            level: 2,
            late: false,
            tier: Tier::Local,
            hash: [hash; 32],
            size: 100,
            blocks_end: 50,
            directory_offset: 60,
            index_offset: 70,
            tail_crc: 0,
            min_time: 0,
            max_time: 1,
            points: 1,
            tombstones: (0..deletes).map(tombstone).collect(),
        }
    }

    #[test]
    fn a_file_is_as_old_as_its_newest_delete_and_what_went_is_forgotten() {
        let mut shipment = Shipment::default();
        shipment.see(&[file(1, 0), file(2, 0)], 10);
        shipment.see(&[file(1, 0), file(2, 1)], 20);
        let since = |shipment: &Shipment, hash: u8| shipment.seen.get(&[hash; 32]).map(|seen| seen.since_ns);
        assert_eq!((since(&shipment, 1), since(&shipment, 2)), (Some(10), Some(20)));
        shipment.see(&[file(2, 1)], 30);
        assert_eq!((since(&shipment, 1), since(&shipment, 2)), (None, Some(20)));
    }
}
