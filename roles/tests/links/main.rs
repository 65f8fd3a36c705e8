//! Nodes of a cluster over loopback, with real certificates.

mod calls;
mod files;
mod harness;
mod messages;
mod raft;
mod reads;
mod rotation;
