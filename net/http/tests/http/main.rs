//! A real server on a loopback socket, with a service made for the test behind it and raw sockets before it.

mod harness;

mod limits;
mod protocol;
mod queries;
mod routes;
mod shutdown;
mod writes;
