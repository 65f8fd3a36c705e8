//! What the configuration says of the cluster that a node belongs to.
//!
//! Invariant: every node of a cluster is given the same list of founders, by which each finds the cores of the others at
//! first; a node that comes later names itself beside them as one that joins.

use super::bind_address_of;
use crate::{
    data::NODE_MAX,
    links::{Duty, Member},
};
use anyhow::{Context, bail, ensure};
use serde::Deserialize;
use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    path::{Path, PathBuf},
};
use tidemill_peer::{ClusterId, MTU_DEFAULT, MTU_MIN};
use tidemill_raft::{LEARNERS_MAX, NodeId};

/// A node's place in its cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterOptions {
    pub id: ClusterId,
    pub node: NodeId,
    /// Folder with `ca.pem`, `node.pem` and `node.key`.
    pub certificates: PathBuf,
    /// Where core 0 of this node listens for other nodes (UDP); the other cores take the ports behind it.
    pub bind_addr: SocketAddr,
    /// Bytes of UDP payload in a packet.
    pub mtu: u16,
    /// The nodes that this one knows before the metadata tell it more, itself included.
    pub nodes: BTreeMap<NodeId, Member>,
    /// Of them, those that the cluster is founded with.
    pub founders: BTreeSet<NodeId>,
    /// Failure domains of pool slaves that have a name.
    pub domains: BTreeMap<NodeId, String>,
    /// How many data groups there are.
    pub groups: u32,
    /// The node may be reached from other machines without users or without TLS.
    pub is_insecure: bool,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct ClusterSection {
    id: String,
    node: u64,
    certificates: PathBuf,
    bind_address: Option<String>,
    mtu: Option<u16>,
    insecure: Option<bool>,
    nodes: Vec<MemberSection>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct MemberSection {
    node: u64,
    address: SocketAddr,
    cores: u16,
    role: Option<RoleName>,
    /// Of data nodes, from 1.
    group: Option<u32>,
    /// Of pool slaves: those of one domain may fail together.
    domain: Option<String>,
    /// It comes to a cluster that is there already.
    #[serde(default)]
    joins: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum RoleName {
    Data,
    Meta,
    PoolMaster,
    PoolSlave,
}

/// Voters of a group: design, section 1.
const VOTERS: [usize; 3] = [1, 3, 5];

impl ClusterSection {
    /// The options that hold for a node with this number of cores, or which one is wrong.
    pub fn options(&self, cores: usize) -> anyhow::Result<ClusterOptions> {
        let (mut nodes, mut founders, mut domains) = (BTreeMap::new(), BTreeSet::new(), BTreeMap::new());
        for MemberSection { node, address, cores, role, group, domain, joins } in &self.nodes {
            ensure!(*node > 0, "cluster.nodes: node 0 is nobody");
            ensure!(*node <= NODE_MAX, "cluster.nodes: node {node}: numbers go up to {NODE_MAX}");
            ensure!(*cores > 0, "cluster.nodes: node {node} has no cores");
            let role = role.unwrap_or(RoleName::Data);
            let is_ungrouped = group.is_none() || role == RoleName::Data;
            ensure!(is_ungrouped, "cluster.nodes: node {node}: only a data node belongs to a data group");
            ensure!(
                domain.is_none() || role == RoleName::PoolSlave,
                "cluster.nodes: node {node}: only a pool slave has a domain"
            );
            let duty = match role {
                RoleName::Data => {
                    ensure!(*group != Some(0), "cluster.nodes: node {node}: the first data group is group 1");
                    Duty::Data { group: group.unwrap_or(1) - 1 }
                }
                RoleName::Meta => Duty::Meta,
                RoleName::PoolMaster => Duty::PoolMaster,
                RoleName::PoolSlave => {
                    ensure!(*cores == 1, "cluster.nodes: node {node}: a pool slave has 1 core, not {cores}");
                    Duty::PoolSlave
                }
            };
            let member = Member { address: *address, cores: *cores, duty };
            let has_ports = address.port() > 0 && member.address_of(cores - 1).is_some();
            ensure!(has_ports, "cluster.nodes: node {node} has no ports for its cores");
            let before = nodes.insert(NodeId(*node), member);
            ensure!(before.is_none(), "cluster.nodes: node {node} stands there twice");
            if let Some(domain) = domain {
                ensure!(!domain.is_empty(), "cluster.nodes: node {node}: a domain has a name");
                domains.insert(NodeId(*node), domain.clone());
            }
            if !joins {
                founders.insert(NodeId(*node));
            }
        }
        let founding = nodes.iter().filter(|(node, _)| founders.contains(*node));
        let groups = groups_of(&founding.map(|(node, member)| (*node, *member)).collect())?;
        let has_group = |member: &Member| !matches!(member.duty, Duty::Data { group } if group >= groups);
        if let Some((node, _)) = nodes.iter().find(|(_, member)| !has_group(member)) {
            bail!("cluster.nodes: node {node} joins a data group that was not founded");
        }
        let node = NodeId(self.node);
        let Some(own) = nodes.get(&node) else { bail!("cluster.node {} is not among cluster.nodes", self.node) };
        ensure!(
            usize::from(own.cores) == cores,
            "cluster.nodes: node {node} has {} cores there and {cores} here",
            own.cores
        );
        let bind_addr = match &self.bind_address {
            Some(text) => bind_address_of("cluster", text)?,
            None => own.address,
        };
        let has_ports = bind_addr.port() > 0 && bind_addr.port().checked_add(own.cores - 1).is_some();
        ensure!(has_ports, "cluster.bind-address {bind_addr}: there are no ports for {cores} cores behind it");
        let mtu = self.mtu.unwrap_or(MTU_DEFAULT);
        ensure!(mtu >= MTU_MIN, "cluster.mtu must be at least {MTU_MIN}, got {mtu}");
        Ok(ClusterOptions {
            id: self.id.parse().context("cluster.id")?,
            node,
            certificates: self.certificates.clone(),
            bind_addr,
            mtu,
            nodes,
            groups,
            founders,
            domains,
            is_insecure: self.insecure.unwrap_or(false),
        })
    }
}

/// The number of data groups, once it is clear that all groups have the nodes that they need.
fn groups_of(nodes: &BTreeMap<NodeId, Member>) -> anyhow::Result<u32> {
    let with = |duty: Duty| nodes.values().filter(|member| member.duty == duty).count();
    let groups = nodes.values().filter_map(|member| match member.duty {
        Duty::Data { group } => Some(group + 1),
        Duty::Meta | Duty::PoolMaster | Duty::PoolSlave => None,
    });
    let Some(groups) = groups.max() else { bail!("cluster.nodes: no node has the role `data`") };
    ensure!(groups as usize <= nodes.len(), "cluster.nodes: data groups are numbered from 1 on without a gap");
    for group in 0..groups {
        let count = with(Duty::Data { group });
        let number = group + 1;
        ensure!(VOTERS.contains(&count), "cluster.nodes: data group {number} has {count} nodes, not 1, 3 or 5");
    }
    let meta = with(Duty::Meta);
    ensure!(meta == 0 || VOTERS.contains(&meta), "cluster.nodes: there may be 1, 3 or 5 meta nodes, not {meta}");
    let (masters, slaves) = (with(Duty::PoolMaster), with(Duty::PoolSlave));
    ensure!(
        masters == 0 || VOTERS.contains(&masters),
        "cluster.nodes: there may be 1, 3 or 5 pool masters, not {masters}"
    );
    ensure!(slaves == 0 || masters > 0, "cluster.nodes: pool slaves need pool masters");
    let followers = nodes.len() - if meta > 0 { meta } else { with(Duty::Data { group: 0 }) };
    ensure!(
        followers <= LEARNERS_MAX,
        "cluster.nodes: {followers} nodes follow the metadata, more than {LEARNERS_MAX}"
    );
    Ok(groups)
}

impl ClusterOptions {
    /// The name of this node's role.
    pub fn role(&self) -> &'static str {
        self.nodes.get(&self.node).map_or("data", |member| member.duty.name())
    }

    /// Tells this node's data from that of any other node of any cluster, for [`crate::identity`].
    pub fn data_id(&self) -> u64 {
        let mut name = self.id.0.to_vec();
        name.extend_from_slice(&self.node.0.to_le_bytes());
        xxhash_rust::xxh3::xxh3_64(&name)
    }

    /// A digest of what all nodes of a cluster must agree on to understand each other.
    pub fn shape(&self, partitions: u32) -> u64 {
        let mut text = format!("{partitions}");
        for (node, member) in self.nodes.iter().filter(|(node, _)| self.founders.contains(node)) {
            text.push_str(&format!(" {node}:{}", member.cores));
            match member.duty {
                Duty::Data { group } => text.push_str(&format!(":{group}")),
                duty => text.push_str(&format!(":{}", duty.name())),
            }
        }
        xxhash_rust::xxh3::xxh3_64(text.as_bytes())
    }

    /// The options as the text of a configuration file.
    pub fn text(&self) -> String {
        let quoted = |path: &Path| toml::Value::String(path.display().to_string()).to_string();
        let mut out = format!(
            "\n[cluster]\nid = \"{}\"\nnode = {}\ncertificates = {}\nbind-address = \"{}\"\nmtu = {}\ninsecure = {}\n",
            self.id,
            self.node,
            quoted(&self.certificates),
            self.bind_addr,
            self.mtu,
            self.is_insecure
        );
        for (node, Member { address, cores, duty }) in &self.nodes {
            out.push_str(&format!("\n[[cluster.nodes]]\nnode = {node}\naddress = \"{address}\"\ncores = {cores}\n"));
            match duty {
                Duty::Data { group } => out.push_str(&format!("role = \"data\"\ngroup = {}\n", group + 1)),
                duty => out.push_str(&format!("role = \"{}\"\n", duty.name())),
            }
            if let Some(domain) = self.domains.get(node) {
                out.push_str(&format!("domain = {}\n", toml::Value::String(domain.clone())));
            }
            if !self.founders.contains(node) {
                out.push_str("joins = true\n");
            }
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "00112233445566778899aabbccddeeff";

    fn section(text: &str) -> anyhow::Result<ClusterOptions> {
        toml::from_str::<ClusterSection>(text)?.options(2)
    }

    fn with_nodes(head: &str, nodes: &[(u64, u16, u16)]) -> String {
        let nodes = nodes.iter().map(|(node, port, cores)| {
            format!("[[nodes]]\nnode = {node}\naddress = \"127.0.0.1:{port}\"\ncores = {cores}\n")
        });
        format!("id = \"{ID}\"\ncertificates = \"/c\"\n{head}\n{}", nodes.collect::<String>())
    }

    const THREE: [(u64, u16, u16); 3] = [(1, 8088, 2), (2, 8188, 4), (7, 8288, 1)];

    #[test]
    fn what_is_wrong_is_named() {
        for (head, nodes, named) in [
            ("node = 1", &[(1, 8088, 2), (2, 8188, 2)][..], "data group 1 has 2 nodes, not 1, 3 or 5"),
            ("node = 1", &[(1, 8088, 2), (1, 8188, 2), (3, 1, 1)], "node 1 stands there twice"),
            ("node = 1", &[(1, 8088, 2), (0, 8188, 2), (3, 1, 1)], "node 0"),
            ("node = 1", &[(1, 8088, 3), (2, 8188, 2), (3, 1, 1)], "3 cores there and 2 here"),
            ("node = 1", &[(1, 8088, 2), (2, 65535, 2), (3, 1, 1)], "ports"),
            ("node = 1", &[(1, 8088, 2), (2, 8188, 0), (3, 1, 1)], "no cores"),
            ("node = 5", &THREE, "cluster.node 5"),
            ("node = 1\nmtu = 600", &THREE, "cluster.mtu"),
            ("node = 1\nbind-address = \"x\"", &THREE, "cluster.bind-address"),
            ("node = 1\nbind-address = \":65535\"", &THREE, "no ports for 2 cores"),
            ("node = 1\nbind-address = \":0\"", &THREE, "no ports for 2 cores"),
            ("node = 1\ncolour = 1", &THREE, "colour"),
        ] {
            let error = format!("{:#}", section(&with_nodes(head, nodes)).unwrap_err());
            assert!(error.contains(named), "{head}: {error}");
        }
    }

    #[test]
    fn a_node_finds_the_others_and_the_text_says_the_same() {
        let options = section(&with_nodes("node = 1\nbind-address = \":9000\"", &THREE)).unwrap();
        assert_eq!(
            options.nodes[&NodeId(2)],
            Member { address: "127.0.0.1:8188".parse().unwrap(), cores: 4, duty: Duty::Data { group: 0 } }
        );
        assert_eq!((options.bind_addr.to_string().as_str(), options.mtu), ("0.0.0.0:9000", MTU_DEFAULT));
        let text = options.text().replace("[cluster]", "").replace("cluster.nodes", "nodes");
        assert_eq!(section(&text).unwrap(), options);
    }

    fn with_duties(duties: &[&str]) -> anyhow::Result<ClusterOptions> {
        let nodes = (1..).zip(duties).map(|(node, duty): (u16, _)| {
            format!("[[nodes]]\nnode = {node}\naddress = \"127.0.0.1:{}\"\ncores = 2\n{duty}\n", 9000 + node)
        });
        section(&format!("id = \"{ID}\"\ncertificates = \"/c\"\nnode = 1\n{}", nodes.collect::<String>()))
    }

    #[test]
    fn groups_have_the_nodes_that_they_need() {
        let (first, second, meta) = ("group = 1", "role = \"data\"\ngroup = 2", "role = \"meta\"");
        let master = "role = \"pool-master\"";
        let options = with_duties(&[first, first, second, "", second, second, meta, meta, meta]).unwrap();
        assert_eq!((options.groups, options.nodes[&NodeId(4)].duty), (2, Duty::Data { group: 0 }));
        assert_eq!(options.nodes[&NodeId(9)].duty, Duty::Meta);
        let text = options.text().replace("[cluster]", "").replace("cluster.nodes", "nodes");
        assert_eq!(section(&text).unwrap(), options);
        for (duties, named) in [
            (&[meta][..], "no node has the role `data`"),
            (&[first, meta, meta], "1, 3 or 5 meta nodes, not 2"),
            (&[first, second, second], "data group 2 has 2 nodes"),
            (&[first, "group = 3", second], ""),
            (&[first, "group = 3"], "without a gap"),
            (&["group = 0"], "the first data group is group 1"),
            (&["role = \"meta\"\ngroup = 1", first], "belongs to a data group"),
            (&[first, "role = \"pool-master\"\ngroup = 1"], "belongs to a data group"),
            (&[first, master, master], "1, 3 or 5 pool masters, not 2"),
            (&[first, master, "role = \"pool-slave\""], "a pool slave has 1 core, not 2"),
            (&["domain = \"rack\""], "only a pool slave has a domain"),
            (&["role = \"proxy\""], "proxy"),
        ] {
            match with_duties(duties) {
                Ok(_) => assert_eq!(named, "", "{duties:?}"),
                Err(error) => {
                    assert!(!named.is_empty() && format!("{error:#}").contains(named), "{duties:?}: {error:#}")
                }
            }
        }
        let many: Vec<&str> = std::iter::once(first).chain(std::iter::repeat_n(meta, 5)).collect();
        assert!(with_duties(&many).is_ok());
    }

    #[test]
    fn a_pool_has_masters_and_slaves_in_domains() {
        let slave = |node, port: u16, domain: &str| {
            format!(
                "[[nodes]]\nnode = {node}\naddress = \"127.0.0.1:{port}\"\ncores = 1\nrole = \"pool-slave\"\n{domain}"
            )
        };
        let master = "[[nodes]]\nnode = 11\naddress = \"127.0.0.1:8400\"\ncores = 2\nrole = \"pool-master\"\n";
        let slaves = [slave(12, 8500, "domain = \"rack 1\"\n"), slave(13, 8600, "")].concat();
        let options = section(&(with_nodes("node = 1", &THREE) + master + &slaves)).unwrap();
        assert_eq!(options.nodes[&NodeId(11)].duty, Duty::PoolMaster);
        assert_eq!(options.nodes[&NodeId(13)].duty, Duty::PoolSlave);
        assert_eq!(options.domains, BTreeMap::from([(NodeId(12), "rack 1".to_owned())]));
        let text = options.text().replace("[cluster]", "").replace("cluster.nodes", "nodes");
        assert_eq!(section(&text).unwrap(), options);
        let masterless = section(&(with_nodes("node = 1", &THREE) + &slaves)).unwrap_err();
        assert!(format!("{masterless:#}").contains("need pool masters"));
    }

    #[test]
    fn who_joins_founds_nothing_and_speaks_with_the_founders() {
        let text = with_nodes("node = 9", &[&THREE[..], &[(9, 8388, 2)]].concat()) + "joins = true\n";
        let (joining, founder) = (section(&text).unwrap(), section(&with_nodes("node = 1", &THREE)).unwrap());
        assert_eq!((joining.founders.len(), joining.nodes.len()), (3, 4));
        assert_eq!(joining.shape(16), founder.shape(16));
        let written = joining.text().replace("[cluster]", "").replace("cluster.nodes", "nodes");
        assert_eq!(section(&written).unwrap(), joining);
    }

    #[test]
    fn nodes_with_other_partitions_or_members_have_another_shape() {
        let options = section(&with_nodes("node = 1", &THREE)).unwrap();
        let other = section(&with_nodes("node = 1", &[(1, 8088, 2), (2, 8188, 4), (3, 8288, 1)])).unwrap();
        assert_ne!(options.shape(16), options.shape(8));
        assert_ne!(options.shape(16), other.shape(16));
        let seen_by_another = ClusterOptions { node: NodeId(7), ..options.clone() };
        assert_eq!(options.shape(16), seen_by_another.shape(16));
        assert_ne!(options.data_id(), seen_by_another.data_id());
    }
}
