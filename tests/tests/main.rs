//! Scenarios on whole server processes, a module a chapter. `cargo build -p tidemill --bin tidemill` comes first;
//! `TIDEMILL_SUBJECT=influxdb` runs the chapters on upstream's server.

mod access;
mod backup;
mod chaos;
mod clients;
mod cluster;
mod conformance;
mod crash;
mod damage;
mod data_groups;
mod deletes;
mod https;
mod inspect;
mod judge;
mod layout;
mod levels;
mod limits;
mod lists;
mod members;
mod memory;
mod monitor;
mod prometheus;
mod secrets;
mod services;
mod shell;
mod storms;
mod surface;
