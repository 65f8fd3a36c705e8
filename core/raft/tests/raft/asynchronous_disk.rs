//! Storage whose answer comes later.

use super::pair::{Network, append};
use tidemill_raft::{Body, LogIndex, Message, MessageError, Moment, NodeId, WriteId};

fn acknowledged(messages: &[Message<u64>]) -> Vec<(u64, u64)> {
    let matched = |message: &Message<u64>| match message.body {
        Body::Appended { matched } => Some((message.to.0, matched.0)),
        _ => None,
    };
    messages.iter().filter_map(matched).collect()
}

/// Entries A of one leader, then B of the next in the same places: that A is durable must not be told as B's being so.
#[test]
fn a_finished_write_of_replaced_entries_acknowledges_nothing_of_those_that_replaced_them() {
    let mut network = Network::new(&[1, 2, 3]);
    let raft = &mut network.of(1).raft;
    let first = raft.handle_message(Moment(1), append(2, 1, 1, (0, 0), &[1, 1], 0)).unwrap();
    assert_eq!((first.write, acknowledged(&first.send)), (Some(WriteId(1)), vec![]));
    let second = raft.handle_message(Moment(2), append(3, 1, 2, (0, 0), &[2, 2], 0)).unwrap();
    assert_eq!((second.write, acknowledged(&second.send)), (Some(WriteId(2)), vec![]));
    let stable = raft.handle_stable(WriteId(1));
    assert_eq!(raft.stable_index(), LogIndex(0));
    assert!(acknowledged(&stable.send).iter().all(|(_, matched)| *matched == 0), "{stable:?}");
    let stable = raft.handle_stable(WriteId(2));
    assert_eq!(acknowledged(&stable.send), vec![(3, 2)]);
    // And back to the same term's entries: A, B, A again.
    let mut network = Network::new(&[1, 2, 3]);
    let raft = &mut network.of(1).raft;
    for message in [append(2, 1, 1, (0, 0), &[1], 0), append(3, 1, 2, (0, 0), &[2], 0)] {
        raft.handle_message(Moment(1), message).unwrap();
    }
    raft.handle_message(Moment(1), append(2, 1, 3, (0, 0), &[1], 0)).unwrap();
    raft.handle_stable(WriteId(1));
    assert_eq!(raft.stable_index(), LogIndex(0), "the first write may be followed by the second before a crash");
    raft.handle_stable(WriteId(2));
    assert_eq!(raft.stable_index(), LogIndex(0));
    assert_eq!(acknowledged(&raft.handle_stable(WriteId(3)).send), vec![(2, 1)]);
}

#[test]
fn a_leader_counts_itself_only_when_its_own_write_is_done() {
    let mut network = Network::new(&[1, 2, 3]);
    let leader = network.elect();
    network.of(leader).quick = false;
    let other = if leader == 1 { 2 } else { 1 };
    network.of(other).connected = false;
    let id = network.propose(leader, 5);
    network.deliver();
    assert!(network.of(leader).committed < id.index, "one follower and an unfinished own write are no majority");
    network.sync(leader);
    assert_eq!(network.of(leader).committed, id.index);
}

#[test]
fn followers_alone_commit_what_the_leaders_disk_has_not_finished() {
    let mut network = Network::new(&[1, 2, 3]);
    let leader = network.elect();
    network.of(leader).quick = false;
    let id = network.propose(leader, 5);
    network.deliver();
    assert_eq!(network.of(leader).committed, id.index);
}

#[test]
fn a_vote_is_not_told_before_it_is_durable() {
    let mut network = Network::new(&[1, 2, 3]);
    network.now = 1000;
    let vote = Message {
        group: super::pair::GROUP,
        from: NodeId(2),
        to: NodeId(1),
        term: tidemill_raft::Term(1),
        body: Body::Vote { last: Default::default(), transfer: false },
    };
    let raft = &mut network.of(1).raft;
    let output = raft.handle_message(Moment(1000), vote).unwrap();
    assert!(output.send.is_empty() && output.hard_state.is_some());
    let output = raft.handle_stable(output.write.unwrap());
    assert_eq!(output.send.len(), 1);
}

#[test]
fn what_is_committed_is_not_replaced_whoever_asks() {
    let mut network = Network::new(&[1, 2, 3]);
    let raft = &mut network.of(1).raft;
    raft.handle_message(Moment(1), append(2, 1, 1, (0, 0), &[1, 1], 2)).unwrap();
    let refused = raft.handle_message(Moment(2), append(3, 1, 2, (0, 0), &[2], 0));
    assert_eq!(refused, Err(MessageError::Committed));
    assert_eq!((raft.term().0, raft.committed()), (1, LogIndex(2)));
    let second = raft.handle_message(Moment(2), append(3, 1, 1, (1, 2), &[1], 0));
    assert_eq!(second, Err(MessageError::SecondLeader));
}

/// A leader of two terms whose entries of both are cut off at once: all of them end, although the log that replaced them
/// stays shorter than they were.
#[test]
fn proposals_behind_a_cut_end_when_another_entry_is_committed_at_the_cut() {
    let mut network = Network::new(&[1, 2, 3]);
    let old = network.elect();
    network.of(old).connected = false;
    let mut proposed = 0;
    for _ in 0..2 {
        for _ in 0..3 {
            network.propose(old, 7);
            proposed += 1;
        }
        // It stands for election again, with one voice more for a moment that brings it nothing else.
        let term = network.of(old).raft.term().0;
        let voter = if old == 1 { 2 } else { 1 };
        let grant = |term, body| Message {
            group: super::pair::GROUP,
            from: NodeId(voter),
            to: NodeId(old),
            term: tidemill_raft::Term(term),
            body,
        };
        network.tick(4 * super::pair::ELECTION);
        let now = Moment(network.now);
        let wanted = network.of(old).raft.term().0 + 1;
        let output = network.of(old).raft.handle_message(now, grant(wanted, Body::PreVoteAnswer { granted: true }));
        network.take(old, output.unwrap());
        let output = network.of(old).raft.handle_message(now, grant(wanted, Body::VoteAnswer { granted: true }));
        network.take(old, output.unwrap());
        assert!(network.of(old).raft.term().0 > term);
        if network.of(old).raft.role() != tidemill_raft::Role::Leader {
            break;
        }
    }
    assert!(proposed > 3, "it led twice");
    network.mail.clear();
    let now = network.now;
    let raft = &mut network.of(old).raft;
    let (newest, term) = (raft.last_index().0, raft.term().0 + 1);
    let output =
        raft.handle_message(Moment(now), append(if old == 1 { 2 } else { 1 }, old, term, (1, 1), &[term], 2)).unwrap();
    let ended: u64 = output.ended.iter().map(|ended| ended.last.0 - ended.first.0 + 1).sum();
    assert_eq!(ended, newest - 1, "all but the committed first entry: {:?}", output.ended);
}
