//! Messages on their way.

use crate::{counters::Counters, prng::Prng, swarm::Swarm};
use tidemill_raft::Message;

/// Slots of the calendar: no message takes longer.
const HORIZON: u64 = 512;

pub struct Network {
    calendar: Vec<Vec<Message<u64>>>,
    /// `cut[from][to]`: nothing passes.
    pub cut: Vec<Vec<bool>>,
    /// `clogged[from][to]`: what is sent before this tick arrives behind it.
    pub clogged: Vec<Vec<u64>>,
    nodes: usize,
}

impl Network {
    pub fn new(nodes: usize) -> Network {
        Network {
            calendar: (0..HORIZON).map(|_| Vec::new()).collect(),
            cut: vec![vec![false; nodes]; nodes],
            clogged: vec![vec![0; nodes]; nodes],
            nodes,
        }
    }

    pub fn send(
        &mut self,
        now: u64,
        message: Message<u64>,
        random: &mut Prng,
        swarm: &Swarm,
        calm: bool,
        counters: &mut Counters,
    ) {
        counters.messages += 1;
        let (from, to) = (message.from.0 as usize - 1, message.to.0 as usize - 1);
        if to >= self.nodes {
            return;
        }
        if calm {
            self.calendar[((now + 1) % HORIZON) as usize].push(message);
            return;
        }
        if self.cut[from][to] {
            counters.cut_by_partition += 1;
            return;
        }
        if random.chance(swarm.drop) {
            counters.dropped += 1;
            return;
        }
        let mut delay = random.within(1, swarm.delay_max);
        if random.chance(swarm.long_delay) {
            counters.long_delayed += 1;
            delay += random.below(200);
        }
        let clogged = self.clogged[from][to];
        if clogged > now {
            counters.clogged += 1;
            delay += clogged - now;
        }
        if random.chance(swarm.duplicate) {
            counters.duplicated += 1;
            let again = (delay + random.within(0, 30)).min(HORIZON - 1);
            self.calendar[((now + again) % HORIZON) as usize].push(message.clone());
        }
        self.calendar[((now + delay.min(HORIZON - 1)) % HORIZON) as usize].push(message);
    }

    pub fn due(&mut self, now: u64) -> Vec<Message<u64>> {
        core::mem::take(&mut self.calendar[(now % HORIZON) as usize])
    }

    /// Gives the slot's memory back for its next use.
    pub fn give_back(&mut self, now: u64, mut slot: Vec<Message<u64>>) {
        slot.clear();
        let place = &mut self.calendar[(now % HORIZON) as usize];
        if place.is_empty() {
            *place = slot;
        }
    }

    /// Splits the nodes in two, or cuts one off, in one direction or in both.
    pub fn partition(&mut self, random: &mut Prng, swarm: &Swarm, counters: &mut Counters) {
        counters.partitions += 1;
        let side = if random.below(3) == 0 { 1 << random.below(self.nodes as u64) } else { random.draw() };
        let one_way = swarm.one_way && random.below(2) == 0;
        counters.one_way_partitions += u64::from(one_way);
        for from in 0..self.nodes {
            for to in 0..self.nodes {
                let (a, b) = (side >> from & 1, side >> to & 1);
                self.cut[from][to] = if one_way { a < b } else { a != b };
            }
        }
    }

    pub fn heal(&mut self) {
        self.cut.iter_mut().flatten().for_each(|cut| *cut = false);
    }

    /// What others send to it from now on does not arrive.
    pub fn deafen(&mut self, node: usize) {
        for from in 0..self.nodes {
            self.cut[from][node] = true;
        }
    }

    pub fn clog(&mut self, now: u64, random: &mut Prng) {
        let (from, to) = (random.below(self.nodes as u64) as usize, random.below(self.nodes as u64) as usize);
        self.clogged[from][to] = now + random.within(5, 100);
    }
}
