//! Certificates that are replaced under a running node.

use crate::harness::{CLUSTER, run};
use crate::harness::{Core, DAY, Trust, until};
use std::{fs, path::Path};
use tidemill::links::Rotation;
use tidemill_peer::{AUTHORITY_FILE, CERTIFICATE_FILE, KEY_FILE, NodeId, authority::Authority};
use tidemill_raft::GroupId;

const GROUP: GroupId = GroupId(4);

fn write(folder: &Path, authority: &Authority, roots: &str, node: u64) {
    let issued = authority.issue(NodeId(node), DAY).unwrap();
    fs::write(folder.join(AUTHORITY_FILE), roots).unwrap();
    fs::write(folder.join(CERTIFICATE_FILE), &issued.certificate_pem).unwrap();
    fs::write(folder.join(KEY_FILE), &issued.key_pem).unwrap();
}

#[test]
fn connections_are_made_with_certificates_that_came_while_the_node_ran() {
    run(|| async {
        let trust = Trust::new(&[1, 1]);
        let (newer, root) = Authority::make(CLUSTER, DAY).unwrap();
        let roots = format!("{}{}", trust.root_pem, root.certificate_pem);
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), &trust.authority, &trust.root_pem, 1);
        let rotation = Rotation::follow(CLUSTER, NodeId(1), folder.path()).unwrap();
        let one = Core::new(&trust, 1, 0);
        one.begin_with(&trust, 1, 0, &[GROUP], rotation.current());
        one.links.follow(&rotation);
        // Node 2 believes the new authority alone, and shows what that signed.
        let issued = newer.issue(NodeId(2), DAY).unwrap();
        let (certificate, key) = (issued.certificate_pem.as_bytes(), issued.key_pem.as_bytes());
        let credentials =
            tidemill_peer::Credentials::from_pem(CLUSTER, NodeId(2), root.certificate_pem.as_bytes(), certificate, key);
        let two = Core::new(&trust, 2, 0);
        two.begin_with(&trust, 2, 0, &[GROUP], credentials.unwrap());
        until("calls in vain", || two.links.metrics().peer.is_some_and(|peer| peer.calls_made >= 3)).await;
        assert!(!two.links.is_connected(tidemill_raft::NodeId(1), GROUP));
        // Files that do not fit together, as in the midst of a replacement, change nothing.
        fs::write(folder.path().join(KEY_FILE), "no key").unwrap();
        crate::harness::pause(2_500).await;
        assert_eq!(rotation.version(), 0);
        write(folder.path(), &newer, &roots, 1);
        until("new certificates", || rotation.version() > 0).await;
        one.connected(2, GROUP).await;
        two.connected(1, GROUP).await;
    });
}
