//! Proxies before servers and clusters.

use crate::subject::{self, Home};
use tidemill_perf::server::{Server, Setup};

/// How a proxy before nodes is started; `more` is the rest of its `[proxy]` section.
pub fn setup(home: &Home, name: &str, nodes: &[String], more: &str) -> Setup {
    let path = home.path().join(format!("{name}.toml"));
    let configuration = format!("[proxy]\nnodes = {nodes:?}\n{more}\n[logging]\nlevel = \"debug\"\n");
    std::fs::write(&path, configuration).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let mut setup = home.setup();
    setup.role = Some("proxy".to_owned());
    setup.data = home.path().to_owned();
    setup.log = home.path().join(format!("{name}.log"));
    setup.arguments = vec!["--config".to_owned(), path.to_string_lossy().into_owned()];
    setup
}

/// Starts a proxy before nodes.
pub fn start(home: &Home, name: &str, nodes: &[String], more: &str) -> Server {
    subject::start(setup(home, name, nodes, more))
}
