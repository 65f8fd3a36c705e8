//! Proxies before servers and clusters.

use crate::subject::{self, Home};
use tidemill_perf::{
    proxy,
    server::{Server, Setup},
};

/// How a proxy before nodes is started; `more` is the rest of its `[proxy]` section.
pub fn setup(home: &Home, name: &str, nodes: &[String], more: &str) -> Setup {
    let binary = home.setup().binary;
    proxy::setup(binary, home.path(), name, nodes, more).unwrap_or_else(|error| panic!("{error:#}"))
}

/// Starts a proxy before nodes.
pub fn start(home: &Home, name: &str, nodes: &[String], more: &str) -> Server {
    subject::start(setup(home, name, nodes, more))
}

/// Starts a proxy that the nodes know, and waits until they have told it where series go.
pub fn start_known(home: &Home, name: &str, nodes: &[String], more: &str) -> Server {
    let front = start(home, name, nodes, &format!("{}{more}", proxy::secret()));
    proxy::wait_until_placed(&front, nodes.len()).unwrap_or_else(|error| panic!("{error:#}"));
    front
}
