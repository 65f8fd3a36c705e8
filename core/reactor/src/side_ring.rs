//! The raw ring beside the executor's own.
//!
//! Owns: one `io_uring` per core, the table of operations in flight, and what they point into.
//! Invariants:
//! - What an operation points into (buffer, path, descriptor) is owned by the table until the kernel has answered, also
//!   when the future is dropped: a future that is gone leaves its entry, and the answer frees it.
//! - The operations of a chain go to the kernel in one submission, or their links would be cut.
//! - At most [`IN_FLIGHT_MAX`] answers are outstanding, which the completion queue always holds.
//! - A chain answers once for each operation; a quiet one (`run_quiet`) once altogether, with the first failure or the end.
//! - The ring is dropped only after the last answer: the kernel writes into pages until then.
//!
//! Completions are learned through an event descriptor that the executor reads on its main ring.
//! Knows nothing of files, logs or durability: `side_ops.rs` makes the operations.

use crate::{metrics::CoreMetrics, syscall};
use glommio::io::BufferedFile;
use io_uring::{IoUring, squeue};
use slab::Slab;
use std::{
    any::Any,
    cell::{Cell, RefCell},
    collections::VecDeque,
    future::{Future, poll_fn},
    io,
    marker::PhantomData,
    os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd},
    pin::Pin,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll, Waker},
};

/// Entries of the submission queue; the completion queue has twice as many.
const ENTRIES: u32 = 256;
/// Answers outstanding. Not above the completion queue, so that no completion overflows.
pub(crate) const IN_FLIGHT_MAX: usize = 256;
/// Links of a chain; three bits of the user data tell them apart.
pub(crate) const CHAIN_MAX: usize = 4;

const _: () = assert!(IN_FLIGHT_MAX <= 2 * ENTRIES as usize && CHAIN_MAX <= 8 && CHAIN_MAX <= IN_FLIGHT_MAX);

/// Results of a chain in order; a negative one is an errno.
pub(crate) type Results = [i32; CHAIN_MAX];
/// The result of an operation that gave no answer: in a quiet chain one that succeeded, or one behind a failure.
pub(crate) const NO_ANSWER: i32 = i32::MIN;

struct Group {
    remaining: usize,
    results: Results,
    waker: Option<Waker>,
    /// Owns what the operations point into.
    held: Option<Box<dyn Any>>,
    forgotten: bool,
    /// The first operation makes a descriptor, which nobody owns until the result is taken.
    opens: bool,
}

impl Drop for Group {
    fn drop(&mut self) {
        if self.opens && self.remaining == 0 && self.results[0] >= 0 {
            // SAFETY: the kernel made this descriptor for this operation and its future has not taken it.
            drop(unsafe { OwnedFd::from_raw_fd(self.results[0]) });
        }
    }
}

struct Inner {
    ring: RefCell<IoUring>,
    groups: RefCell<Slab<Group>>,
    in_flight: Cell<usize>,
    waiting: RefCell<VecDeque<Waker>>,
    completions: OwnedFd,
    /// The kernel can leave out the answers of operations that succeed.
    can_be_quiet: bool,
    ended: Cell<bool>,
    metrics: Arc<CoreMetrics>,
}

/// A core's side ring. Clones share it.
#[derive(Clone)]
pub(crate) struct SideRing(Rc<Inner>);

impl SideRing {
    /// Must be called on the core's own thread: the ring accepts submissions from its maker alone.
    pub(crate) fn new(worker_cpus: &[usize], metrics: Arc<CoreMetrics>) -> io::Result<SideRing> {
        let ring = IoUring::builder().setup_single_issuer().setup_coop_taskrun().build(ENTRIES)?;
        // Workers of the ring inherit the pin of the thread and would wait behind the executor for its only CPU; they may
        // run on any CPU of the process. A kernel that refuses this serves us slower, not wrongly.
        if let Err(error) = ring.submitter().register_iowq_aff(&syscall::cpu_set(worker_cpus)) {
            tracing::debug!(%error, "the workers of the side ring stay on the core's CPU");
        }
        let completions = syscall::event_fd()?;
        ring.submitter().register_eventfd(completions.as_raw_fd())?;
        let can_be_quiet = ring.params().is_feature_skip_cqe_on_success();
        Ok(SideRing(Rc::new(Inner {
            ring: RefCell::new(ring),
            groups: RefCell::default(),
            in_flight: Cell::new(0),
            waiting: RefCell::default(),
            completions,
            can_be_quiet,
            ended: Cell::new(false),
            metrics,
        })))
    }

    /// Takes completions in until `end` is called; one task of the core.
    pub(crate) async fn drive(self) -> io::Result<()> {
        let copy = self.0.completions.try_clone()?;
        // SAFETY: the copied descriptor is handed over whole; the file closes it.
        let reader = unsafe { BufferedFile::from_raw_fd(std::os::fd::IntoRawFd::into_raw_fd(copy)) };
        while !self.0.ended.get() {
            reader.read_at(0, 8).await.map_err(io::Error::from)?;
            self.reap();
        }
        reader.close().await.map_err(io::Error::from)
    }

    /// Ends `drive`.
    pub(crate) fn end(&self) {
        self.0.ended.set(true);
        syscall::signal_event(self.0.completions.as_fd());
    }

    /// Answers that are still to come.
    #[cfg(test)]
    pub(crate) fn in_flight(&self) -> usize {
        self.0.in_flight.get()
    }

    /// Waits for a place among the operations in flight. It holds until the caller yields.
    async fn room(&self, operations: usize) {
        let mut waited = false;
        poll_fn(|context| {
            if self.0.in_flight.get() + operations <= IN_FLIGHT_MAX {
                return Poll::Ready(());
            }
            if !waited {
                waited = true;
                self.0.metrics.side_ring_waits.add(1);
            }
            self.0.waiting.borrow_mut().push_back(context.waker().clone());
            Poll::Pending
        })
        .await;
    }

    /// Runs a chain of operations, each linked to the one before by the flags it carries; gives back the results and what
    /// was held.
    ///
    /// # Safety
    /// Everything that the entries point into is owned by `held`, at addresses that do not change when `held` is moved,
    /// and is neither read (if the kernel writes it) nor written by anyone else until `held` comes back or is dropped.
    pub(crate) async unsafe fn run<H: 'static>(&self, entries: impl AsRef<[squeue::Entry]>, held: H) -> (Results, H) {
        let entries = entries.as_ref();
        self.room(entries.len()).await;
        // SAFETY: passed on.
        unsafe { self.start(entries, held, entries.len(), false) }.await
    }

    /// As `run`, with one answer for the whole chain where the kernel can do that, so that the core wakes once: the result
    /// of the last operation, or of the first that failed; all others are [`NO_ANSWER`].
    ///
    /// # Safety
    /// As `run`.
    pub(crate) async unsafe fn run_quiet<H: 'static, const LINKS: usize>(
        &self,
        mut entries: [squeue::Entry; LINKS],
        held: H,
    ) -> (Results, H) {
        self.room(LINKS).await;
        let mut answers = LINKS;
        if self.0.can_be_quiet {
            answers = 1;
            // An operation with this flag that fails does answer, and those that are cancelled for it do not (IOSQE_CQE_SKIP
            // in io_uring_enter(2)).
            for entry in entries.iter_mut().rev().skip(1) {
                *entry = entry.clone().flags(squeue::Flags::SKIP_SUCCESS);
            }
        }
        // SAFETY: passed on.
        unsafe { self.start(&entries, held, answers, false) }.await
    }

    /// Runs one operation that makes a descriptor; a dropped future closes it.
    ///
    /// # Safety
    /// As `run`.
    pub(crate) async unsafe fn run_open<H: 'static>(&self, entry: squeue::Entry, held: H) -> io::Result<OwnedFd> {
        self.room(1).await;
        // SAFETY: passed on.
        let (results, _) = unsafe { self.start(&[entry], held, 1, true) }.await;
        if results[0] < 0 {
            return Err(io::Error::from_raw_os_error(-results[0]));
        }
        // SAFETY: the kernel made this descriptor for this operation; taking the result has passed it on.
        Ok(unsafe { OwnedFd::from_raw_fd(results[0]) })
    }

    /// # Safety
    /// As `run`.
    unsafe fn start<H: 'static>(
        &self,
        entries: &[squeue::Entry],
        held: H,
        answers: usize,
        opens: bool,
    ) -> Operation<H> {
        assert!(!entries.is_empty() && entries.len() <= CHAIN_MAX, "a chain of {} operations", entries.len());
        let key = self.0.groups.borrow_mut().insert(Group {
            remaining: answers,
            results: [NO_ANSWER; CHAIN_MAX],
            waker: None,
            held: Some(Box::new(held)),
            forgotten: false,
            opens,
        });
        self.0.in_flight.set(self.0.in_flight.get() + answers);
        self.0.metrics.side_ring_ops.add(entries.len() as u64);
        {
            let mut ring = self.0.ring.borrow_mut();
            for (link, entry) in entries.iter().enumerate() {
                let entry = entry.clone().user_data((key << 3 | link) as u64);
                // SAFETY: the table owns what the entry points into until its completion (see `run`).
                unsafe { ring.submission().push(&entry) }.expect("each submission empties the queue");
            }
            submit(&ring);
        }
        // Operations that the kernel could do at once are complete already; no need to wait for the event.
        self.reap();
        Operation { ring: self.clone(), key, taken: false, held: PhantomData }
    }

    fn reap(&self) {
        let mut done = Vec::new();
        {
            let mut ring = self.0.ring.borrow_mut();
            let mut groups = self.0.groups.borrow_mut();
            for completion in ring.completion() {
                let (key, link) = ((completion.user_data() >> 3) as usize, (completion.user_data() & 7) as usize);
                let group = groups.get_mut(key).expect("a group lives until its last completion");
                group.results[link] = completion.result();
                group.remaining -= 1;
                self.0.in_flight.set(self.0.in_flight.get() - 1);
                if group.remaining == 0 {
                    if group.forgotten {
                        done.push((None, Some(groups.remove(key))));
                    } else {
                        done.push((group.waker.take(), None));
                    }
                }
            }
        }
        // Wakers and the things held run foreign code when woken or dropped, so this comes after the borrows.
        for (waker, forgotten) in done {
            drop(forgotten);
            if let Some(waker) = waker {
                waker.wake();
            }
        }
        if self.0.in_flight.get() < IN_FLIGHT_MAX {
            let waiting = std::mem::take(&mut *self.0.waiting.borrow_mut());
            waiting.into_iter().for_each(Waker::wake);
        }
    }
}

/// # Panics
/// If the kernel refuses the submission for good: the ring is unusable and the core with it.
fn submit(ring: &IoUring) {
    const ATTEMPTS_MAX: usize = 1_000;
    for _ in 0..ATTEMPTS_MAX {
        match ring.submit() {
            Ok(_) => return,
            // Interrupted, or short of memory for a moment: the entries are still queued.
            Err(error) if matches!(error.raw_os_error(), Some(libc::EINTR | libc::EAGAIN | libc::EBUSY)) => {
                std::thread::yield_now();
            }
            Err(error) => panic!("the side ring refused a submission: {error}"),
        }
    }
    panic!("the side ring refused {ATTEMPTS_MAX} submissions in a row");
}

/// A chain in flight.
struct Operation<H> {
    ring: SideRing,
    key: usize,
    taken: bool,
    held: PhantomData<H>,
}

impl<H: 'static> Future for Operation<H> {
    type Output = (Results, H);

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let inner = self.ring.0.clone();
        let mut groups = inner.groups.borrow_mut();
        let group = &mut groups[self.key];
        if group.remaining > 0 {
            group.waker = Some(context.waker().clone());
            return Poll::Pending;
        }
        let mut group = groups.remove(self.key);
        drop(groups);
        self.taken = true;
        group.opens = false;
        let held = group.held.take().expect("held until taken").downcast().expect("made with this type");
        Poll::Ready((group.results, *held))
    }
}

impl<H> Unpin for Operation<H> {}

impl<H> Drop for Operation<H> {
    fn drop(&mut self) {
        if self.taken {
            return;
        }
        let mut groups = self.ring.0.groups.borrow_mut();
        let group = &mut groups[self.key];
        if group.remaining == 0 {
            let group = groups.remove(self.key);
            drop(groups);
            drop(group);
        } else {
            group.forgotten = true;
            group.waker = None;
            self.ring.0.metrics.side_ring_forgotten.add(1);
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        let ring = self.ring.get_mut();
        let groups = self.groups.get_mut();
        let mut remaining = self.in_flight.get();
        while remaining > 0 {
            if let Err(error) = ring.submit_and_wait(1)
                && error.kind() != io::ErrorKind::Interrupted
            {
                // The kernel may still write into what is held: it is given up, not freed.
                tracing::error!(%error, "the side ring could not be drained");
                std::mem::forget(std::mem::take(groups));
                return;
            }
            remaining = remaining.saturating_sub(ring.completion().count());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use glommio::{LocalExecutorBuilder, Placement};
    use io_uring::{opcode, types};

    fn on_executor<F: Future<Output = ()>>(test: impl FnOnce(SideRing, Arc<CoreMetrics>) -> F) {
        let executor = LocalExecutorBuilder::new(Placement::Unbound).io_memory(64 << 10).make().unwrap();
        executor.run(async {
            let metrics = Arc::new(CoreMetrics::default());
            let ring = SideRing::new(&syscall::allowed_cpus().unwrap(), metrics.clone()).unwrap();
            let driver = ring.clone();
            let drive = glommio::spawn_local(async move { driver.drive().await });
            test(ring.clone(), metrics).await;
            ring.end();
            drive.await.unwrap();
        });
    }

    /// A pipe's reading end and writing end: a read that stays in flight for as long as the test wants.
    fn pipe() -> (io::PipeReader, io::PipeWriter) {
        io::pipe().unwrap()
    }

    struct Tracked(Vec<u8>, Rc<Cell<bool>>);

    impl Drop for Tracked {
        fn drop(&mut self) {
            self.1.set(true);
        }
    }

    #[test]
    fn a_dropped_future_keeps_its_buffer_until_the_kernel_is_done() {
        on_executor(|ring, metrics| async move {
            let (reader, mut writer) = pipe();
            let freed = Rc::new(Cell::new(false));
            let mut held = (Tracked(vec![0; 64], freed.clone()), reader);
            let entry = opcode::Read::new(types::Fd(held.1.as_raw_fd()), held.0.0.as_mut_ptr(), 64).build();
            // SAFETY: buffer and pipe are held.
            let mut read = Box::pin(unsafe { ring.run([entry], held) });
            assert!(futures_lite::future::poll_once(&mut read).await.is_none());
            drop(read);
            assert!(!freed.get(), "the kernel still writes into it");
            assert_eq!((ring.in_flight(), metrics.side_ring_forgotten.value()), (1, 1));
            io::Write::write_all(&mut writer, b"late").unwrap();
            while ring.in_flight() > 0 {
                glommio::timer::sleep(std::time::Duration::from_millis(1)).await;
            }
            assert!(freed.get(), "the answer frees it");
        });
    }

    #[test]
    fn a_ring_that_ends_waits_for_its_operations() {
        let freed = Rc::new(Cell::new(false));
        let seen = freed.clone();
        let (reader, writer) = pipe();
        let late = std::thread::spawn(move || {
            std::thread::sleep(std::time::Duration::from_millis(20));
            let mut writer = writer;
            io::Write::write_all(&mut writer, b"late").unwrap();
        });
        on_executor(|ring, _| async move {
            let mut held = (Tracked(vec![0; 64], seen), reader);
            let entry = opcode::Read::new(types::Fd(held.1.as_raw_fd()), held.0.0.as_mut_ptr(), 64).build();
            // SAFETY: buffer and pipe are held.
            let mut read = Box::pin(unsafe { ring.run([entry], held) });
            assert!(futures_lite::future::poll_once(&mut read).await.is_none());
        });
        late.join().unwrap();
        assert!(freed.get());
    }

    #[test]
    fn a_dropped_open_closes_what_it_opened() {
        on_executor(|ring, _| async move {
            let folder = Rc::new(OwnedFd::from(std::fs::File::open("/").unwrap()));
            let open_files = || std::fs::read_dir("/proc/self/fd").unwrap().count();
            // Other tests open files, too, so the count is taken over many opens.
            let before = open_files();
            for _ in 0..500 {
                let mut open = Box::pin(ring.open_at(&folder, c"proc/self/maps".into(), libc::O_RDONLY));
                let _ = futures_lite::future::poll_once(&mut open).await;
                drop(open);
            }
            while ring.in_flight() > 0 {
                glommio::timer::sleep(std::time::Duration::from_millis(1)).await;
            }
            assert!(open_files() < before + 250);
        });
    }

    #[test]
    fn more_operations_than_places_wait_their_turn() {
        on_executor(|ring, metrics| async move {
            let tasks: Vec<_> = (0..3 * IN_FLIGHT_MAX)
                .map(|_| {
                    let ring = ring.clone();
                    glommio::spawn_local(async move {
                        let pause = Box::new(types::Timespec::new().nsec(2_000_000));
                        let entry = opcode::Timeout::new(&*pause).build();
                        // SAFETY: the time is held, boxed.
                        let (results, _) = unsafe { ring.run([entry], pause) }.await;
                        assert_eq!(results[0], -libc::ETIME);
                        assert!(ring.in_flight() <= IN_FLIGHT_MAX);
                    })
                })
                .collect();
            for task in tasks {
                task.await;
            }
            assert!(metrics.side_ring_waits.value() > 0);
            assert_eq!(metrics.side_ring_ops.value(), 3 * IN_FLIGHT_MAX as u64);
        });
    }

    #[test]
    fn a_quiet_chain_answers_once_with_its_end_or_its_first_failure() {
        on_executor(|ring, _| async move {
            let nop = || opcode::Nop::new().build().flags(squeue::Flags::IO_LINK);
            let failing = || opcode::Fsync::new(types::Fd(-1)).build();
            let quiet = ring.0.can_be_quiet;
            let (done, cancelled) = if quiet { (NO_ANSWER, NO_ANSWER) } else { (0, -libc::ECANCELED) };
            // Many times over: an answer too many would go to a chain that took the place of this one.
            for _ in 0..2 * IN_FLIGHT_MAX {
                // SAFETY: the entries point at nothing.
                let (results, ()) = unsafe { ring.run_quiet([nop(), nop(), opcode::Nop::new().build()], ()) }.await;
                assert_eq!(results[..3], [done, done, 0]);
                let broken = [nop(), failing().flags(squeue::Flags::IO_LINK), nop(), opcode::Nop::new().build()];
                // SAFETY: as above.
                let (results, ()) = unsafe { ring.run_quiet(broken, ()) }.await;
                assert_eq!(results[..4], [done, -libc::EBADF, cancelled, cancelled]);
                // SAFETY: as above.
                let (results, ()) = unsafe { ring.run_quiet([nop(), failing()], ()) }.await;
                assert_eq!(results[..2], [done, -libc::EBADF]);
                assert_eq!(ring.in_flight(), 0);
            }
        });
    }

    #[test]
    fn a_failed_link_cancels_the_rest_of_its_chain() {
        on_executor(|ring, _| async move {
            let entries = [
                opcode::Nop::new().build().flags(squeue::Flags::IO_LINK),
                opcode::Fsync::new(types::Fd(-1)).build().flags(squeue::Flags::IO_LINK),
                opcode::Nop::new().build(),
            ];
            // SAFETY: the entries point at nothing.
            let (results, ()) = unsafe { ring.run(entries, ()) }.await;
            assert_eq!(results[..3], [0, -libc::EBADF, -libc::ECANCELED]);
        });
    }
}
