//! An index as bytes: a file that only grows, frame by frame.
//!
//! A frame is a header of 24 bytes (length of the body, kind, database, birth of its index, checksum) and a body. The
//! checksum of a frame goes on from that of the frame before it, so that the last one covers the whole file; whoever
//! names the file names that checksum and the size. What is appended together ends with a commit, which says what
//! there is and fills up to a block of the device. Later frames add to the earlier ones or replace them:
//!
//! | kind | body |
//! |---|---|
//! | head | magic, version |
//! | series | first id, count, keys: bytes shared with the key before, bytes of its own |
//! | fields | first id, count, type, measurement, name |
//! | watermarks | policy, count, ids and times as differences |
//! | dead | runs of ids without points; replaces |
//! | unwritten | runs of field ids that their measurement does not show; replaces |
//! | unsettled | runs of ids that may have lost their points; replaces |
//! | commit | databases with the numbers of their series and fields; replaces, others are gone |
//!
//! Numbers in bodies are LEB128 where their size varies, little-endian otherwise. Postings are not in the file: making
//! them anew from keys that lie in memory is faster than reading them would be.

mod bytes;
mod reader;
mod writer;

pub use reader::{ImageError, ImageReader, Restored, RestoredIndex};
pub use writer::{Delta, ImageWriter, Written};

const MAGIC: [u8; 8] = *b"TMILLIDX";
const VERSION: u32 = 1;
const HEADER_BYTES: usize = 24;
/// A frame of series is closed at the first of these; it is what is encoded or restored in one go.
const FRAME_BYTES: usize = 128 * 1024;
const FRAME_SERIES: u32 = 2048;
/// No frame is longer: the largest are lists of runs.
const FRAME_BYTES_MAX: usize = 256 << 20;
/// What is appended is a multiple of this, as direct I/O wants it.
const ALIGN_BYTES: usize = 4096;

/// Kinds of frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum Kind {
    Head = 1,
    Series = 2,
    Fields = 3,
    Watermarks = 4,
    Dead = 5,
    Unwritten = 6,
    Unsettled = 7,
    Commit = 8,
}

impl Kind {
    const ALL: [Kind; 8] = [
        Kind::Head,
        Kind::Series,
        Kind::Fields,
        Kind::Watermarks,
        Kind::Dead,
        Kind::Unwritten,
        Kind::Unsettled,
        Kind::Commit,
    ];

    fn of_code(code: u8) -> Option<Kind> {
        Kind::ALL.into_iter().find(|kind| *kind as u8 == code)
    }
}

#[cfg(test)]
mod tests;
