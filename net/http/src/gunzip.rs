//! Decompression of request bodies while they come in (RFC 1952).
//!
//! Owns: the frames of gzip around raw deflate, several behind each other, and the limit on what they may grow to.
//! Invariant: never holds more than one byte above the limit, whatever the input claims about its size.

#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic))]

use flate2::{Crc, Decompress, FlushDecompress, Status};

/// Why a body is not what its header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GunzipError {
    #[error("Request Entity Too Large")]
    TooLarge,
    #[error("EOF")]
    Empty,
    #[error("unexpected EOF")]
    Truncated,
    #[error("gzip: invalid header")]
    Header,
    #[error("gzip: invalid checksum")]
    Checksum,
    #[error("flate: corrupt input before offset {0}")]
    Deflate(u64),
}

/// Where the next input byte belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// So many bytes of the fixed part of a header are there.
    Header(usize),
    /// So many bytes of the length of the extra field are there.
    ExtraLength(usize),
    /// So many bytes of the extra field are missing.
    Extra(usize),
    Name,
    Comment,
    /// So many bytes of the header checksum are there.
    HeaderChecksum(usize),
    Deflate,
    /// So many bytes of the trailer are there.
    Trailer(usize),
}

const HEADER_LEN: usize = 10;
const TRAILER_LEN: usize = 8;
const FLAG_CHECKSUM: u8 = 2;
const FLAG_EXTRA: u8 = 4;
const FLAG_NAME: u8 = 8;
const FLAG_COMMENT: u8 = 16;
const FLAGS_RESERVED: u8 = 0xe0;

/// The least by which the output grows.
const GROWTH_BYTES_MIN: usize = 32 << 10;

/// A body that comes in pieces, decompressed.
pub struct Gunzip {
    state: State,
    /// Bytes of the header or trailer that is being read.
    frame: [u8; HEADER_LEN],
    flags: u8,
    inflate: Decompress,
    checksum: Crc,
    member_start: usize,
    member_count: usize,
    out: Vec<u8>,
    bytes_max: usize,
}

impl Gunzip {
    /// `bytes_max` limits the output.
    pub fn new(bytes_max: usize) -> Gunzip {
        Gunzip {
            state: State::Header(0),
            frame: [0; HEADER_LEN],
            flags: 0,
            inflate: Decompress::new(false),
            checksum: Crc::new(),
            member_start: 0,
            member_count: 0,
            out: Vec::new(),
            bytes_max,
        }
    }

    /// Takes the next bytes of the body.
    pub fn push(&mut self, mut input: &[u8]) -> Result<(), GunzipError> {
        while !input.is_empty() {
            if self.state == State::Deflate {
                let taken = self.inflate(input)?;
                input = input.get(taken..).unwrap_or_default();
            } else if let Some((byte, rest)) = input.split_first() {
                self.frame_byte(*byte)?;
                input = rest;
            }
        }
        Ok(())
    }

    /// Bytes that the output takes so far.
    pub fn held_bytes(&self) -> usize {
        self.out.capacity()
    }

    /// The whole output, once the input has ended.
    pub fn finish(self) -> Result<Vec<u8>, GunzipError> {
        match self.state {
            State::Header(0) if self.member_count > 0 => Ok(self.out),
            State::Header(0) => Err(GunzipError::Empty),
            _ => Err(GunzipError::Truncated),
        }
    }

    fn inflate(&mut self, input: &[u8]) -> Result<usize, GunzipError> {
        let in_before = self.inflate.total_in();
        let mut taken = 0;
        loop {
            if self.out.len() == self.out.capacity() {
                let room = (self.bytes_max + 1).saturating_sub(self.out.len());
                self.out.reserve_exact(self.out.len().max(GROWTH_BYTES_MIN).min(room));
            }
            let out_before = self.out.len();
            let rest = input.get(taken..).unwrap_or_default();
            let status = self
                .inflate
                .decompress_vec(rest, &mut self.out, FlushDecompress::None)
                .map_err(|_| GunzipError::Deflate(self.inflate.total_in()))?;
            self.checksum.update(self.out.get(out_before..).unwrap_or_default());
            if self.out.len() > self.bytes_max {
                return Err(GunzipError::TooLarge);
            }
            let taken_before = taken;
            taken = (self.inflate.total_in() - in_before) as usize;
            if status == Status::StreamEnd {
                self.state = State::Trailer(0);
                return Ok(taken);
            }
            let has_room = self.out.len() < self.out.capacity();
            if taken == input.len() && has_room {
                return Ok(taken);
            }
            if taken == taken_before && self.out.len() == out_before && has_room {
                return Err(GunzipError::Deflate(self.inflate.total_in()));
            }
        }
    }

    fn frame_byte(&mut self, byte: u8) -> Result<(), GunzipError> {
        self.state = match self.state {
            State::Header(at) => {
                self.put(at, byte);
                match (at, byte) {
                    (0, 0x1f) | (1, 0x8b) | (2, 8) => {}
                    (0..=2, _) => return Err(GunzipError::Header),
                    (3, flags) if flags & FLAGS_RESERVED != 0 => return Err(GunzipError::Header),
                    (3, flags) => self.flags = flags,
                    _ => {}
                }
                if at + 1 == HEADER_LEN { self.after(FLAG_EXTRA) } else { State::Header(at + 1) }
            }
            State::ExtraLength(at) => {
                self.put(at, byte);
                let [low, high, ..] = self.frame;
                match (at, u16::from_le_bytes([low, high])) {
                    (0, _) => State::ExtraLength(1),
                    (_, 0) => self.after(FLAG_NAME),
                    (_, length) => State::Extra(length.into()),
                }
            }
            State::Extra(1) => self.after(FLAG_NAME),
            State::Extra(missing) => State::Extra(missing - 1),
            State::Name if byte == 0 => self.after(FLAG_COMMENT),
            State::Comment if byte == 0 => self.after(FLAG_CHECKSUM),
            State::HeaderChecksum(0) => State::HeaderChecksum(1),
            State::HeaderChecksum(_) => self.begin_member(),
            State::Trailer(at) => {
                self.put(at, byte);
                if at + 1 == TRAILER_LEN { self.end_member()? } else { State::Trailer(at + 1) }
            }
            State::Name | State::Comment | State::Deflate => self.state,
        };
        Ok(())
    }

    fn put(&mut self, at: usize, byte: u8) {
        if let Some(place) = self.frame.get_mut(at) {
            *place = byte;
        }
    }

    /// The first optional part of the header that is there, from this one on.
    fn after(&mut self, flag: u8) -> State {
        // The parts come in this order, which is not the order of their flags.
        let parts = [
            (FLAG_EXTRA, State::ExtraLength(0)),
            (FLAG_NAME, State::Name),
            (FLAG_COMMENT, State::Comment),
            (FLAG_CHECKSUM, State::HeaderChecksum(0)),
        ];
        let found = parts.into_iter().skip_while(|(part, _)| *part != flag).find(|(part, _)| self.flags & part != 0);
        match found {
            Some((_, state)) => state,
            None => self.begin_member(),
        }
    }

    fn begin_member(&mut self) -> State {
        self.inflate.reset(false);
        self.checksum.reset();
        self.member_start = self.out.len();
        State::Deflate
    }

    fn end_member(&mut self) -> Result<State, GunzipError> {
        let [a, b, c, d, e, f, g, h, ..] = self.frame;
        let size = (self.out.len() - self.member_start) as u32;
        if u32::from_le_bytes([a, b, c, d]) != self.checksum.sum() || u32::from_le_bytes([e, f, g, h]) != size {
            return Err(GunzipError::Checksum);
        }
        self.member_count += 1;
        Ok(State::Header(0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::{Compression, GzBuilder, write::GzEncoder};
    use proptest::prelude::*;
    use std::io::Write;

    fn compress(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn gunzip(parts: &[&[u8]], bytes_max: usize) -> Result<Vec<u8>, GunzipError> {
        let mut gunzip = Gunzip::new(bytes_max);
        for part in parts {
            gunzip.push(part)?;
        }
        gunzip.finish()
    }

    #[test]
    fn faults_have_their_texts() {
        let good = compress(b"hello");
        assert_eq!(gunzip(&[&good], 5).unwrap(), b"hello");
        assert_eq!(gunzip(&[&good], 4), Err(GunzipError::TooLarge));
        assert_eq!(gunzip(&[], 5), Err(GunzipError::Empty));
        for end in 1..good.len() {
            assert_eq!(gunzip(&[&good[..end]], 5), Err(GunzipError::Truncated), "{end}");
        }
        assert_eq!(gunzip(&[b"plain text"], 5), Err(GunzipError::Header));
        assert_eq!(gunzip(&[&good, b"trailing"], 50), Err(GunzipError::Header));
        let mut lying = good.clone();
        *lying.last_mut().unwrap() = 9;
        assert_eq!(gunzip(&[&lying], 5), Err(GunzipError::Checksum));
        let mut corrupt = good.clone();
        corrupt[10] = 0xff;
        assert!(matches!(gunzip(&[&corrupt], 5), Err(GunzipError::Deflate(_))));
    }

    #[test]
    fn members_follow_each_other_and_optional_parts_are_skipped() {
        let mut with_parts = GzBuilder::new()
            .filename("name")
            .comment("comment")
            .extra(b"xyz".to_vec())
            .write(Vec::new(), Compression::fast());
        with_parts.write_all(b"one").unwrap();
        let with_parts = with_parts.finish().unwrap();
        let empty = compress(b"");
        let both = [with_parts.as_slice(), &empty, &compress(b" two")].concat();
        assert_eq!(gunzip(&[&both], 7).unwrap(), b"one two");
        let single: Vec<&[u8]> = both.chunks(1).collect();
        assert_eq!(gunzip(&single, 7).unwrap(), b"one two");
        assert_eq!(gunzip(&single, 6), Err(GunzipError::TooLarge));
    }

    #[test]
    fn a_bomb_stops_at_the_limit() {
        let bomb = compress(&vec![0; 64 << 20]);
        assert!(bomb.len() < 100_000);
        let mut gunzip = Gunzip::new(1 << 20);
        assert_eq!(gunzip.push(&bomb), Err(GunzipError::TooLarge));
        assert!(gunzip.out.capacity() <= (1 << 20) + 1);
    }

    proptest! {
        #[test]
        fn any_cut_gives_the_same_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..5000), cut in 1usize..700) {
            let compressed = compress(&bytes);
            let parts: Vec<&[u8]> = compressed.chunks(cut).collect();
            prop_assert_eq!(gunzip(&parts, bytes.len()).unwrap(), bytes);
        }

        #[test]
        fn no_input_breaks_it(mut bytes in proptest::collection::vec(any::<u8>(), 0..300), flags in any::<u8>(), good: bool) {
            if good {
                bytes.splice(0..0, [0x1f, 0x8b, 8, flags, 0, 0, 0, 0, 0, 0]);
            }
            let _ = gunzip(&[&bytes], 1000);
        }
    }
}
