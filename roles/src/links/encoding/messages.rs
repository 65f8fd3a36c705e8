//! Raft messages.
//!
//! The group is not in them: it stands in the frame around them. Entries have no index: they follow each other.

use super::{DecodeError, Parts, seal, unseal};
use crate::replica::Payload;
use bytes::Bytes;
use rkyv::{Archive, Serialize, option::ArchivedOption, vec::ArchivedVec};
use std::sync::Arc;
use tidemill_raft::{
    Body, Content, ENTRIES_MAX, Entry, EntryId, GroupId, LogIndex, Membership, Message, NodeId, ReadId, Snapshot, Term,
};

#[derive(Archive, Serialize)]
struct MessageImage {
    from: u64,
    to: u64,
    term: u64,
    body: BodyImage,
}

#[derive(Archive, Serialize)]
enum BodyImage {
    PreVote { last: IdImage },
    PreVoteAnswer { granted: bool },
    Vote { last: IdImage, transfer: bool },
    VoteAnswer { granted: bool },
    Append { previous: IdImage, commit: u64, entries: Vec<EntryImage> },
    Appended { matched: u64 },
    Refused { previous: u64, hint: IdImage },
    Heartbeat { commit: u64, round: u64 },
    HeartbeatAnswer { round: u64 },
    Snapshot { base: IdImage, members: Vec<u8> },
    SnapshotFailed { index: u64 },
    TimeoutNow,
    StaleTerm,
    Read { id: u64 },
    ReadAnswer { id: u64, index: Option<u64> },
}

#[derive(Archive, Serialize)]
struct IdImage {
    term: u64,
    index: u64,
}

#[derive(Archive, Serialize)]
struct EntryImage {
    term: u64,
    kind: KindImage,
    /// Of its part of the payload.
    length: u32,
}

#[derive(Archive, Serialize)]
enum KindImage {
    Opening,
    Data,
    Members,
}

/// The bytes of a message.
///
/// # Panics
/// If the entries of an append do not follow each other: raft makes no such message.
pub fn encode_message(shape: u64, message: &Message<Payload>) -> Bytes {
    let image =
        MessageImage { from: message.from.0, to: message.to.0, term: message.term.0, body: body_image(&message.body) };
    match &message.body {
        Body::Append { entries, .. } => {
            let members: Vec<Vec<u8>> = entries.iter().map(encoded_members).collect();
            seal(shape, &image, entries.iter().zip(&members).flat_map(|(entry, members)| parts(entry, members)))
        }
        Body::Snapshot(snapshot) => seal(shape, &image, [&*snapshot.manifest].into_iter()),
        _ => seal(shape, &image, std::iter::empty()),
    }
}

/// A message for a group, from the bytes of its frame.
pub fn decode_message(shape: u64, group: GroupId, bytes: &Bytes) -> Result<Message<Payload>, DecodeError> {
    let (image, payload) = unseal::<MessageImage>(shape, bytes)?;
    let mut parts = Parts::new(payload, bytes);
    let body = match &image.body {
        ArchivedBodyImage::PreVote { last } => Body::PreVote { last: last.id() },
        ArchivedBodyImage::PreVoteAnswer { granted } => Body::PreVoteAnswer { granted: *granted },
        ArchivedBodyImage::Vote { last, transfer } => Body::Vote { last: last.id(), transfer: *transfer },
        ArchivedBodyImage::VoteAnswer { granted } => Body::VoteAnswer { granted: *granted },
        ArchivedBodyImage::Append { previous, commit, entries } => {
            let previous = previous.id();
            let entries = entries_of(previous.index, entries, &mut parts)?;
            Body::Append { previous, entries, commit: LogIndex(commit.to_native()) }
        }
        ArchivedBodyImage::Appended { matched } => Body::Appended { matched: LogIndex(matched.to_native()) },
        ArchivedBodyImage::Refused { previous, hint } => {
            Body::Refused { previous: LogIndex(previous.to_native()), hint: hint.id() }
        }
        ArchivedBodyImage::Heartbeat { commit, round } => {
            Body::Heartbeat { commit: LogIndex(commit.to_native()), round: round.to_native() }
        }
        ArchivedBodyImage::HeartbeatAnswer { round } => Body::HeartbeatAnswer { round: round.to_native() },
        ArchivedBodyImage::Snapshot { base, members } => {
            let members = Membership::decode(members).map_err(|_| DecodeError::Members)?;
            let manifest: Arc<[u8]> = Arc::from(&*std::mem::replace(&mut parts, Parts(Bytes::new())).rest());
            Body::Snapshot(Snapshot { base: base.id(), members, manifest })
        }
        ArchivedBodyImage::SnapshotFailed { index } => Body::SnapshotFailed { index: LogIndex(index.to_native()) },
        ArchivedBodyImage::TimeoutNow => Body::TimeoutNow,
        ArchivedBodyImage::StaleTerm => Body::StaleTerm,
        ArchivedBodyImage::Read { id } => Body::Read { id: ReadId(id.to_native()) },
        ArchivedBodyImage::ReadAnswer { id, index } => {
            let index = match index {
                ArchivedOption::Some(index) => Some(LogIndex(index.to_native())),
                ArchivedOption::None => None,
            };
            Body::ReadAnswer { id: ReadId(id.to_native()), index }
        }
    };
    parts.end()?;
    Ok(Message {
        group,
        from: NodeId(image.from.to_native()),
        to: NodeId(image.to.to_native()),
        term: Term(image.term.to_native()),
        body,
    })
}

fn body_image(body: &Body<Payload>) -> BodyImage {
    match body {
        Body::PreVote { last } => BodyImage::PreVote { last: last.into() },
        Body::PreVoteAnswer { granted } => BodyImage::PreVoteAnswer { granted: *granted },
        Body::Vote { last, transfer } => BodyImage::Vote { last: last.into(), transfer: *transfer },
        Body::VoteAnswer { granted } => BodyImage::VoteAnswer { granted: *granted },
        Body::Append { previous, entries, commit } => {
            let follow = |(at, entry): (usize, &Entry<Payload>)| entry.index.0 == previous.index.0 + 1 + at as u64;
            assert!(entries.iter().enumerate().all(follow), "the entries of an append follow each other");
            let entries = entries.iter().map(EntryImage::from).collect();
            BodyImage::Append { previous: previous.into(), commit: commit.0, entries }
        }
        Body::Appended { matched } => BodyImage::Appended { matched: matched.0 },
        Body::Refused { previous, hint } => BodyImage::Refused { previous: previous.0, hint: hint.into() },
        Body::Heartbeat { commit, round } => BodyImage::Heartbeat { commit: commit.0, round: *round },
        Body::HeartbeatAnswer { round } => BodyImage::HeartbeatAnswer { round: *round },
        Body::Snapshot(Snapshot { base, members, .. }) => {
            BodyImage::Snapshot { base: base.into(), members: members.encode() }
        }
        Body::SnapshotFailed { index } => BodyImage::SnapshotFailed { index: index.0 },
        Body::TimeoutNow => BodyImage::TimeoutNow,
        Body::StaleTerm => BodyImage::StaleTerm,
        Body::Read { id } => BodyImage::Read { id: id.0 },
        Body::ReadAnswer { id, index } => BodyImage::ReadAnswer { id: id.0, index: index.map(|index| index.0) },
    }
}

fn entries_of(
    previous: LogIndex,
    images: &ArchivedVec<ArchivedEntryImage>,
    parts: &mut Parts,
) -> Result<Vec<Entry<Payload>>, DecodeError> {
    if images.len() > ENTRIES_MAX {
        return Err(DecodeError::TooMany);
    }
    let mut index = previous.0;
    let mut entries = Vec::with_capacity(images.len());
    for image in images.iter() {
        // Where they end the index stays, which is no sequence any more.
        index = index.saturating_add(1);
        let part = parts.take(image.length.to_native())?;
        let content = match image.kind {
            ArchivedKindImage::Opening if part.is_empty() => Content::Opening,
            ArchivedKindImage::Opening => return Err(DecodeError::Payload),
            // In a log no bytes open a term.
            ArchivedKindImage::Data if part.is_empty() => return Err(DecodeError::Empty),
            ArchivedKindImage::Data => Content::Data(Payload::Logged(part)),
            ArchivedKindImage::Members => {
                Content::Members(Membership::decode(&part).map_err(|_| DecodeError::Members)?)
            }
        };
        entries.push(Entry { term: Term(image.term.to_native()), index: LogIndex(index), content });
    }
    Ok(entries)
}

/// Empty for an entry of another kind.
fn encoded_members(entry: &Entry<Payload>) -> Vec<u8> {
    match &entry.content {
        Content::Members(members) => members.encode(),
        Content::Opening | Content::Data(_) => Vec::new(),
    }
}

fn parts<'a>(entry: &'a Entry<Payload>, members: &'a [u8]) -> [&'a [u8]; 2] {
    match &entry.content {
        Content::Data(payload) => payload.parts(),
        Content::Opening | Content::Members(_) => [members, &[]],
    }
}

impl From<&Entry<Payload>> for EntryImage {
    fn from(entry: &Entry<Payload>) -> EntryImage {
        let (kind, length) = match &entry.content {
            Content::Opening => (KindImage::Opening, 0),
            Content::Data(payload) => (KindImage::Data, payload.parts().iter().map(|part| part.len()).sum()),
            Content::Members(members) => (KindImage::Members, members.byte_size()),
        };
        assert!(u32::try_from(length).is_ok(), "an entry of {length} bytes has no message");
        EntryImage { term: entry.term.0, kind, length: length as u32 }
    }
}

impl From<&EntryId> for IdImage {
    fn from(id: &EntryId) -> IdImage {
        IdImage { term: id.term.0, index: id.index.0 }
    }
}

impl ArchivedIdImage {
    fn id(&self) -> EntryId {
        EntryId { term: Term(self.term.to_native()), index: LogIndex(self.index.to_native()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const GROUP: GroupId = GroupId(7);
    const SHAPE: u64 = 0x0123_4567_89ab_cdef;

    fn counter() -> impl Strategy<Value = u64> {
        prop_oneof![0..20u64, any::<u64>().prop_map(|number| number >> 3)]
    }

    fn id() -> impl Strategy<Value = EntryId> {
        (counter(), counter()).prop_map(|(term, index)| EntryId { term: Term(term), index: LogIndex(index) })
    }

    fn members() -> impl Strategy<Value = Membership> {
        (prop::collection::btree_set(1u64..50, 1..6), prop::collection::btree_set(50u64..60, 0..3)).prop_map(
            |(voters, learners)| {
                Membership::new(voters.into_iter().map(NodeId), learners.into_iter().map(NodeId)).unwrap()
            },
        )
    }

    fn data(bytes_max: usize) -> impl Strategy<Value = Bytes> {
        prop::collection::vec(any::<u8>(), 1..bytes_max).prop_map(Bytes::from)
    }

    fn content() -> impl Strategy<Value = Content<Payload>> {
        prop_oneof![
            1 => Just(Content::Opening),
            2 => data(300).prop_map(|bytes| Content::Data(Payload::Batch(bytes))),
            2 => data(300).prop_map(|bytes| Content::Data(Payload::Command(bytes))),
            2 => data(300).prop_map(|bytes| Content::Data(Payload::Logged(bytes))),
            1 => members().prop_map(Content::Members),
        ]
    }

    fn append() -> impl Strategy<Value = Body<Payload>> {
        (id(), prop::collection::vec((0..3u64, content()), 0..6), counter()).prop_map(|(previous, contents, commit)| {
            let (mut term, mut index) = (previous.term.0, previous.index.0);
            let entry = |(later, content)| {
                (term, index) = (term + later, index + 1);
                Entry { term: Term(term), index: LogIndex(index), content }
            };
            Body::Append { previous, entries: contents.into_iter().map(entry).collect(), commit: LogIndex(commit) }
        })
    }

    fn body() -> impl Strategy<Value = Body<Payload>> {
        let plain = prop_oneof![
            id().prop_map(|last| Body::PreVote { last }),
            any::<bool>().prop_map(|granted| Body::PreVoteAnswer { granted }),
            (id(), any::<bool>()).prop_map(|(last, transfer)| Body::Vote { last, transfer }),
            any::<bool>().prop_map(|granted| Body::VoteAnswer { granted }),
            counter().prop_map(|matched| Body::Appended { matched: LogIndex(matched) }),
            (counter(), id()).prop_map(|(previous, hint)| Body::Refused { previous: LogIndex(previous), hint }),
            (counter(), counter()).prop_map(|(commit, round)| Body::Heartbeat { commit: LogIndex(commit), round }),
            counter().prop_map(|round| Body::HeartbeatAnswer { round }),
            (id(), members(), prop::collection::vec(any::<u8>(), 0..300)).prop_map(|(base, members, manifest)| {
                Body::Snapshot(Snapshot { base, members, manifest: manifest.into() })
            }),
            counter().prop_map(|index| Body::SnapshotFailed { index: LogIndex(index) }),
            Just(Body::TimeoutNow),
            Just(Body::StaleTerm),
            any::<u64>().prop_map(|id| Body::Read { id: ReadId(id) }),
            (any::<u64>(), prop::option::of(counter()))
                .prop_map(|(id, index)| Body::ReadAnswer { id: ReadId(id), index: index.map(LogIndex) }),
        ];
        prop_oneof![2 => plain, 1 => append()]
    }

    fn message() -> impl Strategy<Value = Message<Payload>> {
        (any::<u64>(), any::<u64>(), counter(), body()).prop_map(|(from, to, term, body)| Message {
            group: GROUP,
            from: NodeId(from),
            to: NodeId(to),
            term: Term(term),
            body,
        })
    }

    /// As it arrives: entries as they stand in a log.
    fn arrived(mut message: Message<Payload>) -> Message<Payload> {
        if let Body::Append { entries, .. } = &mut message.body {
            for Entry { content, .. } in entries {
                if let Content::Data(payload) = content {
                    *payload = Payload::Logged(payload.parts().concat().into());
                }
            }
        }
        message
    }

    /// Reads what may be damaged; raft's own check must be able to judge it.
    fn judge(bytes: Vec<u8>) -> Option<Message<Payload>> {
        let bytes = Bytes::from(bytes);
        let message = decode_message(SHAPE, GROUP, &bytes).ok()?;
        if let Body::Append { entries, .. } = &message.body {
            assert!(entries.len() <= ENTRIES_MAX);
            let held: usize = entries.iter().filter_map(|entry| entry.content.data()).map(Payload::byte_size).sum();
            assert!(held <= bytes.len(), "no byte is given out twice");
        }
        if message.check().is_ok() {
            assert_eq!(decode_message(SHAPE, GROUP, &encode_message(SHAPE, &message)), Ok(message.clone()));
        }
        Some(message)
    }

    proptest! {
        #[test]
        fn messages_come_back(message in message()) {
            prop_assert_eq!(decode_message(SHAPE, GROUP, &encode_message(SHAPE, &message)), Ok(arrived(message)));
        }

        #[test]
        fn a_message_may_stand_anywhere_in_what_arrived(message in message(), shift in 0usize..9) {
            let mut bytes = vec![0xaa; shift];
            bytes.extend_from_slice(&encode_message(SHAPE, &message));
            prop_assert_eq!(decode_message(SHAPE, GROUP, &Bytes::from(bytes).slice(shift..)), Ok(arrived(message)));
        }

        #[test]
        fn any_bytes_are_refused_or_judged(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            judge(bytes);
        }

        #[test]
        fn a_cut_message_is_refused_or_judged(message in message(), cut in any::<prop::sample::Index>()) {
            let bytes = encode_message(SHAPE, &message);
            let cut = cut.index(bytes.len());
            judge(bytes[..cut].to_vec());
            judge(bytes[cut..].to_vec());
        }

        #[test]
        fn damage_is_refused_or_judged(message in message(), damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6)) {
            let mut bytes = encode_message(SHAPE, &message).to_vec();
            for (at, byte) in damage {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
            judge(bytes);
        }
    }

    fn small(body: Body<Payload>) -> Message<Payload> {
        Message { group: GROUP, from: NodeId(1), to: NodeId(2), term: Term(3), body }
    }

    #[test]
    fn every_flipped_bit_of_a_small_message_is_refused_or_judged() {
        let previous = EntryId { term: Term(2), index: LogIndex(9) };
        let entry = |at: u64, content| Entry { term: Term(3), index: LogIndex(9 + at), content };
        let entries = vec![
            entry(1, Content::Opening),
            entry(2, Content::Data(Payload::Batch(Bytes::from_static(b"rows")))),
            entry(3, Content::Members(Membership::single(NodeId(1)))),
        ];
        let snapshot =
            Snapshot { base: previous, members: Membership::single(NodeId(1)), manifest: Arc::from(&b"files"[..]) };
        for message in [
            small(Body::Append { previous, entries, commit: LogIndex(9) }),
            small(Body::Snapshot(snapshot)),
            small(Body::ReadAnswer { id: ReadId(1), index: Some(LogIndex(5)) }),
            small(Body::TimeoutNow),
        ] {
            let whole = encode_message(SHAPE, &message).to_vec();
            let mut refused = 0;
            for bit in 0..whole.len() * 8 {
                let mut bytes = whole.clone();
                bytes[bit / 8] ^= 1 << (bit % 8);
                refused += usize::from(judge(bytes).is_none_or(|message| message.check().is_err()));
            }
            assert!(refused > 0, "{message:?}");
        }
    }

    #[test]
    fn entries_share_the_memory_of_what_arrived() {
        let previous = EntryId::default();
        let content = Content::Data(Payload::Logged(Bytes::from(vec![7; 1000])));
        let entries = vec![Entry { term: Term(1), index: LogIndex(1), content }];
        let bytes = encode_message(SHAPE, &small(Body::Append { previous, entries, commit: LogIndex(0) }));
        let message = decode_message(SHAPE, GROUP, &bytes).unwrap();
        let Body::Append { entries, .. } = &message.body else { panic!("{message:?}") };
        let part = entries[0].content.data().unwrap().parts()[0];
        assert!(bytes.as_ptr_range().contains(&part.as_ptr()));
    }

    #[test]
    fn more_entries_than_raft_sends_and_entries_of_nothing_are_refused() {
        let previous = EntryId::default();
        let append = |entries| small(Body::Append { previous, entries, commit: LogIndex(0) });
        let opening = |index| Entry { term: Term(1), index: LogIndex(index), content: Content::Opening };
        let most = append((1..=ENTRIES_MAX as u64).map(opening).collect());
        assert_eq!(decode_message(SHAPE, GROUP, &encode_message(SHAPE, &most)), Ok(most));
        let more = append((1..=ENTRIES_MAX as u64 + 1).map(opening).collect());
        assert_eq!(decode_message(SHAPE, GROUP, &encode_message(SHAPE, &more)), Err(DecodeError::TooMany));
        let nothing = Content::Data(Payload::Logged(Bytes::new()));
        let nothing = append(vec![Entry { term: Term(1), index: LogIndex(1), content: nothing }]);
        assert_eq!(decode_message(SHAPE, GROUP, &encode_message(SHAPE, &nothing)), Err(DecodeError::Empty));
    }

    #[test]
    fn a_node_with_another_shape_is_not_listened_to() {
        let bytes = encode_message(SHAPE, &small(Body::TimeoutNow));
        assert_eq!(decode_message(SHAPE + 1, GROUP, &bytes), Err(DecodeError::Shape));
    }

    #[test]
    fn a_heartbeat_is_small() {
        let beat = small(Body::Heartbeat { commit: LogIndex(u64::MAX >> 3), round: 9 });
        assert!(encode_message(SHAPE, &beat).len() <= 72, "thousands of groups beat ten times a second");
    }
}
