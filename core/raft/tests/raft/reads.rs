//! Reads at leader and followers.

use super::pair::{ELECTION, Network};
use tidemill_raft::{Moment, ReadId};

#[test]
fn a_lease_answers_alone_and_ends_before_anybody_else_can_lead() {
    let mut network = Network::new(&[1, 2, 3]);
    let leader = network.elect();
    network.tick(20);
    let now = network.now;
    let output = network.of(leader).raft.read(Moment(now), ReadId(1));
    assert_eq!(output.reads[0].index, Some(network.of(leader).committed));
    assert!(output.send.is_empty());
    let late = Moment(now + ELECTION);
    let output = network.of(leader).raft.read(late, ReadId(2));
    assert!(output.reads.is_empty(), "a majority has to be asked");
    assert_eq!(output.send.len(), 2);
    network.take(leader, output);
    network.deliver();
    assert_eq!(network.of(leader).reads[0].id, ReadId(2));
}

#[test]
fn a_follower_asks_its_leader() {
    let mut network = Network::new(&[1, 2, 3]);
    let leader = network.elect();
    let id = network.propose(leader, 1);
    network.tick(20);
    let follower = leader % 3 + 1;
    let now = Moment(network.now);
    let output = network.of(follower).raft.read(now, ReadId(9));
    network.take(follower, output);
    network.deliver();
    assert_eq!(network.of(follower).reads[0].index, Some(id.index));
}
