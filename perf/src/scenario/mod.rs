//! The five cluster scenarios of the reference, exact: load, kill, count.
//!
//! Owns: what each scenario starts and kills ([`plan`]), the processes ([`fleet`]), what is noted of them by second
//! ([`watch`]), and the page that shows it ([`page`]).
//! Invariants: every row that was acknowledged is asked for and compared with the oracle, in both databases; a run that
//! finds a difference is an error, whatever its speed.
//! Knows nothing of how the cluster works: it sees HTTP and `/proc`.

pub mod fleet;
pub mod page;
pub mod plan;
pub mod run;
pub mod watch;

pub use plan::{Faults, Scenario};
pub use run::{ScenarioOptions, ScenarioReport, run};
