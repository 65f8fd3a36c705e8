//! The state of one stream beside QUIC's own.

use crate::driver::lane::SendLane;
use crate::frame::FrameReader;
use quinn_proto::VarInt;
use std::task::Waker;

/// What a stream is for; the first frame decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// Opened by the peer, first frame not read yet.
    Unknown,
    /// The peer's control stream.
    Control,
    /// A lane of the peer.
    Raft,
    /// A request of ours: answers come in.
    Asked,
    /// A request of the peer: answers go out.
    Asking,
    /// A file that comes in: bytes that are still to come before the checksum.
    FileIn { missing_bytes: u64, crc: u32 },
    /// A file that goes out.
    FileOut { crc: u32 },
}

/// How the reading side ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ReadEnd {
    Finished,
    /// The peer gave the stream up.
    Reset(VarInt),
}

pub(crate) struct Stream {
    pub role: Role,
    pub reader: FrameReader,
    pub lane: SendLane,
    pub read_end: Option<ReadEnd>,
    /// The peer wants no more of it.
    pub stopped: Option<VarInt>,
    /// All of it was acknowledged.
    pub is_acknowledged: bool,
    /// The answer or file was read to its end mark.
    pub is_whole: bool,
    /// A handle of the owner refers to it: it stays until that is dropped.
    pub is_held: bool,
    pub read_waker: Option<Waker>,
    pub write_waker: Option<Waker>,
}

impl Stream {
    pub fn new(role: Role, payload_bytes_max: u32, lane: SendLane) -> Stream {
        Stream {
            role,
            reader: FrameReader::new(payload_bytes_max),
            lane,
            read_end: None,
            stopped: None,
            is_acknowledged: false,
            is_whole: false,
            is_held: false,
            read_waker: None,
            write_waker: None,
        }
    }

    pub fn wake(&mut self) {
        self.wake_reader();
        self.wake_writer();
    }

    pub fn wake_reader(&mut self) {
        if let Some(waker) = self.read_waker.take() {
            waker.wake();
        }
    }

    pub fn wake_writer(&mut self) {
        if let Some(waker) = self.write_waker.take() {
            waker.wake();
        }
    }
}
