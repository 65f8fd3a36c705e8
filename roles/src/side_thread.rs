//! Threads beside the cores, for work that would hold up a core.
//!
//! Invariant: none of them takes a signal. They are older than the cores, which block the signals that stop the server
//! and read them: one that such a thread took would end the process at once.

use std::{io, thread};

/// Runs work on a thread of its own, which nobody joins.
///
/// # Errors
/// There is no thread to be had.
pub fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> io::Result<()> {
    let guarded = move || {
        block_signals();
        work();
    };
    thread::Builder::new().name(name.to_owned()).spawn(guarded).map(drop)
}

fn block_signals() {
    // SAFETY: the set is initialised and lives for the calls.
    unsafe {
        let mut all: libc::sigset_t = std::mem::zeroed();
        libc::sigfillset(&mut all);
        libc::pthread_sigmask(libc::SIG_BLOCK, &all, std::ptr::null_mut());
    }
}
