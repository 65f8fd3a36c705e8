//! What a core's main is given.
//!
//! Owns: [`CoreContext`], the task classes and the stall count. Invariants: latency-bound work runs in a queue that
//! preempts the others within [`LATENCY`]; loops of the other classes must poll `yield_now_if_needed` at least every 50 us
//! or so of work, or nothing can preempt them; a poll longer than [`STALL`] is counted. Polls of the latency queue are
//! timed by the clock on the wall, because the thread's own clock costs two system calls, which short tasks would feel;
//! those of the others by the thread's own, so that a busy machine is not taken for a long task.
//! Knows nothing of what the tasks do.

use crate::{
    clock::{Clock, Seed},
    core_id::CoreId,
    kernel_probe::KernelProbe,
    mail::Mail,
    metrics::CoreMetrics,
    ring_disk::RingDisk,
    shutdown::Shutdown,
    syscall,
};
use glommio::{Latency, Shares, Task, TaskQueueHandle};
use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, Instant},
};

/// Preemption goal of the latency queue. Measured beside a CPU-bound loop: cross-core round trips of 0.44 ms at 200 us,
/// 2 ms at 1 ms, 200 ms with the executor's defaults.
pub(crate) const LATENCY: Duration = Duration::from_micros(200);
/// A single poll that takes longer holds up everything else on the core.
pub const STALL: Duration = Duration::from_millis(2);

/// The three classes of tasks of a core.
#[derive(Clone, Copy, Debug)]
pub struct Queues {
    /// Ingest, log, raft, HTTP: short tasks that somebody waits for.
    pub latency: TaskQueueHandle,
    /// Running queries: may take long, must yield.
    pub query: TaskQueueHandle,
    /// Flush, copies between levels, shipping: when there is nothing better to do.
    pub background: TaskQueueHandle,
}

impl Queues {
    /// On the executor's own thread, before anything else is spawned.
    pub(crate) fn make(latency_preempts: bool) -> Queues {
        let executor = glommio::executor();
        let goal = if latency_preempts { Latency::Matters(LATENCY) } else { Latency::NotImportant };
        Queues {
            latency: executor.create_task_queue(Shares::Static(1_000), goal, "latency"),
            query: executor.create_task_queue(Shares::Static(400), Latency::NotImportant, "query"),
            background: executor.create_task_queue(Shares::Static(100), Latency::NotImportant, "background"),
        }
    }
}

/// One core of the process: everything that its tasks need and that is not theirs. Clones are cheap and stay on the core.
pub struct CoreContext<M: Send + 'static> {
    pub core: CoreId,
    pub cores: usize,
    pub mail: Mail<M>,
    pub disk: RingDisk,
    pub queues: Queues,
    pub shutdown: Shutdown,
    pub clock: Clock,
    pub seed: Seed,
    /// What this core counts.
    pub metrics: Arc<CoreMetrics>,
    /// What all cores count, by core.
    pub all_metrics: Arc<[Arc<CoreMetrics>]>,
    /// What this kernel can do, as seen at the start.
    pub kernel: Arc<KernelProbe>,
}

impl<M: Send + 'static> Clone for CoreContext<M> {
    fn clone(&self) -> Self {
        CoreContext {
            core: self.core,
            cores: self.cores,
            mail: self.mail.clone(),
            disk: self.disk.clone(),
            queues: self.queues,
            shutdown: self.shutdown.clone(),
            clock: self.clock.clone(),
            seed: self.seed.clone(),
            metrics: self.metrics.clone(),
            all_metrics: self.all_metrics.clone(),
            kernel: self.kernel.clone(),
        }
    }
}

impl<M: Send + 'static> CoreContext<M> {
    /// Runs a task in one of the core's queues, with its stalls counted. Dropping the handle cancels it; `detach` lets it
    /// go on. A panic in it ends the core, and the process with it.
    pub fn spawn<F>(&self, queue: TaskQueueHandle, name: &'static str, future: F) -> Task<F::Output>
    where
        F: Future + 'static,
        F::Output: 'static,
    {
        let class = match queue {
            queue if queue == self.queues.query => TaskClass::Query,
            queue if queue == self.queues.background => TaskClass::Background,
            _ => TaskClass::Latency,
        };
        let watched = watch_stalls(name, class, self.metrics.clone(), future);
        glommio::spawn_local_into(watched, queue).expect("the queues of a core live as long as its executor")
    }

    /// Sleeps on the executor's timer: about 50 us late.
    pub async fn sleep(&self, duration: Duration) {
        glommio::timer::sleep(duration).await;
    }

    /// Runs a slow function, such as the hash of a password, on the thread that a core keeps for that: one at a time,
    /// in the order of the calls.
    pub async fn offload<T: Send + 'static>(&self, slow: impl FnOnce() -> T + Send + 'static) -> T {
        glommio::executor().spawn_blocking(slow).await
    }

    /// Lets others run if it is their turn; nearly free if not.
    pub async fn yield_now_if_needed(&self) {
        glommio::executor().yield_if_needed().await;
    }
}

/// The queue that a task is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TaskClass {
    Latency,
    Query,
    Background,
}

/// Counts the polls of a future that hold the core for longer than [`STALL`].
pub(crate) fn watch_stalls<F: Future>(
    name: &'static str,
    class: TaskClass,
    metrics: Arc<CoreMetrics>,
    future: F,
) -> impl Future<Output = F::Output> {
    let mut future = Box::pin(future);
    WatchStalls { name, class, metrics, poll: move |context: &mut Context<'_>| future.as_mut().poll(context) }
}

struct WatchStalls<P> {
    name: &'static str,
    class: TaskClass,
    metrics: Arc<CoreMetrics>,
    poll: P,
}

/// When a poll began.
enum PollStart {
    Wall(Instant),
    Cpu(u64),
}

impl PollStart {
    fn now(class: TaskClass) -> PollStart {
        match class {
            TaskClass::Latency => PollStart::Wall(Instant::now()),
            TaskClass::Query | TaskClass::Background => PollStart::Cpu(own_cpu_ns()),
        }
    }

    fn elapsed(&self) -> Duration {
        match self {
            PollStart::Wall(start) => start.elapsed(),
            PollStart::Cpu(start_ns) => Duration::from_nanos(own_cpu_ns().saturating_sub(*start_ns)),
        }
    }
}

fn own_cpu_ns() -> u64 {
    syscall::cpu_clock_ns(libc::CLOCK_THREAD_CPUTIME_ID).unwrap_or(0)
}

impl<P> WatchStalls<P> {
    fn note(&self, held: Duration) {
        let (metrics, ns) = (&self.metrics, held.as_nanos() as u64);
        let (max, long, longer) = match self.class {
            TaskClass::Latency => (&metrics.latency_poll_ns_max, &metrics.latency_polls_over_1ms, None),
            TaskClass::Query => (&metrics.query_poll_ns_max, &metrics.query_polls_over_1ms, None),
            TaskClass::Background => {
                let longer = Some(&metrics.background_polls_over_4ms);
                (&metrics.background_poll_ns_max, &metrics.background_polls_over_1ms, longer)
            }
        };
        max.raise_to(ns);
        long.add(u64::from(held > Duration::from_millis(1)));
        if let Some(longer) = longer {
            longer.add(u64::from(held > Duration::from_millis(4)));
        }
        if held > STALL {
            metrics.stalls.add(1);
            metrics.stall_ns_max.raise_to(ns);
            tracing::debug!(task = self.name, held_us = held.as_micros() as u64, "a task held its core");
        }
    }
}

impl<P: Unpin, T> Future for WatchStalls<P>
where
    P: FnMut(&mut Context<'_>) -> Poll<T>,
{
    type Output = T;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<T> {
        let this = self.get_mut();
        let start = PollStart::now(this.class);
        let polled = (this.poll)(context);
        this.note(start.elapsed());
        polled
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_lite::future::{block_on, yield_now};

    /// How many 50-us pieces of bulk work a core does between two answers to another thread's question (the median of a
    /// few): a count, not a time, so a slow machine does not change it much.
    fn bulk_between_answers(latency_queues: bool) -> u64 {
        const QUESTIONS: usize = 15;
        const PIECES_MAX: u64 = 200_000;
        let folder = tempfile::tempdir().unwrap();
        let mut options = crate::ReactorOptions::new(1, folder.path());
        options.io_memory_bytes = 1 << 20;
        options.guards.latency_queues = latency_queues;
        let (answer, answers) = std::sync::mpsc::channel();
        let running = crate::run(options, move |context: CoreContext<()>| {
            let answer = answer.clone();
            async move {
                let pieces = std::rc::Rc::new(std::cell::Cell::new(0u64));
                let counted = pieces.clone();
                let yielding = context.clone();
                let bulk = context.spawn(context.queues.background, "bulk", async move {
                    while counted.get() < PIECES_MAX {
                        let start = Instant::now();
                        while start.elapsed() < Duration::from_micros(50) {
                            std::hint::spin_loop();
                        }
                        counted.set(counted.get() + 1);
                        yielding.yield_now_if_needed().await;
                    }
                });
                for _ in 0..QUESTIONS {
                    let asked = pieces.get();
                    ask().await;
                    answer.send(pieces.get() - asked).unwrap();
                }
                bulk.cancel().await;
                Ok(())
            }
        });
        running.unwrap();
        let mut counts: Vec<u64> = answers.iter().collect();
        counts.sort_unstable();
        counts[counts.len() / 2]
    }

    /// Woken by another thread, as mail would.
    async fn ask() {
        let (waker_out, waker_in) = std::sync::mpsc::channel::<std::task::Waker>();
        let woken = Arc::new(std::sync::atomic::AtomicBool::new(false));
        let flag = woken.clone();
        let thread = std::thread::spawn(move || {
            if let Ok(waker) = waker_in.recv() {
                flag.store(true, std::sync::atomic::Ordering::Release);
                waker.wake();
            }
        });
        let mut sent = false;
        std::future::poll_fn(|context| {
            if woken.load(std::sync::atomic::Ordering::Acquire) {
                return Poll::Ready(());
            }
            if !sent {
                sent = true;
                waker_out.send(context.waker().clone()).unwrap();
            }
            Poll::Pending
        })
        .await;
        thread.join().unwrap();
    }

    #[test]
    fn latency_queues_answer_beside_bulk_work_and_defaults_do_not() {
        let (guarded, unguarded) = (bulk_between_answers(true), bulk_between_answers(false));
        assert!(
            guarded * 4 < unguarded,
            "{guarded} pieces of bulk work between answers with the guard, {unguarded} without"
        );
    }

    #[test]
    fn a_task_that_holds_the_core_is_counted_once_per_poll() {
        for class in [TaskClass::Latency, TaskClass::Query, TaskClass::Background] {
            holds_twice(class);
        }
    }

    fn holds_twice(class: TaskClass) {
        let metrics = Arc::new(CoreMetrics::default());
        let hold = || {
            let start = PollStart::now(class);
            while start.elapsed() <= STALL {
                std::hint::spin_loop();
            }
        };
        let task = watch_stalls("holds twice", class, metrics.clone(), async {
            hold();
            yield_now().await;
            hold();
        });
        block_on(task);
        assert_eq!(metrics.stalls.value(), 2);
        assert!(metrics.stall_ns_max.value() > STALL.as_nanos() as u64);
    }
}
