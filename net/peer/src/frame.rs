//! Frames: what a stream between two nodes is made of.
//!
//! | offset | bytes | |
//! |---|---|---|
//! | 0 | 4 | crc32c of all that follows |
//! | 4 | 4 | length of the payload |
//! | 8 | 1 | kind |
//! | 9 | 3 | zero |
//! | 12 | 4 | sequence: number of this frame on its stream, from 0 |
//! | 16 | 8 | group, or zero |
//! | 24 | | payload |
//!
//! Integers are little-endian. QUIC already authenticates each packet; the checksum covers the path between its buffers
//! and ours, and the sequence makes a frame that is lost, repeated or swapped on the way through our own queues an error
//! instead of a surprise.
//!
//! Owns the layout and the incremental reader. Invariants: a frame is handed out only when its checksum, its kind, its
//! length and its place were right; the reader never holds more than twice what has arrived plus
//! [`PAYLOAD_RESERVE_BYTES_MAX`], whatever a length field claims. Knows nothing of streams or of what a payload means.

#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic))]

use bytes::Bytes;

pub const FRAME_HEADER_BYTES: usize = 24;
/// Memory that a length field alone can make the reader take.
pub const PAYLOAD_RESERVE_BYTES_MAX: usize = 16 << 10;

/// What a frame is for. The first frame of a stream decides what the stream is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum FrameKind {
    /// First on the control stream: who speaks.
    Hello = 1,
    /// On the control stream: heartbeats of many groups.
    Heartbeats = 2,
    /// A raft message of one group.
    Raft = 3,
    /// The question of a request stream.
    Request = 4,
    /// One piece of a request stream's answer.
    Response = 5,
    /// The answer of a request stream is whole.
    ResponseEnd = 6,
    /// First on a file stream: description and length of the bytes that follow without frames.
    FileHead = 7,
    /// Last on a file stream: checksum of those bytes.
    FileEnd = 8,
}

impl FrameKind {
    fn from_byte(byte: u8) -> Option<FrameKind> {
        Some(match byte {
            1 => FrameKind::Hello,
            2 => FrameKind::Heartbeats,
            3 => FrameKind::Raft,
            4 => FrameKind::Request,
            5 => FrameKind::Response,
            6 => FrameKind::ResponseEnd,
            7 => FrameKind::FileHead,
            8 => FrameKind::FileEnd,
            _ => return None,
        })
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    pub kind: FrameKind,
    pub group: u64,
    pub payload: Bytes,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    #[error("a frame's checksum is wrong")]
    Checksum,
    #[error("frame of unknown kind {0}")]
    UnknownKind(u8),
    #[error("reserved bytes of a frame are not zero")]
    Reserved,
    #[error("frame {found} stands where frame {expected} belongs")]
    Sequence { expected: u32, found: u32 },
    #[error("a frame of {length} bytes is longer than {max}")]
    Length { length: u32, max: u32 },
}

/// The header of a frame whose payload is `payload`.
///
/// # Panics
/// If the payload is longer than a length field can say.
pub fn header(kind: FrameKind, group: u64, sequence: u32, payload: &[u8]) -> [u8; FRAME_HEADER_BYTES] {
    assert!(u32::try_from(payload.len()).is_ok(), "a payload of {} bytes has no frame", payload.len());
    let mut bytes = [0; FRAME_HEADER_BYTES];
    let (crc, covered) = bytes.split_at_mut(4);
    let fields = [
        (0, &(payload.len() as u32).to_le_bytes()[..]),
        (4, &[kind as u8][..]),
        (8, &sequence.to_le_bytes()[..]),
        (12, &group.to_le_bytes()[..]),
    ];
    for (at, field) in fields {
        covered.iter_mut().skip(at).zip(field).for_each(|(to, from)| *to = *from);
    }
    crc.copy_from_slice(&crc32c::crc32c_append(crc32c::crc32c(covered), payload).to_le_bytes());
    bytes
}

struct Head {
    crc: u32,
    /// Of the header's part that it covers.
    crc_of_header: u32,
    kind: FrameKind,
    group: u64,
    length: usize,
}

/// Reads the frames of one stream, in any pieces.
pub struct FrameReader {
    header: [u8; FRAME_HEADER_BYTES],
    header_filled: usize,
    head: Option<Head>,
    payload: Vec<u8>,
    sequence: u32,
    payload_bytes_max: u32,
    /// Once wrong, always wrong: what follows a bad frame has no meaning.
    failed: Option<FrameError>,
}

impl FrameReader {
    /// A reader at the begin of a stream that refuses payloads of more than `payload_bytes_max`.
    pub fn new(payload_bytes_max: u32) -> FrameReader {
        FrameReader {
            header: [0; FRAME_HEADER_BYTES],
            header_filled: 0,
            head: None,
            payload: Vec::new(),
            sequence: 0,
            payload_bytes_max,
            failed: None,
        }
    }

    /// Other limits from the next frame on.
    pub fn set_payload_bytes_max(&mut self, payload_bytes_max: u32) {
        self.payload_bytes_max = payload_bytes_max;
    }

    /// Bytes that the frame in progress still lacks, as far as they are known: never 0, never beyond the frame.
    pub fn wanted_bytes(&self) -> usize {
        match &self.head {
            Some(head) => head.length - self.payload.len(),
            None => FRAME_HEADER_BYTES - self.header_filled,
        }
    }

    /// Whether the stream may end here.
    pub fn is_between_frames(&self) -> bool {
        self.header_filled == 0 && self.failed.is_none()
    }

    /// Takes bytes from the front of `input` up to the end of a frame, and answers that frame, or nothing when the
    /// input is used up.
    pub fn feed(&mut self, input: &mut &[u8]) -> Result<Option<Frame>, FrameError> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        let outcome = self.advance(input);
        if let Err(error) = outcome {
            self.failed = Some(error);
            self.payload = Vec::new();
        }
        outcome
    }

    fn advance(&mut self, input: &mut &[u8]) -> Result<Option<Frame>, FrameError> {
        if self.head.is_none() {
            let room = self.header.iter_mut().skip(self.header_filled);
            let taken = room.zip(input.iter()).map(|(to, from)| *to = *from).count();
            *input = input.get(taken..).unwrap_or_default();
            self.header_filled += taken;
            if self.header_filled < FRAME_HEADER_BYTES {
                return Ok(None);
            }
            let head = self.read_head()?;
            self.payload.reserve_exact(head.length.min(PAYLOAD_RESERVE_BYTES_MAX.max(input.len())));
            self.head = Some(head);
        }
        let missing = self.wanted_bytes();
        let taken = missing.min(input.len());
        let (bytes, rest) = input.split_at_checked(taken).unwrap_or_default();
        // Doubling, but never beyond the frame: most large payloads end as one exact allocation.
        if self.payload.capacity() - self.payload.len() < taken {
            let grown = (self.payload.len() * 2).max(self.payload.len() + taken).min(self.payload.len() + missing);
            self.payload.reserve_exact(grown - self.payload.len());
        }
        self.payload.extend_from_slice(bytes);
        *input = rest;
        if taken < missing {
            return Ok(None);
        }
        let payload = std::mem::take(&mut self.payload);
        let Some(head) = self.head.take() else { return Ok(None) };
        self.header_filled = 0;
        if crc32c::crc32c_append(head.crc_of_header, &payload) != head.crc {
            return Err(FrameError::Checksum);
        }
        self.sequence = self.sequence.wrapping_add(1);
        Ok(Some(Frame { kind: head.kind, group: head.group, payload: Bytes::from(payload) }))
    }

    fn read_head(&self) -> Result<Head, FrameError> {
        let [c0, c1, c2, c3, covered @ ..] = self.header;
        let [l0, l1, l2, l3, kind, z0, z1, z2, s0, s1, s2, s3, g0, g1, g2, g3, g4, g5, g6, g7] = covered;
        // The checksum can only be looked at when the payload is here; until then nothing of this is believed but the
        // length, and that only up to the maximum.
        let length = u32::from_le_bytes([l0, l1, l2, l3]);
        if length > self.payload_bytes_max {
            return Err(FrameError::Length { length, max: self.payload_bytes_max });
        }
        if [z0, z1, z2] != [0; 3] {
            return Err(FrameError::Reserved);
        }
        let sequence = u32::from_le_bytes([s0, s1, s2, s3]);
        if sequence != self.sequence {
            return Err(FrameError::Sequence { expected: self.sequence, found: sequence });
        }
        Ok(Head {
            crc: u32::from_le_bytes([c0, c1, c2, c3]),
            crc_of_header: crc32c::crc32c(&covered),
            kind: FrameKind::from_byte(kind).ok_or(FrameError::UnknownKind(kind))?,
            group: u64::from_le_bytes([g0, g1, g2, g3, g4, g5, g6, g7]),
            length: length as usize,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn frame(kind: FrameKind, group: u64, sequence: u32, payload: &[u8]) -> Vec<u8> {
        let mut bytes = header(kind, group, sequence, payload).to_vec();
        bytes.extend_from_slice(payload);
        bytes
    }

    fn read_all(reader: &mut FrameReader, mut input: &[u8]) -> Result<Vec<Frame>, FrameError> {
        let mut frames = Vec::new();
        while let Some(frame) = reader.feed(&mut input)? {
            frames.push(frame);
        }
        assert!(input.is_empty(), "the reader stops only at the end of a frame");
        Ok(frames)
    }

    fn kinds() -> impl Strategy<Value = FrameKind> {
        (1u8..=8).prop_map(|byte| FrameKind::from_byte(byte).unwrap())
    }

    proptest! {
        #[test]
        fn frames_come_back_from_any_pieces(
            written in prop::collection::vec((kinds(), any::<u64>(), prop::collection::vec(any::<u8>(), 0..3000)), 0..8),
            cuts in prop::collection::vec(1usize..700, 1..40),
        ) {
            let mut bytes = Vec::new();
            for (sequence, (kind, group, payload)) in written.iter().enumerate() {
                bytes.extend(frame(*kind, *group, sequence as u32, payload));
            }
            let mut reader = FrameReader::new(3000);
            let mut frames = Vec::new();
            let mut rest = &bytes[..];
            for cut in cuts.iter().cycle() {
                if rest.is_empty() {
                    break;
                }
                let (piece, after) = rest.split_at((*cut).min(rest.len()));
                frames.extend(read_all(&mut reader, piece).unwrap());
                rest = after;
            }
            prop_assert!(reader.is_between_frames());
            let wanted: Vec<Frame> = written
                .into_iter()
                .map(|(kind, group, payload)| Frame { kind, group, payload: payload.into() })
                .collect();
            prop_assert_eq!(frames, wanted);
        }

        #[test]
        fn any_bytes_are_refused_or_read_in_bounded_memory(
            bytes in prop::collection::vec(any::<u8>(), 0..400), cut in 1usize..50,
        ) {
            let mut reader = FrameReader::new(u32::MAX);
            for piece in bytes.chunks(cut) {
                if read_all(&mut reader, piece).is_err() {
                    break;
                }
                prop_assert!(reader.wanted_bytes() > 0 || reader.head.is_some());
                prop_assert!(reader.payload.capacity() <= PAYLOAD_RESERVE_BYTES_MAX + 2 * bytes.len());
            }
        }

        #[test]
        fn a_flipped_bit_is_never_read(
            payload in prop::collection::vec(any::<u8>(), 0..200), position in any::<prop::sample::Index>(), bit in 0u8..8,
        ) {
            let mut bytes = frame(FrameKind::Raft, 7, 0, &payload);
            let at = position.index(bytes.len());
            bytes[at] ^= 1 << bit;
            let mut reader = FrameReader::new(200);
            // A longer length may leave the reader waiting; it never hands anything out.
            let read = read_all(&mut reader, &bytes);
            prop_assert!(!matches!(&read, Ok(frames) if !frames.is_empty()), "{read:?}");
        }
    }

    #[test]
    fn a_repeated_a_missing_and_a_swapped_frame_are_errors() {
        let frames: Vec<Vec<u8>> = (0..3).map(|number| frame(FrameKind::Raft, 1, number, b"entry")).collect();
        for order in [[0, 0], [0, 2], [1, 0]] {
            let mut reader = FrameReader::new(100);
            let bytes: Vec<u8> = order.iter().flat_map(|number| frames[*number].clone()).collect();
            assert!(matches!(read_all(&mut reader, &bytes), Err(FrameError::Sequence { .. })), "{order:?}");
            assert!(reader.feed(&mut &frames[1][..]).is_err(), "a reader that failed stays so");
        }
    }

    #[test]
    fn a_frame_above_the_maximum_is_refused_by_its_header() {
        let bytes = frame(FrameKind::Request, 0, 0, &[0; 101]);
        let mut reader = FrameReader::new(100);
        let read = reader.feed(&mut &bytes[..FRAME_HEADER_BYTES]);
        assert_eq!(read, Err(FrameError::Length { length: 101, max: 100 }));
    }

    #[test]
    fn a_cut_frame_is_not_between_frames() {
        let bytes = frame(FrameKind::Hello, 0, 0, b"who");
        for length in 1..bytes.len() {
            let mut reader = FrameReader::new(100);
            assert_eq!(read_all(&mut reader, &bytes[..length]), Ok(Vec::new()));
            assert!(!reader.is_between_frames(), "{length}");
        }
    }
}
