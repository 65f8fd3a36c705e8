//! Raft groups of one core over its log: propose, stable, commit, apply.
//!
//! Owns: the order of these four, on a server alone and on a member of a group of several; what nodes tell each other
//! comes in as messages and leaves through an outlet. Invariants: a waiter hears of success only after a quorum has its
//! entry durably (I1) and this node has applied it; entries are applied in the order of the log, whoever waits for them
//! or went away; an entry whose fate is not known is reported as unknown, never as success; a state machine never runs
//! ahead of what is durable in this node's own log.
//! Knows nothing of HTTP, of how messages and files travel and of the executor: it runs on the server's cores and in the
//! simulator alike. The members of a group are those of its [`Placement`] until an entry of its log brings others: such an
//! entry stands in the log as others do, the machine's files keep the newest one, and so a start goes on with the members
//! that the log held, whatever the configuration says by then.

mod group;
mod install;
mod outbox;
mod partition_machine;
mod payload;
mod placement;
mod recover;
mod replicas;
mod snapshot_file;
mod ticket;

pub use group::{Group, Machine};
pub use install::{FilePart, Gift, Inflow, InstallFailure, LocalFuture, NoSources, Offer, Pieces, Sources, take_in};
pub use partition_machine::PartitionMachine;
pub use payload::{Outcome, Payload, members_in};
pub use placement::Placement;
pub use recover::{Found, RecoverError, recover};
pub use replicas::{COMMITS_MAX, Leaderless, ProposeError, Replicas, Surroundings, Unheard};
pub use snapshot_file::{DamagedSnapshot, Snapshot, SnapshotFile};
pub use ticket::{Lost, Ticket};
