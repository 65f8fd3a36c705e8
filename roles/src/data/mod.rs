//! The data role on one core: its partitions behind its log, its copy of the metadata, its share of the requests.
//!
//! Owns: what cores say to each other ([`message`]), the way of a write ([`write`]), memory budgets, flushing, start and
//! stop. Invariants: a partition is touched by the core that it lives on and by nobody else; every core's copy of the
//! metadata goes through the same changes in the same order; a write is answered after its entries are durable.

mod acquainting;
mod all_replicas;
mod answers;
mod budget;
mod catch_up;
mod cluster_figures;
mod cluster_view;
mod copy_policy;
mod copying;
mod core;
pub(crate) mod distinct;
mod drops;
mod elsewhere;
pub mod figures;
mod lead_spread;
mod maintain;
mod member_changes;
mod membership;
mod memory_gauge;
mod mend;
pub mod message;
mod meta_changes;
pub(crate) mod metadata;
mod precreation;
pub(crate) mod propose;
pub mod question;
mod read_level;
mod resend;
mod scrub;
pub mod self_monitor;
mod sender;
pub(crate) mod series_admission;
mod series_ledger;
pub(crate) mod session_token;
mod start;
pub mod statistics;
mod tag_values;
mod typed_writes;
pub mod write;

pub use acquainting::TakesPart;
pub use budget::Budget;
pub use core::{DataCore, META_CORE};
pub use membership::Membership;
pub use memory_gauge::{MemoryGauge, bound_allocator};
pub(crate) use metadata::{META_GROUP, MetaMachine};
pub use precreation::PrecreationOptions;
pub use scrub::ScrubOptions;
pub(crate) use sender::{NODE_MAX, Outstanding, Senders};
pub use series_admission::SeriesRefusal;
pub use series_ledger::SeriesCounts;
pub(crate) use session_token::joined_sessions;
pub use start::{Door, Founding, StartFailure, Work, run_core};
pub(crate) use start::{LOG_FOLDER, epochs_in};
pub(crate) use write::claimed;
