//! Answers in pieces: whole, or an error, and given up by whoever no longer wants them.

use crate::harness::{Core, SHAPE, Trust, pair, pattern, run, until};
use bytes::Bytes;
use tidemill::links::{CallFailure, Links, Roster};
use tidemill_line::PartitionMap;
use tidemill_raft::{GroupId, NodeId};

const GROUP: GroupId = GroupId(4);

fn order(lengths: &[u32]) -> Bytes {
    lengths.iter().flat_map(|length| length.to_le_bytes()).collect()
}

#[test]
fn pieces_of_any_length_come_in_their_order() {
    run(|| async {
        let (_, one, two) = pair(GROUP).await;
        let lengths = [0, 1, 512 << 10, (512 << 10) + 1, 9 << 20, 0, 7];
        let mut read = one.links.read(NodeId(2), GROUP, order(&lengths)).await.unwrap();
        for (number, length) in lengths.iter().enumerate() {
            let piece = read.next().await.unwrap().unwrap();
            assert!(piece == pattern(number as u64, *length as usize), "piece {number} has {} bytes", piece.len());
        }
        assert!(read.next().await.unwrap().is_none());
        assert_eq!((one.links.metrics().reads, two.links.metrics().reads_answered), (1, 1));
        assert_eq!(two.seen.dropped.get(), 0);
    });
}

#[test]
fn who_no_longer_wants_the_answer_is_noticed() {
    run(|| async {
        let (_, one, two) = pair(GROUP).await;
        two.seen.holds.set(true);
        let mut read = one.links.read(NodeId(2), GROUP, order(&[3])).await.unwrap();
        assert!(read.next().await.unwrap().unwrap() == pattern(0, 3));
        assert_eq!(two.seen.dropped.get(), 0);
        drop(read);
        until("the answer to be given up", || two.seen.dropped.get() == 1).await;
        // Also while it waits for room.
        let read = one.links.read(NodeId(2), GROUP, order(&[64 << 20])).await.unwrap();
        drop(read);
        until("the answer to be given up", || two.seen.dropped.get() == 2).await;
    });
}

#[test]
fn an_answer_that_breaks_off_is_an_error() {
    run(|| async {
        let (_, one, two) = pair(GROUP).await;
        two.seen.holds.set(true);
        let mut read = one.links.read(NodeId(2), GROUP, order(&[3])).await.unwrap();
        assert!(read.next().await.unwrap().is_some());
        two.links.close().await;
        assert!(matches!(read.next().await, Err(CallFailure::Unknown { to: NodeId(2), .. })));
        let again = one.links.read(NodeId(2), GROUP, order(&[3])).await;
        assert!(matches!(again.map(drop), Err(CallFailure::NotSent { .. })));
    });
}

#[test]
fn a_node_of_another_shape_reads_nothing() {
    run(|| async {
        let trust = Trust::new(&[1, 1]);
        let roster = Roster {
            node: NodeId(1),
            nodes: trust.nodes.clone(),
            partitions: PartitionMap::single(64),
            shape: SHAPE + 1,
        };
        let one = Core { links: Links::new(roster, 0), ..Core::new(&trust, 1, 0) };
        one.begin(&trust, 1, 0, &[GROUP]);
        let two = Core::start(&trust, 2, 0, &[GROUP]);
        one.connected(2, GROUP).await;
        let mut read = one.links.read(NodeId(2), GROUP, order(&[3])).await.unwrap();
        assert!(matches!(read.next().await, Err(CallFailure::NotSent { .. })));
        assert_eq!(two.links.metrics().reads_answered, 0);
    });
}
