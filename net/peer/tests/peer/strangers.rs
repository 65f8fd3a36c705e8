//! Those who do not belong: they are told nothing, change nothing, and cost little.

use crate::harness::{CLUSTER, Node, Trust, options, pattern, pause, peer, run, until};
use bytes::Bytes;
use std::net::UdpSocket;
use std::time::Duration;
use tidemill_peer::{ClusterId, Credentials, CredentialsError, NodeId, Options, PeerId};

/// `stranger` calls `one` for a while and gets nowhere; `one` still serves its own.
async fn gets_nowhere(one: &Node, stranger: &Node) {
    stranger.peers.connect(one.id, one.peers.address());
    until("failed calls", || stranger.peers.metrics().calls_made >= 3).await;
    assert!(stranger.seen.states.borrow().is_empty(), "{:?}", stranger.seen.states.borrow());
    assert!(!one.peers.is_connected(stranger.id));
    assert!(one.seen.states.borrow().iter().all(|(peer, _)| *peer != stranger.id));
    stranger.peers.close().await;
}

/// Two nodes of one cluster that have met.
async fn befriended(trust: &Trust) -> (Node, Node) {
    let one = Node::start(trust, 1, options());
    let friend = Node::start(trust, 2, options());
    friend.connect(&one);
    friend.connected(&one).await;
    (one, friend)
}

#[test]
fn another_authority_another_cluster_and_an_expired_certificate_are_refused() {
    run(|| async {
        let trust = Trust::new(CLUSTER);
        let (one, friend) = befriended(&trust).await;

        // Somebody else's authority, for the same cluster id.
        let other = Trust::new(CLUSTER);
        gets_nowhere(&one, &Node::start(&other, 3, options())).await;
        // One that believes us, but was not signed by ours.
        let issued = other.authority.issue(NodeId(3), Duration::from_secs(3600)).unwrap();
        let both = format!("{}{}", other.root_pem, trust.root_pem);
        gets_nowhere(&one, &Node::start_with(other.credentials_of(3, &issued, &both), 3, options())).await;
        // Our authority's key, used for two clusters: the name tells them apart.
        let elsewhere = trust.credentials_in(ClusterId([8; 16]), 3);
        gets_nowhere(&one, &Node::start_with(elsewhere, 3, options())).await;

        friend.peers.send(one.id, 0, Bytes::from_static(b"still here")).unwrap();
        assert_eq!(&one.message().await.payload[..], b"still here");
        assert_eq!(one.peers.metrics().connections, 1);
    });
}

#[test]
fn credentials_that_others_would_refuse_are_refused_at_home() {
    let trust = Trust::new(CLUSTER);
    let read = |node: u64, issued: &tidemill_peer::authority::Issued, roots: &str| {
        let (certificate, key) = (issued.certificate_pem.as_bytes(), issued.key_pem.as_bytes());
        Credentials::from_pem(CLUSTER, NodeId(node), roots.as_bytes(), certificate, key).err()
    };
    let good = trust.authority.issue(NodeId(1), Duration::from_secs(60)).unwrap();
    assert!(read(1, &good, &trust.root_pem).is_none());
    let other = read(2, &good, &trust.root_pem);
    assert!(matches!(other, Some(CredentialsError::OtherNode { found: NodeId(1), .. })), "{other:?}");
    let expired = trust.authority.issue_expired(NodeId(1)).unwrap();
    assert!(matches!(read(1, &expired, &trust.root_pem), Some(CredentialsError::Untrusted)));
    let foreign = Trust::new(CLUSTER);
    assert!(matches!(read(1, &good, &foreign.root_pem), Some(CredentialsError::Untrusted)));
    let elsewhere = Trust::new(ClusterId([9; 16])).authority.issue(NodeId(1), Duration::from_secs(60)).unwrap();
    assert!(matches!(read(1, &elsewhere, &trust.root_pem), Some(CredentialsError::Identity(_))));
    assert!(matches!(read(1, &good, ""), Some(CredentialsError::Missing("authority"))));
}

#[test]
fn a_certificate_that_expires_in_use_makes_no_new_connection() {
    run(|| async {
        let trust = Trust::new(CLUSTER);
        let one = Node::start(&trust, 1, options());
        let issued = trust.authority.issue(NodeId(2), Duration::from_secs(2)).unwrap();
        let short = Node::start_with(trust.credentials_of(2, &issued, &trust.root_pem), 2, options());
        pause(3100).await;
        gets_nowhere(&one, &short).await;
        assert_eq!(one.peers.metrics().connections, 0);
    });
}

#[test]
fn somebody_else_at_a_known_address_is_not_taken_for_the_peer() {
    run(|| async {
        let trust = Trust::new(CLUSTER);
        let one = Node::start(&trust, 1, options());
        let two = Node::start(&trust, 2, options());
        // A node of ours, but not the one that is meant.
        one.peers.connect(peer(3), two.peers.address());
        until("failed calls", || one.peers.metrics().calls_made >= 3).await;
        assert!(one.seen.states.borrow().is_empty());
        // The right node, but another core of it.
        one.peers.disconnect(peer(3));
        one.peers.connect(PeerId { node: NodeId(2), core: 5 }, two.peers.address());
        until("violations", || one.peers.metrics().violations + two.peers.metrics().violations >= 2).await;
        assert!(one.seen.states.borrow().is_empty() && two.seen.states.borrow().is_empty());
        // Oneself, by way of a wrong table of addresses.
        two.peers.connect(peer(1), two.peers.address());
        pause(100).await;
        assert!(two.seen.states.borrow().is_empty());
    });
}

#[test]
fn noise_at_the_port_changes_nothing_and_is_not_amplified() {
    run(|| async {
        let trust = Trust::new(CLUSTER);
        let (one, friend) = befriended(&trust).await;
        let noise = UdpSocket::bind("127.0.0.1:0").unwrap();
        noise.set_nonblocking(true).unwrap();
        let (mut sent, mut received, mut answers) = (0, 0, vec![0; 1 << 16]);
        for number in 0..3000u64 {
            let mut bytes = pattern(number, 1 + (number * 7919 % 1500) as usize).to_vec();
            if number % 3 == 0 {
                // Looks like a first packet: long header, version 1, ids of 8 bytes.
                let head = [0xc3, 0, 0, 0, 1, 8, 1, 2, 3, 4, 5, 6, 7, 8, 8];
                let length = head.len().min(bytes.len());
                bytes[..length].copy_from_slice(&head[..length]);
                bytes.resize(1200, 0);
            }
            sent += noise.send_to(&bytes, one.peers.address()).unwrap_or(0);
            if number % 50 == 0 {
                friend.peers.send(one.id, 0, pattern(number, 200)).unwrap();
                assert_eq!(one.message().await.payload, pattern(number, 200));
            }
            while let Ok(length) = noise.recv(&mut answers) {
                received += length;
            }
        }
        pause(50).await;
        while let Ok(length) = noise.recv(&mut answers) {
            received += length;
        }
        assert!(received <= 3 * sent, "{received} bytes for {sent}");
        assert_eq!(one.peers.metrics().connections, 1);
        assert_eq!(one.peers.metrics().violations, 0);
    });
}

#[test]
fn callers_who_never_finish_are_forgotten() {
    run(|| async {
        let trust = Trust::new(CLUSTER);
        let options =
            Options { handshake_timeout: Duration::from_millis(200), retry_above: 8, handshakes_max: 8, ..options() };
        let one = Node::start(&trust, 1, options.clone());
        // Their calls arrive, our answers do not.
        let faults = crate::relay::Faults { is_cut_back: true, ..Default::default() };
        let relay = crate::relay::Relay::start(one.peers.address(), faults, 1);
        let mut callers = Vec::new();
        for node in 10..22 {
            let caller = Node::start(&trust, node, options.clone());
            caller.peers.connect(one.id, relay.address());
            callers.push(caller);
        }
        until("refusals", || one.peers.metrics().calls_refused >= 3).await;
        for caller in callers {
            caller.peers.close().await;
        }
        // Room comes back when those who came first have had their time.
        let friend = Node::start(&trust, 2, options);
        friend.connect(&one);
        friend.connected(&one).await;
    });
}
