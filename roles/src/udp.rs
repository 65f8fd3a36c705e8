//! Line protocol by UDP, as upstream's `[[udp]]` takes it.
//!
//! Owns: a socket and a thread for each listener, which gathers datagrams into batches, and the task that writes them.
//! Invariants: a listener holds at most `batch-pending` batches and the one that it gathers; while they are full it
//! reads nothing, and the kernel drops what does not fit into the socket's buffer. Nobody is told what became of a
//! datagram: what cannot be parsed or stored is counted.
//! Knows nothing of how points are stored.

use crate::{data::DataCore, side_thread};
use anyhow::Context;
use std::{
    net::{SocketAddr, UdpSocket},
    os::fd::AsRawFd,
    rc::Rc,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    time::{Duration, Instant},
};
use tidemill_http::{Caller, Consistency, WriteOutcome, WriteRequest, WriteTarget};
use tidemill_line::Precision;
use tidemill_meta::Command;

/// One listener of the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UdpOptions {
    pub addr: SocketAddr,
    pub database: String,
    pub retention_policy: Option<String>,
    /// Lines of a batch.
    pub batch_points: usize,
    /// Batches that may wait to be written.
    pub batches_pending: usize,
    /// A batch that is not full waits so long.
    pub batch_timeout: Duration,
    /// Of the socket; 0 leaves it to the system.
    pub read_buffer_bytes: usize,
    pub precision: Precision,
}

/// The largest datagram.
const DATAGRAM_BYTES_MAX: usize = 64 << 10;
/// A batch of long lines is handed on earlier, well below what one write may have.
const BATCH_BYTES_MAX: usize = 4 << 20;
/// How often the core looks for batches: small beside the time that points wait to be gathered.
const LOOK_PAUSE: Duration = Duration::from_millis(20);
/// An overloaded server is asked again; so often, with a pause in between.
const TRIES: u32 = 20;
const TRY_PAUSE: Duration = Duration::from_millis(100);

/// What a listener counted, under upstream's names.
#[derive(Debug, Default)]
pub struct UdpFigures {
    pub bytes_received: AtomicU64,
    pub points_received: AtomicU64,
    pub points_written: AtomicU64,
    pub batches_written: AtomicU64,
    pub batches_failed: AtomicU64,
    pub read_failures: AtomicU64,
}

/// A listener at work.
pub struct UdpListener {
    options: UdpOptions,
    figures: Arc<UdpFigures>,
    batches: Mutex<Receiver<Batch>>,
}

#[derive(Debug, Default)]
struct Batch {
    text: Vec<u8>,
    points: usize,
}

impl UdpListener {
    /// Binds the socket and begins to read.
    ///
    /// # Errors
    /// The address is not to be had, or there is no thread.
    pub fn open(options: &UdpOptions) -> anyhow::Result<UdpListener> {
        let socket = UdpSocket::bind(options.addr).with_context(|| format!("udp.bind-address {}", options.addr))?;
        if options.read_buffer_bytes > 0 {
            set_read_buffer(&socket, options.read_buffer_bytes).context("udp.read-buffer")?;
        }
        let (sender, batches) = sync_channel(options.batches_pending);
        let figures: Arc<UdpFigures> = Arc::default();
        let gatherer = Gatherer { socket, options: options.clone(), figures: figures.clone(), batches: sender };
        side_thread::spawn("udp", move || gatherer.run())?;
        Ok(UdpListener { options: options.clone(), figures, batches: Mutex::new(batches) })
    }

    pub fn options(&self) -> &UdpOptions {
        &self.options
    }

    pub fn figures(&self) -> &UdpFigures {
        &self.figures
    }

    fn next(&self) -> Option<Batch> {
        self.batches.lock().unwrap_or_else(PoisonError::into_inner).try_recv().ok()
    }

    /// Writes batches until the core stops. To be run on the metadata's core.
    pub async fn serve(self: Arc<Self>, core: Rc<DataCore>) {
        let context = core.context();
        while !context.shutdown.is_requested() {
            match self.next() {
                None => context.sleep(LOOK_PAUSE).await,
                Some(batch) => {
                    let counter = match self.write(&core, &batch).await {
                        Ok(()) => {
                            self.figures.points_written.fetch_add(batch.points as u64, Ordering::Relaxed);
                            &self.figures.batches_written
                        }
                        Err(error) => {
                            tracing::warn!(error, addr = %self.options.addr, "points that came by UDP were not written");
                            &self.figures.batches_failed
                        }
                    };
                    counter.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
    }

    async fn write(&self, core: &Rc<DataCore>, batch: &Batch) -> Result<(), String> {
        let database = &self.options.database;
        let is_missing = core.meta().database(database).is_none();
        if is_missing {
            let create = Command::CreateDatabase { name: database.clone(), policy: None, autocreate_policy: true };
            core.change_meta(create).await.map_err(|error| error.to_string())?;
        }
        let target = WriteTarget {
            database: database.clone(),
            retention_policy: self.options.retention_policy.clone(),
            precision: self.options.precision,
            unsigned: false,
            claim: None,
            session: None,
            consistency: Consistency::default(),
            caller: Caller::Anyone,
        };
        for _ in 0..TRIES {
            let request = WriteRequest { target: target.clone(), body: batch.text.clone() };
            match core.write(request).await {
                WriteOutcome::Overloaded { .. } => core.context().sleep(TRY_PAUSE).await,
                outcome => return outcome.into_result(),
            }
        }
        Err("the server is overloaded".to_owned())
    }
}

/// The thread of a listener.
struct Gatherer {
    socket: UdpSocket,
    options: UdpOptions,
    figures: Arc<UdpFigures>,
    batches: SyncSender<Batch>,
}

impl Gatherer {
    fn run(self) {
        let mut datagram = vec![0; DATAGRAM_BYTES_MAX];
        let mut batch = Batch::default();
        let mut due = None;
        loop {
            let left = due.map(|due: Instant| due.saturating_duration_since(Instant::now()));
            // A timeout of zero would be none.
            let wait = left.map(|left| left.max(Duration::from_millis(1)));
            if self.socket.set_read_timeout(wait).is_err() {
                return;
            }
            match self.socket.recv(&mut datagram) {
                Ok(length) => {
                    self.figures.bytes_received.fetch_add(length as u64, Ordering::Relaxed);
                    let points = batch.push(&datagram[..length]);
                    self.figures.points_received.fetch_add(points as u64, Ordering::Relaxed);
                    if batch.points > 0 {
                        due.get_or_insert_with(|| Instant::now() + self.options.batch_timeout);
                    }
                }
                Err(error) if is_timeout(&error) => {}
                Err(_) => {
                    self.figures.read_failures.fetch_add(1, Ordering::Relaxed);
                    std::thread::sleep(TRY_PAUSE);
                }
            }
            let is_due = due.is_some_and(|due| Instant::now() >= due);
            if batch.points >= self.options.batch_points || batch.text.len() >= BATCH_BYTES_MAX || is_due {
                due = None;
                if self.batches.send(std::mem::take(&mut batch)).is_err() {
                    return;
                }
            }
        }
    }
}

fn is_timeout(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{Interrupted, TimedOut, WouldBlock};
    matches!(error.kind(), WouldBlock | TimedOut | Interrupted)
}

impl Batch {
    /// Takes the lines of a datagram; how many there are that are not empty.
    fn push(&mut self, datagram: &[u8]) -> usize {
        let lines = datagram.split(|byte| *byte == b'\n').filter(|line| !line.trim_ascii().is_empty()).count();
        if lines > 0 {
            self.text.extend_from_slice(datagram);
            if datagram.last() != Some(&b'\n') {
                self.text.push(b'\n');
            }
            self.points += lines;
        }
        lines
    }
}

fn set_read_buffer(socket: &UdpSocket, bytes: usize) -> std::io::Result<()> {
    let bytes = libc::c_int::try_from(bytes).map_err(std::io::Error::other)?;
    // SAFETY: the option's value is an int that lives for the call.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_RCVBUF,
            std::ptr::from_ref(&bytes).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    if result == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn datagrams_are_gathered_until_a_batch_is_full_or_due() {
        let options = UdpOptions {
            addr: "127.0.0.1:0".parse().unwrap(),
            database: "d".into(),
            retention_policy: None,
            batch_points: 3,
            batches_pending: 4,
            batch_timeout: Duration::from_millis(50),
            read_buffer_bytes: 1 << 16,
            precision: Precision::Nanosecond,
        };
        let socket = UdpSocket::bind(options.addr).unwrap();
        set_read_buffer(&socket, options.read_buffer_bytes).unwrap();
        let (addr, (sender, batches)) = (socket.local_addr().unwrap(), sync_channel(4));
        let gatherer = Gatherer { socket, options, figures: Arc::default(), batches: sender };
        std::thread::spawn(move || gatherer.run());
        let client = UdpSocket::bind("127.0.0.1:0").unwrap();
        for datagram in ["a v=1\nb v=2", "\n \n", "c v=3\n", "d v=4"] {
            client.send_to(datagram.as_bytes(), addr).unwrap();
        }
        let full = batches.recv_timeout(Duration::from_secs(10)).unwrap();
        assert_eq!((String::from_utf8_lossy(&full.text).as_ref(), full.points), ("a v=1\nb v=2\nc v=3\n", 3));
        let late = batches.recv_timeout(Duration::from_secs(10)).unwrap();
        assert_eq!((String::from_utf8_lossy(&late.text).as_ref(), late.points), ("d v=4\n", 1));
    }
}
