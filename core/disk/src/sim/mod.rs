//! The disk and the executor of the tests: one thread, no clock, everything decided by a seed given as argument.
//!
//! Owns: [`SimDisk`], which keeps apart what is durable and what is only written, and finds after a power loss what a
//! real disk may leave behind; [`Executor`], which runs tasks in a seeded random order.
//! Fault model: an un-synced write is kept, dropped or torn at sectors of 512 bytes, independently of the others; an
//! un-synced name change is kept or not, in the order of its folder; a failed sync leaves each un-synced write durable
//! or lost while reads still show it; a short write leaves a prefix; the disk fills up; bits flip where the test says.
//! Every kind of fault has a counter, so that a test can show that it met what it claims to survive.
//! Invariants: the same seed and the same calls give the same answers; a power loss never takes back what a sync covered.
//! Knows nothing of the code under test.

mod crash;
mod disk;
mod executor;
mod fault;
mod prng;
mod state;

pub use crash::Crash;
pub use disk::{SimDisk, SimFile};
pub use executor::{Executor, Task, block_on};
pub use fault::{Fault, FaultCounts, OPERATIONS, Operation, is_power_loss};
pub use prng::Prng;

/// What a device writes whole: a tear falls between two of these.
pub const SECTOR_BYTES: usize = 512;
