//! The roles of the one binary, and the only place where wire, log, raft and store meet.

pub mod replica;
