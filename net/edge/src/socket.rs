//! A monoio socket as the protocol engine wants it.
//!
//! Owns the stream. Bytes go straight between the kernel and the engine's buffers by calls that do not wait; only where
//! they would wait, the ring is asked to say when they would not, so that an idle connection holds no buffer.
//! Invariants: a call that would block has armed the ring with the caller's waker; after some reads in a row that did not,
//! the next one asks the ring all the same, because a task that always finds bytes would keep the ring from every other
//! one (monoio 0.2.4 runs ready tasks before it looks at completions).
//! Knows nothing of HTTP.

use hyper::rt::ReadBufCursor;
use monoio::net::TcpStream;
use socket2::SockRef;
use std::io::{ErrorKind, IoSlice, Result};
use std::net::Shutdown;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use tidemill_http::Connection;

/// `MSG_DONTWAIT | MSG_NOSIGNAL` of Linux.
const SEND_FLAGS: i32 = 0x40 | 0x4000;
/// `MSG_DONTWAIT` of Linux.
const RECEIVE_FLAGS: i32 = 0x40;
/// Reads and writes in a row without the ring: some 100 KiB each at most.
const UNASKED_MAX: u32 = 16;

type Readiness = Pin<Box<dyn Future<Output = Result<()>>>>;

pub(crate) struct Socket {
    stream: Rc<TcpStream>,
    /// Of connections that clients made: told when bytes came and when the peer takes none.
    connection: Option<Rc<Connection>>,
    readable: Option<Readiness>,
    writable: Option<Readiness>,
    /// Reads and writes since the ring was asked.
    unasked: u32,
}

impl Socket {
    pub(crate) fn new(stream: TcpStream, connection: Option<Rc<Connection>>) -> Socket {
        // Small answers are sent whole; waiting for more would only delay them.
        let _ = stream.set_nodelay(true);
        Socket { stream: Rc::new(stream), connection, readable: None, writable: None, unasked: 0 }
    }

    fn descriptor(&self) -> BorrowedFd<'_> {
        // SAFETY: the stream owns the descriptor and lives at least as long as the borrow of `self`.
        unsafe { BorrowedFd::borrow_raw(self.stream.as_raw_fd()) }
    }

    /// Reads and forgets some bytes; 0 at the end of the stream.
    pub(crate) fn poll_discard(&mut self, context: &mut Context<'_>) -> Poll<Result<usize>> {
        let mut space = [std::mem::MaybeUninit::uninit(); 16 << 10];
        self.poll_receive(context, &mut space)
    }

    fn poll_receive(
        &mut self,
        context: &mut Context<'_>,
        space: &mut [std::mem::MaybeUninit<u8>],
    ) -> Poll<Result<usize>> {
        loop {
            if self.readable.is_none() && self.unasked >= UNASKED_MAX {
                self.readable = Some(readable(self.stream.clone()));
            }
            if let Some(readiness) = &mut self.readable {
                let result = ready!(readiness.as_mut().poll(context));
                self.readable = None;
                self.unasked = 0;
                result?;
            }
            match SockRef::from(&self.descriptor()).recv_with_flags(space, RECEIVE_FLAGS) {
                Ok(count) => {
                    self.unasked += 1;
                    if let Some(connection) = &self.connection {
                        connection.received(count);
                    }
                    return Poll::Ready(Ok(count));
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.readable = Some(readable(self.stream.clone()));
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }
}

impl Drop for Socket {
    /// What still waits at the ring holds the stream: it ends when the connection does.
    fn drop(&mut self) {
        if self.readable.is_some() || self.writable.is_some() {
            let _ = SockRef::from(&self.descriptor()).shutdown(Shutdown::Both);
        }
    }
}

fn readable(stream: Rc<TcpStream>) -> Readiness {
    Box::pin(async move { stream.readable(true).await })
}

fn writable(stream: Rc<TcpStream>) -> Readiness {
    Box::pin(async move { stream.writable(true).await })
}

impl hyper::rt::Read for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        mut buffer: ReadBufCursor<'_>,
    ) -> Poll<Result<()>> {
        // SAFETY: `recv` only writes into the slice.
        let free = unsafe { buffer.as_mut() };
        let count = ready!(self.poll_receive(context, free))?;
        // SAFETY: the kernel has written `count` bytes at the start of the free part.
        unsafe { buffer.advance(count) };
        Poll::Ready(Ok(()))
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
        loop {
            if self.writable.is_none() && self.unasked >= UNASKED_MAX {
                self.writable = Some(writable(self.stream.clone()));
            }
            if let Some(readiness) = &mut self.writable {
                match readiness.as_mut().poll(context) {
                    Poll::Ready(result) => {
                        self.writable = None;
                        self.unasked = 0;
                        result?;
                    }
                    Poll::Pending => {
                        if let Some(connection) = &self.connection {
                            connection.blocked();
                        }
                        return Poll::Pending;
                    }
                }
            }
            match SockRef::from(&self.descriptor()).send_vectored_with_flags(buffers, SEND_FLAGS) {
                Ok(count) => {
                    self.unasked += 1;
                    if let Some(connection) = &self.connection {
                        connection.sent(count);
                    }
                    return Poll::Ready(Ok(count));
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.writable = Some(writable(self.stream.clone()));
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<()>> {
        Poll::Ready(SockRef::from(&self.descriptor()).shutdown(Shutdown::Write))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;
    use std::future::poll_fn;
    use std::io::Write;
    use std::time::Duration;

    /// More than a loopback carries while a timer of some milliseconds runs.
    const FLOOD_BYTES_MAX: u64 = 16 << 30;

    #[test]
    fn a_peer_that_always_sends_does_not_keep_the_ring_from_others() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let flood = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let block = vec![7; 1 << 20];
            // Until the reader closes.
            while stream.write_all(&block).is_ok() {}
        });
        let has_fired = crate::run(async move {
            let mut socket = Socket::new(TcpStream::connect_addr(address).await.unwrap(), None);
            let fired = Rc::new(Cell::new(false));
            let firing = fired.clone();
            crate::spawn(async move {
                crate::sleep(Duration::from_millis(20)).await;
                firing.set(true);
            });
            let mut read = 0;
            while !fired.get() && read < FLOOD_BYTES_MAX {
                // A small buffer: there is always more.
                read += poll_fn(|context| socket.poll_discard(context)).await.unwrap() as u64;
            }
            fired.get()
        });
        assert!(has_fired.unwrap(), "nothing else ran");
        flood.join().unwrap();
    }
}
