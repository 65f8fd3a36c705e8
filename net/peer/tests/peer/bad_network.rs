//! Through a relay that drops, delays, swaps, repeats, flips and cuts: what arrives is what was sent.

use crate::harness::{CLUSTER, Node, Trust, options, pattern, pause, run, until};
use crate::relay::{Faults, Relay};
use std::time::Duration;
use tidemill_peer::{MTU_JUMBO, Options, StreamError};

struct Through {
    one: Node,
    two: Node,
    relay: Relay,
}

async fn through(faults: Faults, options: Options, seed: u64) -> Through {
    let trust = Trust::new(CLUSTER);
    let (one, two) = (Node::start(&trust, 1, options.clone()), Node::start(&trust, 2, options));
    let relay = Relay::start(two.peers.address(), faults, seed);
    one.peers.connect(two.id, relay.address());
    one.connected(&two).await;
    two.connected(&one).await;
    Through { one, two, relay }
}

/// Raft messages in both directions, a request and a file, all at once; everything must come out as it went in.
async fn all_kinds_pass(through: &Through) {
    let (one, two) = (&through.one, &through.two);
    let length = 2 << 20;
    let content = pattern(99, length);
    let sending = glommio::spawn_local({
        let (peers, to, content) = (one.peers.clone(), two.id, content.clone());
        async move {
            let mut sender = peers.send_file(to, 1, b"", length as u64).await.unwrap();
            for at in (0..length).step_by(100_000) {
                sender.write(content.slice(at..(at + 100_000).min(length))).await?;
            }
            sender.finish().await
        }
    });
    let asking = glommio::spawn_local({
        let (peers, to) = (one.peers.clone(), two.id);
        async move {
            let mut request = peers.request(to, 0, pattern(1, 5000)).await.unwrap();
            let mut pieces = Vec::new();
            while let Some(piece) = request.next().await? {
                pieces.push(piece);
            }
            Ok::<_, StreamError>(pieces)
        }
    });
    for number in 0..200u64 {
        one.peers.send_when_room(two.id, number % 3, pattern(number, 700)).await.unwrap();
        two.peers.send_when_room(one.id, number % 3, pattern(number, 700)).await.unwrap();
    }
    for node in [one, two] {
        let mut next = [0, 1, 2];
        for _ in 0..200 {
            let message = node.message().await;
            let number = next[message.group as usize];
            next[message.group as usize] += 3;
            assert_eq!(message.payload, pattern(number, 700));
        }
    }
    let inquiry = two.inquiry().await;
    assert_eq!(inquiry.payload, pattern(1, 5000));
    for number in 0..10 {
        inquiry.reply(pattern(number, 20_000)).await.unwrap();
    }
    inquiry.finish().await.unwrap();
    let pieces = asking.await.unwrap();
    assert!(pieces.iter().enumerate().all(|(number, piece)| *piece == pattern(number as u64, 20_000)));
    assert_eq!(pieces.len(), 10);
    let mut file = two.file().await;
    let mut received = vec![0; length];
    assert_eq!(file.fill(&mut received).await, Ok(length));
    assert_eq!(file.fill(&mut [0]).await, Ok(0));
    assert!(received == content);
    sending.await.unwrap();
    for node in [one, two] {
        let metrics = node.peers.metrics();
        assert_eq!((metrics.violations, metrics.connections_lost), (0, 0));
    }
}

#[test]
fn drops_delays_swaps_and_repeats() {
    run(|| async {
        let faults = Faults {
            drop: 0.03,
            duplicate: 0.05,
            reorder: 0.2,
            delay: Duration::from_micros(500),
            jitter: Duration::from_millis(2),
            replay: 0.05,
            ..Faults::default()
        };
        let through = through(faults, options(), 1).await;
        all_kinds_pass(&through).await;
        let counters = through.relay.counters();
        let all = [counters.dropped, counters.duplicated, counters.reordered, counters.replayed];
        assert!(all.iter().all(|count| *count > 0), "{counters:?}");
        assert!(through.one.peers.metrics().packets_lost > 0);
    });
}

#[test]
fn flipped_bits_and_cut_datagrams() {
    run(|| async {
        let faults = Faults { corrupt: 0.05, truncate: 0.03, ..Faults::default() };
        let through = through(faults, options(), 2).await;
        all_kinds_pass(&through).await;
        let counters = through.relay.counters();
        assert!(counters.corrupted > 0 && counters.truncated > 0, "{counters:?}");
    });
}

#[test]
fn old_datagrams_are_not_acted_upon() {
    run(|| async {
        let through = through(Faults { replay: 1.0, duplicate: 1.0, ..Faults::default() }, options(), 3).await;
        all_kinds_pass(&through).await;
        pause(50).await;
        assert!(through.two.seen.messages.borrow().is_empty());
        assert!(through.two.seen.files.borrow().is_empty() && through.two.seen.inquiries.borrow().is_empty());
        assert!(through.relay.counters().replayed > 100);
        assert_eq!(through.one.seen.connected_count() + through.two.seen.connected_count(), 2);
    });
}

#[test]
fn a_path_that_forgets_its_ports_goes_on() {
    run(|| async {
        let through = through(Faults::default(), options(), 4).await;
        for _ in 0..3 {
            all_kinds_pass(&through).await;
            through.relay.rebind();
        }
        all_kinds_pass(&through).await;
    });
}

#[test]
fn a_path_that_takes_only_short_packets_is_found_out() {
    run(|| async {
        let options = Options { mtu: MTU_JUMBO, idle_timeout: Duration::from_secs(30), ..options() };
        let through = through(Faults::default(), options, 5).await;
        all_kinds_pass(&through).await;
        through.relay.set(Faults { bytes_max: Some(1500), ..Faults::default() });
        all_kinds_pass(&through).await;
        assert!(through.relay.counters().dropped > 0);
    });
}

#[test]
fn a_cut_is_noticed_by_both_and_heals() {
    run(|| async {
        let through = through(Faults::default(), options(), 6).await;
        let (one, two) = (&through.one, &through.two);
        for (is_cut_forward, is_cut_back) in [(true, true), (true, false), (false, true)] {
            through.relay.set(Faults { is_cut_forward, is_cut_back, ..Faults::default() });
            let mut request = one.peers.request(two.id, 0, pattern(0, 10)).await.unwrap();
            until("the loss", || !one.peers.is_connected(two.id) && !two.peers.is_connected(one.id)).await;
            assert_eq!(request.next().await, Err(StreamError::Lost));
            through.relay.set(Faults::default());
            one.connected(two).await;
            two.connected(one).await;
            two.seen.inquiries.borrow_mut().clear();
        }
        let before = one.peers.metrics().connections_lost;
        assert_eq!(before, 3);
        one.peers.send(two.id, 0, pattern(7, 10)).unwrap();
        until("the message", || two.seen.messages.borrow().iter().any(|message| message.payload == pattern(7, 10)))
            .await;
    });
}
