//! Who speaks: clusters, nodes, and the cores of nodes.
//!
//! Owns the ids and the one name under which a node stands in its certificate. Invariant: the name says cluster and node
//! and nothing else, so that a certificate proves both at once; two ids never share a name. Knows nothing of TLS.

#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic))]

use std::fmt;
use std::str::FromStr;

/// Ends every name: reserved for private use (RFC 9476 and the ICANN reservation of `internal`), never resolved.
const NAME_SUFFIX: &str = "tidemill.internal";

/// A cluster; chosen once, when its authority is made.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClusterId(pub [u8; 16]);

/// A node of a cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(pub u64);

/// A core of a node: the end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerId {
    pub node: NodeId,
    pub core: u16,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    #[error("{0:?} is not a cluster id: 32 hexadecimal digits")]
    Cluster(String),
    #[error("the certificate is damaged")]
    Certificate,
    #[error("the certificate has no name, or several")]
    Names,
    #[error("{0:?} is not the name of a node of this cluster")]
    Foreign(String),
}

impl fmt::Display for ClusterId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(formatter, "{byte:02x}"))
    }
}

impl fmt::Debug for ClusterId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "ClusterId({self})")
    }
}

impl FromStr for ClusterId {
    type Err = IdentityError;

    fn from_str(text: &str) -> Result<ClusterId, IdentityError> {
        let wrong = || IdentityError::Cluster(text.to_owned());
        // `from_str_radix` would take a sign.
        if text.len() != 32 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(wrong());
        }
        u128::from_str_radix(text, 16).map(|number| ClusterId(number.to_be_bytes())).map_err(|_| wrong())
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

impl fmt::Display for PeerId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}", self.node, self.core)
    }
}

/// The name of a node in its certificate: `n3.0123456789abcdef0123456789abcdef.tidemill.internal`.
pub fn certificate_name(cluster: ClusterId, node: NodeId) -> String {
    format!("n{node}.{cluster}.{NAME_SUFFIX}")
}

/// The node that a certificate (DER) is made out to, if it belongs to the cluster. Says nothing of who signed it.
pub fn node_of_certificate(cluster: ClusterId, certificate: &[u8]) -> Result<NodeId, IdentityError> {
    let certificate = rustls::pki_types::CertificateDer::from(certificate);
    let certificate = webpki::EndEntityCert::try_from(&certificate).map_err(|_| IdentityError::Certificate)?;
    let mut names = certificate.valid_dns_names();
    match (names.next(), names.next()) {
        (Some(name), None) => node_of_name(cluster, name),
        _ => Err(IdentityError::Names),
    }
}

fn node_of_name(cluster: ClusterId, name: &str) -> Result<NodeId, IdentityError> {
    let foreign = || IdentityError::Foreign(name.to_owned());
    let digits = name.strip_prefix('n').and_then(|rest| rest.split_once('.')).map(|(digits, _)| digits);
    let node = NodeId(digits.and_then(|digits| digits.parse().ok()).ok_or_else(foreign)?);
    // Writing the name again is the check: it leaves no second spelling (leading zeros, signs, other suffixes).
    if certificate_name(cluster, node) == name { Ok(node) } else { Err(foreign()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const CLUSTER: ClusterId = ClusterId([0xab; 16]);

    proptest! {
        #[test]
        fn names_come_back(node in any::<u64>(), cluster in any::<[u8; 16]>()) {
            let (node, cluster) = (NodeId(node), ClusterId(cluster));
            prop_assert_eq!(node_of_name(cluster, &certificate_name(cluster, node)), Ok(node));
            prop_assert_eq!(cluster.to_string().parse(), Ok(cluster));
        }

        #[test]
        fn any_text_is_refused_or_the_one_name(name in ".{0,80}") {
            if let Ok(node) = node_of_name(CLUSTER, &name) {
                prop_assert_eq!(certificate_name(CLUSTER, node), name);
            }
        }
    }

    #[test]
    fn other_spellings_and_other_clusters_are_foreign() {
        let name = certificate_name(CLUSTER, NodeId(3));
        for other in [
            name.replace("n3", "n03"),
            name.replace("n3", "n+3"),
            name.replace("n3", "*"),
            format!("{name}."),
            name.to_uppercase(),
            certificate_name(ClusterId([0xac; 16]), NodeId(3)),
        ] {
            assert_eq!(node_of_name(CLUSTER, &other), Err(IdentityError::Foreign(other.clone())));
        }
        for text in ["", "00", "+0000000000000000000000000000000", "zz000000000000000000000000000000"] {
            assert!(text.parse::<ClusterId>().is_err(), "{text}");
        }
    }
}
