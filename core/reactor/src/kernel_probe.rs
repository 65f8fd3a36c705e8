//! What this kernel can do, asked once at the start.
//!
//! Owns: [`KernelProbe`], plain values for `/debug/vars` and for the messages of a refused start.
//! Knows nothing of what uses the features.

use crate::{options::StartError, syscall};
use io_uring::{IoUring, Probe, opcode};
use std::io;

/// Operations of io_uring that the server uses, by name.
const NEEDED: [(&str, u8); 11] = [
    ("READ", opcode::Read::CODE),
    ("WRITE", opcode::Write::CODE),
    ("FSYNC", opcode::Fsync::CODE),
    ("OPENAT", opcode::OpenAt::CODE),
    ("CLOSE", opcode::Close::CODE),
    ("STATX", opcode::Statx::CODE),
    ("RENAMEAT", opcode::RenameAt::CODE),
    ("UNLINKAT", opcode::UnlinkAt::CODE),
    ("MKDIRAT", opcode::MkDirAt::CODE),
    ("FTRUNCATE", opcode::Ftruncate::CODE),
    ("TIMEOUT", opcode::Timeout::CODE),
];

/// Operations that later work could use; only shown.
const OPTIONAL: [(&str, u8); 5] = [
    ("SEND_ZC", opcode::SendZc::CODE),
    ("SPLICE", opcode::Splice::CODE),
    ("MSG_RING", opcode::MsgRingData::CODE),
    ("FUTEX_WAIT", opcode::FutexWait::CODE),
    ("READ_MULTISHOT", opcode::ReadMulti::CODE),
];

/// The executor's rings are refused below this.
pub(crate) const LOCKED_MEMORY_MIN: u64 = 512 << 10;

/// Features of the running kernel and the data folder.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KernelProbe {
    /// Release string, as `uname -r` says.
    pub release: String,
    /// Needed operations that are absent.
    pub missing_operations: Vec<&'static str>,
    /// Optional operations that are present.
    pub optional_operations: Vec<&'static str>,
    pub single_issuer: bool,
    pub coop_taskrun: bool,
    pub defer_taskrun: bool,
    pub iopoll: bool,
    pub sqpoll: bool,
    /// IORING_FEAT_NODROP: completions are never lost.
    pub no_drop: bool,
    /// IORING_FEAT_EXT_ARG.
    pub ext_arg: bool,
    /// Workers of a ring can be told their CPUs.
    pub worker_affinity: bool,
    /// Soft RLIMIT_MEMLOCK in bytes; `u64::MAX` is unlimited.
    pub locked_memory_bytes: u64,
    /// CPUs that the process may use.
    pub cpus: Vec<usize>,
    /// The data folder takes direct I/O.
    pub direct_io: bool,
    /// Alignment of memory and offsets that direct I/O asks for; 0 when the kernel does not say.
    pub direct_memory_align: u32,
    pub direct_offset_align: u32,
    /// The data folder takes `RWF_DSYNC` writes.
    pub dsync: bool,
    /// A block device of the machine has polling queues.
    pub device_polls: bool,
}

impl KernelProbe {
    /// Asks the kernel. Errors where the server cannot run, each naming the setting to change.
    pub fn ask() -> Result<KernelProbe, StartError> {
        let system = |what| move |source| StartError::System { what, source };
        let locked_memory_bytes = syscall::locked_memory_max().map_err(system("ask for the limit of locked memory"))?;
        if locked_memory_bytes < LOCKED_MEMORY_MIN {
            return Err(StartError::LockedMemory { limit_bytes: locked_memory_bytes, needed_bytes: LOCKED_MEMORY_MIN });
        }
        let ring = IoUring::new(8).map_err(|source| refused(source, locked_memory_bytes))?;
        let mut operations = Probe::new();
        ring.submitter().register_probe(&mut operations).map_err(|source| refused(source, locked_memory_bytes))?;
        let cpus = syscall::allowed_cpus().map_err(system("ask for the allowed CPUs"))?;
        let missing = NEEDED.iter().filter(|(_, code)| !operations.is_supported(*code));
        let optional = OPTIONAL.iter().filter(|(_, code)| operations.is_supported(*code));
        let builds = |set: fn(&mut io_uring::Builder)| {
            let mut builder = IoUring::builder();
            set(&mut builder);
            builder.build(8).is_ok()
        };
        Ok(KernelProbe {
            release: syscall::kernel_release(),
            missing_operations: missing.map(|(name, _)| *name).collect(),
            optional_operations: optional.map(|(name, _)| *name).collect(),
            single_issuer: builds(|builder| _ = builder.setup_single_issuer()),
            coop_taskrun: builds(|builder| _ = builder.setup_coop_taskrun()),
            defer_taskrun: builds(|builder| _ = builder.setup_single_issuer().setup_defer_taskrun()),
            iopoll: builds(|builder| _ = builder.setup_iopoll()),
            sqpoll: builds(|builder| _ = builder.setup_sqpoll(1)),
            no_drop: ring.params().is_feature_nodrop(),
            ext_arg: ring.params().is_feature_ext_arg(),
            worker_affinity: ring.submitter().register_iowq_aff(&syscall::cpu_set(&cpus)).is_ok(),
            locked_memory_bytes,
            cpus,
            device_polls: crate::primer::some_device_polls(),
            ..KernelProbe::default()
        })
    }

    /// Whether the server can run on what was found.
    pub(crate) fn check(&self) -> Result<(), StartError> {
        if self.missing_operations.is_empty() {
            return Ok(());
        }
        Err(StartError::OldKernel { release: self.release.clone(), missing: self.missing_operations.clone() })
    }

    /// Name and value of each field: booleans are 0 or 1, lists are joined by commas.
    pub fn fields(&self) -> Vec<(&'static str, String)> {
        let flag = |value: bool| u8::from(value).to_string();
        let cpus: Vec<String> = self.cpus.iter().map(usize::to_string).collect();
        vec![
            ("release", self.release.clone()),
            ("missing_operations", self.missing_operations.join(",")),
            ("optional_operations", self.optional_operations.join(",")),
            ("single_issuer", flag(self.single_issuer)),
            ("coop_taskrun", flag(self.coop_taskrun)),
            ("defer_taskrun", flag(self.defer_taskrun)),
            ("iopoll", flag(self.iopoll)),
            ("sqpoll", flag(self.sqpoll)),
            ("no_drop", flag(self.no_drop)),
            ("ext_arg", flag(self.ext_arg)),
            ("worker_affinity", flag(self.worker_affinity)),
            ("locked_memory_bytes", self.locked_memory_bytes.to_string()),
            ("cpus", cpus.join(",")),
            ("direct_io", flag(self.direct_io)),
            ("direct_memory_align", self.direct_memory_align.to_string()),
            ("direct_offset_align", self.direct_offset_align.to_string()),
            ("dsync", flag(self.dsync)),
            ("device_polls", flag(self.device_polls)),
        ]
    }
}

fn refused(source: io::Error, locked_memory_bytes: u64) -> StartError {
    match source.raw_os_error() {
        // ENOMEM at ring setup is the locked memory of old kernels, not lack of memory.
        Some(libc::ENOMEM) => {
            StartError::LockedMemory { limit_bytes: locked_memory_bytes, needed_bytes: LOCKED_MEMORY_MIN }
        }
        _ => StartError::NoIoUring { source },
    }
}
