//! What nodes say to each other: any bytes are a raft message, a call, an answer, or refused. What was read as a raft
//! message is judged by raft's own check, and what that lets pass comes back from its own bytes.

#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use tidemill::links::encoding::{
    decode_answered, decode_asked, decode_message, encode_answered, encode_asked, encode_message,
};
use tidemill_raft::{Body, ENTRIES_MAX, GroupId, Message};

const GROUP: GroupId = GroupId(7);
const SHAPE: u64 = 0;

fuzz_target!(|data: &[u8]| {
    read(Bytes::copy_from_slice(data));
    // The length of the archive and the shape, which few inputs have right.
    let Some((&payload, rest)) = data.split_first() else { return };
    let archive = rest.len().saturating_sub(usize::from(payload)) as u32;
    read(Bytes::from([rest, &archive.to_le_bytes(), &SHAPE.to_le_bytes()].concat()));
});

fn read(bytes: Bytes) {
    if let Ok(message) = decode_message(SHAPE, GROUP, &bytes) {
        let held = held(&message);
        assert!(held <= bytes.len(), "{held} bytes of entries in {}", bytes.len());
        if message.check().is_ok() {
            assert_eq!(decode_message(SHAPE, GROUP, &encode_message(SHAPE, &message)), Ok(message));
        }
    }
    if let Ok(asked) = decode_asked(SHAPE, &bytes) {
        assert_eq!(decode_asked(SHAPE, &encode_asked(SHAPE, &asked)), Ok(asked));
    }
    if let Ok(answered) = decode_answered(SHAPE, &bytes) {
        let again = decode_answered(SHAPE, &encode_answered(SHAPE, &answered)).expect("it was made here");
        assert_eq!(format!("{again:?}"), format!("{answered:?}"));
    }
}

fn held(message: &Message<tidemill::replica::Payload>) -> usize {
    let Body::Append { entries, .. } = &message.body else { return 0 };
    assert!(entries.len() <= ENTRIES_MAX);
    entries.iter().filter_map(|entry| entry.content.data()).map(|payload| payload.byte_size()).sum()
}
