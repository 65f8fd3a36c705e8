//! What lies between the nodes of a cluster: a relay for each that calls and each core that is called, in which datagrams
//! are lost, late, out of order, doubled or damaged.
//!
//! Every node's configuration names, for each other node, the relay towards it. Two nodes call each other, so what is done
//! to their line is done in both of their relays.

#[path = "../../net/peer/tests/peer/relay.rs"]
mod relay;

use crate::cluster::{Cluster, NODES};
use relay::Relay;
use std::{collections::BTreeMap, fs, net::SocketAddr};
use tidemill_perf::server::free_udp_ports;

pub use relay::Faults;

/// All lines of a cluster of three.
pub struct Wires {
    /// By who calls and who is called, core by core.
    relays: BTreeMap<(usize, usize), Vec<Relay>>,
}

impl Wires {
    /// Puts relays between the nodes of a cluster none of which runs yet.
    ///
    /// # Panics
    /// If the configurations are not as the cluster has made them.
    pub fn lay(cluster: &Cluster, seed: u64) -> Wires {
        let mut relays = BTreeMap::new();
        for caller in NODES {
            let path = cluster.configuration(caller);
            let mut text = fs::read_to_string(&path).expect("a node's configuration");
            let addresses = addresses(&text);
            for called in NODES.into_iter().filter(|called| *called != caller) {
                let (address, cores) = addresses[&called];
                let front = free_udp_ports(cores).expect("ports for relays");
                let of_core = |core: u16| {
                    let number = (seed << 8) + (caller * 10 + called) as u64 + (u64::from(core) << 40);
                    let at = |first: u16| SocketAddr::new(address.ip(), first + core);
                    Relay::start_at(at(front), at(address.port()), Faults::default(), number)
                };
                let line: Vec<Relay> = (0..cores as u16).map(of_core).collect();
                text = text.replace(&format!("\"{address}\""), &format!("\"{}\"", line[0].address()));
                relays.insert((caller, called), line);
            }
            fs::write(&path, text).expect("a node's configuration");
        }
        Wires { relays }
    }

    /// Nothing gets from one node to another; what comes back does.
    pub fn cut_one_way(&self, from: usize, to: usize) {
        self.set((from, to), &Faults { is_cut_forward: true, ..Faults::default() });
        self.set((to, from), &Faults { is_cut_back: true, ..Faults::default() });
    }

    /// Two nodes do not hear each other.
    pub fn cut(&self, one: usize, other: usize) {
        self.disturb(one, other, &Faults { is_cut_forward: true, is_cut_back: true, ..Faults::default() });
    }

    /// A node is alone.
    pub fn isolate(&self, node: usize) {
        NODES.into_iter().filter(|other| *other != node).for_each(|other| self.cut(node, other));
    }

    /// The line between two nodes becomes bad, both ways.
    pub fn disturb(&self, one: usize, other: usize, faults: &Faults) {
        for line in [(one, other), (other, one)] {
            self.set(line, faults);
        }
    }

    fn set(&self, line: (usize, usize), faults: &Faults) {
        self.relays[&line].iter().for_each(|relay| relay.set(faults.clone()));
    }

    /// All lines are good.
    pub fn heal(&self) {
        self.relays.values().flatten().for_each(|relay| relay.set(Faults::default()));
    }

    /// Datagrams that were kept back, changed, or sent once more, and those that passed.
    pub fn counts(&self) -> (u64, u64) {
        let counters = self.relays.values().flatten().map(Relay::counters);
        counters.fold((0, 0), |(disturbed, passed), counters| {
            let here = counters.dropped + counters.duplicated + counters.corrupted + counters.reordered;
            (disturbed + here, passed + counters.passed)
        })
    }
}

/// Nodes with the address of their first core and the number of cores, as a configuration lists them.
fn addresses(text: &str) -> BTreeMap<usize, (SocketAddr, usize)> {
    let mut found = BTreeMap::new();
    let (mut node, mut address) = (None, None);
    for line in text.lines() {
        if let Some(number) = line.strip_prefix("node = ") {
            node = number.parse().ok();
        }
        if let Some(text) = line.strip_prefix("address = ") {
            address = Some(text.trim_matches('"').parse().expect("an address"));
        }
        if let (Some(node), Some(address), Some(cores)) = (node, address, line.strip_prefix("cores = ")) {
            found.insert(node, (address, cores.parse().expect("a number of cores")));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_those_of_the_list() {
        let text = "[cluster]\nnode = 2\n[[cluster.nodes]]\nnode = 1\naddress = \"127.0.0.1:5\"\ncores = 1\n\
                    [[cluster.nodes]]\nnode = 2\naddress = \"127.0.0.1:6\"\ncores = 2\n";
        let expected = [(1, ("127.0.0.1:5".parse().unwrap(), 1)), (2, ("127.0.0.1:6".parse().unwrap(), 2))];
        assert_eq!(addresses(text), expected.into());
    }
}
