//! What a core's groups have to say to other nodes, until the core has done what it is at.
//!
//! Proposals that come together would each be a message to each follower, and writes that become durable together an
//! acknowledgement each. Here they meet: what fits together travels as one. It costs a message that is alone one turn of
//! the core's tasks.
//! Invariants: what one member is told of one group keeps its order; a joined message says what its parts say one behind
//! the other, and is no longer than one that raft makes itself.

use super::Payload;
use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
};
use tidemill_disk::Notify;
use tidemill_raft::{Body, ENTRIES_MAX, Entry, GroupId, Message, NodeId};

/// Bytes of entries that are joined: as many as raft puts into a message by itself.
const JOINED_BYTES_MAX: usize = 1 << 20;
const _: () = assert!(JOINED_BYTES_MAX <= tidemill_raft::MESSAGE_BYTES_MAX);

#[derive(Default)]
pub(super) struct Outbox {
    waiting: RefCell<Waiting>,
    pub changed: Notify,
    is_closed: Cell<bool>,
}

#[derive(Default)]
struct Waiting {
    /// With the bytes of its entries.
    messages: Vec<(Message<Payload>, usize)>,
    /// The newest one to a member of a group.
    newest: BTreeMap<(GroupId, NodeId), usize>,
}

impl Outbox {
    pub fn push(&self, message: Message<Payload>) {
        if self.is_closed.get() {
            return;
        }
        let mut waiting = self.waiting.borrow_mut();
        let Waiting { messages, newest } = &mut *waiting;
        let key = (message.group, message.to);
        let before = newest.get(&key).and_then(|at| messages.get_mut(*at));
        let message = match before {
            Some((before, bytes)) => join(before, bytes, message),
            None => Some(message),
        };
        let Some(message) = message else { return };
        let bytes = match &message.body {
            Body::Append { entries, .. } => bytes_of(entries),
            _ => 0,
        };
        newest.insert(key, messages.len());
        messages.push((message, bytes));
        let is_first = messages.len() == 1;
        drop(waiting);
        if is_first {
            self.changed.notify();
        }
    }

    /// What is to leave now.
    pub fn take(&self) -> impl Iterator<Item = Message<Payload>> + use<> {
        self.waiting.take().messages.into_iter().map(|(message, _)| message)
    }

    /// What comes from now on goes nowhere.
    pub fn close(&self) {
        self.is_closed.set(true);
        self.changed.notify();
    }
}

/// Makes one message of two; gives the second back if they do not fit together.
fn join(before: &mut Message<Payload>, bytes: &mut usize, mut message: Message<Payload>) -> Option<Message<Payload>> {
    if (before.term, before.from) != (message.term, message.from) {
        return Some(message);
    }
    match (&mut before.body, &mut message.body) {
        (Body::Append { previous, entries, commit }, Body::Append { previous: next, entries: more, commit: newer }) => {
            let last = entries.last().map_or(*previous, Entry::id);
            let more_bytes = bytes_of(more);
            let is_short = *bytes + more_bytes <= JOINED_BYTES_MAX && entries.len() + more.len() <= ENTRIES_MAX;
            if last != *next || !is_short {
                return Some(message);
            }
            entries.append(more);
            *bytes += more_bytes;
            *commit = (*commit).max(*newer);
            None
        }
        // Of one term: whoever acknowledges an entry has all before it.
        (Body::Appended { matched }, Body::Appended { matched: newer }) => {
            *matched = (*matched).max(*newer);
            None
        }
        _ => Some(message),
    }
}

fn bytes_of(entries: &[Entry<Payload>]) -> usize {
    entries.iter().map(Entry::byte_size).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use tidemill_raft::{Content, EntryId, LogIndex, Term};

    fn id(term: u64, index: u64) -> EntryId {
        EntryId { term: Term(term), index: LogIndex(index) }
    }

    fn entry(term: u64, index: u64, bytes: usize) -> Entry<Payload> {
        let content = Content::Data(Payload::Logged(vec![1; bytes].into()));
        Entry { term: Term(term), index: LogIndex(index), content }
    }

    fn message(group: u32, to: u64, body: Body<Payload>) -> Message<Payload> {
        Message { group: GroupId(group), from: NodeId(1), to: NodeId(to), term: Term(4), body }
    }

    fn append(previous: EntryId, entries: &[Entry<Payload>], commit: u64) -> Body<Payload> {
        Body::Append { previous, entries: entries.to_vec(), commit: LogIndex(commit) }
    }

    fn out(messages: &[Message<Payload>]) -> Vec<Message<Payload>> {
        let outbox = Outbox::default();
        messages.iter().cloned().for_each(|message| outbox.push(message));
        outbox.take().collect()
    }

    #[test]
    fn appends_that_follow_each_other_are_one() {
        let entries = [entry(4, 8, 10), entry(4, 9, 0), entry(4, 10, 5)];
        let sent = out(&[
            message(1, 2, append(id(3, 7), &entries[..1], 6)),
            message(1, 3, append(id(3, 7), &entries[..1], 6)),
            message(1, 2, append(id(4, 8), &entries[1..2], 7)),
            message(2, 2, append(id(4, 9), &entries[2..], 7)),
            message(1, 2, append(id(4, 9), &entries[2..], 7)),
        ]);
        let expected = [
            message(1, 2, append(id(3, 7), &entries, 7)),
            message(1, 3, append(id(3, 7), &entries[..1], 6)),
            message(2, 2, append(id(4, 9), &entries[2..], 7)),
        ];
        assert_eq!(sent, expected);
        assert!(sent.iter().all(|message| message.check().is_ok()));
    }

    #[test]
    fn what_does_not_follow_stays_apart_and_in_order() {
        let sent = [
            message(1, 2, append(id(3, 7), &[entry(4, 8, 1)], 6)),
            // Sent again.
            message(1, 2, append(id(3, 7), &[entry(4, 8, 1)], 6)),
            message(1, 2, Body::Heartbeat { commit: LogIndex(6), round: 1 }),
            message(1, 2, append(id(4, 8), &[entry(4, 9, 1)], 6)),
            Message { term: Term(5), ..message(1, 2, append(id(4, 9), &[entry(5, 10, 1)], 6)) },
        ];
        assert_eq!(out(&sent), sent);
    }

    #[test]
    fn acknowledgements_are_the_newest() {
        let appended = |matched| message(1, 2, Body::Appended { matched: LogIndex(matched) });
        let refused = message(1, 2, Body::Refused { previous: LogIndex(9), hint: id(3, 4) });
        let sent = [appended(5), appended(7), refused.clone(), appended(8)];
        assert_eq!(out(&sent), [appended(7), refused, appended(8)]);
    }

    #[test]
    fn joined_messages_are_no_longer_than_those_of_raft() {
        let part = |at: u64| message(1, 2, append(id(4, at - 1), &[entry(4, at, 300 << 10)], 0));
        let lengths: Vec<usize> = out(&(1..=8).map(part).collect::<Vec<_>>())
            .iter()
            .map(|message| match &message.body {
                Body::Append { entries, .. } => entries.len(),
                _ => 0,
            })
            .collect();
        assert_eq!(lengths, [3, 3, 2]);
        let small = |at: u64| message(1, 2, append(id(4, at - 1), &[entry(4, at, 0)], 0));
        let sent = out(&(1..=2 * ENTRIES_MAX as u64).map(small).collect::<Vec<_>>());
        assert!(sent.len() >= 2 && sent.iter().all(|message| message.check().is_ok()));
    }

    #[test]
    fn nothing_leaves_a_closed_one() {
        let outbox = Outbox::default();
        outbox.push(message(1, 2, Body::TimeoutNow));
        outbox.close();
        outbox.push(message(1, 2, Body::TimeoutNow));
        assert_eq!(outbox.take().count(), 1);
        assert_eq!(Payload::Logged(Bytes::new()).byte_size(), 0);
    }
}
