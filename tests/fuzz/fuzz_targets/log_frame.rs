//! Blocks of a log segment: any bytes are refused or read. Checksums would stop nearly every input, so that the input is
//! also tried with the right ones: as a header, as a frame, and as the frames of a commit.

#![no_main]

use libfuzzer_sys::fuzz_target;
use tidemill_disk::BLOCK_BYTES;
use tidemill_log::format::commit::{Claim, CommitHeader, claim, frames, verify};
use tidemill_log::format::frame::{self, FRAME_HEADER_BYTES};
use tidemill_log::format::segment_header::SegmentHeader;

fuzz_target!(|data: &[u8]| {
    read_header(data);
    read_frames(data);
    read_commit(data, 0, 0);

    let mut block = data.to_vec();
    block.resize(data.len().max(1).next_multiple_of(BLOCK_BYTES), 0);
    seal(&mut block[..BLOCK_BYTES]);
    read_header(&block);
    seal(&mut block);
    read_commit(&block, u64_at(&block, 8), u64_at(&block, 16));

    let sealed = sealed_frames(data);
    let count = read_frames(&sealed);
    let header = CommitHeader {
        log_id: 1,
        sequence: 2,
        number: 3,
        oldest: 1,
        previous_crc: 4,
        sealed: data.len() % 2 == 0,
        frames_bytes: sealed.len() as u32,
        frames: count,
    };
    let mut commit = vec![0xdb; header.commit_bytes()];
    commit[64..64 + sealed.len()].copy_from_slice(&sealed);
    let crc = header.seal(&mut commit);
    assert_eq!(claim(&commit, 1, 2, commit.len()), Claim::Commit(header));
    assert_eq!(verify(&commit), Some(crc));
    assert_eq!(frames(&header, &commit), sealed);
    read_commit(&commit, 1, 2);
});

fn read_header(block: &[u8]) {
    let Ok(header) = SegmentHeader::decode(block) else { return };
    let mut again = vec![0; BLOCK_BYTES];
    header.encode(&mut again);
    assert_eq!(SegmentHeader::decode(&again), Ok(header));
}

fn read_commit(bytes: &[u8], log_id: u64, sequence: u64) {
    let (Claim::Commit(header) | Claim::Stale(header)) = claim(bytes, log_id, sequence, bytes.len()) else { return };
    let commit = &bytes[..header.commit_bytes()];
    if verify(commit).is_some() {
        read_frames(frames(&header, commit));
    }
}

/// Reads frames up to the first bad one and answers how many are good.
fn read_frames(mut bytes: &[u8]) -> u32 {
    let mut count = 0;
    while let Ok((record, length)) = frame::decode(bytes) {
        record.group();
        assert!(length >= FRAME_HEADER_BYTES);
        bytes = &bytes[length..];
        count += 1;
    }
    count
}

/// The bytes with the right checksum in front of all that could be a frame by its length.
fn sealed_frames(data: &[u8]) -> Vec<u8> {
    let mut bytes = data.to_vec();
    let mut at = 0;
    while let Some(length) = bytes.get(at + 4..at + 8) {
        let length = u32::from_le_bytes([length[0], length[1], length[2], length[3]]) as usize;
        let Some(frame) = bytes.get_mut(at..at + FRAME_HEADER_BYTES + length) else { break };
        seal(frame);
        at += FRAME_HEADER_BYTES + length;
    }
    bytes
}

fn seal(bytes: &mut [u8]) {
    let crc = crc32c::crc32c(&bytes[4..]);
    bytes[..4].copy_from_slice(&crc.to_le_bytes());
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    bytes[at..at + 8].iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte))
}
