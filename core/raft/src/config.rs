//! Changing the members (thesis, chapter 4): learners, joint consensus, a leader that is removed.
//!
//! Invariants: a membership is in force from its append on; the next change begins when the last one is committed, and
//! when the leader has committed an entry of its own term; only learners that have caught up become voters.

use crate::{
    Content, EntryId, LogIndex, Membership, NodeId, Output, Payload, Raft, Rejected, message::Body, progress::Flow,
    raft::State,
};

/// A learner this close to the end of the log is caught up: fewer than a window of appends are missing.
pub const CAUGHT_UP_ENTRIES: u64 = 256;

impl<P: Payload> Raft<P> {
    /// Begins the change to these members. With other voters it goes through a joint membership, which the leader leaves
    /// by itself; the change has ended when [`Raft::members`] is `to` and committed.
    pub fn change_members(&mut self, to: Membership) -> Result<(EntryId, Output<P>), Rejected> {
        let (node, commit, last) = (self.options.node, self.commit, self.log.last());
        let (at, pending) = self.members.last().map_or((LogIndex(0), false), |(at, now)| (*at, now.is_joint()));
        let leader = self.leading()?;
        if let Some(transfer) = leader.transfer {
            return Err(Rejected::Transferring { to: transfer.to });
        }
        if pending || at > commit || commit < leader.term_start || to.is_joint() {
            return Err(Rejected::ChangePending);
        }
        let State::Leader(leader) = &self.state else { return Err(Rejected::NotLeader { leader: NodeId(0) }) };
        let now = self.members();
        let caught_up = |voter: NodeId| {
            let progress = leader.followers.find(voter);
            progress.is_some_and(|to| to.flow == Flow::Pipeline && to.matched.0 + CAUGHT_UP_ENTRIES >= last.0)
        };
        let unfit = |voter: &&NodeId| !now.is_voter(**voter) && **voter != node && !caught_up(**voter);
        if let Some(unfit) = to.voters().iter().find(unfit) {
            return Err(Rejected::NotCaughtUp(*unfit));
        }
        let next = if now.voters() == to.voters() { to } else { Membership::joint(now, &to) };
        let id = self.append_own(Content::Members(next));
        self.send_appends();
        Ok((id, self.finish()))
    }

    /// The membership in force has changed.
    pub(crate) fn follow_members(&mut self) {
        let (node, next, now) = (self.options.node, self.log.last().next(), self.now);
        let members = self.members().members();
        if let State::Leader(leader) = &mut self.state {
            leader.followers.set(members.into_iter().filter(|member| *member != node), next, now);
        }
    }

    /// Entries from `index` on are gone, and the memberships that they brought.
    pub(crate) fn forget_members_from(&mut self, index: LogIndex) {
        let kept = self.members.iter().take_while(|(at, _)| *at < index).count().max(1);
        if kept < self.members.len() {
            self.members.truncate(kept);
            self.follow_members();
        }
    }

    /// After the commit index rose: leaves a joint membership that is committed, and leadership that is not wanted.
    pub(crate) fn members_committed(&mut self) {
        let Some((at, members)) = self.members.last() else { return };
        if *at > self.commit || !matches!(self.state, State::Leader(_)) {
            return;
        }
        if members.is_joint() {
            let left = members.left();
            self.append_own(Content::Members(left));
            self.send_appends();
            // Alone, the write of this very call is what is missing.
            return;
        }
        if !members.is_voter(self.options.node) {
            self.leave_leadership();
        }
    }

    /// The rest learns that it is rid of this leader, and the one that knows most stands at once.
    fn leave_leadership(&mut self) {
        let State::Leader(leader) = &self.state else { return };
        let voters = self.members().voters();
        let follower = leader.followers.iter().filter(|(node, _)| voters.contains(node));
        let best = follower.max_by_key(|(_, progress)| progress.matched).map(|(node, _)| *node);
        self.broadcast_heartbeat();
        if let Some(best) = best {
            self.send(best, Body::TimeoutNow);
        }
        self.become_follower(self.hard_state.term, NodeId(0));
    }
}
