//! The UDP socket of one core: batches of datagrams in both directions, in pooled buffers.
//!
//! Invariants: memory for receiving is taken from a pool of slabs that are used again when QUIC has let go of all that
//! was received into them; a batch that the kernel did not take is kept and goes first. Knows nothing of QUIC.

use bytes::BytesMut;
use quinn_proto::{EcnCodepoint, Transmit};
use std::collections::VecDeque;
use std::io::{self, IoSliceMut};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::Duration;

/// One receive: the kernel joins up to 64 KiB of datagrams (GRO).
const RECEIVE_BYTES: usize = 1 << 16;
/// Slabs are cut into receives; small datagrams share one, so that each does not cost an allocation of its own.
const SLAB_BYTES: usize = 1 << 18;
/// Slabs that are kept for use again: 16 MiB. What QUIC holds beyond that comes from the allocator.
const POOL_SLABS_MAX: usize = 64;
/// Slabs of the pool that are looked at for one that is free.
const POOL_LOOKS_MAX: usize = 4;
/// No readiness is asked for a full send buffer: it happens when a network card is behind, and then a short pause is right.
pub(crate) const BLOCKED_PAUSE: Duration = Duration::from_micros(200);

pub(crate) struct Socket {
    socket: UdpSocket,
    state: quinn_udp::UdpSocketState,
    slab: BytesMut,
    pool: VecDeque<BytesMut>,
}

/// Datagrams of one sender that arrived together.
pub(crate) struct Received {
    pub from: SocketAddr,
    pub to: Option<IpAddr>,
    pub ecn: Option<EcnCodepoint>,
    pub bytes: BytesMut,
    /// Bytes of each, the last may be shorter.
    pub stride: usize,
}

/// Binds a socket for [`crate::Peers::start`], with kernel buffers of this size if the kernel allows it.
pub fn bind(address: SocketAddr, buffer_bytes: usize) -> io::Result<UdpSocket> {
    let socket = socket2::Socket::new(socket2::Domain::for_address(address), socket2::Type::DGRAM, None)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    let socket = UdpSocket::from(socket);
    // The forced calls want CAP_NET_ADMIN; the others are cut to net.core.[rw]mem_max without an error.
    for (forced, plain) in [(libc::SO_RCVBUFFORCE, libc::SO_RCVBUF), (libc::SO_SNDBUFFORCE, libc::SO_SNDBUF)] {
        if set_option(&socket, forced, buffer_bytes).is_err() {
            set_option(&socket, plain, buffer_bytes)?;
        }
    }
    Ok(socket)
}

fn set_option(socket: &UdpSocket, option: libc::c_int, value: usize) -> io::Result<()> {
    use std::os::fd::AsRawFd;
    let value = libc::c_int::try_from(value).unwrap_or(libc::c_int::MAX);
    // SAFETY: the descriptor is open and the pointer is to an integer of the length that is given.
    let outcome = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            option,
            std::ptr::from_ref(&value).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    if outcome == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

impl Socket {
    pub fn new(socket: UdpSocket) -> io::Result<Socket> {
        socket.set_nonblocking(true)?;
        let state = quinn_udp::UdpSocketState::new((&socket).into())?;
        Ok(Socket { socket, state, slab: new_slab(), pool: VecDeque::new() })
    }

    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// Datagrams of equal size that one call may send.
    pub fn segments_max(&self) -> usize {
        self.state.max_gso_segments()
    }

    /// What one call receives; `WouldBlock` when there is nothing.
    pub fn receive(&mut self) -> io::Result<Received> {
        if self.slab.len() < RECEIVE_BYTES {
            self.change_slab();
        }
        let mut meta = [quinn_udp::RecvMeta::default()];
        let count = {
            let mut buffers = [IoSliceMut::new(&mut self.slab[..RECEIVE_BYTES])];
            self.state.recv((&self.socket).into(), &mut buffers, &mut meta)?
        };
        let [meta] = meta;
        let length = if count == 0 { 0 } else { meta.len };
        Ok(Received {
            from: meta.addr,
            to: meta.dst_ip,
            ecn: meta.ecn.and_then(|ecn| EcnCodepoint::from_bits(ecn as u8)),
            bytes: self.slab.split_to(length),
            stride: meta.stride.max(1),
        })
    }

    /// Sends a batch; false when the kernel has no room now. Other failures are those of a network that loses packets,
    /// which QUIC is made for.
    pub fn send(&self, transmit: &Transmit, bytes: &[u8]) -> bool {
        let transmit = quinn_udp::Transmit {
            destination: transmit.destination,
            ecn: transmit.ecn.and_then(|ecn| quinn_udp::EcnCodepoint::from_bits(ecn as u8)),
            contents: &bytes[..transmit.size],
            segment_size: transmit.segment_size,
            src_ip: transmit.src_ip,
        };
        match self.state.try_send((&self.socket).into(), &transmit) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => false,
            Err(error) => {
                tracing::debug!(%error, to = %transmit.destination, "a batch was not sent");
                true
            }
            Ok(()) => true,
        }
    }

    fn change_slab(&mut self) {
        let free = (0..self.pool.len().min(POOL_LOOKS_MAX)).find_map(|_| {
            let mut slab = self.pool.pop_front()?;
            if slab.try_reclaim(SLAB_BYTES) {
                return Some(slab);
            }
            self.pool.push_back(slab);
            None
        });
        let next = match free {
            Some(mut slab) => {
                // SAFETY: all of the slab was written when it was made (`new_slab`), reclaiming gives the whole of the
                // same memory back, and nobody else holds a part of it any more.
                unsafe { slab.set_len(SLAB_BYTES) };
                slab
            }
            None => new_slab(),
        };
        let mut used = std::mem::replace(&mut self.slab, next);
        if self.pool.len() < POOL_SLABS_MAX {
            used.clear();
            self.pool.push_back(used);
        }
    }
}

fn new_slab() -> BytesMut {
    BytesMut::zeroed(SLAB_BYTES)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slabs_are_used_again_only_when_all_was_let_go() {
        let receiver = bind("127.0.0.1:0".parse().unwrap(), 1 << 20).unwrap();
        let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = receiver.local_addr().unwrap();
        receiver.set_nonblocking(false).unwrap();
        let mut socket = Socket::new(receiver).unwrap();
        socket.socket.set_nonblocking(false).unwrap();
        let mut held = Vec::new();
        for number in 0..2_000u32 {
            let bytes = number.to_le_bytes().repeat(300);
            sender.send_to(&bytes, address).unwrap();
            held.push((number, socket.receive().unwrap().bytes));
            if number % 7 == 0 {
                held.truncate(held.len() / 2);
            }
            for (number, bytes) in &held {
                assert!(bytes.chunks(4).all(|chunk| chunk == number.to_le_bytes()), "{number} was overwritten");
            }
        }
        assert!(socket.pool.len() < POOL_SLABS_MAX);
    }
}
