//! A leader's side of the log (thesis, sections 3.5 and 10.2): appends, heartbeats, what the answers say.
//!
//! Invariants: entries travel while they are written here (thesis, section 10.2.1); what a follower acknowledged is
//! durable there; a member that is silent for an election timeout is not part of a quorum that keeps the leader.

use crate::{
    Entry, EntryId, Fetch, LogIndex, NodeId, Output, Payload, Raft,
    message::{Body, ENTRIES_MAX, MESSAGE_BYTES_MAX, Round},
    progress::Flow,
    raft::State,
};
use alloc::vec::Vec;

/// Rounds of heartbeats that a lease can still rest on; older ones only shorten it.
const ROUNDS_MAX: usize = 256;

impl<P: Payload> Raft<P> {
    pub(crate) fn tick_leader(&mut self) {
        let (now, timeout) = (self.now, self.options.election_timeout);
        let Ok(leader) = self.leading() else { return };
        if leader.transfer.is_some_and(|transfer| now >= transfer.until) {
            leader.transfer = None;
        }
        if now >= leader.quorum_check_due {
            leader.quorum_check_due = now.after(timeout);
            if !self.hears_quorum() {
                return self.become_follower(self.hard_state.term, NodeId(0));
            }
        }
        let due = self.leading().is_ok_and(|leader| now >= leader.heartbeat_due);
        if due {
            self.broadcast_heartbeat();
        }
    }

    fn hears_quorum(&self) -> bool {
        let State::Leader(leader) = &self.state else { return false };
        let (now, node, timeout) = (self.now, self.options.node, self.options.election_timeout);
        self.members().agreed(|member| {
            let heard = |progress: &crate::progress::Progress| now.since(progress.heard) < timeout;
            member == node || leader.followers.find(member).is_some_and(heard)
        })
    }

    /// Begins a round: whoever answers it had not voted for another leader when it did.
    pub(crate) fn broadcast_heartbeat(&mut self) {
        let (now, commit, interval) = (self.now, self.commit, self.options.heartbeat_interval);
        let Ok(leader) = self.leading() else { return };
        leader.heartbeat_due = now.after(interval);
        leader.round += 1;
        let round = leader.round;
        if leader.rounds.len() == ROUNDS_MAX {
            leader.rounds.pop_front();
        }
        leader.rounds.push_back(Round { number: round, sent: now });
        let targets: Vec<(NodeId, LogIndex)> =
            leader.followers.iter().map(|(node, progress)| (*node, progress.matched)).collect();
        for (node, matched) in targets {
            // What it is not known to hold is not for it to commit.
            self.send(node, Body::Heartbeat { commit: commit.min(matched), round });
        }
    }

    pub(crate) fn send_appends(&mut self) {
        let State::Leader(leader) = &self.state else { return };
        for at in 0..leader.followers.len() {
            let State::Leader(leader) = &self.state else { return };
            if let Some(node) = leader.followers.node_at(at) {
                self.send_append(node);
            }
        }
    }

    /// Sends as much as the window takes.
    pub(crate) fn send_append(&mut self, to: NodeId) {
        while self.send_one_append(to) {}
    }

    /// `false`: nothing more can or need be sent now.
    fn send_one_append(&mut self, to: NodeId) -> bool {
        let State::Leader(leader) = &mut self.state else { return false };
        let Some(progress) = leader.followers.find_mut(to) else { return false };
        if !progress.has_room(&self.options) || progress.fetching {
            return false;
        }
        let (next, last, base) = (progress.next, self.log.last(), self.log.base());
        if next > last && progress.flow == Flow::Pipeline {
            return false;
        }
        if next <= base.index {
            self.send_snapshot(to);
            return false;
        }
        let bytes_max = self.options.message_bytes_max.min(MESSAGE_BYTES_MAX / 2);
        if next < self.log.tail_first() && next <= last {
            progress.fetching = true;
            let last = self.log.tail_first().before();
            self.out.fetch.push(Fetch { to, first: next, last, bytes_max });
            return false;
        }
        let (entries, bytes) = self.log.tail_from(next, bytes_max, ENTRIES_MAX);
        self.send_entries(to, entries, bytes)
    }

    fn send_entries(&mut self, to: NodeId, entries: Vec<Entry<P>>, bytes: usize) -> bool {
        let State::Leader(leader) = &mut self.state else { return false };
        let Some(progress) = leader.followers.find_mut(to) else { return false };
        let previous = progress.next.before();
        let Some(term) = self.log.term_at(previous) else { return false };
        let last = entries.last().map_or(previous, |entry| entry.index);
        progress.sent(last, bytes);
        let (previous, commit) = (EntryId { term, index: previous }, self.commit);
        self.send(to, Body::Append { previous, entries, commit });
        true
    }

    /// The entries that [`Output::fetch`] asked for, from the first one on as far as they could be read; empty if they
    /// could not, which asks again later.
    pub fn handle_fetched(&mut self, to: NodeId, mut entries: Vec<Entry<P>>) -> Output<P> {
        let State::Leader(leader) = &mut self.state else { return self.finish() };
        let Some(progress) = leader.followers.find_mut(to) else { return self.finish() };
        if !progress.fetching {
            return self.finish();
        }
        progress.fetching = false;
        let next = progress.next;
        // The log may have moved on since it was read.
        let fits = entries.iter().zip(next.0..).take_while(|(entry, index)| {
            entry.index.0 == *index && self.log.holds(entry.id()) && entry.index > self.log.base().index
        });
        let count = fits.count().min(ENTRIES_MAX);
        entries.truncate(count);
        if !entries.is_empty() && progress.has_room(&self.options) {
            let bytes = entries.iter().map(Entry::byte_size).sum();
            self.send_entries(to, entries, bytes);
            self.send_append(to);
        }
        self.finish()
    }

    pub(crate) fn handle_appended(&mut self, from: NodeId, matched: LogIndex) {
        let (now, last) = (self.now, self.log.last());
        let State::Leader(leader) = &mut self.state else { return };
        let Some(progress) = leader.followers.find_mut(from) else { return };
        progress.heard = now;
        if matched < progress.matched {
            return;
        }
        progress.acknowledge(matched);
        match progress.flow {
            Flow::Probe { .. } => {
                progress.probe_from(matched.next());
                progress.flow = Flow::Pipeline;
            }
            Flow::Snapshot { index, .. } if matched >= index => {
                progress.probe_from(matched.next());
                progress.flow = Flow::Pipeline;
            }
            _ => {}
        }
        self.maybe_commit();
        self.send_append(from);
        self.maybe_hand_over(from, matched == last);
    }

    pub(crate) fn handle_refused(&mut self, from: NodeId, previous: LogIndex, hint: EntryId) {
        let now = self.now;
        let State::Leader(leader) = &mut self.state else { return };
        let Some(progress) = leader.followers.find_mut(from) else { return };
        progress.heard = now;
        let stale = match progress.flow {
            // What it acknowledged it has: the answer is older than that.
            Flow::Pipeline => previous <= progress.matched,
            Flow::Probe { .. } => previous != progress.next.before(),
            Flow::Snapshot { .. } => true,
        };
        if stale {
            return;
        }
        let hint = EntryId { index: hint.index.min(previous.before()), ..hint };
        let next = self.log.hint(hint).index.next().min(previous);
        progress.probe_from(next.max(LogIndex(1)));
        self.send_append(from);
    }

    pub(crate) fn handle_heartbeat_answer(&mut self, from: NodeId, round: u64) {
        let (now, last) = (self.now, self.log.last());
        let State::Leader(leader) = &mut self.state else { return };
        let Some(progress) = leader.followers.find_mut(from) else { return };
        progress.heard = now;
        progress.round = progress.round.max(round);
        let mut ask = false;
        match &mut progress.flow {
            Flow::Probe { waits } => *waits = false,
            Flow::Pipeline => ask = progress.is_waiting() && !progress.moved,
            Flow::Snapshot { sent, .. } if now.since(*sent) >= self.options.election_timeout => {
                progress.probe_from(progress.next);
            }
            Flow::Snapshot { .. } => {}
        }
        progress.moved = false;
        if progress.fetching {
            // The shell may have dropped the request.
            progress.fetching = false;
        }
        if ask {
            // Nothing came back since the last round: a message may be lost. An empty append finds out without
            // sending anything twice; a follower that is only slow accepts it.
            let previous = progress.next.before();
            if let Some(term) = self.log.term_at(previous) {
                let (previous, commit) = (EntryId { term, index: previous }, self.commit);
                self.send(from, Body::Append { previous, entries: Vec::new(), commit });
            } else if let State::Leader(leader) = &mut self.state
                && let Some(progress) = leader.followers.find_mut(from)
            {
                // What is on its way is only in files by now, so is the answer to whether it arrived.
                progress.probe_from(progress.matched.next());
            }
        }
        self.confirm_reads();
        self.send_append(from);
        let State::Leader(leader) = &self.state else { return };
        let caught_up = leader.followers.find(from).is_some_and(|progress| progress.matched == last);
        self.maybe_hand_over(from, caught_up);
    }
}
