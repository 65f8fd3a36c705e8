//! TLS over a socket, as the protocol engine wants it.
//!
//! Owns: one session. Invariants: a call that would block has armed the reactor with the caller's waker, through the
//! socket; no more ciphertext waits for the peer than the session buffers (64 KiB), because nothing is taken before the
//! rest was sent.
//! Knows nothing of certificates: the configuration has them.

use crate::socket::Socket;
use hyper::rt::{ReadBufCursor, Write};
use rustls::{ServerConfig, ServerConnection};
use std::io::{Error, ErrorKind, IoSlice, Read, Result, Write as _};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

/// Ciphertext that is read at once: the largest record and a little.
const READ_BYTES: usize = 17 << 10;

/// A socket, perhaps with a session over it.
pub(crate) struct Stream {
    socket: Socket,
    session: Option<Box<ServerConnection>>,
}

impl Stream {
    /// # Errors
    /// The configuration makes no session.
    pub(crate) fn new(socket: Socket, tls: Option<&Arc<ServerConfig>>) -> std::result::Result<Stream, rustls::Error> {
        let session = tls.map(|config| ServerConnection::new(config.clone()).map(Box::new)).transpose()?;
        Ok(Stream { socket, session })
    }

    /// Reads and forgets some bytes; 0 at the end of the stream.
    pub(crate) async fn discard(&mut self) -> Result<usize> {
        self.socket.discard().await
    }
}

/// Sends the ciphertext that waits.
fn poll_send(socket: &mut Socket, session: &mut ServerConnection, context: &mut Context<'_>) -> Poll<Result<()>> {
    while session.wants_write() {
        let mut outlet = Outlet { socket: &mut *socket, context: &mut *context };
        match session.write_tls(&mut outlet) {
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Poll::Pending,
            Err(error) => return Poll::Ready(Err(error)),
        }
    }
    Poll::Ready(Ok(()))
}

/// The socket as a blocking writer that says `WouldBlock` instead.
struct Outlet<'a, 'b> {
    socket: &'a mut Socket,
    context: &'a mut Context<'b>,
}

impl std::io::Write for Outlet<'_, '_> {
    fn write(&mut self, bytes: &[u8]) -> Result<usize> {
        self.write_vectored(&[IoSlice::new(bytes)])
    }

    fn write_vectored(&mut self, buffers: &[IoSlice<'_>]) -> Result<usize> {
        match Pin::new(&mut *self.socket).poll_write_vectored(self.context, buffers) {
            Poll::Ready(result) => result,
            Poll::Pending => Err(ErrorKind::WouldBlock.into()),
        }
    }

    fn flush(&mut self) -> Result<()> {
        Ok(())
    }
}

/// Takes what has come from the peer.
fn receive(session: &mut ServerConnection, mut ciphertext: &[u8]) -> Result<()> {
    while !ciphertext.is_empty() {
        if session.read_tls(&mut ciphertext)? == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        session.process_new_packets().map_err(|error| Error::new(ErrorKind::InvalidData, error))?;
    }
    Ok(())
}

impl hyper::rt::Read for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        mut buffer: ReadBufCursor<'_>,
    ) -> Poll<Result<()>> {
        let Stream { socket, session } = &mut *self;
        let Some(session) = session else { return Pin::new(socket).poll_read(context, buffer) };
        let mut plain = [0; READ_BYTES];
        let wanted = plain.len().min(buffer.remaining());
        loop {
            // The handshake answers what it reads.
            let sent = poll_send(socket, session, context);
            if let Poll::Ready(Err(error)) = sent {
                return Poll::Ready(Err(error));
            }
            match session.reader().read(plain.get_mut(..wanted).unwrap_or_default()) {
                Ok(count) => {
                    buffer.put_slice(plain.get(..count).unwrap_or_default());
                    return Poll::Ready(Ok(()));
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                // The peer left without saying so.
                Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Poll::Ready(Ok(())),
                Err(error) => return Poll::Ready(Err(error)),
            }
            let mut ciphertext = [0; READ_BYTES];
            match ready!(socket.poll_read_into(context, &mut ciphertext))? {
                0 => {
                    session.read_tls(&mut std::io::empty())?;
                }
                count => {
                    let received = receive(session, ciphertext.get(..count).unwrap_or_default());
                    if received.is_err() {
                        // The alert that says why; it may not get through.
                        let _ = poll_send(socket, session, context);
                    }
                    received?;
                }
            }
        }
    }
}

impl hyper::rt::Write for Stream {
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
        let Stream { socket, session } = &mut *self;
        let Some(session) = session else { return Pin::new(socket).poll_write_vectored(context, buffers) };
        ready!(poll_send(socket, session, context))?;
        let taken = session.writer().write_vectored(buffers)?;
        if let Poll::Ready(Err(error)) = poll_send(socket, session, context) {
            return Poll::Ready(Err(error));
        }
        Poll::Ready(Ok(taken))
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<()>> {
        let Stream { socket, session } = &mut *self;
        match session {
            Some(session) => poll_send(socket, session, context),
            None => Pin::new(socket).poll_flush(context),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<()>> {
        let Stream { socket, session } = &mut *self;
        if let Some(session) = session {
            session.send_close_notify();
            // A peer that takes nothing does not keep the socket open.
            let _ = poll_send(socket, session, context);
        }
        Pin::new(socket).poll_shutdown(context)
    }
}
