//! Raft groups in one thread, with everything around them simulated, and judged at every step.
//!
//! Owns: the fast world (`world`: members over a model of an asynchronous disk, a network and clocks that misbehave), its
//! judge (`judge`: R1 to R10 of `reliability.md`, liveness after heal), the run of one seed, text scripts, and the
//! defects that are planted to see whether all this would notice.
//! Invariants: a run is a function of its seed and of the number of ticks; a violation is a panic that names the
//! invariant; nothing here is linked into the server.

pub mod clients;
pub mod counters;
pub mod disk;
pub mod judge;
pub mod lab;
pub mod network;
pub mod planted;
pub mod prng;
pub mod script;
pub mod seed;
pub mod swarm;
pub mod world;
