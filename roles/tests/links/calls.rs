//! Calls: answered, not sent, or of unknown fate.

use crate::harness::{Core, PATIENCE, SHAPE, Trust, pair, pattern, run, until};
use bytes::Bytes;
use std::{rc::Rc, time::Duration};
use tidemill::{
    data::message::{CallError, MetaChangeError},
    links::{CallFailure, Links, RemoteCall, RemoteReply, Roster},
    replica::ProposeError,
};
use tidemill_line::PartitionMap;
use tidemill_meta::{Applied, MetaError, ShardGroupId};
use tidemill_raft::{GroupId, LogIndex, NodeId};

const GROUP: GroupId = GroupId(4);
const SOON: Duration = Duration::from_millis(50);

async fn call(core: &Core, call: RemoteCall, limit: Duration) -> Result<RemoteReply, CallFailure> {
    core.links.call(NodeId(2), GROUP, call, limit).await
}

#[test]
fn calls_arrive_and_their_answers_come_back() {
    run(|| async {
        let (_, one, two) = pair(GROUP).await;
        let large = pattern(3, 20 << 20);
        let applied = Applied { dropped_groups: vec![ShardGroupId(9)], dropped_database: None };
        for (asked, reply) in [
            (RemoteCall::Propose(large), RemoteReply::Done(Ok(()))),
            (RemoteCall::Command(pattern(1, 9)), RemoteReply::Done(Err(ProposeError::NotLeader(NodeId(3)).into()))),
            (RemoteCall::ChangeMeta(pattern(2, 9)), RemoteReply::MetaChanged(Ok((LogIndex(12), applied)))),
            (RemoteCall::ChangeMeta(pattern(2, 9)), RemoteReply::MetaChanged(Err(MetaError::UserExists.into()))),
            (RemoteCall::OutwaitWrites, RemoteReply::Done(Err(CallError::Unknown("who knows".into())))),
            (RemoteCall::Describe, RemoteReply::Description(pattern(8, 3 << 20))),
        ] {
            *two.seen.reply.borrow_mut() = reply.clone();
            let got = call(&one, asked.clone(), PATIENCE).await.unwrap();
            assert_eq!(format!("{got:?}"), format!("{reply:?}"));
            assert!(two.seen.calls.take() == [(NodeId(1), GROUP, asked)]);
        }
        let refused = RemoteReply::MetaChanged(Err(MetaChangeError::Call(ProposeError::DiskFull.into())));
        *two.seen.reply.borrow_mut() = refused;
        let got = call(&one, RemoteCall::ChangeMeta(Bytes::new()), PATIENCE).await;
        assert!(
            matches!(
                &got,
                Ok(RemoteReply::MetaChanged(Err(MetaChangeError::Call(CallError::Refused(ProposeError::DiskFull)))))
            ),
            "{got:?}"
        );
        assert_eq!((one.links.metrics().calls, two.links.metrics().calls_answered), (7, 7));
    });
}

#[test]
fn what_cannot_be_sent_is_not_of_unknown_fate() {
    run(|| async {
        let trust = Trust::new(&[1, 1]);
        let one = Core::new(&trust, 1, 0);
        let not_sent = |outcome: Result<RemoteReply, CallFailure>| {
            assert!(matches!(outcome, Err(CallFailure::NotSent { .. })), "{outcome:?}");
        };
        not_sent(call(&one, RemoteCall::Describe, PATIENCE).await);
        one.begin(&trust, 1, 0, &[GROUP]);
        not_sent(call(&one, RemoteCall::Describe, PATIENCE).await);
        not_sent(one.links.call(NodeId(1), GROUP, RemoteCall::Describe, PATIENCE).await);
        not_sent(one.links.call(NodeId(9), GROUP, RemoteCall::Describe, PATIENCE).await);
        let two = Core::start(&trust, 2, 0, &[GROUP]);
        one.connected(2, GROUP).await;
        // Longer than any message may be.
        not_sent(call(&one, RemoteCall::Propose(Bytes::from(vec![0; 40 << 20])), PATIENCE).await);
        let outcome = call(&one, RemoteCall::Describe, PATIENCE).await;
        assert!(outcome.is_ok(), "{outcome:?}");
        one.links.close().await;
        not_sent(call(&one, RemoteCall::Describe, PATIENCE).await);
        assert_eq!(two.seen.calls.borrow().len(), 1);
        assert_eq!((one.links.metrics().calls_not_sent, one.links.metrics().calls_unknown), (6, 0));
    });
}

#[test]
fn a_node_of_another_shape_is_not_asked() {
    run(|| async {
        let trust = Trust::new(&[1, 1]);
        let two = Core::start(&trust, 2, 0, &[GROUP]);
        let roster = Roster {
            node: NodeId(1),
            nodes: trust.nodes.clone(),
            partitions: PartitionMap::single(64),
            shape: SHAPE + 1,
        };
        let one = Core { links: Links::new(roster, 0), seen: two.seen.clone() };
        one.begin(&trust, 1, 0, &[GROUP]);
        one.connected(2, GROUP).await;
        let outcome = call(&one, RemoteCall::Describe, PATIENCE).await;
        assert!(matches!(outcome, Err(CallFailure::NotSent { .. })), "{outcome:?}");
        assert_eq!((two.links.metrics().misshapen, two.links.metrics().calls_answered), (1, 0));
    });
}

fn calling(links: &Rc<Links>) -> glommio::Task<Result<RemoteReply, CallFailure>> {
    let links = links.clone();
    glommio::spawn_local(async move { links.call(NodeId(2), GROUP, RemoteCall::OutwaitWrites, PATIENCE).await })
}

#[test]
fn a_call_whose_node_goes_away_meanwhile_is_of_unknown_fate() {
    run(|| async {
        let (_, one, two) = pair(GROUP).await;
        two.seen.holds.set(true);
        let asking = calling(&one.links);
        until("the call", || two.seen.calls.borrow().len() == 1).await;
        two.links.close().await;
        let outcome = asking.await;
        assert!(matches!(outcome, Err(CallFailure::Unknown { to: NodeId(2), .. })), "{outcome:?}");
        // Nobody waits for what it does any more.
        until("the end of the answer", || two.seen.dropped.get() == 1).await;
    });
}

#[test]
fn a_call_that_is_not_answered_in_time_is_of_unknown_fate_and_no_longer_worked_on() {
    run(|| async {
        let (_, one, two) = pair(GROUP).await;
        two.seen.holds.set(true);
        let outcome = call(&one, RemoteCall::OutwaitWrites, SOON).await;
        assert!(matches!(outcome, Err(CallFailure::Unknown { .. })), "{outcome:?}");
        until("the end of the answer", || two.seen.dropped.get() == 1).await;
        // The links go on.
        two.seen.holds.set(false);
        assert!(call(&one, RemoteCall::Describe, PATIENCE).await.is_ok());
    });
}

#[test]
fn a_call_that_waits_for_its_turn_in_vain_was_not_sent() {
    run(|| async {
        let (_, one, two) = pair(GROUP).await;
        two.seen.holds.set(true);
        let requests_max = crate::harness::options().requests_max as usize;
        let asking: Vec<_> = (0..requests_max).map(|_| calling(&one.links)).collect();
        until("all turns taken", || two.seen.calls.borrow().len() == requests_max).await;
        let outcome = call(&one, RemoteCall::Describe, SOON).await;
        assert!(matches!(outcome, Err(CallFailure::NotSent { .. })), "{outcome:?}");
        two.seen.holds.set(false);
        two.seen.goes_on.notify();
        for asking in asking {
            assert!(asking.await.is_ok());
        }
        assert_eq!(two.seen.calls.borrow().len(), requests_max, "it was never asked");
    });
}
