//! What the cluster has committed, as its nodes have applied it.

use crate::{
    cluster::counters::Counters,
    model::Deed,
    replica::{
        Gift, InstallFailure, LocalFuture, Machine, Offer, Outcome, PartitionMachine, Payload, Sources, members_in,
    },
    truth::Truth,
    world::PARTITIONS,
};
use std::{cell::RefCell, collections::BTreeMap, rc::Rc};
use tidemill_disk::sim::SimDisk;
use tidemill_raft::{LogIndex, Membership, Term};

/// The sequence of each partition, in the order of the log.
#[derive(Default)]
pub struct Chronicle {
    pub truth: Truth,
    terms: [Vec<Term>; PARTITIONS as usize],
    /// What entries brought, with the index of each, upwards.
    members: [Vec<(u64, Membership)>; PARTITIONS as usize],
    /// What an entry of these bytes does; one that is not known does nothing to points.
    deeds: BTreeMap<Box<[u8]>, Rc<Deed>>,
    /// Where it stands, for entries that were acknowledged.
    places: BTreeMap<(u32, Box<[u8]>), u64>,
}

impl Chronicle {
    pub fn intend(&mut self, bytes: &[u8], deed: &Rc<Deed>) {
        self.deeds.insert(bytes.into(), deed.clone());
    }

    pub fn len(&self, partition: u32) -> u64 {
        self.truth.partition(partition).told().len() as u64
    }

    /// A node applies an entry.
    ///
    /// # Panics
    /// If another node applied another one there, or nobody the one before.
    pub fn applied(&mut self, node: u64, partition: u32, term: Term, index: LogIndex, bytes: &[u8]) {
        let terms = &mut self.terms[partition as usize];
        let at = index.0 as usize;
        let context = || format!("node {node} applies entry {index} of term {term} of partition {partition}");
        if at <= terms.len() {
            let told = &self.truth.partition(partition).told()[at - 1];
            assert!(terms[at - 1] == term, "{}: it was of term {} elsewhere", context(), terms[at - 1]);
            assert!(*told.bytes == *bytes, "{}: it was another one elsewhere", context());
            return;
        }
        assert!(at == terms.len() + 1, "{}: the newest one known is {}", context(), terms.len());
        terms.push(term);
        if let Some(members) = members_in(bytes) {
            let members = Membership::decode(members).unwrap_or_else(|error| panic!("{}: {error}", context()));
            self.members[partition as usize].push((index.0, members));
        }
        let deed = self.deeds.get(bytes).cloned().unwrap_or_else(|| Rc::new(Deed::Nothing));
        self.truth.proposed(partition, deed, bytes.into());
        self.places.entry((partition, bytes.into())).or_insert(index.0);
        // Applied somewhere is committed: nobody may lose it any more.
        self.truth.acknowledged(partition, index.0);
    }

    /// The members in force at an entry; none: those of the founding.
    pub fn members_at(&self, partition: u32, index: u64) -> Option<&Membership> {
        let brought = &self.members[partition as usize];
        let upto = brought.partition_point(|(at, _)| *at <= index);
        brought[..upto].last().map(|(_, members)| members)
    }

    /// An entry of these bytes was acknowledged. Returns where it stands.
    ///
    /// # Panics
    /// If it was not committed.
    pub fn acknowledged(&self, node: u64, partition: u32, bytes: &[u8]) -> u64 {
        let place = self.places.get(&(partition, bytes.into())).copied();
        place.unwrap_or_else(|| {
            panic!("node {node} acknowledged an entry of partition {partition} that nobody has applied")
        })
    }

    /// What is in files is taken over from another node, up to this entry.
    ///
    /// # Panics
    /// If it was not committed.
    pub fn installed(&self, node: u64, partition: u32, base: (Term, LogIndex)) {
        let (term, index) = base;
        let known = self.terms[partition as usize].get(index.0 as usize - 1);
        assert!(known == Some(&term), "node {node} takes over partition {partition} up to {term}/{index}: {known:?}");
    }
}

/// A partition's machine that tells the chronicle.
pub struct Witness {
    pub node: u64,
    pub partition: u32,
    pub machine: PartitionMachine<SimDisk>,
    pub chronicle: Rc<RefCell<Chronicle>>,
    pub counters: Rc<RefCell<Counters>>,
}

impl Witness {
    fn tell(&self, term: Term, index: LogIndex, bytes: &[u8]) {
        self.chronicle.borrow_mut().applied(self.node, self.partition, term, index, bytes);
    }
}

impl Machine for Witness {
    fn apply(&self, term: Term, index: LogIndex, payload: Option<&Payload>) -> Result<Outcome, String> {
        let bytes = payload.map(|payload| payload.parts().concat()).unwrap_or_default();
        self.tell(term, index, &bytes);
        self.machine.apply(term, index, payload)
    }

    fn replay(&self, term: Term, index: LogIndex, bytes: &[u8]) -> Result<(), String> {
        self.tell(term, index, bytes);
        self.machine.replay(term, index, bytes)
    }

    fn flushed(&self) -> (LogIndex, Term) {
        self.machine.flushed()
    }

    fn flushed_members(&self) -> Vec<u8> {
        self.machine.flushed_members()
    }

    fn applied(&self) -> LogIndex {
        self.machine.applied()
    }

    fn offer(&self) -> LocalFuture<'_, Option<Offer>> {
        self.machine.offer()
    }

    fn install<'a>(&'a self, gift: &'a Gift, sources: &'a dyn Sources) -> LocalFuture<'a, Result<(), InstallFailure>> {
        self.chronicle.borrow().installed(self.node, self.partition, (gift.base.term, gift.base.index));
        let installed = self.machine.install(gift, sources);
        Box::pin(async move {
            let installed = installed.await;
            let mut counters = self.counters.borrow_mut();
            counters.files_taken_over += u64::from(installed.is_ok());
            counters.files_not_taken_over += u64::from(installed.is_err());
            installed
        })
    }
}
