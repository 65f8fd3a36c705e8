//! `tidemill ctl cert`: the cluster's authority, and certificates for its nodes.
//!
//! ```text
//! authority folder   ca.pem, ca.key            kept away from the nodes
//! node folder        ca.pem, node.pem, node.key
//! ```
//!
//! To change the authority without a stop: make a second one, put both `ca.pem` behind one another into every node's
//! `ca.pem`, then give every node a certificate of the new one, then take the old `ca.pem` out.
//! Invariants: a private key is readable by its owner alone from the first byte on; nothing that exists is overwritten.

use anyhow::{Context, bail};
use clap::{Args, Subcommand};
use std::fs::{DirBuilder, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tidemill_peer::authority::{Authority, Issued};
use tidemill_peer::{AUTHORITY_FILE, CERTIFICATE_FILE, ClusterId, Credentials, KEY_FILE, NodeId};

const AUTHORITY_KEY_FILE: &str = "ca.key";

#[derive(Subcommand)]
pub enum Certificate {
    /// Makes the authority of a cluster
    Authority(AuthorityArguments),
    /// Makes the certificate of a node
    Node(NodeArguments),
}

#[derive(Args)]
pub struct AuthorityArguments {
    /// Id of the cluster, 32 hexadecimal digits; chosen once
    #[arg(long, value_name = "ID")]
    pub(crate) cluster: ClusterId,
    /// Folder that is made for ca.pem and ca.key
    #[arg(long, value_name = "DIR")]
    pub(crate) out: PathBuf,
    #[arg(long, value_name = "DAYS", default_value_t = 3650)]
    pub(crate) days: u32,
}

#[derive(Args)]
pub struct NodeArguments {
    /// Id of the cluster, as the authority was made with
    #[arg(long, value_name = "ID")]
    pub(crate) cluster: ClusterId,
    /// Folder of the authority
    #[arg(long, value_name = "DIR")]
    pub(crate) authority: PathBuf,
    /// Number of the node
    #[arg(long, value_name = "N")]
    pub(crate) node: u64,
    /// Folder that is made for ca.pem, node.pem and node.key
    #[arg(long, value_name = "DIR")]
    pub(crate) out: PathBuf,
    #[arg(long, value_name = "DAYS", default_value_t = 365)]
    pub(crate) days: u32,
}

impl Certificate {
    pub fn run(&self) -> anyhow::Result<()> {
        match self {
            Certificate::Authority(arguments) => make_authority(arguments),
            Certificate::Node(arguments) => make_node(arguments),
        }
    }
}

pub(crate) fn make_authority(arguments: &AuthorityArguments) -> anyhow::Result<()> {
    let (_, issued) = Authority::make(arguments.cluster, days(arguments.days)?)?;
    make_folder(&arguments.out)?;
    write(&arguments.out.join(AUTHORITY_KEY_FILE), &issued.key_pem, 0o600)?;
    write(&arguments.out.join(AUTHORITY_FILE), &issued.certificate_pem, 0o644)
}

pub(crate) fn make_node(arguments: &NodeArguments) -> anyhow::Result<()> {
    let root = read(&arguments.authority.join(AUTHORITY_FILE))?;
    let key = read(&arguments.authority.join(AUTHORITY_KEY_FILE))?;
    let node = NodeId(arguments.node);
    let authority = Authority::from_key_pem(arguments.cluster, &key)?;
    let Issued { certificate_pem, key_pem } = authority.issue(node, days(arguments.days)?)?;
    // Another cluster id than the authority's is noticed here and not when the nodes do not find together.
    Credentials::from_pem(arguments.cluster, node, root.as_bytes(), certificate_pem.as_bytes(), key_pem.as_bytes())
        .with_context(|| {
            format!("{} is no authority of cluster {}", arguments.authority.display(), arguments.cluster)
        })?;
    make_folder(&arguments.out)?;
    write(&arguments.out.join(KEY_FILE), &key_pem, 0o600)?;
    write(&arguments.out.join(CERTIFICATE_FILE), &certificate_pem, 0o644)?;
    write(&arguments.out.join(AUTHORITY_FILE), &root, 0o644)
}

/// A century is as good as for ever, and no calendar of a certificate ends before it.
fn days(days: u32) -> anyhow::Result<Duration> {
    if days == 0 || days > 36_525 {
        bail!("--days must be 1 to 36525");
    }
    Ok(Duration::from_secs(u64::from(days) * 86_400))
}

fn make_folder(path: &Path) -> anyhow::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path).with_context(|| format!("making {}", path.display()))
}

fn read(path: &Path) -> anyhow::Result<String> {
    std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))
}

fn write(path: &Path, text: &str, mode: u32) -> anyhow::Result<()> {
    let file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path);
    let mut file = file.with_context(|| format!("making {}", path.display()))?;
    file.write_all(text.as_bytes())
        .and_then(|()| file.sync_all())
        .with_context(|| format!("writing {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    const CLUSTER: ClusterId = ClusterId([5; 16]);

    fn authority(folder: &Path, cluster: ClusterId) -> PathBuf {
        let out = folder.join("authority");
        make_authority(&AuthorityArguments { cluster, out: out.clone(), days: 10 }).unwrap();
        out
    }

    fn node(authority: &Path, cluster: ClusterId, out: PathBuf) -> anyhow::Result<()> {
        make_node(&NodeArguments { cluster, authority: authority.into(), node: 7, out, days: 1 })
    }

    #[test]
    fn what_is_made_is_what_a_node_reads() {
        let folder = tempfile::tempdir().unwrap();
        let authority = authority(folder.path(), CLUSTER);
        let out = folder.path().join("node");
        node(&authority, CLUSTER, out.clone()).unwrap();
        Credentials::read(CLUSTER, NodeId(7), &out).unwrap();
        for key in [authority.join(AUTHORITY_KEY_FILE), out.join(KEY_FILE)] {
            assert_eq!(std::fs::metadata(&key).unwrap().permissions().mode() & 0o777, 0o600, "{}", key.display());
        }
        assert!(node(&authority, CLUSTER, out).is_err(), "keys are not overwritten");
    }

    #[test]
    fn an_authority_makes_nothing_for_another_cluster() {
        let folder = tempfile::tempdir().unwrap();
        let authority = authority(folder.path(), CLUSTER);
        let out = folder.path().join("node");
        assert!(node(&authority, ClusterId([6; 16]), out.clone()).is_err());
        assert!(!out.exists());
    }
}
