//! Files: a description, then so many bytes as it says, then their checksum.
//!
//! ```text
//! sender    direct-I/O read ─> aligned block ─ Bytes ─> QUIC (assembles and encrypts) ─> kernel
//! receiver  kernel ─> pooled slab (decrypted in place) ─ one copy ─> aligned block ─> direct-I/O write
//! ```
//!
//! Invariants: no copy of ours on the sender, one on the receiver, and the metrics count it; a receiver sees the end only
//! when all bytes are there and their checksum is right.

use crate::driver::{StreamError, StreamKey};
use crate::identity::PeerId;
use crate::shell::Shell;
use bytes::Bytes;
use std::future::poll_fn;
use std::rc::Rc;

/// A file on its way out. Dropping it before [`FileSender::finish`] tells the peer that it is not whole.
pub struct FileSender {
    shell: Rc<Shell>,
    key: StreamKey,
    missing_bytes: u64,
}

impl FileSender {
    pub(crate) fn new(shell: &Rc<Shell>, key: StreamKey, length: u64) -> FileSender {
        FileSender { shell: shell.clone(), key, missing_bytes: length }
    }

    /// Queues the next bytes, when those before have made room. They are kept until the peer has acknowledged them: the
    /// owner of a pooled buffer gets it back then ([`crate::lend`]).
    pub async fn write(&mut self, mut bytes: Bytes) -> Result<(), StreamError> {
        let length = bytes.len() as u64;
        self.missing_bytes = self.missing_bytes.checked_sub(length).ok_or(StreamError::Length)?;
        poll_fn(|context| self.shell.with_driver(|driver| driver.poll_write(self.key, &mut bytes, context))).await
    }

    /// Resolves when the peer's transport has all of it. Whether the peer has stored it is for the peer to say.
    pub async fn finish(self) -> Result<(), StreamError> {
        if self.missing_bytes > 0 {
            return Err(StreamError::Truncated);
        }
        self.shell.with_driver(|driver| driver.end_file(self.key));
        poll_fn(|context| self.shell.with_driver(|driver| driver.poll_acknowledged(self.key, context))).await
    }
}

impl Drop for FileSender {
    fn drop(&mut self) {
        self.shell.release(self.key);
    }
}

/// A file on its way in. Dropping it before its end tells the peer to stop.
pub struct FileReceiver {
    pub from: PeerId,
    pub group: u64,
    /// What the sender says of it.
    pub description: Bytes,
    pub length: u64,
    shell: Rc<Shell>,
    key: StreamKey,
}

impl FileReceiver {
    pub(crate) fn new(
        from: PeerId,
        group: u64,
        description: Bytes,
        length: u64,
        key: StreamKey,
        shell: &Rc<Shell>,
    ) -> FileReceiver {
        FileReceiver { from, group, description, length, shell: shell.clone(), key }
    }

    /// Places the next bytes in `block` and answers how many: all that it has room for, or fewer at the end of the file,
    /// and then 0. A short answer is given only after the checksum of the whole file was found right, so that a file of
    /// whole blocks must be read once more, for its 0.
    pub async fn fill(&mut self, block: &mut [u8]) -> Result<usize, StreamError> {
        let mut filled = 0;
        poll_fn(|context| self.shell.with_driver(|driver| driver.poll_fill(self.key, block, &mut filled, context)))
            .await
    }
}

impl Drop for FileReceiver {
    fn drop(&mut self) {
        self.shell.release(self.key);
    }
}
