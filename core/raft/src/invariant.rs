//! What must hold between any two calls.

use crate::{Payload, Raft, raft::State};

impl<P: Payload> Raft<P> {
    /// For tests and simulations, after every step.
    ///
    /// # Panics
    /// If the state contradicts itself.
    pub fn check_invariants(&self) {
        self.log.check();
        let (base, last) = (self.log.base().index, self.log.last());
        assert!(base <= self.commit && self.commit <= last, "base {base}, commit {}, last {last}", self.commit);
        assert!(self.log.last_id().term <= self.hard_state.term, "an entry from the future");
        assert!(self.members.windows(2).all(|pair| pair[0].0 < pair[1].0), "{:?}", self.members);
        assert!(self.members.iter().skip(1).all(|(at, _)| *at <= last), "{:?} with a log up to {last}", self.members);
        assert!(self.matched <= last || self.installing.is_some(), "matched {} of {last}", self.matched);
        assert!(self.own.iter().all(|own| own.first <= own.last), "{:?}", self.own);
        assert!(self.out.send.is_empty() && self.out.append.is_empty(), "an output was left behind");
        if let State::Leader(leader) = &self.state {
            assert!(self.hard_state.vote == self.options.node, "a leader that did not vote for itself");
            let current = self.log.term_at(leader.term_start.max(base));
            assert!(current == Some(self.hard_state.term), "the leader's opening entry is gone");
            for (node, progress) in leader.followers.iter() {
                assert!(*node != self.options.node && self.members().contains(*node), "{node} is no follower");
                progress.check(last, &self.options);
                assert!(progress.round <= leader.round, "{progress:?}");
            }
            assert!(leader.rounds.iter().zip(leader.rounds.iter().skip(1)).all(|(a, b)| a.number < b.number));
            let bytes: usize = leader.uncommitted.iter().map(|(_, bytes)| bytes).sum();
            assert!(bytes == leader.uncommitted_bytes, "{bytes} uncommitted bytes");
            assert!(self.installing.is_none(), "a leader installs nothing");
        }
    }
}
