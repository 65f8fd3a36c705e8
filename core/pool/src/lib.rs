//! The storage pool: what its nodes say to each other, and what its masters agree on.
//!
//! Owns: the questions to masters and slaves and their byte form ([`MasterCall`], [`StoreCall`]), the names of files
//! ([`FileId`]) and the digest by which a master notices that it knows other files of a slave than the slave has
//! ([`FilesDigest`]), the chunks in which a file travels and the journal of those that have arrived ([`Journal`]); the
//! state that the masters agree on ([`Pool`]) with what may change it ([`Command`]); what their leader does about it
//! ([`Leader`]).
//! Invariants: the same bytes have the same name everywhere; bytes of other nodes are read without a panic; the same
//! commands in the same order make the same state.
//! Knows nothing of disks, of how messages travel, of raft and of clocks.

mod chunks;
mod command;
mod file;
mod journal;
mod leader;
mod message;
mod placing;
mod session;
mod state;

pub use chunks::{CHUNK_BYTES, ChunkValue, chunk_count, chunk_value, file_of};
pub use command::{Applied, COMMAND_PREFIX, Command, FILES_IN_COMMAND_MAX};
pub use file::{BadFileId, FileId, FilesDigest};
pub use journal::{BadJournal, JOURNAL_BLOCK_BYTES, Journal};
pub use leader::{Counts, FetchOrder, Leader, LeaderOptions, Steps};
pub use message::{
    Arriving, Beat, Beaten, Change, DecodeError, FILES_IN_BEAT_MAX, MasterCall, MasterReply, Place, Placed,
    READ_BYTES_MAX, Report, Source, StoreCall, StoreReply, Stored,
};
pub use session::Session;
pub use state::{File, Heard, Pool, Slave, Standing};

/// A stored command or snapshot that does not decode.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("bytes of the pool's masters do not decode")]
pub struct BadPoolBytes;
