//! TSM files and their companions, byte for byte as upstream writes and reads them (`tsm-format`).
//!
//! Owns: the value codecs, blocks, the index, the order of bytes in a file, block statistics, tombstones, `fields.idx`,
//! `meta.db` and the reading of upstream's write-ahead log.
//! Invariants: no byte of a block is believed before its CRC was verified; no count or length in a file is believed
//! before it was held against a limit; whatever the bytes are, decoding ends with a value or a typed error. The same
//! points give the same bytes.
//! Knows nothing of files, folders, clocks or threads: bytes in, bytes out. Knows nothing of measurements and tags:
//! keys are bytes.

#![forbid(unsafe_code)]

pub mod alp;
pub mod block;
pub mod booleans;
mod cursor;
pub mod directory;
mod error;
pub mod fields_idx;
pub mod file;
pub mod floats;
pub mod index;
pub mod integers;
pub mod key;
pub mod meta_db;
mod protobuf;
pub mod simple8b;
pub mod statistics;
pub mod strings;
pub mod timestamps;
pub mod tombstone;
pub mod unsigned;
pub mod wal;

pub use error::{BLOCK_POINTS_DEFAULT, BLOCK_POINTS_MAX, DecodeError, EncodeError};
pub use floats::FloatEncoding;
