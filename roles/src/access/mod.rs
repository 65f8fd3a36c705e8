//! Who may do what: passwords, bearer tokens, and the privileges of users.
//!
//! Owns: the proof of an identity and the check of privileges, with upstream's texts.
//! Invariants: without `auth-enabled` nobody is asked anything; a password is compared in constant time and never
//! leaves this module but as a salted hash; the slow hash runs off the core.
//! Knows nothing of HTTP's bytes and of how statements are executed.

mod authorization;
mod failures;
mod gate;
pub mod password;
mod proof;
mod token;

pub use authorization::{authorize_query, authorize_write, may_see, of_statement};
pub use gate::{AccessOptions, Gate, Offload};
pub use proof::{is_proved, proof};
