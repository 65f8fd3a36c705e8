//! A data group of several nodes: the server's replicas, logs and partitions on simulated disks, a network that loses,
//! repeats, reorders and delays, clocks that run apart, power losses and kills, nodes that become members and cease to
//! be, disks that are lost for good.
//!
//! Owns: the nodes ([`member`]), what lies between them ([`network`]), what was committed ([`chronicle`]), who is made a member ([`members`]), and
//! runs by seed ([`run`]).
//! Invariants, checked at every step: what a node applies at an index is what all others apply there (R3, R4); what was
//! acknowledged is in that sequence, and a read at any node sees everything that was acknowledged before it was asked for
//! (S1, R10); a node goes by the members that the newest such entry of its log brings, before and after every start (R9).
//! Checked at the end, after the network has healed: every node has applied everything, reads as the model
//! does, and has the files that the sequence makes on a node to which nothing happened (S6).

pub mod chronicle;
pub mod counters;
pub mod member;
pub mod members;
pub mod network;
pub mod run;
