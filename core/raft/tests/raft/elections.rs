//! Leaders come and go.

use super::pair::{ELECTION, Network};
use tidemill_raft::{NodeId, Rejected, Role};

#[test]
fn a_group_elects_and_replicates() {
    let mut network = Network::new(&[1, 2, 3]);
    let leader = network.elect();
    for value in 0..100 {
        network.propose(leader, value);
        if value % 7 == 0 {
            network.deliver();
        }
    }
    network.tick(30);
    for node in 1..=3 {
        assert_eq!(network.data(node), (0..100).collect::<Vec<_>>());
        assert_eq!(network.members[&node].committed, network.members[&leader].committed);
    }
}

#[test]
fn a_leader_without_a_majority_steps_down_and_what_it_took_alone_is_replaced() {
    let mut network = Network::new(&[1, 2, 3]);
    let old = network.elect();
    network.tick(20);
    network.of(old).connected = false;
    let lost = network.propose(old, 66);
    network.tick(ELECTION * 2 + 1);
    assert_eq!(network.of(old).raft.role(), Role::Follower);
    let new = network.elect();
    network.propose(new, 77);
    network.of(old).connected = true;
    network.tick(ELECTION);
    assert_eq!(network.of(new).raft.role(), Role::Leader, "the one that comes back does not disturb");
    for node in 1..=3 {
        assert_eq!(network.data(node), vec![77]);
    }
    assert!(network.of(old).committed >= lost.index);
}

#[test]
fn leadership_is_handed_over_at_once() {
    let mut network = Network::new(&[1, 2, 3]);
    let old = network.elect();
    network.propose(old, 1);
    let to = old % 3 + 1;
    let output = network.of(old).raft.transfer_leadership(NodeId(to)).unwrap();
    network.take(old, output);
    assert_eq!(network.of(old).raft.propose(2), Err(Rejected::Transferring { to: NodeId(to) }));
    network.deliver();
    assert_eq!(network.of(to).raft.role(), Role::Leader);
    assert_eq!(network.of(old).raft.role(), Role::Follower);
    network.propose(to, 3);
    network.tick(20);
    assert_eq!(network.data(old), vec![1, 3]);
}
