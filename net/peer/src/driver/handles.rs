//! What the owner's handles do with single streams: requests, answers, files.
//!
//! Invariants: a handle's stream is read only when its owner asks, so that what is unread stays within the stream's
//! window; what is written beyond the stream's queue waits; a payload of a file is copied once, from QUIC's buffer to
//! where the owner wants it.

use super::lane::SendLane;
use super::link::Link;
use super::stream::{ReadEnd, Role, Stream};
use super::{Driver, SendError, StreamKey};
use crate::frame::{Frame, FrameError, FrameKind};
use crate::identity::PeerId;
use bytes::{BufMut, Bytes, BytesMut};
use quinn_proto::{Dir, ReadError, ReadableError};
use std::task::{Context, Poll};

/// Copied into a block of the owner at one go: about 300 us.
const FILL_BYTES_MAX: usize = 1 << 20;

/// Why a request, an answer or a file came to nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StreamError {
    /// Whether the peer did what was asked is not known.
    #[error("the connection was lost")]
    Lost,
    /// The other side has dropped its end.
    #[error("the peer gave up")]
    GivenUp,
    #[error("what came is not what belongs there")]
    OutOfPlace,
    #[error("it ends before its end")]
    Truncated,
    #[error("its checksum is wrong")]
    Checksum,
    #[error("more bytes than were announced")]
    Length,
    #[error(transparent)]
    Frame(#[from] FrameError),
}

impl Driver {
    /// Asks the peer. `None`: as many requests are open as it allows; the task is woken when there may be one more.
    pub fn open_request(
        &mut self,
        peer: PeerId,
        group: u64,
        payload: &Bytes,
        context: &mut Context<'_>,
    ) -> Result<Option<StreamKey>, SendError> {
        if payload.len() > self.options.payload_bytes_max as usize {
            return Err(SendError::TooLong);
        }
        let Some(key) = self.open(peer, Role::Asked, context)? else { return Ok(None) };
        let copied = self.lane(key).map(|lane| {
            let copied = lane.push_frame(FrameKind::Request, group, payload.clone());
            lane.end();
            copied
        });
        self.metrics.bytes_copied_out += copied.unwrap_or(0) as u64;
        self.written(key);
        Ok(Some(key))
    }

    /// Announces a file, as [`Driver::open_request`].
    pub fn open_file(
        &mut self,
        peer: PeerId,
        group: u64,
        description: &[u8],
        length: u64,
        context: &mut Context<'_>,
    ) -> Result<Option<StreamKey>, SendError> {
        if description.len() + 8 > self.options.payload_bytes_max as usize {
            return Err(SendError::TooLong);
        }
        let Some(key) = self.open(peer, Role::FileOut { crc: 0 }, context)? else { return Ok(None) };
        let mut head = BytesMut::with_capacity(8 + description.len());
        head.put_u64_le(length);
        head.put_slice(description);
        let copied = self.lane(key).map(|lane| lane.push_frame(FrameKind::FileHead, group, head.freeze()));
        self.metrics.bytes_copied_out += copied.unwrap_or(0) as u64;
        self.written(key);
        Ok(Some(key))
    }

    fn open(&mut self, peer: PeerId, role: Role, context: &mut Context<'_>) -> Result<Option<StreamKey>, SendError> {
        let handle = self.up(peer).ok_or(SendError::NotConnected)?;
        let options = self.options.clone();
        let link = self.links.get_mut(&handle.0).ok_or(SendError::NotConnected)?;
        if let Some(stream) = link.open(role, &options) {
            return Ok(Some(StreamKey { link: handle, serial: link.serial, stream }));
        }
        let dir = if role == Role::Asked { Dir::Bi } else { Dir::Uni };
        let wakers = &mut link.stream_wakers[dir as usize];
        if !wakers.iter().any(|known| known.will_wake(context.waker())) {
            wakers.push(context.waker().clone());
        }
        Ok(None)
    }

    /// Waits for room, then queues one piece of an answer, or the end of it.
    pub fn poll_answer(
        &mut self,
        key: StreamKey,
        piece: &mut Option<Bytes>,
        is_last: bool,
        context: &mut Context<'_>,
    ) -> Poll<Result<(), StreamError>> {
        match self.poll_room(key, piece.as_ref().map_or(0, Bytes::len), context) {
            Poll::Ready(Ok(())) => {}
            other => return other,
        }
        let Some(lane) = self.lane(key) else { return Poll::Ready(Err(StreamError::Lost)) };
        let mut copied = 0;
        if let Some(piece) = piece.take() {
            copied = lane.push_frame(FrameKind::Response, 0, piece);
        }
        if is_last {
            lane.push_frame(FrameKind::ResponseEnd, 0, Bytes::new());
            lane.end();
        }
        self.metrics.bytes_copied_out += copied as u64;
        self.written(key);
        Poll::Ready(Ok(()))
    }

    /// Waits for room, then queues bytes of a file.
    pub fn poll_write(
        &mut self,
        key: StreamKey,
        bytes: &mut Bytes,
        context: &mut Context<'_>,
    ) -> Poll<Result<(), StreamError>> {
        match self.poll_room(key, bytes.len(), context) {
            Poll::Ready(Ok(())) => {}
            other => return other,
        }
        let Some(stream) = self.stream(key) else { return Poll::Ready(Err(StreamError::Lost)) };
        let bytes = std::mem::take(bytes);
        if let Role::FileOut { crc } = &mut stream.role {
            *crc = crc32c::crc32c_append(*crc, &bytes);
        }
        let length = bytes.len();
        let copied = stream.lane.push_body(bytes);
        self.metrics.file_bytes_sent += length as u64;
        self.metrics.file_bytes_copied_out += copied as u64;
        self.metrics.bytes_copied_out += copied as u64;
        self.written(key);
        Poll::Ready(Ok(()))
    }

    /// Queues the checksum and the end of a file.
    pub fn end_file(&mut self, key: StreamKey) {
        if let Some(Stream { role: Role::FileOut { crc }, lane, .. }) = self.stream(key) {
            lane.push_frame(FrameKind::FileEnd, 0, Bytes::copy_from_slice(&crc.to_le_bytes()));
            lane.end();
        }
        self.written(key);
    }

    /// Waits until the peer's transport has acknowledged all of the stream.
    pub fn poll_acknowledged(&mut self, key: StreamKey, context: &mut Context<'_>) -> Poll<Result<(), StreamError>> {
        match self.stream(key) {
            None => Poll::Ready(Err(StreamError::Lost)),
            Some(stream) if stream.stopped.is_some() => Poll::Ready(Err(StreamError::GivenUp)),
            Some(stream) if stream.is_acknowledged => Poll::Ready(Ok(())),
            Some(stream) => {
                stream.write_waker = Some(context.waker().clone());
                Poll::Pending
            }
        }
    }

    /// Resolves when the peer no longer wants the answer.
    pub fn poll_given_up(&mut self, key: StreamKey, context: &mut Context<'_>) -> Poll<()> {
        match self.stream(key) {
            Some(stream) if stream.stopped.is_none() => {
                stream.read_waker = Some(context.waker().clone());
                Poll::Pending
            }
            _ => Poll::Ready(()),
        }
    }

    /// The next piece of the answer to a request, or none after the last.
    pub fn poll_piece(
        &mut self,
        key: StreamKey,
        context: &mut Context<'_>,
    ) -> Poll<Result<Option<Bytes>, StreamError>> {
        let mut copied = 0;
        let outcome = self.read_frame(key, context, &mut copied, |stream, frame| match frame {
            Some(Frame { kind: FrameKind::Response, payload, .. }) if !stream.is_whole => Ok(Some(Some(payload))),
            // The end of the stream follows.
            Some(Frame { kind: FrameKind::ResponseEnd, .. }) if !stream.is_whole => {
                stream.is_whole = true;
                Ok(None)
            }
            Some(_) => Err(StreamError::OutOfPlace),
            None if stream.is_whole => Ok(Some(None)),
            None => Err(StreamError::Truncated),
        });
        self.metrics.bytes_copied_in += copied;
        outcome
    }

    /// Fills a block of the owner from the front; answers how many bytes are in it: fewer than there is room for only at
    /// the end of the file, whose checksum is right then, and 0 after it.
    ///
    /// `filled` is where an earlier call that had to wait has stopped.
    pub fn poll_fill(
        &mut self,
        key: StreamKey,
        block: &mut [u8],
        filled: &mut usize,
        context: &mut Context<'_>,
    ) -> Poll<Result<usize, StreamError>> {
        let start = *filled;
        let outcome = self.fill(key, block, filled, context);
        let placed = (*filled - start) as u64;
        self.metrics.bytes_copied_in += placed;
        self.metrics.file_bytes_copied_in += placed;
        self.metrics.file_bytes_received += placed;
        outcome
    }

    fn fill(
        &mut self,
        key: StreamKey,
        block: &mut [u8],
        filled: &mut usize,
        context: &mut Context<'_>,
    ) -> Poll<Result<usize, StreamError>> {
        let start = *filled;
        let Some(link) = self.link(key) else { return Poll::Ready(Err(StreamError::Lost)) };
        let Link { streams, connection, .. } = link;
        let Some(stream) = streams.get_mut(&key.stream) else { return Poll::Ready(Err(StreamError::Lost)) };
        if stream.is_whole && stream.read_end.is_some() {
            return Poll::Ready(Ok(*filled));
        }
        let mut wants_transmit = false;
        if let Role::FileIn { missing_bytes, crc } = &mut stream.role
            && *missing_bytes > 0
        {
            let mut source = connection.recv_stream(key.stream);
            let Ok(mut chunks) = source.read(true) else { return Poll::Ready(Err(StreamError::Truncated)) };
            let mut failure = None;
            while *filled < block.len() && *missing_bytes > 0 && *filled - start < FILL_BYTES_MAX {
                let length = (block.len() - *filled).min(usize::try_from(*missing_bytes).unwrap_or(usize::MAX));
                match chunks.next(length) {
                    Ok(Some(chunk)) => {
                        let bytes = &chunk.bytes[..];
                        *crc = crc32c::crc32c_append(*crc, bytes);
                        block[*filled..*filled + bytes.len()].copy_from_slice(bytes);
                        *filled += bytes.len();
                        *missing_bytes -= bytes.len() as u64;
                    }
                    Ok(None) => failure = Some((StreamError::Truncated, ReadEnd::Finished)),
                    Err(ReadError::Reset(code)) => failure = Some((StreamError::GivenUp, ReadEnd::Reset(code))),
                    Err(ReadError::Blocked) => break,
                }
                if failure.is_some() {
                    break;
                }
            }
            wants_transmit = chunks.finalize().should_transmit();
            let is_missing = *missing_bytes > 0;
            if let Some((error, end)) = failure {
                stream.read_end = Some(end);
                return Poll::Ready(Err(error));
            }
            if is_missing || *filled == block.len() {
                let is_full = *filled == block.len();
                let is_budget_used = *filled - start >= FILL_BYTES_MAX;
                if !is_full {
                    stream.read_waker = Some(context.waker().clone());
                    if is_budget_used {
                        context.waker().wake_by_ref();
                    }
                }
                if wants_transmit {
                    self.stir(key.link);
                }
                return if is_full { Poll::Ready(Ok(*filled)) } else { Poll::Pending };
            }
        }
        if wants_transmit {
            self.stir(key.link);
        }
        // All bytes are there: the checksum must follow, and then the end.
        let mut copied = 0;
        let end = self.read_frame(key, context, &mut copied, |stream, frame| match frame {
            Some(Frame { kind: FrameKind::FileEnd, payload, .. }) if !stream.is_whole => match stream.role {
                Role::FileIn { crc, .. } if payload[..] == crc.to_le_bytes() => {
                    // The end of the stream follows; without it the sender would be told that we stopped early.
                    stream.is_whole = true;
                    Ok(None)
                }
                _ => Err(StreamError::Checksum),
            },
            Some(_) => Err(StreamError::Length),
            None if stream.is_whole => Ok(Some(())),
            None => Err(StreamError::Truncated),
        });
        end.map_ok(|()| *filled)
    }

    /// The owner has dropped its handle.
    pub fn release(&mut self, key: StreamKey) {
        if let Some(link) = self.link(key) {
            link.release(key.stream);
            self.stir(key.link);
        }
    }

    fn poll_room(&mut self, key: StreamKey, length: usize, context: &mut Context<'_>) -> Poll<Result<(), StreamError>> {
        let queue_bytes_max = self.options.stream_queue_bytes_max;
        match self.stream(key) {
            None => Poll::Ready(Err(StreamError::Lost)),
            Some(stream) if stream.stopped.is_some() => Poll::Ready(Err(StreamError::GivenUp)),
            Some(stream) => {
                let queued = stream.lane.queued_bytes();
                // Something that is longer than the queue must pass too: alone.
                if queued > 0 && queued + length > queue_bytes_max {
                    stream.write_waker = Some(context.waker().clone());
                    return Poll::Pending;
                }
                Poll::Ready(Ok(()))
            }
        }
    }

    /// Reads frames of a handle's stream, and its end (`None`), until `take` answers something.
    fn read_frame<T>(
        &mut self,
        key: StreamKey,
        context: &mut Context<'_>,
        copied: &mut u64,
        mut take: impl FnMut(&mut Stream, Option<Frame>) -> Result<Option<T>, StreamError>,
    ) -> Poll<Result<T, StreamError>> {
        let Some(link) = self.link(key) else { return Poll::Ready(Err(StreamError::Lost)) };
        let Link { streams, connection, .. } = link;
        let Some(stream) = streams.get_mut(&key.stream) else { return Poll::Ready(Err(StreamError::Lost)) };
        if let Some(end) = stream.read_end {
            let outcome = match end {
                ReadEnd::Finished => take(stream, None),
                ReadEnd::Reset(_) => Err(StreamError::GivenUp),
            };
            return Poll::Ready(outcome.and_then(|taken| taken.ok_or(StreamError::Truncated)));
        }
        let mut source = connection.recv_stream(key.stream);
        let mut chunks = match source.read(true) {
            Ok(chunks) => chunks,
            Err(ReadableError::ClosedStream | ReadableError::IllegalOrderedRead) => {
                return Poll::Ready(Err(StreamError::GivenUp));
            }
        };
        let outcome = loop {
            match chunks.next(stream.reader.wanted_bytes().max(1)) {
                Ok(Some(chunk)) => {
                    let mut bytes = &chunk.bytes[..];
                    match stream.reader.feed(&mut bytes) {
                        Ok(None) => {}
                        Ok(Some(frame)) => {
                            *copied += frame.payload.len() as u64;
                            match take(stream, Some(frame)) {
                                Ok(None) => {}
                                Ok(Some(taken)) => break Poll::Ready(Ok(taken)),
                                Err(error) => break Poll::Ready(Err(error)),
                            }
                        }
                        Err(error) => break Poll::Ready(Err(error.into())),
                    }
                }
                Ok(None) => {
                    stream.read_end = Some(ReadEnd::Finished);
                    let taken = if stream.reader.is_between_frames() { take(stream, None) } else { Ok(None) };
                    break Poll::Ready(taken.and_then(|taken| taken.ok_or(StreamError::Truncated)));
                }
                Err(ReadError::Blocked) => {
                    stream.read_waker = Some(context.waker().clone());
                    break Poll::Pending;
                }
                Err(ReadError::Reset(code)) => {
                    stream.read_end = Some(ReadEnd::Reset(code));
                    break Poll::Ready(Err(StreamError::GivenUp));
                }
            }
        };
        if chunks.finalize().should_transmit() {
            self.stir(key.link);
        }
        outcome
    }

    fn link(&mut self, key: StreamKey) -> Option<&mut Link> {
        self.links.get_mut(&key.link.0).filter(|link| link.serial == key.serial && !link.is_lost)
    }

    fn stream(&mut self, key: StreamKey) -> Option<&mut Stream> {
        self.link(key).and_then(|link| link.streams.get_mut(&key.stream))
    }

    fn lane(&mut self, key: StreamKey) -> Option<&mut SendLane> {
        self.stream(key).map(|stream| &mut stream.lane)
    }

    fn written(&mut self, key: StreamKey) {
        if let Some(link) = self.link(key) {
            link.mark_writable(key.stream);
            self.stir(key.link);
        }
    }
}
