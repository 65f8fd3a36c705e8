//! Wakes executors that fell asleep with work to do.
//!
//! Owns: one [`Heartbeat`] per core and the rule when the supervisor kicks it.
//!
//! Why: glommio 0.9.0's `run_task_queues` reports "nothing ran" when its preemption timer has fired between arming and
//! the first check, and `run` takes that for "nothing to run" and parks, for ever if no timer or I/O is armed. Latency
//! queues need short preemption timers, which make this likely. A wake from another thread always writes the executor's
//! event descriptor, so a stored waker, woken from time to time, bounds a lost park.
//!
//! Invariants: the waker is stored, never consumed (a channel's waker is gone after its first use and would not help);
//! it is cleared before its executor is gone. A core that sleeps for good reason is left alone but for one kick in
//! [`BACKSTOP_TICKS`] ticks:
//!
//! | since the last tick | thread's CPU clock | last kick | so the core is | kick |
//! |---|---|---|---|---|
//! | it ran nearly all the time | +90 % and more | any | not parked | no |
//! | it ran some | moved | handled, and next to nothing ran after | asleep, and rightly | no |
//! | it ran some | moved | otherwise | perhaps lost | yes |
//! | it did not run | still | handled, settled | asleep, and rightly | no |
//! | it did not run | still | not handled, or not settled | perhaps lost | yes |
//!
//! The very first turn can be lost like any other, and then there is no waker yet: the core sleeps for ever, and the
//! others wait for it in the start. Such a core is interrupted by a signal, which ends its sleep as an event would.

use crate::{metrics::CoreMetrics, shutdown::Shutdown, syscall};
use std::{
    future::poll_fn,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicI32, AtomicU64, Ordering},
    },
    task::{Poll, Waker},
    thread::JoinHandle,
    time::Duration,
};

/// Time between two looks. It bounds a lost park; 56 runs that hung without kicks did not with this period.
pub(crate) const TICK: Duration = Duration::from_millis(5);
/// A core that looks rightly asleep is kicked every so many ticks all the same (100 ms).
const BACKSTOP_TICKS: u32 = 20;
/// A core whose heartbeat has not begun is interrupted every so many ticks (100 ms); a start takes less.
const INTERRUPT_TICKS: u32 = 20;
/// CPU time that a core needs to go back to sleep after a kick; more means that it did other work after it.
const SETTLE_CPU_NS: u64 = 50_000;

/// What a core and the supervisor share. The mutex is taken once per kick, by nobody else.
#[derive(Debug, Default)]
pub(crate) struct Heartbeat {
    waker: Mutex<Option<Waker>>,
    handled: AtomicU64,
    cpu_ns_when_handled: AtomicU64,
    clock: AtomicI32,
}

impl Heartbeat {
    /// The core's side; runs until the executor ends. First thing in the executor.
    pub(crate) async fn beat(self: Arc<Heartbeat>, shutdown: Shutdown) {
        let clock = syscall::own_cpu_clock().unwrap_or(0);
        self.clock.store(clock, Ordering::Relaxed);
        poll_fn(|context| {
            let mut waker = self.waker.lock().unwrap_or_else(PoisonError::into_inner);
            if !waker.as_ref().is_some_and(|waker| waker.will_wake(context.waker())) {
                *waker = Some(context.waker().clone());
            }
            drop(waker);
            shutdown.wake_waiters();
            self.cpu_ns_when_handled.store(syscall::cpu_clock_ns(clock).unwrap_or(0), Ordering::Relaxed);
            self.handled.fetch_add(1, Ordering::Release);
            Poll::<()>::Pending
        })
        .await;
    }

    /// Wakes the core's heartbeat; without effect before it runs and after it ended.
    pub(crate) fn kick(&self) {
        let waker = self.waker.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(waker) = &*waker {
            waker.wake_by_ref();
        }
    }

    /// Called by the core's thread before its executor goes away.
    pub(crate) fn end(&self) {
        self.clock.store(0, Ordering::Relaxed);
        let waker = self.waker.lock().unwrap_or_else(PoisonError::into_inner).take();
        drop(waker);
    }

    /// Whether the executor has had a turn.
    pub(crate) fn has_begun(&self) -> bool {
        self.handled.load(Ordering::Acquire) > 0
    }

    fn observe(&self) -> Observation {
        let handled = self.handled.load(Ordering::Acquire);
        let clock = self.clock.load(Ordering::Relaxed);
        Observation {
            handled,
            cpu_ns: if clock == 0 { None } else { syscall::cpu_clock_ns(clock) },
            cpu_ns_when_handled: self.cpu_ns_when_handled.load(Ordering::Relaxed),
        }
    }
}

#[derive(Clone, Copy, Debug)]
struct Observation {
    handled: u64,
    /// None: not started, or ended.
    cpu_ns: Option<u64>,
    cpu_ns_when_handled: u64,
}

/// The supervisor's memory of one core.
#[derive(Debug, Default)]
pub(crate) struct Watch {
    cpu_ns: u64,
    handled_at_kick: Option<u64>,
    settled: bool,
    ticks_left_alone: u32,
    ticks_before_begin: u32,
}

impl Watch {
    /// One look at a core; wakes it if it may be lost.
    pub(crate) fn tick(&mut self, heartbeat: &Heartbeat, thread: Option<&JoinHandle<()>>, metrics: &CoreMetrics) {
        if !heartbeat.has_begun() {
            self.ticks_before_begin += 1;
            if let Some(thread) = thread
                && self.ticks_before_begin.is_multiple_of(INTERRUPT_TICKS)
            {
                metrics.kicks.add(1);
                syscall::interrupt(thread);
            }
        } else if self.wants_kick(heartbeat.observe()) {
            metrics.kicks.add(1);
            heartbeat.kick();
        }
    }

    fn wants_kick(&mut self, seen: Observation) -> bool {
        let Some(cpu_ns) = seen.cpu_ns else { return false };
        let ran_ns = cpu_ns.saturating_sub(self.cpu_ns);
        self.cpu_ns = cpu_ns;
        if ran_ns > 0 {
            let last_kick_handled = self.handled_at_kick.is_some_and(|handled| seen.handled > handled);
            self.settled = last_kick_handled && cpu_ns.saturating_sub(seen.cpu_ns_when_handled) <= SETTLE_CPU_NS;
            self.handled_at_kick = None;
        }
        let running = ran_ns >= TICK.as_nanos() as u64 / 10 * 9;
        let rests = self.settled || running;
        self.ticks_left_alone = if rests { self.ticks_left_alone + 1 } else { 0 };
        if rests && self.ticks_left_alone < BACKSTOP_TICKS {
            return false;
        }
        self.ticks_left_alone = 0;
        self.handled_at_kick = Some(seen.handled);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shutdown::StopFlag;
    use glommio::{LocalExecutorBuilder, Placement};
    use std::{sync::atomic::AtomicBool, thread};

    fn observed(handled: u64, cpu_us: u64, cpu_us_when_handled: u64) -> Observation {
        Observation { handled, cpu_ns: Some(cpu_us * 1_000), cpu_ns_when_handled: cpu_us_when_handled * 1_000 }
    }

    #[test]
    fn a_core_that_ran_is_kicked_until_it_has_come_to_rest_and_then_left_alone() {
        let mut watch = Watch::default();
        assert!(watch.wants_kick(observed(0, 900, 0)), "it ran and nobody knows how it fell asleep");
        assert!(watch.wants_kick(observed(0, 900, 0)), "the kick was not handled");
        assert!(watch.wants_kick(observed(1, 2_000, 1_000)), "handled, but it did other work after that");
        assert!(!watch.wants_kick(observed(2, 2_110, 2_100)), "handled, and nothing else ran");
        for _ in 0..BACKSTOP_TICKS - 2 {
            assert!(!watch.wants_kick(observed(2, 2_110, 2_100)));
        }
        assert!(watch.wants_kick(observed(2, 2_110, 2_100)), "from time to time all the same");
        assert!(!watch.wants_kick(observed(3, 2_130, 2_120)));
        assert!(watch.wants_kick(observed(3, 2_131, 2_120)), "the least run ends the rest");
    }

    #[test]
    fn a_core_that_runs_all_the_time_or_has_no_thread_is_not_kicked() {
        let mut watch = Watch::default();
        let tick_us = TICK.as_micros() as u64;
        for tick in 1..BACKSTOP_TICKS as u64 {
            assert!(!watch.wants_kick(observed(0, tick * tick_us, 0)));
        }
        assert!(!watch.wants_kick(Observation { handled: 0, cpu_ns: None, cpu_ns_when_handled: 0 }));
    }

    /// An executor that shares its CPU with a thread that never sleeps. So it is descheduled for longer than its preemption
    /// timer again and again, and now and then just between arming the timer and looking at the queues. Its one task only
    /// has to yield many times.
    struct Crowded {
        heartbeat: Arc<Heartbeat>,
        done: Arc<AtomicBool>,
        threads: [thread::JoinHandle<()>; 2],
    }

    fn start_crowded() -> Crowded {
        const YIELDS: usize = 400_000;
        // A tenth of what the cores use: ten times as many moments at which it can go wrong.
        const PREEMPT: Duration = Duration::from_micros(20);
        let (heartbeat, done) = (Arc::new(Heartbeat::default()), Arc::new(AtomicBool::new(false)));
        let (core_heartbeat, core_done, crowd_done) = (heartbeat.clone(), done.clone(), done.clone());
        let cpu = syscall::allowed_cpus().unwrap()[0];
        let core = thread::spawn(move || {
            let executor = LocalExecutorBuilder::new(Placement::Fixed(cpu)).preempt_timer(PREEMPT).make().unwrap();
            executor.run(async {
                let shutdown = Shutdown::new(Arc::new(StopFlag::new(syscall::event_fd().unwrap())));
                let beat = glommio::spawn_local(core_heartbeat.clone().beat(shutdown));
                for _ in 0..YIELDS {
                    glommio::executor().yield_task_queue_now().await;
                }
                core_done.store(true, Ordering::Release);
                beat.cancel().await;
            });
            core_heartbeat.end();
        });
        let crowd = thread::spawn(move || {
            // An executor of its own is only a way to be pinned to the same CPU.
            let executor = LocalExecutorBuilder::new(Placement::Fixed(cpu)).make().unwrap();
            executor.run(async {
                while !crowd_done.load(Ordering::Acquire) {
                    std::hint::spin_loop();
                }
            });
        });
        Crowded { heartbeat, done, threads: [core, crowd] }
    }

    impl Crowded {
        fn is_done(&self) -> bool {
            self.done.load(Ordering::Acquire)
        }

        /// True if it gets done while `help` is called every tick. Bounded; without help it ends as soon as the thread has
        /// used no CPU for a while, which with work to do is the trap.
        fn gets_done(&self, mut help: Option<&mut dyn FnMut()>) -> bool {
            let (mut last_cpu_ns, mut still) = (None, 0);
            for _ in 0..10_000 {
                if self.is_done() || (still == 60 && help.is_none()) {
                    break;
                }
                if let Some(help) = &mut help {
                    help();
                }
                thread::sleep(TICK);
                let cpu_ns = self.heartbeat.observe().cpu_ns;
                still = if cpu_ns.is_some() && cpu_ns == last_cpu_ns { still + 1 } else { 0 };
                last_cpu_ns = cpu_ns;
            }
            self.is_done()
        }
    }

    #[test]
    fn without_kicks_an_executor_sleeps_for_ever_with_work_to_do_and_with_kicks_it_works() {
        for _ in 0..10 {
            let crowded = start_crowded();
            let alone = crowded.gets_done(None);
            // The same executor, with the kicker from now on: the lost task goes on, and so it does every time after that.
            let (mut watch, metrics) = (Watch::default(), CoreMetrics::default());
            let core = &crowded.threads[0];
            let kicked = crowded.gets_done(Some(&mut || watch.tick(&crowded.heartbeat, Some(core), &metrics)));
            assert!(kicked, "not done after {} kicks", metrics.kicks.value());
            for thread in crowded.threads {
                thread.join().unwrap();
            }
            if !alone {
                return;
            }
        }
        panic!("the trap is gone from this executor: the kicker may go, too");
    }

    /// Waits for the first turn of an executor with this timer; returns how often it was interrupted for it.
    fn interrupts_until_begun(preempt: Duration) -> u64 {
        let heartbeat = Arc::new(Heartbeat::default());
        let core_heartbeat = heartbeat.clone();
        let cpu = syscall::allowed_cpus().unwrap()[0];
        let core = thread::spawn(move || {
            let executor = LocalExecutorBuilder::new(Placement::Fixed(cpu)).preempt_timer(preempt).make().unwrap();
            executor.run(async {
                core_heartbeat.handled.fetch_add(1, Ordering::Release);
            });
        });
        thread::sleep(TICK * 4);
        let (mut watch, metrics) = (Watch::default(), CoreMetrics::default());
        for _ in 0..20_000 {
            if heartbeat.has_begun() {
                core.join().unwrap();
                return metrics.kicks.value();
            }
            watch.tick(&heartbeat, Some(&core), &metrics);
            thread::sleep(Duration::from_micros(50));
        }
        panic!("asleep after {} interrupts, timer {preempt:?}", metrics.kicks.value());
    }

    /// The shorter the timer, the more first turns are lost; the shortest ones lose all turns.
    #[test]
    fn an_executor_that_loses_its_first_turn_is_interrupted_until_it_has_one() {
        syscall::allow_interrupts().unwrap();
        for preempt_us in [40, 20, 10, 7, 5, 4, 3] {
            let interrupts: u64 = (0..10).map(|_| interrupts_until_begun(Duration::from_micros(preempt_us))).sum();
            println!("timer {preempt_us} us: {interrupts} interrupts");
            if interrupts > 0 {
                return;
            }
        }
        panic!("no executor lost its first turn: the interrupts may go, too");
    }
}
