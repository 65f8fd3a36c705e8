//! Raft groups of one core over its log: propose, stable, commit, apply.
//!
//! Owns: the order of these four. Invariants: a waiter hears of success only after the sync that covers its entry (I1);
//! entries are applied in the order of the log, whoever waits for them or went away; an entry whose fate is not known is
//! reported as unknown, never as success.
//! Knows nothing of HTTP and of the executor: it runs on the server's cores and in the simulator alike.

mod group;
mod partition_machine;
mod payload;
mod recover;
mod replicas;
mod ticket;

pub use group::{Group, Machine};
pub use partition_machine::PartitionMachine;
pub use payload::{Outcome, Payload};
pub use recover::{RecoverError, recover};
pub use replicas::{COMMITS_MAX, ProposeError, Replicas};
pub use ticket::{Ticket, Unknown};
