//! The base of every role that owns files: one pinned executor per core, and what its tasks stand on.
//!
//! Owns: the start and stop of the cores ([`run`]), mail and streams between them, the real disk ([`RingDisk`]), listening
//! sockets, the clock and the seed, and the guard rails against the executor's traps (`kicker`, `primer`, the latency
//! queue of `core_context`, `disk_buf`).
//! Invariants: a value stays on its core unless it crosses by [`Mail`] or a chunk stream, which are bounded and count their
//! waits; what the kernel works on is owned by its operation until the kernel has answered; a failure of one core ends the
//! process in order.
//! Knows nothing of logs, TSM, queries or HTTP.
//!
//! Unsafe code lives in `syscall`, `side_ring`, `side_ops` and, for handing over a descriptor, `listener`.

mod clock;
mod core_context;
mod core_id;
mod disk_buf;
mod disk_file;
mod kernel_probe;
mod kicker;
mod listener;
mod mail;
mod metrics;
mod open_files;
mod options;
mod pending;
mod primer;
mod ring_disk;
mod shutdown;
mod side_ops;
mod side_ring;
mod start;
mod stream;
mod syscall;

pub use clock::{Clock, Seed};
pub use core_context::{CoreContext, Queues, STALL};
pub use core_id::CoreId;
pub use disk_buf::DiskBuf;
pub use disk_file::RingFile;
pub use kernel_probe::KernelProbe;
pub use listener::{CoreListener, Listeners};
pub use mail::{Mail, SendError};
pub use metrics::{CoreMetrics, Counter};
pub use options::{CoreError, ReactorOptions, StartError};
pub use pending::{Abandoned, Answer, Pending, Token};
pub use ring_disk::RingDisk;
pub use shutdown::{Requested, Shutdown};
pub use start::run;
pub use stream::{ChunkConsumer, ChunkConsumerEnd, ChunkProducer, ChunkProducerEnd, StreamClosed, chunk_stream};
