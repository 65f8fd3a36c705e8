//! Two and more nodes over real sockets on loopback, with and without bad networks and bad company between them.

mod bad_network;
mod classes;
mod connections;
mod harness;
mod relay;
mod strangers;
