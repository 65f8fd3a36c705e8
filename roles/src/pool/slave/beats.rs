//! Beats on their way to the master.
//!
//! Invariant: an answer counts only if no newer master than its own was heard of.

use super::Slave;
use crate::{data::DataCore, pool::masters::Masters};
use futures_lite::future;
use std::{rc::Rc, time::Duration};
use tidemill_pool::{Beaten, MasterCall, MasterReply};

const PAUSE: Duration = Duration::from_secs(1);

/// Tells the leading master what is here, until the core stops.
pub async fn run(slave: Rc<Slave>, core: Rc<DataCore>) {
    let context = slave.context.clone();
    let masters = Masters::default();
    while !context.shutdown.is_requested() {
        slave.teller.borrow_mut().note(slave.files.take_changed());
        let (capacity, free) = slave.files.disk().space().unwrap_or_default();
        let beat = slave.teller.borrow_mut().beat(|file| slave.files.size(file), capacity, free).clone();
        let reply = match &core.links {
            Some(links) => masters.ask(links, &MasterCall::Beat(beat)).await,
            None => return,
        };
        match reply {
            Ok(MasterReply::Beaten(beaten)) => {
                if slave.heard(beaten).await {
                    // There is more to tell than one beat names.
                    continue;
                }
            }
            Ok(reply) => tracing::debug!(?reply, "a beat was answered by something else"),
            Err(why) => tracing::debug!(why, "no master has heard the beat"),
        }
        future::or(context.sleep(PAUSE), context.shutdown.requested()).await;
    }
}

impl Slave {
    /// A master has the beat; answers whether there is more to tell at once.
    async fn heard(&self, beaten: Beaten) -> bool {
        // One that lost its place does not know it yet: what it was told is told again, to the next.
        if !matches!(self.epoch.hear(beaten.epoch).await, Ok(true)) {
            return false;
        }
        let mut all = Vec::new();
        if beaten.wants_all {
            self.files.take_changed();
            all = self.files.list(None, usize::MAX);
        }
        let mut teller = self.teller.borrow_mut();
        teller.answered(beaten.wants_all, all.into_iter().map(|(file, _)| file));
        teller.has_more()
    }
}
