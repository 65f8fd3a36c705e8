//! A pool master: one voter on what the pool has, and its leader's work.
//!
//! Owns: the group's machine, the answers to data nodes, slaves and operators, and the loop of the leader ([`lead`]). What
//! is decided is decided in [`tidemill_pool::Leader`]; here it becomes entries of the log and calls of slaves.
//! Invariants: nothing waits for a slave but the task that has asked it; what a leader does it does behind the first entry
//! of its own term, so that it knows all that those before it have decided.

mod figures;
mod lead;
mod status;

pub use figures::MasterFigures;

use crate::{
    data::{DataCore, Founding, StartFailure, message::CallError, message::Message},
    links::POOL_GROUP,
    pool::machine::PoolMachine,
    replica::{Group, Outcome, Payload},
};
use lead::Lead;
use std::{cell::RefCell, rc::Rc, time::Duration};
use tidemill_disk::Notify;
use tidemill_pool::{Applied, Change, Command, Leader, MasterCall, MasterReply, Place, Placed, Report, Standing};
use tidemill_raft::{NodeId, Term};
use tidemill_reactor::{CoreContext, RingDisk};

/// What the masters decide has a majority within this, or the request fails.
const DECISION_MAX: Duration = Duration::from_secs(5);

/// Of core 0.
pub struct Master {
    pub machine: Rc<PoolMachine<RingDisk>>,
    /// While this node leads.
    lead: RefCell<Option<Lead>>,
    /// There may be something to do.
    wake: Notify,
}

impl Master {
    pub async fn open(context: &CoreContext<Message>, _: &Founding) -> Result<Rc<Master>, StartFailure> {
        let machine = Rc::new(PoolMachine::load(context.disk.clone()).await?);
        Ok(Rc::new(Master { machine, lead: RefCell::default(), wake: Notify::new() }))
    }

    /// Begins what goes on until the core stops.
    pub fn start(self: &Rc<Self>, core: &Rc<DataCore>) {
        let lead = self.clone().run(core.clone());
        core.context().spawn(core.context().queues.latency, "pool master", lead).detach();
    }

    /// What a data node, a slave or an operator asks.
    pub async fn answer(self: &Rc<Self>, core: &Rc<DataCore>, from: NodeId, call: MasterCall) -> MasterReply {
        if let MasterCall::Where(files) = call {
            let pool = self.machine.pool();
            return MasterReply::Located(files.into_iter().map(|file| (file, pool.locations(&file))).collect());
        }
        let Some(term) = self.take_lead(core) else {
            return MasterReply::NotLeader { hint: core.replicas.leader(POOL_GROUP).0 };
        };
        match call {
            MasterCall::Beat(beat) if beat.slave != from.0 => {
                MasterReply::Refused(format!("node {from} speaks for node {}", beat.slave))
            }
            MasterCall::Beat(beat) => {
                let now_ns = core.context().clock.monotonic_ns();
                let beaten = self.with_leader(term, |leader| leader.heard(&beat, term.0, now_ns));
                beaten.map_or_else(|| self.not_leader(core), MasterReply::Beaten)
            }
            MasterCall::Place(place) => self.place(core, term, place).await.unwrap_or_else(failed),
            MasterCall::Report(report) => self.report(core, term, report).await.unwrap_or_else(failed),
            MasterCall::Status => {
                let status = self.with_leader(term, |leader| status::of(core, term, &self.machine.pool(), leader));
                status.map_or_else(|| self.not_leader(core), |status| MasterReply::Status(status.to_string()))
            }
            MasterCall::Change(change) => self.change(core, term, change).await.unwrap_or_else(failed),
            MasterCall::Where(_) => unreachable!("it is answered above"),
        }
    }

    fn not_leader(&self, core: &DataCore) -> MasterReply {
        MasterReply::NotLeader { hint: core.replicas.leader(POOL_GROUP).0 }
    }

    fn group(core: &DataCore) -> Option<Rc<Group>> {
        core.replicas.group(POOL_GROUP).filter(|_| core.replicas.leads(POOL_GROUP))
    }

    /// The term that this node leads in, once it knows what was decided before.
    fn take_lead(&self, core: &DataCore) -> Option<Term> {
        let term = Master::group(core).map(|group| group.term()).filter(|term| self.machine.term() == *term);
        let mut lead = self.lead.borrow_mut();
        match (term, &*lead) {
            (None, _) => *lead = None,
            (Some(term), Some(known)) if known.term == term => {}
            (Some(term), _) => {
                let now_ns = core.context().clock.monotonic_ns();
                tracing::info!(term = term.0, "this node leads the masters of the pool");
                let options = core.options.pool.leader(core.partition_count());
                *lead = Some(Lead { term, leader: Leader::new(options, now_ns) });
            }
        }
        term
    }

    fn with_leader<T>(&self, term: Term, act: impl FnOnce(&mut Leader) -> T) -> Option<T> {
        let mut lead = self.lead.borrow_mut();
        lead.as_mut().filter(|lead| lead.term == term).map(|lead| act(&mut lead.leader))
    }

    /// Takes a command into the log; what came of it.
    async fn decide(&self, core: &Rc<DataCore>, command: Command) -> Result<Applied, CallError> {
        let ticket = core.replicas.propose(POOL_GROUP, Payload::Command(command.encode().into()))?;
        let decided = async {
            match ticket.outcome().await? {
                Outcome::Pool(applied) => Ok(applied),
                _ => Err(CallError::Unknown("another entry stands in its place".to_owned())),
            }
        };
        let limit = async {
            core.context().sleep(DECISION_MAX).await;
            Err(CallError::Unknown(format!("no majority of the masters had it within {DECISION_MAX:?}")))
        };
        futures_lite::future::or(decided, limit).await
    }

    async fn place(&self, core: &Rc<DataCore>, term: Term, place: Place) -> Result<MasterReply, CallError> {
        let command = self.with_leader(term, |leader| leader.place(&self.machine.pool(), &place));
        let Some(command) = command else { return Ok(self.not_leader(core)) };
        if let Some(command) = command {
            match self.decide(core, command).await? {
                Applied::Done => self.wake.notify(),
                Applied::Fenced { term } => return Ok(MasterReply::Fenced { term }),
                Applied::Refused(why) => return Ok(MasterReply::Refused(why.to_owned())),
            }
        }
        let placed = self.with_leader(term, |leader| leader.placed(&self.machine.pool(), &place));
        let Some(placed) = placed else { return Ok(self.not_leader(core)) };
        if placed.durable.len() >= usize::from(placed.wanted) {
            // On the word of this the local copy goes: it must be that of a leader which is one still.
            core.read_group(POOL_GROUP).await?;
            let is_unchanged = self.with_leader(term, |_| ()).is_some();
            return Ok(if is_unchanged { MasterReply::Placed(placed) } else { self.not_leader(core) });
        }
        Ok(MasterReply::Placed(Placed { ..placed }))
    }

    async fn report(&self, core: &Rc<DataCore>, term: Term, report: Report) -> Result<MasterReply, CallError> {
        let commands = match self.with_leader(term, |leader| leader.report(&self.machine.pool(), &report)) {
            None => return Ok(self.not_leader(core)),
            Some(Err(term)) => return Ok(MasterReply::Fenced { term }),
            Some(Ok(commands)) => commands,
        };
        for command in commands {
            if let Applied::Fenced { term } = self.decide(core, command).await? {
                return Ok(MasterReply::Fenced { term });
            }
        }
        Ok(MasterReply::Reported)
    }

    async fn change(&self, core: &Rc<DataCore>, term: Term, change: Change) -> Result<MasterReply, CallError> {
        let changed = |what: String| Ok(MasterReply::Changed(what));
        let (slave, standing) = match change {
            Change::Rebalance => {
                self.with_leader(term, Leader::rebalance);
                return changed("copies move from full slaves to empty ones".to_owned());
            }
            Change::Scrub { slave } => {
                self.with_leader(term, |leader| leader.scrub(&self.machine.pool(), slave));
                self.wake.notify();
                return changed("slaves read their files again".to_owned());
            }
            Change::Release { slave } => {
                let is_free = self.with_leader(term, |leader| leader.does_without(&self.machine.pool(), slave));
                return Ok(match is_free {
                    None => self.not_leader(core),
                    Some(true) => MasterReply::Changed(format!("nothing is on node {slave} alone")),
                    Some(false) => MasterReply::Refused(format!(
                        "node {slave} has files of which there are not copies enough elsewhere: evacuate it first"
                    )),
                });
            }
            Change::Drain { slave } => (slave, Standing::Draining),
            Change::Evacuate { slave } => (slave, Standing::Evacuating),
            Change::Activate { slave } => (slave, Standing::Active),
        };
        match self.decide(core, Command::SetStanding { slave, standing }).await? {
            Applied::Refused(why) => Ok(MasterReply::Refused(format!("node {slave}: {why}"))),
            _ => {
                self.wake.notify();
                changed(format!("node {slave} is {}", standing.name()))
            }
        }
    }
}

fn failed(error: CallError) -> MasterReply {
    MasterReply::Failed(error.to_string())
}
