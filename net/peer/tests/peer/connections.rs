//! Who is connected to whom, after calls that meet, losses, restarts and changes of credentials.

use crate::harness::{CLUSTER, Node, Trust, options, pair, pattern, pause, peer, run, until};
use std::time::Duration;
use tidemill_peer::{NodeId, Options, PeerState, SendError};

#[test]
fn two_calls_that_meet_become_one_connection() {
    run(|| async {
        for _ in 0..20 {
            let trust = Trust::new(CLUSTER);
            let (one, two) = (Node::start(&trust, 1, options()), Node::start(&trust, 2, options()));
            one.connect(&two);
            two.connect(&one);
            one.connected(&two).await;
            two.connected(&one).await;
            let single = || one.peers.metrics().connections == 1 && two.peers.metrics().connections == 1;
            until("one connection", single).await;
            // It is the same for both, and stays.
            pause(30).await;
            assert!(single());
            let (lost, connected) = (one.peers.metrics().connections_lost, two.seen.connected_count());
            for number in 0..10 {
                one.peers.send(two.id, 0, pattern(number, 100)).unwrap();
                two.peers.send(one.id, 0, pattern(number, 100)).unwrap();
                assert_eq!(two.message().await.payload, pattern(number, 100));
                assert_eq!(one.message().await.payload, pattern(number, 100));
            }
            assert_eq!((one.peers.metrics().connections_lost, two.seen.connected_count()), (lost, connected));
            one.peers.close().await;
            two.peers.close().await;
        }
    });
}

#[test]
fn a_peer_that_is_not_there_yet_is_called_until_it_is() {
    run(|| async {
        let trust = Trust::new(CLUSTER);
        let one = Node::start(&trust, 1, Options { handshake_timeout: Duration::from_millis(100), ..options() });
        let place = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = place.local_addr().unwrap();
        one.peers.connect(peer(2), address);
        until("some calls", || one.peers.metrics().calls_made >= 3).await;
        assert!(one.seen.states.borrow().is_empty());
        assert_eq!(one.peers.send(peer(2), 0, pattern(0, 1)), Err(SendError::NotConnected));
        drop(place);
        let two = Node::start_at(&address.to_string(), trust.credentials(2), 2, options());
        one.connected(&two).await;
    });
}

#[test]
fn a_peer_that_was_started_again_is_connected_again() {
    run(|| async {
        let trust = Trust::new(CLUSTER);
        let one = Node::start(&trust, 1, options());
        let mut two = Node::start(&trust, 2, options());
        one.connect(&two);
        two.connect(&one);
        for _ in 0..5 {
            one.connected(&two).await;
            two.connected(&one).await;
            let address = two.peers.address().to_string();
            two.peers.close().await;
            until("the loss", || !one.peers.is_connected(two.id)).await;
            pause(50).await;
            two = Node::start_at(&address, trust.credentials(2), 2, options());
            two.connect(&one);
        }
        one.connected(&two).await;
        one.peers.send(two.id, 0, pattern(1, 10)).unwrap();
        assert_eq!(two.message().await.payload, pattern(1, 10));
        let states: Vec<bool> =
            one.seen.states.borrow().iter().map(|(_, state)| *state == PeerState::Connected).collect();
        assert!(states.iter().enumerate().all(|(at, is_up)| *is_up == (at % 2 == 0)), "up, lost, up, ..: {states:?}");
    });
}

#[test]
fn a_peer_that_died_without_a_word_is_taken_back_at_its_new_start() {
    run(|| async {
        let trust = Trust::new(CLUSTER);
        // Nobody would notice the loss by waiting.
        let options = Options { idle_timeout: Duration::from_secs(300), ..options() };
        let one = Node::start(&trust, 1, options.clone());
        let two = Node::start(&trust, 2, options.clone());
        one.connect(&two);
        one.connected(&two).await;
        two.connected(&one).await;
        // The old process hangs on its port; the new one is somewhere else. The lower side called, and the rule for two
        // connections would keep the dead one.
        let again = Node::start(&trust, 2, options);
        again.connect(&one);
        again.connected(&one).await;
        one.peers.send(again.id, 0, pattern(1, 10)).unwrap();
        assert_eq!(again.message().await.payload, pattern(1, 10));
        assert_eq!(one.peers.metrics().connections, 1);
    });
}

#[test]
fn disconnecting_ends_it_until_somebody_calls() {
    run(|| async {
        let (one, two) = pair(options()).await;
        one.peers.disconnect(two.id);
        assert!(!one.peers.is_connected(two.id));
        until("the loss", || !two.peers.is_connected(one.id)).await;
        pause(150).await;
        assert!(!one.peers.is_connected(two.id));
        two.connect(&one);
        two.connected(&one).await;
        one.connected(&two).await;
    });
}

#[test]
fn authorities_change_without_a_restart() {
    run(|| async {
        let (old, new) = (Trust::new(CLUSTER), Trust::new(CLUSTER));
        let both = format!("{}{}", old.root_pem, new.root_pem);
        let issue = |trust: &Trust, node, roots: &str| {
            let issued = trust.authority.issue(NodeId(node), Duration::from_secs(3600)).unwrap();
            old.credentials_of(node, &issued, roots)
        };
        let mut nodes = Vec::new();
        for node in 1..=2 {
            nodes.push(Node::start(&old, node, options()));
        }
        let reconnect = async || {
            nodes[0].peers.disconnect(nodes[1].id);
            until("the loss", || !nodes[1].peers.is_connected(nodes[0].id)).await;
            nodes[0].connect(&nodes[1]);
            nodes[0].connected(&nodes[1]).await;
            nodes[1].connected(&nodes[0]).await;
        };
        nodes[0].connect(&nodes[1]);
        nodes[0].connected(&nodes[1]).await;
        // 1. Everybody believes both; 2. everybody shows a new certificate; 3. nobody believes the old one. At each step
        // a connection lives on, and nodes that are a step apart can call each other.
        for step in 1..=3 {
            for (at, node) in [(0usize, 1u64), (1, 2)] {
                let credentials = match step {
                    1 => issue(&old, node, &both),
                    2 => issue(&new, node, &both),
                    _ => issue(&new, node, &new.root_pem),
                };
                let connected = nodes[at].seen.connected_count();
                nodes[at].peers.set_credentials(credentials);
                pause(5).await;
                assert!(nodes[at].peers.is_connected(nodes[1 - at].id));
                assert_eq!(nodes[at].seen.connected_count(), connected);
                reconnect().await;
            }
        }
        // Who missed all of it is out.
        let late = Node::start(&old, 3, options());
        late.connect(&nodes[0]);
        until("failed calls", || late.peers.metrics().calls_made >= 3).await;
        assert!(late.seen.states.borrow().is_empty());
    });
}

#[test]
fn a_caller_must_prove_its_address_when_many_call() {
    run(|| async {
        let trust = Trust::new(CLUSTER);
        let one = Node::start(&trust, 1, Options { retry_above: 0, ..options() });
        let two = Node::start(&trust, 2, options());
        two.connect(&one);
        two.connected(&one).await;
        assert!(one.peers.metrics().calls_retried >= 1);
    });
}

#[test]
fn there_are_never_more_connections_than_allowed() {
    run(|| async {
        let trust = Trust::new(CLUSTER);
        let one = Node::start(&trust, 1, Options { connections_max: 2, ..options() });
        let mut others = Vec::new();
        for node in 2..=5 {
            let node = Node::start(&trust, node, options());
            node.connect(&one);
            others.push(node);
        }
        until("refusals", || one.peers.metrics().calls_refused >= 4).await;
        assert_eq!(one.peers.metrics().connections, 2);
        // Room is given to who calls next.
        let first = others.iter().position(|node| node.peers.is_connected(one.id)).unwrap();
        others.remove(first).peers.close().await;
        let of = |others: &[Node]| others.iter().filter(|node| node.peers.is_connected(one.id)).count();
        until("the next one", || of(&others) == 2).await;
    });
}
