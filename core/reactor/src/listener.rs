//! Listening sockets, one per core on one port.
//!
//! Owns: [`Listeners`]. The kernel spreads new connections over the sockets of the group by a hash of the addresses.
//! Invariant: the group is ours alone. SO_REUSEPORT would let a second server of the same user join it silently and take
//! half of the connections, so the first socket binds without the flag, which fails while anybody else listens there, and
//! gets the flag only then, for the others to join. Knows nothing of HTTP.

use crate::{core_id::CoreId, metrics::CoreMetrics};
use glommio::net::{TcpListener, TcpStream};
use socket2::{Domain, Protocol, Socket, Type};
use std::{
    io,
    net::SocketAddr,
    os::fd::{FromRawFd, IntoRawFd},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

/// Connections that wait for `accept` per core; the kernel cuts it to net.core.somaxconn.
const BACKLOG: i32 = 1_024;
/// How often, and how long after each other, a port that is taken is asked for.
const PORT_LOOKS: u32 = 30;
const PORT_LOOK_PERIOD: Duration = Duration::from_millis(100);

/// The sockets of one address until the cores take them. Made before the cores start, so that an address in use is an
/// error of the start.
#[derive(Clone, Debug)]
pub struct Listeners {
    addr: SocketAddr,
    sockets: Arc<Mutex<Vec<Option<Socket>>>>,
}

impl Listeners {
    /// Binds one socket per core; port 0 takes a free one. `AddrInUse` also when another server of this user, which would
    /// share the port, listens there; it waits up to 3 s for the port to become free.
    pub fn bind(addr: SocketAddr, cores: usize) -> io::Result<Listeners> {
        let named = |error: io::Error| io::Error::new(error.kind(), format!("listen on {addr}: {error}"));
        let first = bind_first(addr).map_err(named)?;
        let addr =
            first.local_addr().map_err(named)?.as_socket().ok_or_else(|| io::Error::other("not an IP socket"))?;
        let mut sockets = vec![first];
        for _ in 1..cores {
            let joined = socket(addr).and_then(|socket| {
                socket.set_reuse_port(true)?;
                socket.bind(&addr.into())?;
                Ok(socket)
            });
            sockets.push(joined.map_err(named)?);
        }
        for socket in &sockets {
            socket.listen(BACKLOG).map_err(named)?;
        }
        Ok(Listeners { addr, sockets: Arc::new(Mutex::new(sockets.into_iter().map(Some).collect())) })
    }

    /// The address with the port that was taken.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// A core's socket, once, on the core's own thread. It stops listening when the listener is dropped.
    pub fn take(&self, core: CoreId, metrics: &Arc<CoreMetrics>) -> io::Result<CoreListener> {
        let mut sockets = self.sockets.lock().unwrap_or_else(PoisonError::into_inner);
        let socket = sockets.get_mut(core.index()).and_then(Option::take);
        let socket = socket.ok_or_else(|| io::Error::other(format!("the socket of {core} was taken before")))?;
        // SAFETY: the descriptor of a bound, listening socket is handed over whole.
        let listener = unsafe { TcpListener::from_raw_fd(socket.into_raw_fd()) };
        Ok(CoreListener { listener, metrics: metrics.clone() })
    }

    /// All sockets that were not taken, for threads that are no cores of this reactor.
    pub fn into_std(self) -> Vec<std::net::TcpListener> {
        let mut sockets = self.sockets.lock().unwrap_or_else(PoisonError::into_inner);
        sockets.drain(..).flatten().map(std::net::TcpListener::from).collect()
    }
}

/// The socket that finds out whether the port is free. A port that is taken is asked for again for a while: the kernel
/// takes down the rings of a process that was killed after the process is gone, and they hold its sockets until then.
fn bind_first(addr: SocketAddr) -> io::Result<Socket> {
    let mut looks = 0;
    loop {
        let bound = socket(addr).and_then(|socket| {
            socket.bind(&addr.into())?;
            socket.set_reuse_port(true)?;
            Ok(socket)
        });
        match bound {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && looks < PORT_LOOKS => looks += 1,
            done => return done,
        }
        std::thread::sleep(PORT_LOOK_PERIOD);
    }
}

fn socket(addr: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
    // Connections of the last run in TIME_WAIT must not keep a restarted server from its port; a socket that listens
    // still does.
    socket.set_reuse_address(true)?;
    if addr.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    Ok(socket)
}

/// One core's listener.
pub struct CoreListener {
    listener: TcpListener,
    metrics: Arc<CoreMetrics>,
}

impl CoreListener {
    /// The executor's own listener, for a server that accepts by itself.
    pub fn into_listener(self) -> TcpListener {
        self.listener
    }

    /// The next connection. Errors of a single connection and lack of descriptors come back as they are: the caller waits
    /// a little and goes on.
    pub async fn accept(&self) -> io::Result<TcpStream> {
        let stream = self.listener.accept().await.map_err(io::Error::from)?;
        self.metrics.connections_accepted.add(1);
        Ok(stream)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANY_PORT: &str = "127.0.0.1:0";

    #[test]
    fn cores_share_a_port_and_a_second_server_is_refused() {
        let ours = Listeners::bind(ANY_PORT.parse().unwrap(), 3).unwrap();
        assert_ne!(ours.addr().port(), 0);
        let theirs = Listeners::bind(ours.addr(), 3).unwrap_err();
        assert_eq!(theirs.kind(), io::ErrorKind::AddrInUse);
        assert!(theirs.to_string().contains(&ours.addr().to_string()), "{theirs}");
        drop(ours);
    }

    #[test]
    fn without_the_exclusive_first_bind_a_second_server_would_share_the_port() {
        let ours = Listeners::bind(ANY_PORT.parse().unwrap(), 2).unwrap();
        let theirs = socket(ours.addr()).unwrap();
        theirs.set_reuse_port(true).unwrap();
        theirs.bind(&ours.addr().into()).expect("the kernel lets any server of this user join");
    }

    #[test]
    fn a_port_is_free_again_after_connections_and_a_restart() {
        let ours = Listeners::bind(ANY_PORT.parse().unwrap(), 2).unwrap();
        let addr = ours.addr();
        let client = std::net::TcpStream::connect(addr).unwrap();
        drop(ours);
        drop(client);
        Listeners::bind(addr, 2).unwrap();
    }

    #[test]
    fn a_core_takes_its_socket_once_and_accepts() {
        let ours = Listeners::bind(ANY_PORT.parse().unwrap(), 1).unwrap();
        let addr = ours.addr();
        let client = std::thread::spawn(move || std::net::TcpStream::connect(addr).unwrap());
        let executor = glommio::LocalExecutorBuilder::new(glommio::Placement::Unbound).make().unwrap();
        executor.run(async {
            let metrics = Arc::new(CoreMetrics::default());
            let listener = ours.take(CoreId(0), &metrics).unwrap();
            assert!(ours.take(CoreId(0), &metrics).is_err());
            assert!(ours.take(CoreId(7), &metrics).is_err());
            let accepted = listener.accept().await.unwrap();
            assert_eq!(metrics.connections_accepted.value(), 1);
            drop(accepted);
        });
        client.join().unwrap();
    }
}
