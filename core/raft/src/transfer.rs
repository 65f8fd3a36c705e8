//! Handing leadership over (thesis, section 3.10).
//!
//! Invariants: no proposals are taken meanwhile; once the target has been told to stand, the leader's lease is void for
//! the rest of its term, because the message may arrive at any time (thesis, section 6.4.1).

use crate::{
    NodeId, Output, Payload, Raft, Rejected,
    message::Body,
    raft::{State, Transfer},
};

impl<P: Payload> Raft<P> {
    /// Has `to` stand for election as soon as it holds the whole log. After an election timeout without success,
    /// proposals are taken again.
    pub fn transfer_leadership(&mut self, to: NodeId) -> Result<Output<P>, Rejected> {
        let fit = to != self.options.node && self.members().voters().contains(&to);
        let (last, until) = (self.log.last(), self.now.after(self.options.election_timeout));
        let leader = self.leading()?;
        if let Some(transfer) = leader.transfer {
            return Err(Rejected::Transferring { to: transfer.to });
        }
        if !fit {
            return Err(Rejected::NoCandidate(to));
        }
        leader.transfer = Some(Transfer { to, until, told: false });
        let caught_up = leader.followers.find(to).is_some_and(|progress| progress.matched == last);
        self.maybe_hand_over(to, caught_up);
        self.send_append(to);
        Ok(self.finish())
    }

    pub(crate) fn maybe_hand_over(&mut self, to: NodeId, caught_up: bool) {
        let State::Leader(leader) = &mut self.state else { return };
        let Some(transfer) = &mut leader.transfer else { return };
        if transfer.to != to || transfer.told || !caught_up {
            return;
        }
        transfer.told = true;
        leader.lease_void = true;
        self.send(to, Body::TimeoutNow);
    }
}
