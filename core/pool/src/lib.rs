//! The storage pool: what its nodes say to each other, and what its masters agree on.
//!
//! Owns: the questions to masters and slaves and their byte form ([`message`]), the names of files ([`FileId`]) and the
//! digest by which a master notices that it knows other files of a slave than the slave has ([`FilesDigest`]), the chunks
//! in which a file travels and the journal of those that have arrived ([`Journal`]).
//! Invariants: the same bytes have the same name everywhere; bytes of other nodes are read without a panic.
//! Knows nothing of disks, of how messages travel and of clocks.

mod chunks;
mod file;
mod journal;
mod message;

pub use chunks::{CHUNK_BYTES, ChunkValue, chunk_count, chunk_value, file_of};
pub use file::{BadFileId, FileId, FilesDigest};
pub use journal::{BadJournal, JOURNAL_BLOCK_BYTES, Journal};
pub use message::{
    Arriving, Beat, Beaten, Change, DecodeError, FILES_IN_BEAT_MAX, MasterCall, MasterReply, Place, Placed,
    READ_BYTES_MAX, Report, Source, StoreCall, StoreReply, Stored,
};
