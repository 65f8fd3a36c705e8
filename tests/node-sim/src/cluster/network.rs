//! What lies between the nodes.

use crate::{
    cluster::run::Shared,
    node::folder_of,
    replica::{FilePart, Inflow, LocalFuture, Payload, Sources},
};
use bytes::Bytes;
use std::{cell::RefCell, collections::BTreeMap, rc::Rc};
use tidemill_disk::{
    BLOCK_BYTES, Disk, DiskFile, Purpose,
    sim::{Executor, Prng, SimDisk},
};
use tidemill_raft::{Body, Content, Entry, GroupId, Message, NodeId, Term};

/// How the network treats messages; drawn from the seed.
#[derive(Clone, Copy, Debug)]
pub struct Weather {
    pub loses_one_in: u64,
    pub repeats_one_in: u64,
    pub delay_us_max: u64,
    /// Of a piece of a file.
    pub breaks_one_in: u64,
}

/// Messages on their way.
pub struct Network {
    prng: Prng,
    pub weather: Weather,
    /// By the time of their arrival, in no order.
    flying: Vec<(u64, Message<Payload>)>,
    /// From, to: nothing gets through.
    pub cut: Vec<(u64, u64)>,
    pub lost: u64,
    pub delivered: u64,
    promises: Promises,
}

/// What nodes have told others, and must know after every start (R5).
#[derive(Default)]
struct Promises {
    /// Newest term that a node spoke in, by node and group.
    terms: BTreeMap<(NodeId, GroupId), Term>,
    /// As of the node's last start.
    terms_before: BTreeMap<(NodeId, GroupId), Term>,
    votes: BTreeMap<(NodeId, GroupId, Term), NodeId>,
}

impl Promises {
    fn hear(&mut self, Message { group, from, to, term, body }: &Message<Payload>) {
        let asks_first = matches!(body, Body::PreVote { .. } | Body::PreVoteAnswer { granted: true });
        if asks_first {
            return;
        }
        let before = self.terms_before.get(&(*from, *group)).copied().unwrap_or_default();
        assert!(
            *term >= before,
            "R5: node {from} speaks in term {term} of group {group}, before its start in {before}"
        );
        let newest = self.terms.entry((*from, *group)).or_default();
        *newest = (*newest).max(*term);
        if let Body::VoteAnswer { granted: true } = body {
            let vote = *self.votes.entry((*from, *group, *term)).or_insert(*to);
            assert!(vote == *to, "R5: node {from} votes for {vote} and {to} in term {term} of group {group}");
        }
    }
}

impl Network {
    pub fn new(prng: Prng, weather: Weather) -> Network {
        Network {
            prng,
            weather,
            flying: Vec::new(),
            cut: Vec::new(),
            lost: 0,
            delivered: 0,
            promises: Promises::default(),
        }
    }

    pub fn is_cut(&self, from: u64, to: u64) -> bool {
        self.cut.contains(&(from, to))
    }

    /// A node comes back from its disk.
    pub fn started(&mut self, node: u64) {
        let Promises { terms, terms_before, .. } = &mut self.promises;
        terms_before.extend(terms.iter().filter(|((of, _), _)| of.0 == node).map(|(key, term)| (*key, *term)));
    }

    /// # Panics
    /// If the sender has told something else before.
    pub fn send(&mut self, now_us: u64, message: Message<Payload>) {
        self.promises.hear(&message);
        if self.is_cut(message.from.0, message.to.0) || self.prng.one_in(self.weather.loses_one_in) {
            self.lost += 1;
            return;
        }
        let message = over_the_wire(message);
        let arrives = |prng: &mut Prng, most| now_us + prng.below(most);
        if self.prng.one_in(self.weather.repeats_one_in) {
            let late = arrives(&mut self.prng, self.weather.delay_us_max * 20);
            self.flying.push((late, message.clone()));
        }
        let at = arrives(&mut self.prng, self.weather.delay_us_max);
        self.flying.push((at, message));
    }

    /// What arrives now.
    pub fn arriving(&mut self, now_us: u64) -> Vec<Message<Payload>> {
        let (arriving, flying) = std::mem::take(&mut self.flying).into_iter().partition(|(at, _)| *at <= now_us);
        self.flying = flying;
        let mut arriving: Vec<(u64, Message<Payload>)> = arriving;
        arriving.sort_by_key(|(at, _)| *at);
        self.delivered += arriving.len() as u64;
        arriving.into_iter().map(|(_, message)| message).collect()
    }
}

/// Entries arrive as they stand in a log.
fn over_the_wire(mut message: Message<Payload>) -> Message<Payload> {
    if let Body::Append { entries, .. } = &mut message.body {
        for Entry { content, .. } in entries {
            if let Content::Data(payload) = content {
                *payload = Payload::Logged(Bytes::from(payload.parts().concat()));
            }
        }
    }
    message
}

/// The files of the other nodes, read from their disks.
pub struct Transfers {
    pub node: u64,
    pub executor: Executor,
    pub shared: Rc<Shared>,
}

struct Reading {
    from: u64,
    to: u64,
    disk: SimDisk,
    path: String,
    offset: u64,
    end: u64,
    shared: Rc<Shared>,
    prng: RefCell<Prng>,
}

impl Sources for Transfers {
    fn open(&self, from: NodeId, group: GroupId, part: FilePart) -> LocalFuture<'_, Result<Box<dyn Inflow>, String>> {
        Box::pin(async move {
            let disk = self.shared.disk_of(from.0).ok_or("the other node is down")?;
            let FilePart { name, offset, length } = part;
            let path = format!("{}/{name}", folder_of(group.0));
            let prng = RefCell::new(Prng::new(self.shared.random()));
            let (from, to, shared) = (from.0, self.node, self.shared.clone());
            let reading = Reading { from, to, disk, path, offset, end: offset + length, shared, prng };
            Ok(Box::new(reading) as Box<dyn Inflow>)
        })
    }
}

impl Inflow for Reading {
    /// Short at the end alone, and each part of it may be the one at which the connection breaks.
    fn fill<'a>(&'a mut self, block: &'a mut [u8]) -> LocalFuture<'a, Result<usize, String>> {
        Box::pin(async move {
            let mut filled = 0;
            while filled < block.len() && self.offset < self.end {
                let breaks = self.prng.borrow_mut().one_in(self.shared.network.borrow().weather.breaks_one_in);
                if breaks || self.shared.network.borrow().is_cut(self.from, self.to) {
                    return Err("the connection broke".into());
                }
                let failed = |error: std::io::Error| error.to_string();
                let file = self.disk.open(&self.path, Purpose::Data).await.map_err(failed)?;
                let before = (self.offset % BLOCK_BYTES as u64) as usize;
                let part = file.read_at(self.offset - before as u64, 4 * BLOCK_BYTES).await.map_err(failed)?;
                file.close().await.map_err(failed)?;
                let left = (block.len() - filled).min((self.end - self.offset) as usize);
                let bytes = part.as_ref().get(before..).unwrap_or_default();
                let bytes = &bytes[..bytes.len().min(left)];
                if bytes.is_empty() {
                    return Err(format!("{} ends too early", self.path));
                }
                block[filled..filled + bytes.len()].copy_from_slice(bytes);
                filled += bytes.len();
                self.offset += bytes.len() as u64;
            }
            Ok(filled)
        })
    }
}
