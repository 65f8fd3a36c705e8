//! Changes of the metadata: how they are decided, and how every core's copy follows them.
//!
//! Invariants: all copies go through the same changes in the same order, those of the log; a change counts as done when
//! every core of the node that asked for it shows it.

use crate::{
    data::{
        core::{DataCore, META_CORE},
        message::{Call, CallError, MetaChangeError, Reply},
        metadata::{Change, META_GROUP, MetaMachine},
        propose::{LEADER_PAUSE, ask_leader, other_answer},
        resend::WRITE_WAIT,
    },
    links::{Links, RemoteCall, RemoteReply},
    replica::{Outcome, Payload},
};
use bytes::Bytes;
use std::rc::Rc;
use tidemill_meta::{Command as MetaCommand, Meta, MetaError};
use tidemill_raft::{LogIndex, NodeId};
use tidemill_reactor::RingDisk;

impl DataCore {
    /// Changes the metadata; returns once every core's copy shows it.
    pub async fn change_meta(self: &Rc<Self>, command: MetaCommand) -> Result<tidemill_meta::Applied, MetaChangeError> {
        if self.context.core == META_CORE {
            return self.change_meta_from_here(command).await;
        }
        match self.call(META_CORE, Call::ChangeMeta(command)).await? {
            Reply::MetaChanged(result) => result,
            _ => unreachable!("a change of the metadata is answered as one"),
        }
    }

    /// As [`DataCore::change_meta`], of a change that has no effect when it is made a second time: while nobody knows
    /// whether it is made, it is asked for again.
    pub(super) async fn change_meta_surely(
        self: &Rc<Self>,
        command: MetaCommand,
    ) -> Result<tidemill_meta::Applied, MetaChangeError> {
        let begun_ns = self.context.clock.monotonic_ns();
        loop {
            let changed = self.change_meta(command.clone()).await;
            let spent_ns = self.context.clock.monotonic_ns() - begun_ns;
            let is_late = self.links.is_none() || self.stopping.get() || spent_ns > WRITE_WAIT.as_nanos() as u64;
            match changed {
                Err(MetaChangeError::Call(CallError::Unknown(_))) if !is_late => self.context.sleep(LEADER_PAUSE).await,
                decided => return decided,
            }
        }
    }

    /// As [`DataCore::change_meta`], on the metadata's core.
    pub(super) async fn change_meta_from_here(
        self: &Rc<Self>,
        command: MetaCommand,
    ) -> Result<tidemill_meta::Applied, MetaChangeError> {
        let machine = self.meta_machine.as_ref().expect("the metadata's core has its machine");
        let command = Bytes::from(command.encode());
        let (index, applied) = match &self.links {
            None => self.change_meta_here(command).await?,
            Some(links) => self.change_meta_wherever(links, command).await?,
        };
        if !machine.followed.reached(index.0).await {
            return Err(CallError::Unknown("the core is stopping".into()).into());
        }
        Ok(applied)
    }

    /// Takes a change into this node's log. The index tells when it is applied everywhere.
    pub(super) async fn change_meta_here(
        self: &Rc<Self>,
        command: Bytes,
    ) -> Result<(LogIndex, tidemill_meta::Applied), MetaChangeError> {
        let outcome = self.propose_in_time(META_GROUP, Payload::Command(command)).await?;
        let Outcome::Meta(index, applied) = outcome else { unreachable!("the metadata's group gives its own outcome") };
        Ok((index, applied?))
    }

    async fn change_meta_wherever(
        self: &Rc<Self>,
        links: &Links,
        command: Bytes,
    ) -> Result<(LogIndex, tidemill_meta::Applied), MetaChangeError> {
        let own = self.replicas.placement().node;
        let attempt = async |leader: NodeId| {
            let tried = if leader == own {
                self.change_meta_here(command.clone()).await
            } else {
                forward(links, leader, command.clone()).await
            };
            match tried {
                Ok(changed) => Ok(Ok(changed)),
                // Decided, by the metadata themselves.
                Err(MetaChangeError::Meta(error)) => Ok(Err(error)),
                Err(MetaChangeError::Call(error)) => Err(error),
            }
        };
        Ok(self.until_led(META_GROUP, attempt).await??)
    }

    /// Makes every core's copy of the metadata follow, one change at a time in the order of the log. To be run once, on
    /// the metadata's core.
    pub(crate) async fn lead_meta(self: Rc<Self>, machine: Rc<MetaMachine<RingDisk>>) {
        while let Some((index, change)) = machine.unfollowed.pop().await {
            if let Some(change) = change {
                let calls: Vec<_> =
                    self.cores().map(|core| self.call(core, Call::FollowMeta(change.clone()))).collect();
                for call in calls {
                    if let Err(error) = call.await {
                        tracing::error!(%error, "a core does not follow the metadata");
                    }
                }
            }
            machine.followed.advance(index.0);
        }
        machine.followed.close();
    }

    /// Changes this core's copy.
    pub(super) fn follow_meta(&self, change: &Change) -> Reply {
        let followed: Result<(), MetaError> = match change {
            // The group's machine has judged it already: it applies here as it did there.
            Change::Command(command) => self.meta.borrow_mut().apply(MetaCommand::clone(command)).map(drop),
            Change::Whole(meta) => {
                *self.meta.borrow_mut() = Meta::clone(meta);
                Ok(())
            }
        };
        self.follow_nodes();
        Reply::Done(followed.map_err(|error| CallError::Unknown(format!("the metadata differ: {error}"))))
    }
}

/// Gives a change to the node that leads the metadata's group.
async fn forward(
    links: &Links,
    leader: NodeId,
    command: Bytes,
) -> Result<(LogIndex, tidemill_meta::Applied), MetaChangeError> {
    match ask_leader(links, leader, META_GROUP, RemoteCall::ChangeMeta(command)).await? {
        RemoteReply::MetaChanged(result) => result,
        _ => Err(other_answer(leader).into()),
    }
}
