//! What a start is given, and how it can fail.

use crate::core_id::CoreId;
use std::{io, path::PathBuf, time::Duration};

/// Mails per pair of cores. A mail is a batch or a plan, a few KiB: 1 024 of them ride out a stall of some milliseconds at
/// full ingest without holding more memory than a flush does.
const MAIL_CAPACITY: usize = 1_024;
/// Registered memory per core: flush and read buffers in flight; runtime measurements ask for 16 to 64 MiB.
const IO_MEMORY_BYTES: usize = 16 << 20;
/// Cores get this long to drain and flush after the first signal.
const STOP_GRACE: Duration = Duration::from_secs(60);

/// How the cores are started.
#[derive(Clone, Debug)]
pub struct ReactorOptions {
    /// Cores to run: one pinned thread each; at most the CPUs that the process may use.
    pub cores: usize,
    /// Folder of all files; made if it is not there. One process at a time.
    pub data_dir: PathBuf,
    /// Memory per core that is registered with its rings.
    pub io_memory_bytes: usize,
    /// Durable writes by one `RWF_DSYNC` write instead of a write and an fdatasync. Less CPU (one context switch instead
    /// of four) on cores of its own; worse tails where other processes compete for them.
    pub dsync: bool,
    /// Mails that wait per pair of cores.
    pub mail_capacity: usize,
    /// Keep polling this long before a core sleeps. Zero, or about 50 us on dedicated cores: a round trip between idle
    /// cores takes 15 instead of 80 us, for that much CPU per sleep.
    pub spin_before_park: Duration,
    /// Go on with buffered I/O where the data folder's filesystem has no direct I/O. Still durable (fdatasync), but
    /// through the page cache: slower, and its memory is not counted in any budget.
    pub allow_buffered: bool,
    /// Data files that hold a descriptor at a time, per core; the others are opened again when they are read. None: half
    /// of what the process may have, shared by the cores.
    pub open_files_max: Option<usize>,
    /// After a stop is requested, how long the cores may take before `run` gives them up.
    pub stop_grace: Duration,
    pub(crate) guards: Guards,
}

/// The guard rails against the executor's traps. All on; a test of one takes it away and sees the failure.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Guards {
    /// Wakes executors that parked with work to do.
    pub(crate) kicker: bool,
    /// Reads a block of a non-empty file before any other direct open.
    pub(crate) primer: bool,
    /// Runs latency-bound tasks in a queue that preempts the others.
    pub(crate) latency_queues: bool,
    /// Walks into the trap that the primer is against.
    pub(crate) empty_file_first: bool,
    /// As if the filesystem refused direct I/O.
    pub(crate) refuse_direct_io: bool,
}

impl ReactorOptions {
    /// Defaults for all but the number of cores and the data folder.
    pub fn new(cores: usize, data_dir: impl Into<PathBuf>) -> ReactorOptions {
        ReactorOptions {
            cores,
            data_dir: data_dir.into(),
            io_memory_bytes: IO_MEMORY_BYTES,
            dsync: false,
            mail_capacity: MAIL_CAPACITY,
            spin_before_park: Duration::ZERO,
            allow_buffered: false,
            open_files_max: None,
            stop_grace: STOP_GRACE,
            guards: Guards {
                kicker: true,
                primer: true,
                latency_queues: true,
                empty_file_first: false,
                refuse_direct_io: false,
            },
        }
    }
}

/// What a core's main ends with when it fails.
pub type CoreError = Box<dyn std::error::Error + Send + Sync>;

/// The cores could not be started, or did not all end well.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("--cores {asked} is not possible: {reason}")]
    Cores { asked: usize, reason: String },
    #[error("{option} must not be {value}")]
    Option { option: &'static str, value: usize },
    #[error(
        "io_uring is not available ({source}). It needs Linux 5.19 or newer with `sysctl kernel.io_uring_disabled=0`, and a \
         container must not filter the io_uring system calls (with Docker: a seccomp profile that allows io_uring_setup, \
         io_uring_enter and io_uring_register)"
    )]
    NoIoUring { source: io::Error },
    #[error(
        "this kernel ({release}) lacks io_uring operations that are needed: {}. Linux 6.9 or newer has them all",
        missing.join(", ")
    )]
    OldKernel { release: String, missing: Vec<&'static str> },
    #[error(
        "only {limit_bytes} bytes of memory may be locked, {needed_bytes} are needed: raise `ulimit -l` (systemd: \
         LimitMEMLOCK=, Docker: --ulimit memlock=)"
    )]
    LockedMemory { limit_bytes: u64, needed_bytes: u64 },
    #[error("another server (process {holder}) runs on the data folder {path}")]
    DataFolderInUse { path: PathBuf, holder: String },
    #[error("the data folder {path}: {source}")]
    DataFolder { path: PathBuf, source: io::Error },
    #[error(
        "the filesystem of the data folder {path} has no direct I/O (O_DIRECT). Use ext4 or xfs, or allow buffered I/O, \
         which is slower and has worse tails"
    )]
    NoDirectIo { path: PathBuf },
    #[error("durable writes by RWF_DSYNC are not supported on the data folder ({source}); use fdatasync")]
    NoDsync { source: io::Error },
    #[error(
        "{core} writes through the executor's poll ring although no device polls: every write would spin and starve. This \
         is a fault of the start, please report it"
    )]
    PollRing { core: CoreId },
    #[error("{core} could not start: {source}")]
    Core { core: CoreId, source: io::Error },
    #[error("{core} failed: {source}")]
    CoreFailed { core: CoreId, source: CoreError },
    #[error("{core} panicked: {message}")]
    CorePanicked { core: CoreId, message: String },
    #[error("{} cores did not end within the time for a stop: {cores:?}", cores.len())]
    StopTimedOut { cores: Vec<CoreId> },
    #[error("{what}: {source}")]
    System { what: &'static str, source: io::Error },
}
