//! Members come and go.

use super::pair::{ELECTION, Network, voters};
use std::sync::Arc;
use tidemill_raft::{LogIndex, Membership, NodeId, Rejected, Role};

fn with_learner(network: &mut Network, leader: u64, to: Membership) {
    let (_, output) = network.of(leader).raft.change_members(to).unwrap();
    network.take(leader, output);
    network.tick(20);
}

#[test]
fn a_learner_catches_up_becomes_a_voter_and_the_old_leader_goes() {
    let mut network = Network::new(&[1, 2, 3]);
    let leader = network.elect();
    for value in 0..50 {
        network.propose(leader, value);
    }
    network.tick(20);
    let target = voters(&[2, 3, 4].map(|node| if node == leader { 1 } else { node }));
    let early = network.of(leader).raft.change_members(target.clone());
    assert_eq!(early.err(), Some(Rejected::NotCaughtUp(NodeId(4))));
    network.start(4, voters(&[1, 2, 3]));
    let learning = Membership::new([1, 2, 3].map(NodeId), [NodeId(4)]).unwrap();
    with_learner(&mut network, leader, learning);
    assert_eq!(network.data(4).len(), 50);
    with_learner(&mut network, leader, target.clone());
    assert_eq!(network.of(leader).raft.role(), Role::Follower, "a leader that is no voter any more steps down");
    let new = network.elect();
    assert_ne!(new, leader);
    assert_eq!(*network.of(new).raft.members(), target);
    network.of(leader).connected = false;
    let id = network.propose(new, 99);
    network.tick(20);
    assert!(network.of(4).committed >= id.index);
}

#[test]
fn a_learner_that_needs_forgotten_entries_gets_the_state_as_files() {
    let mut network = Network::new(&[1]);
    let output = network.of(1).raft.campaign(tidemill_raft::Moment(0));
    network.take(1, output);
    for value in 0..50 {
        network.propose(1, value);
    }
    let output = network.of(1).raft.offer_snapshot(LogIndex(40), Arc::from(*b"files"), LogIndex(40));
    network.take(1, output);
    network.start(2, voters(&[1]));
    let (_, output) = network.of(1).raft.change_members(Membership::new([NodeId(1)], [NodeId(2)]).unwrap()).unwrap();
    network.take(1, output);
    let mut installed = false;
    for _ in 0..5 * ELECTION {
        network.now += 1;
        let now = tidemill_raft::Moment(network.now);
        let output = network.of(1).raft.handle_tick(now);
        network.take(1, output);
        while let Some(message) = network.mail.pop_front() {
            let to = message.to.0;
            let output = network.of(to).raft.handle_message(now, message).unwrap();
            // What stands in the log only is read from there.
            let fetch = output.fetch.clone();
            if let Some(install) = &output.install {
                assert_eq!(&install.snapshot.manifest[..], b"files");
                network.take(to, output);
                let output = network.of(2).raft.handle_installed();
                network.take(2, output);
                installed = true;
            } else {
                network.take(to, output);
            }
            for fetch in fetch {
                let log = network.of(1).log.iter();
                let entries = log.filter(|entry| entry.index >= fetch.first && entry.index <= fetch.last);
                let entries = entries.cloned().collect();
                let output = network.of(1).raft.handle_fetched(fetch.to, entries);
                network.take(1, output);
            }
        }
    }
    assert!(installed);
    assert_eq!(network.members[&2].raft.last_index(), network.members[&1].raft.last_index());
    assert_eq!(network.members[&2].committed, network.members[&1].committed);
    assert_eq!(network.data(2), (39..50).collect::<Vec<_>>());
}
