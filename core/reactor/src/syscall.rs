//! The system calls that std does not offer, each behind a safe function.
//!
//! Owns: CPU sets, signal masks, interrupts of a thread, event descriptors, the clocks of other threads, file locks and limits.
//! Invariants: nothing here keeps a raw pointer after it returns; every descriptor made here is close-on-exec.
//! Knows nothing of executors or rings.

use std::{
    ffi::CStr,
    io, mem,
    os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd},
    ptr,
    time::Duration,
};

/// Nobody sends it unasked, and nothing in std or the executor uses it; ignored by default.
const INTERRUPT: libc::c_int = libc::SIGURG;

fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// CPUs that this process may run on, ascending: a container's cpuset counts, not the machine.
pub(crate) fn allowed_cpus() -> io::Result<Vec<usize>> {
    let set = affinity()?;
    // SAFETY: CPU_ISSET only reads the set, for indices below CPU_SETSIZE.
    Ok((0..libc::CPU_SETSIZE as usize).filter(|cpu| unsafe { libc::CPU_ISSET(*cpu, &set) }).collect())
}

/// The affinity mask of the calling thread.
pub(crate) fn affinity() -> io::Result<libc::cpu_set_t> {
    // SAFETY: an all-zero cpu_set_t is the empty set; the kernel writes at most its size.
    unsafe {
        let mut set: libc::cpu_set_t = mem::zeroed();
        check(libc::sched_getaffinity(0, mem::size_of_val(&set), &mut set))?;
        Ok(set)
    }
}

/// A CPU set of the given CPUs.
pub(crate) fn cpu_set(cpus: &[usize]) -> libc::cpu_set_t {
    // SAFETY: an all-zero cpu_set_t is the empty set; CPU_SET writes inside it for indices below CPU_SETSIZE.
    unsafe {
        let mut set: libc::cpu_set_t = mem::zeroed();
        for cpu in cpus.iter().filter(|cpu| **cpu < libc::CPU_SETSIZE as usize) {
            libc::CPU_SET(*cpu, &mut set);
        }
        set
    }
}

/// Bytes of the filesystem that a descriptor is on, and how many of them a process without privileges can still have.
pub(crate) fn space(fd: RawFd) -> io::Result<(u64, u64)> {
    // SAFETY: an all-zero statvfs is one; the kernel writes at most its size.
    let found = unsafe {
        let mut found: libc::statvfs = mem::zeroed();
        check(libc::fstatvfs(fd, &mut found))?;
        found
    };
    Ok((found.f_blocks * found.f_frsize, found.f_bavail * found.f_frsize))
}

fn stop_signals() -> libc::sigset_t {
    // SAFETY: sigemptyset initialises the set before it is read.
    unsafe {
        let mut set: libc::sigset_t = mem::zeroed();
        libc::sigemptyset(&mut set);
        libc::sigaddset(&mut set, libc::SIGTERM);
        libc::sigaddset(&mut set, libc::SIGINT);
        set
    }
}

/// SIGTERM and SIGINT blocked in this thread and in all that it starts, until dropped.
pub(crate) struct BlockedSignals {
    before: libc::sigset_t,
}

pub(crate) fn block_stop_signals() -> io::Result<BlockedSignals> {
    let set = stop_signals();
    // SAFETY: both sets are initialised and live for the call.
    unsafe {
        let mut before: libc::sigset_t = mem::zeroed();
        match libc::pthread_sigmask(libc::SIG_BLOCK, &set, &mut before) {
            0 => Ok(BlockedSignals { before }),
            code => Err(io::Error::from_raw_os_error(code)),
        }
    }
}

impl Drop for BlockedSignals {
    fn drop(&mut self) {
        // SAFETY: `before` is the set that the kernel gave us.
        unsafe {
            libc::pthread_sigmask(libc::SIG_SETMASK, &self.before, ptr::null_mut());
        }
    }
}

/// A descriptor that becomes readable when SIGTERM or SIGINT is pending.
pub(crate) fn stop_signal_fd() -> io::Result<OwnedFd> {
    let set = stop_signals();
    // SAFETY: the set is initialised; the new descriptor is owned by nobody else.
    unsafe {
        let fd = check(libc::signalfd(-1, &set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK))?;
        Ok(OwnedFd::from_raw_fd(fd))
    }
}

/// The next pending stop signal, if any.
pub(crate) fn next_stop_signal(fd: &OwnedFd) -> Option<i32> {
    // SAFETY: the kernel writes whole signalfd_siginfo records into the buffer of that size.
    unsafe {
        let mut info: libc::signalfd_siginfo = mem::zeroed();
        let size = mem::size_of_val(&info);
        let read = libc::read(fd.as_raw_fd(), (&raw mut info).cast(), size);
        (read == size as isize).then_some(info.ssi_signo as i32)
    }
}

/// Ends the process at once, without running destructors: a second signal means that the operator has waited enough.
pub(crate) fn exit_at_once(code: i32) -> ! {
    // SAFETY: _exit takes no pointers and does not return.
    unsafe { libc::_exit(code) }
}

/// A counter descriptor; blocking, as the executor's ring waits for it.
pub(crate) fn event_fd() -> io::Result<OwnedFd> {
    // SAFETY: the new descriptor is owned by nobody else.
    unsafe { Ok(OwnedFd::from_raw_fd(check(libc::eventfd(0, libc::EFD_CLOEXEC))?)) }
}

/// Adds one to an event descriptor. It cannot fail but by overflow, which still leaves it readable.
pub(crate) fn signal_event(fd: BorrowedFd<'_>) {
    let one = 1u64;
    // SAFETY: eight bytes are read from a live u64.
    unsafe {
        libc::write(fd.as_raw_fd(), (&raw const one).cast(), 8);
    }
}

/// Takes the count of an event descriptor that `wait_readable` has named.
pub(crate) fn drain_event(fd: &OwnedFd) {
    let mut count = 0u64;
    // SAFETY: eight bytes are written into a live u64.
    unsafe {
        libc::read(fd.as_raw_fd(), (&raw mut count).cast(), 8);
    }
}

/// Waits until one of two descriptors is readable, or the time is over; says which are.
pub(crate) fn wait_readable(fds: [&OwnedFd; 2], timeout: Duration) -> [bool; 2] {
    let mut polled = fds.map(|fd| libc::pollfd { fd: fd.as_raw_fd(), events: libc::POLLIN, revents: 0 });
    // SAFETY: the array lives for the call and its length is given.
    let count = unsafe { libc::poll(polled.as_mut_ptr(), 2, timeout.as_millis().clamp(1, 60_000) as i32) };
    if count <= 0 {
        return [false, false];
    }
    polled.map(|entry| entry.revents & libc::POLLIN != 0)
}

/// The clock that counts the CPU time of the calling thread, readable from other threads while it lives.
pub(crate) fn own_cpu_clock() -> Option<libc::clockid_t> {
    // SAFETY: the kernel writes one clockid_t.
    unsafe {
        let mut clock: libc::clockid_t = 0;
        (libc::pthread_getcpuclockid(libc::pthread_self(), &mut clock) == 0).then_some(clock)
    }
}

/// Makes [`interrupt`] do nothing but end the system call that a thread waits in. For the process.
pub(crate) fn allow_interrupts() -> io::Result<()> {
    extern "C" fn nothing(_: libc::c_int) {}
    // SAFETY: the handler is async-signal-safe, as it does nothing; without SA_RESTART the interrupted call returns.
    unsafe {
        let mut action: libc::sigaction = mem::zeroed();
        action.sa_sigaction = nothing as extern "C" fn(libc::c_int) as libc::sighandler_t;
        libc::sigemptyset(&mut action.sa_mask);
        check(libc::sigaction(INTERRUPT, &action, ptr::null_mut())).map(|_| ())
    }
}

/// Ends the system call that a thread of this process waits in, if it waits.
pub(crate) fn interrupt(thread: &std::thread::JoinHandle<()>) {
    use std::os::unix::thread::JoinHandleExt;
    // SAFETY: the handle is neither joined nor detached, so the thread's identifier is still its own.
    unsafe {
        libc::pthread_kill(thread.as_pthread_t(), INTERRUPT);
    }
}

/// Nanoseconds of a CPU clock; none when its thread is gone.
pub(crate) fn cpu_clock_ns(clock: libc::clockid_t) -> Option<u64> {
    // SAFETY: the kernel writes one timespec.
    unsafe {
        let mut time: libc::timespec = mem::zeroed();
        (libc::clock_gettime(clock, &mut time) == 0).then_some(time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64)
    }
}

/// Takes the exclusive lock of an open file; false when another open file holds it.
pub(crate) fn lock_exclusively(fd: BorrowedFd<'_>) -> io::Result<bool> {
    // SAFETY: flock takes no pointers.
    match check(unsafe { libc::flock(fd.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) }) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
        Err(error) => Err(error),
    }
}

/// Length of an open file in bytes.
pub(crate) fn file_len(fd: RawFd) -> io::Result<u64> {
    // SAFETY: the kernel writes one stat record.
    unsafe {
        let mut stat: libc::stat = mem::zeroed();
        check(libc::fstat(fd, &mut stat))?;
        Ok(stat.st_size as u64)
    }
}

/// Soft limit of locked memory in bytes; `u64::MAX` is unlimited.
pub(crate) fn locked_memory_max() -> io::Result<u64> {
    // SAFETY: the kernel writes one rlimit record.
    unsafe {
        let mut limit: libc::rlimit = mem::zeroed();
        check(libc::getrlimit(libc::RLIMIT_MEMLOCK, &mut limit))?;
        Ok(limit.rlim_cur)
    }
}

/// Descriptors that the process may have, after its soft limit was raised to the hard one.
pub(crate) fn raise_descriptors_max() -> io::Result<u64> {
    // SAFETY: the kernel reads and writes one rlimit record.
    unsafe {
        let mut limit: libc::rlimit = mem::zeroed();
        check(libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit))?;
        let soft = limit.rlim_cur;
        limit.rlim_cur = limit.rlim_max;
        // Without the right to raise it, what there is must do.
        Ok(if libc::setrlimit(libc::RLIMIT_NOFILE, &limit) == 0 { limit.rlim_max } else { soft })
    }
}

/// Release string of the running kernel.
pub(crate) fn kernel_release() -> String {
    // SAFETY: uname fills nul-terminated strings.
    unsafe {
        let mut name: libc::utsname = mem::zeroed();
        if libc::uname(&mut name) != 0 {
            return String::from("unknown");
        }
        CStr::from_ptr(name.release.as_ptr()).to_string_lossy().into_owned()
    }
}

/// Alignment that direct I/O on an open file asks for: (memory, offset) in bytes; none when the kernel does not say.
pub(crate) fn direct_io_alignment(fd: RawFd) -> Option<(u32, u32)> {
    const STATX_DIOALIGN: u32 = 0x2000;
    // SAFETY: the kernel writes one statx record; the path is an empty nul-terminated string.
    unsafe {
        let mut stat: libc::statx = mem::zeroed();
        let result = libc::statx(fd, c"".as_ptr(), libc::AT_EMPTY_PATH, STATX_DIOALIGN, &mut stat);
        (result == 0 && stat.stx_mask & STATX_DIOALIGN != 0)
            .then_some((stat.stx_dio_mem_align, stat.stx_dio_offset_align))
    }
}

/// Random bytes of the operating system as one number.
pub(crate) fn random_u64() -> io::Result<u64> {
    let mut value = 0u64;
    // SAFETY: at most eight bytes are written into a live u64; short reads do not happen below 256 bytes.
    let read = unsafe { libc::getrandom((&raw mut value).cast(), 8, 0) };
    if read == 8 { Ok(value) } else { Err(io::Error::last_os_error()) }
}

/// Reads the first block of a file into an aligned buffer.
pub(crate) fn read_block(fd: RawFd, buffer: &mut tidemill_disk::AlignedBuf) -> io::Result<()> {
    let bytes = buffer.as_mut();
    // SAFETY: the kernel writes at most the length of the exclusively borrowed bytes.
    let read = unsafe { libc::pread(fd, bytes.as_mut_ptr().cast(), bytes.len(), 0) };
    if read < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Overwrites the first block of a file, durably by `RWF_DSYNC`.
pub(crate) fn write_block_dsync(fd: RawFd, buffer: &tidemill_disk::AlignedBuf) -> io::Result<()> {
    let bytes = buffer.as_ref();
    let vector = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
    // SAFETY: the kernel reads one vector of borrowed bytes.
    let written = unsafe { libc::pwritev2(fd, &vector, 1, 0, libc::RWF_DSYNC) };
    if written < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
