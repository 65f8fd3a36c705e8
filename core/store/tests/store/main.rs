//! The store against a naive model, under faults, damage and power loss.

mod copies;
mod damage;
mod deletes;
mod faults;
mod hand_over;
mod harness;
mod maintenance;
mod model;
mod pages;
mod random;
