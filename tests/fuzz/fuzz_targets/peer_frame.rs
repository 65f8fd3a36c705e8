//! Streams between nodes: any bytes in any pieces are refused or read, in bounded memory. Checksums and sequences would
//! stop nearly every input, so that it is also tried with the right ones.

#![no_main]

use libfuzzer_sys::fuzz_target;
use tidemill_peer::frame::{FRAME_HEADER_BYTES, FrameReader};
use tidemill_peer::message::{Heartbeats, Hello, check};

const PAYLOAD_BYTES_MAX: u32 = 1 << 20;

fuzz_target!(|data: &[u8]| {
    let Some((&cut, data)) = data.split_first() else { return };
    read(data, usize::from(cut));
    let sealed = sealed(data);
    let whole = read(&sealed, sealed.len());
    assert_eq!(whole, read(&sealed, usize::from(cut)), "the pieces in which bytes come do not matter");
});

/// Kinds, groups and payloads of what is read before the first fault, and whether there was one.
fn read(data: &[u8], cut: usize) -> (Vec<(u8, u64, Vec<u8>)>, bool) {
    let mut reader = FrameReader::new(PAYLOAD_BYTES_MAX);
    let mut frames = Vec::new();
    for piece in data.chunks(cut.max(1)) {
        let mut rest = piece;
        loop {
            match reader.feed(&mut rest) {
                Ok(Some(frame)) => {
                    // The transport's own messages come as archives, and raft's and queries' do too.
                    let _ = check::<Hello>(&frame.payload);
                    if let Ok(heartbeats) = check::<Heartbeats>(&frame.payload) {
                        let bytes: usize = heartbeats.beats.iter().map(|beat| beat.payload.len()).max().unwrap_or(0);
                        assert!(bytes <= frame.payload.len());
                    }
                    frames.push((frame.kind as u8, frame.group, frame.payload.to_vec()));
                }
                Ok(None) => break,
                Err(_) => return (frames, true),
            }
        }
        assert!(rest.is_empty());
    }
    (frames, false)
}

/// The bytes with the right checksum and sequence in front of all that could be a frame by its length.
fn sealed(data: &[u8]) -> Vec<u8> {
    let mut bytes = data.to_vec();
    let (mut at, mut sequence) = (0, 0u32);
    while let Some(length) = bytes.get(at + 4..at + 8) {
        let length = u32::from_le_bytes([length[0], length[1], length[2], length[3]]) as usize;
        let Some(frame) = bytes.get_mut(at..at + FRAME_HEADER_BYTES + length) else { break };
        frame[8] = frame[8] % 8 + 1;
        frame[9..12].fill(0);
        frame[12..16].copy_from_slice(&sequence.to_le_bytes());
        let crc = crc32c::crc32c(&frame[4..]);
        frame[..4].copy_from_slice(&crc.to_le_bytes());
        at += FRAME_HEADER_BYTES + length;
        sequence += 1;
    }
    bytes
}
