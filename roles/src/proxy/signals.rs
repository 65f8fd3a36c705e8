//! SIGTERM and SIGINT, read by the main thread.
//!
//! Invariant: they are blocked before any other thread is started, so that no thread is ended by one.

use std::io;

/// The signals that ask for an end.
pub struct StopSignals(libc::sigset_t);

impl StopSignals {
    /// Blocks them for this thread and for those that it starts.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn block() -> io::Result<StopSignals> {
        // SAFETY: the set is initialised by the first call and lives for all of them.
        unsafe {
            let mut set: libc::sigset_t = std::mem::zeroed();
            libc::sigemptyset(&mut set);
            libc::sigaddset(&mut set, libc::SIGTERM);
            libc::sigaddset(&mut set, libc::SIGINT);
            match libc::pthread_sigmask(libc::SIG_BLOCK, &set, std::ptr::null_mut()) {
                0 => Ok(StopSignals(set)),
                code => Err(io::Error::from_raw_os_error(code)),
            }
        }
    }

    /// Waits for one of them.
    pub fn wait(&self) -> i32 {
        let mut signal = 0;
        // SAFETY: both live for the call.
        while unsafe { libc::sigwait(&self.0, &mut signal) } != 0 {}
        signal
    }
}
