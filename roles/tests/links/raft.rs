//! Raft groups of three nodes over real links: they elect, replicate, and bring a node up to date by files.

use crate::harness::{Core, FOLDER, Trust, run, until};
use bytes::Bytes;
use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    rc::Rc,
    time::{Duration, Instant},
};
use tidemill::replica::{
    FilePart, Gift, InstallFailure, LocalFuture, Machine, Offer, Outcome, Payload, Placement, Replicas, Sources,
    Surroundings, recover,
};
use tidemill_disk::sim::SimDisk;
use tidemill_log::LogOptions;
use tidemill_raft::{GroupId, LogIndex, Membership, Moment, NodeId, Options, Term};
use tidemill_store::Applied;

const GROUPS: [GroupId; 3] = [GroupId(0), GroupId(1), GroupId(2)];
const NODES: u64 = 3;

/// Keeps what it was given, one line an entry.
struct Lines {
    lines: RefCell<Vec<u8>>,
    last: Cell<(LogIndex, Term)>,
    flushed: Cell<(LogIndex, Term)>,
    flushed_bytes: Cell<u64>,
    disk: SimDisk,
}

impl Lines {
    fn new(disk: SimDisk) -> Lines {
        Lines {
            lines: RefCell::default(),
            last: Cell::default(),
            flushed: Cell::default(),
            flushed_bytes: Cell::default(),
            disk,
        }
    }

    fn take(&self, term: Term, index: LogIndex, bytes: &[u8]) {
        assert_eq!(index, self.last.get().0.next());
        self.last.set((index, term));
        self.lines.borrow_mut().extend_from_slice(bytes);
        self.lines.borrow_mut().push(b'\n');
    }

    /// What it holds is in a file.
    fn flush(&self, group: GroupId) -> LogIndex {
        self.flushed.set(self.last.get());
        self.flushed_bytes.set(self.lines.borrow().len() as u64);
        let name = format!("{FOLDER}/g{group}/{}", self.last.get().0);
        self.disk.plant(&name, self.lines.borrow().clone());
        self.last.get().0
    }
}

impl Machine for Lines {
    fn apply(&self, term: Term, index: LogIndex, payload: Option<&Payload>) -> Result<Outcome, String> {
        self.take(term, index, &payload.map(|payload| payload.parts().concat()).unwrap_or_default());
        Ok(Outcome::Store(Applied::Nothing))
    }

    fn replay(&self, term: Term, index: LogIndex, bytes: &[u8]) -> Result<(), String> {
        self.take(term, index, bytes);
        Ok(())
    }

    fn flushed(&self) -> (LogIndex, Term) {
        self.flushed.get()
    }

    fn flushed_members(&self) -> Vec<u8> {
        Vec::new()
    }

    fn applied(&self) -> LogIndex {
        self.last.get().0
    }

    fn offer(&self) -> LocalFuture<'_, Option<Offer>> {
        let (index, size) = (self.flushed.get().0, self.flushed_bytes.get());
        Box::pin(async move { Some(Offer { index, manifest: size.to_le_bytes().to_vec().into() }) })
    }

    fn install<'a>(&'a self, gift: &'a Gift, sources: &'a dyn Sources) -> LocalFuture<'a, Result<(), InstallFailure>> {
        Box::pin(async {
            let size = u64::from_le_bytes(gift.manifest[..].try_into().unwrap());
            let name = format!("g{}/{}", gift.group, gift.base.index);
            let opened = sources.open(gift.from, gift.group, FilePart::head(name, size)).await;
            let mut inflow = opened.map_err(InstallFailure::Unchanged)?;
            let mut lines = vec![0; size as usize + 1];
            let count = inflow.fill(&mut lines).await.map_err(InstallFailure::Unchanged)?;
            lines.truncate(count);
            *self.lines.borrow_mut() = lines;
            self.last.set((gift.base.index, gift.base.term));
            self.flushed.set(self.last.get());
            Ok(())
        })
    }
}

struct Member {
    core: Core,
    replicas: Rc<Replicas<SimDisk>>,
    lines: BTreeMap<GroupId, Rc<Lines>>,
}

impl Member {
    async fn start(trust: &Trust, node: u64) -> Member {
        let core = Core::new(trust, node, 0);
        let disk = core.seen.disk.clone();
        let lines: BTreeMap<GroupId, Rc<Lines>> =
            GROUPS.iter().map(|group| (*group, Rc::new(Lines::new(disk.clone())))).collect();
        let machines: BTreeMap<GroupId, Rc<dyn Machine>> =
            lines.iter().map(|(group, lines)| (*group, lines.clone() as Rc<dyn Machine>)).collect();
        let members = Membership::new((1..=NODES).map(NodeId), []).unwrap();
        let groups = GROUPS.iter().map(|group| (*group, members.clone())).collect();
        let (begun, links) = (Instant::now(), core.links.clone());
        let surroundings = Surroundings {
            placement: Placement { node: NodeId(node), groups },
            clock: Box::new(move || Moment(begun.elapsed().as_micros() as u64)),
            outlet: Box::new(move |message| links.send(message)),
            options: Box::new(move |group, node| Options {
                election_timeout: 300_000,
                heartbeat_interval: 30_000,
                tail_bytes_max: 4 << 10,
                ..Options::new(group, node, node.0 * 100 + u64::from(group.0))
            }),
            sources: core.links.sources(),
        };
        let recovered = recover(disk, "log", LogOptions::default(), &surroundings.placement, &machines).await;
        let (log, mut found) = recovered.unwrap();
        let replicas = Rc::new(Replicas::new(log.clone(), surroundings));
        glommio::spawn_local(async move { log.run().await }).detach();
        for (group, machine) in machines {
            replicas.open_group(group, found.remove(&group).unwrap_or_default(), machine).await.unwrap();
        }
        let (commits, chores, ticks, inlet) = (replicas.clone(), replicas.clone(), replicas.clone(), replicas.clone());
        glommio::spawn_local(async move { commits.run_commits().await }).detach();
        glommio::spawn_local(async move { chores.run_chores().await }).detach();
        glommio::spawn_local(async move {
            loop {
                ticks.tick();
                glommio::timer::sleep(Duration::from_millis(10)).await;
            }
        })
        .detach();
        // What is not listened to is as lost.
        *core.seen.inlet.borrow_mut() = Some(Box::new(move |message| {
            let _ = inlet.receive(message);
        }));
        core.begin(trust, node, 0, &GROUPS);
        Member { core, replicas, lines }
    }

    fn lines_of(&self, group: GroupId) -> Vec<u8> {
        self.lines[&group].lines.borrow().clone()
    }
}

/// Proposes wherever the leader is, until it is taken and committed.
async fn write(members: &[Member], group: GroupId, text: String) {
    let begun = Instant::now();
    loop {
        assert!(begun.elapsed() < crate::harness::PATIENCE, "nobody takes {text}");
        let payload = Payload::Command(Bytes::from(text.clone()));
        let taken = members.iter().find_map(|member| member.replicas.propose(group, payload.clone()).ok());
        if let Some(ticket) = taken
            && ticket.outcome().await.is_ok()
        {
            return;
        }
        glommio::timer::sleep(Duration::from_millis(5)).await;
    }
}

#[test]
fn groups_elect_and_replicate_over_links_and_a_late_node_is_given_files() {
    run(|| async {
        let trust = Trust::new(&[1, 1, 1]);
        let mut members = vec![Member::start(&trust, 1).await, Member::start(&trust, 2).await];
        for number in 0..40 {
            for group in GROUPS {
                write(&members, group, format!("{group}:{number}:{}", "x".repeat(1000))).await;
            }
        }
        until("both to apply all", || {
            GROUPS.iter().all(|group| members[0].lines_of(*group) == members[1].lines_of(*group))
        })
        .await;
        // The first half of what the third one lacks is in files alone.
        for member in &members {
            for (group, lines) in &member.lines {
                let flushed = lines.flush(*group);
                member.replicas.release(*group, flushed);
            }
        }
        for group in GROUPS {
            write(&members, group, format!("{group}: behind the files")).await;
            for member in &members {
                let lines = &member.lines[&group];
                let flushed = lines.flush(group);
                member.replicas.release(group, flushed);
            }
            write(&members, group, format!("{group}: the last one")).await;
        }
        members.push(Member::start(&trust, 3).await);
        let is_equal = |group: &GroupId| {
            members[2].lines_of(*group) == members[0].lines_of(*group)
                && members[2].lines_of(*group).ends_with(format!("{group}: the last one\n").as_bytes())
        };
        until("the third to be equal", || GROUPS.iter().all(is_equal)).await;
        assert!(members[2].core.links.metrics().files_asked >= GROUPS.len() as u64);
        for group in GROUPS {
            assert_eq!(members[0].replicas.read(group).await, Ok(()));
        }
        for member in &members {
            assert_eq!((member.core.links.metrics().foreign, member.core.links.metrics().undecodable), (0, 0));
            member.replicas.close();
            member.core.links.close().await;
        }
    });
}
