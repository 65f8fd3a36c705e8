//! The group of one, as a standalone server runs it.

use super::pair::{GROUP, options};
use tidemill_raft::{EntryId, HardState, LogIndex, Moment, NodeId, Raft, Rejected, Restored, Term};

fn restored(last: u64, term: u64) -> Raft<u64> {
    let hard_state = HardState { term: Term(term), vote: NodeId(1) };
    let last = EntryId { term: Term(term), index: LogIndex(last) };
    Raft::new(options(1), Restored::single(NodeId(1), hard_state, last), Moment(0))
}

#[test]
fn nothing_commits_before_it_is_stable() {
    let mut raft = restored(0, 0);
    assert_eq!(raft.group(), GROUP);
    assert_eq!(raft.propose(7), Err(Rejected::NotLeader { leader: NodeId(0) }));
    let opened = raft.campaign(Moment(0));
    assert_eq!(opened.append[0].index, LogIndex(1));
    assert_eq!(opened.hard_state.unwrap().term, Term(1));
    let (id, first) = raft.propose(7).unwrap();
    assert_eq!((id.index, first.committed), (LogIndex(2), None));
    assert_eq!(raft.committed(), LogIndex(0));
    assert_eq!(raft.handle_stable(opened.write.unwrap()).committed, Some(LogIndex(1)));
    assert_eq!(raft.handle_stable(first.write.unwrap()).committed, Some(LogIndex(2)));
    assert_eq!(raft.handle_stable(opened.write.unwrap()).committed, None);
    raft.check_invariants();
}

#[test]
fn a_retracted_entry_leaves_no_gap() {
    let mut raft = restored(9, 4);
    raft.campaign(Moment(0));
    let (refused, _) = raft.propose(1).unwrap();
    raft.retract(refused.index);
    let (taken, output) = raft.propose(2).unwrap();
    assert_eq!(taken, refused);
    assert_eq!(raft.handle_stable(output.write.unwrap()).committed, Some(taken.index));
    raft.check_invariants();
}

#[test]
#[should_panic(expected = "never asked for")]
fn a_write_that_nobody_asked_for_is_a_programmer_error() {
    restored(1, 1).handle_stable(tidemill_raft::WriteId(2));
}
