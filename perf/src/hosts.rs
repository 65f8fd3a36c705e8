//! A devops set in the manner of the Time Series Benchmark Suite: hosts with ten integer CPU figures and ten tags,
//! one row in ten seconds, the rows of all hosts of a client interleaved by time.

use crate::devices::push_integer;
use crate::random::{below, draw};
use std::ops::Range;

pub const START_NS: i64 = 1_451_606_400_000_000_000;
const STEP_NS: i64 = 10_000_000_000;
const FIELDS: [&str; 10] = [
    "usage_user",
    "usage_system",
    "usage_idle",
    "usage_nice",
    "usage_iowait",
    "usage_irq",
    "usage_softirq",
    "usage_steal",
    "usage_guest",
    "usage_guest_nice",
];
const REGIONS: [&str; 9] = [
    "us-east-1",
    "us-west-1",
    "us-west-2",
    "eu-west-1",
    "eu-central-1",
    "ap-southeast-1",
    "ap-southeast-2",
    "ap-northeast-1",
    "sa-east-1",
];

/// Which set of hosts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HostSpec {
    pub hosts: u64,
    pub steps: u64,
    pub seed: u64,
}

impl HostSpec {
    pub fn rows(&self) -> u64 {
        self.hosts * self.steps
    }
}

/// Lines of one client's hosts.
#[derive(Debug)]
pub struct HostLines {
    spec: HostSpec,
    hosts: Range<u64>,
    step: u64,
    host: u64,
    /// Series key of each host of the client.
    keys: Vec<Vec<u8>>,
    /// Current value of each field of each host: a random walk within 0..=100.
    walks: Vec<[i64; FIELDS.len()]>,
}

impl HostLines {
    pub fn new(spec: HostSpec, client: u64, clients: u64) -> Self {
        let hosts = spec.hosts * client / clients..spec.hosts * (client + 1) / clients;
        let keys = hosts.clone().map(|host| series_key(&spec, host)).collect();
        let walks = hosts
            .clone()
            .map(|host| std::array::from_fn(|field| below(draw(spec.seed, host, field as u64), 101) as i64))
            .collect();
        Self { spec, host: hosts.start, hosts, step: 0, keys, walks }
    }

    /// Appends the next line; false at the end.
    pub fn push_next(&mut self, out: &mut Vec<u8>) -> bool {
        if self.hosts.is_empty() || self.step == self.spec.steps {
            return false;
        }
        let index = (self.host - self.hosts.start) as usize;
        out.extend_from_slice(&self.keys[index]);
        let walk = &mut self.walks[index];
        // One draw moves all ten walks: each takes three bits of its own, which make a step of -3..=4 less a half.
        let bits = draw(self.spec.seed, self.host, 1000 + self.step);
        for (field, name) in FIELDS.iter().enumerate() {
            out.push(if field == 0 { b' ' } else { b',' });
            out.extend_from_slice(name.as_bytes());
            out.push(b'=');
            push_integer(walk[field], out);
            out.push(b'i');
            let step = ((bits >> (field * 4)) & 7) as i64 - 3 - ((bits >> (field * 4 + 3)) & 1) as i64;
            walk[field] = (walk[field] + step).clamp(0, 100);
        }
        out.push(b' ');
        push_integer(START_NS + self.step as i64 * STEP_NS, out);
        out.push(b'\n');
        self.host += 1;
        if self.host == self.hosts.end {
            self.host = self.hosts.start;
            self.step += 1;
        }
        true
    }
}

fn series_key(spec: &HostSpec, host: u64) -> Vec<u8> {
    let pick = |counter: u64, bound: u64| below(draw(spec.seed, host, 100 + counter), bound);
    let region = REGIONS[pick(0, REGIONS.len() as u64) as usize];
    let zone = char::from(b'a' + pick(1, 3) as u8);
    let os = ["Ubuntu16.10", "Ubuntu16.04LTS", "Ubuntu15.10"][pick(2, 3) as usize];
    let arch = ["x64", "x86"][pick(3, 2) as usize];
    let team = ["SF", "NYC", "LON", "CHI"][pick(4, 4) as usize];
    let environment = ["production", "staging", "test"][pick(5, 3) as usize];
    format!(
        "cpu,hostname=host_{host},region={region},datacenter={region}{zone},rack={},os={os},arch={arch},team={team},\
         service={},service_version={},service_environment={environment}",
        pick(6, 100),
        pick(7, 20),
        pick(8, 2),
    )
    .into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_share_the_hosts_and_time_moves_for_all_at_once() {
        let spec = HostSpec { hosts: 10, steps: 3, seed: 1 };
        let mut count = 0;
        for client in 0..4 {
            let mut lines = HostLines::new(spec, client, 4);
            let mut text = Vec::new();
            let mut newest = 0;
            while lines.push_next(&mut text) {
                let line = String::from_utf8(std::mem::take(&mut text)).unwrap();
                let parts: Vec<&str> = line.trim_end().split(' ').collect();
                assert_eq!(parts.len(), 3, "{line}");
                assert_eq!(parts[0].split(',').count(), 11);
                assert_eq!(parts[1].split(',').count(), 10);
                let time: i64 = parts[2].parse().unwrap();
                assert!(time >= newest);
                newest = time;
                count += 1;
            }
        }
        assert_eq!(count, spec.rows());
    }
}
