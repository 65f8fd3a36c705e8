//! A glommio socket as the protocol engine wants it.
//!
//! Owns the stream and reports to its [`Connection`] when bytes came and when the peer does not take ours.
//! Invariant: a call that would block has armed the reactor with the caller's waker.
//! Knows nothing of HTTP.

use crate::connection::Connection;
use futures_lite::io::{AsyncRead, AsyncWrite};
use glommio::net::TcpStream;
use hyper::rt::ReadBufCursor;
use socket2::SockRef;
use std::future::poll_fn;
use std::io::{Error, ErrorKind, IoSlice, Result};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

/// `MSG_DONTWAIT | MSG_NOSIGNAL` of Linux.
const SEND_FLAGS: i32 = 0x40 | 0x4000;
/// `MSG_DONTWAIT` of Linux.
const RECEIVE_FLAGS: i32 = 0x40;

pub(crate) struct Socket {
    stream: TcpStream,
    connection: Rc<Connection>,
}

impl Socket {
    pub(crate) fn new(stream: TcpStream, connection: Rc<Connection>) -> Socket {
        Socket { stream, connection }
    }

    /// Reads and forgets some bytes; 0 at the end of the stream.
    pub(crate) async fn discard(&mut self) -> Result<usize> {
        // Within a poll: what lives across one is part of every connection's task.
        poll_fn(|context| Pin::new(&mut self.stream).poll_read(context, &mut [0; 16 << 10])).await
    }

    /// Reads into a slice; 0 at the end of the stream.
    pub(crate) fn poll_read_into(&mut self, context: &mut Context<'_>, buffer: &mut [u8]) -> Poll<Result<usize>> {
        let result = Pin::new(&mut self.stream).poll_read(context, buffer);
        if let Poll::Ready(Ok(count)) = &result {
            self.connection.received(*count);
        }
        result
    }

    fn descriptor(&self) -> BorrowedFd<'_> {
        // SAFETY: the stream owns the descriptor and lives at least as long as the borrow of `self`.
        unsafe { BorrowedFd::borrow_raw(self.stream.as_raw_fd()) }
    }
}

impl hyper::rt::Read for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        mut buffer: ReadBufCursor<'_>,
    ) -> Poll<Result<()>> {
        let this = &mut *self;
        // SAFETY: `recv` only writes into the slice.
        let free = unsafe { buffer.as_mut() };
        match SockRef::from(&this.descriptor()).recv_with_flags(free, RECEIVE_FLAGS) {
            Ok(count) => {
                // SAFETY: the kernel has written `count` bytes at the start of the free part.
                unsafe { buffer.advance(count) };
                this.connection.received(count);
                return Poll::Ready(Ok(()));
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Poll::Ready(Err(error)),
        }
        // Arms the reactor; bytes that came since the attempt above are taken through a small buffer.
        let mut spill = [0; 256];
        let spill_len = spill.len().min(buffer.remaining());
        let Some(spill) = spill.get_mut(..spill_len) else { return Poll::Ready(Err(Error::other("buffer bounds"))) };
        match Pin::new(&mut this.stream).poll_read(context, spill) {
            Poll::Ready(Ok(count)) => {
                buffer.put_slice(spill.get(..count).unwrap_or_default());
                this.connection.received(count);
                Poll::Ready(Ok(()))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl hyper::rt::Write for Socket {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &[u8]) -> Poll<Result<usize>> {
        self.poll_write_vectored(context, &[IoSlice::new(buffer)])
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffers: &[IoSlice<'_>],
    ) -> Poll<Result<usize>> {
        let this = &mut *self;
        let sent = SockRef::from(&this.descriptor()).send_vectored_with_flags(buffers, SEND_FLAGS);
        let result = match sent {
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {
                // Arms the reactor.
                let Some(first) = buffers.iter().find(|buffer| !buffer.is_empty()) else { return Poll::Ready(Ok(0)) };
                Pin::new(&mut this.stream).poll_write(context, first)
            }
            done => Poll::Ready(done),
        };
        match &result {
            Poll::Ready(Ok(count)) => this.connection.sent(*count),
            Poll::Ready(Err(_)) => {}
            Poll::Pending => this.connection.blocked(),
        }
        result
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<()>> {
        Pin::new(&mut self.stream).poll_close(context)
    }
}
