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

use crate::{metrics::CoreMetrics, shutdown::Shutdown, syscall};
use std::{
    future::poll_fn,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicI32, AtomicU64, Ordering},
    },
    task::{Poll, Waker},
    time::Duration,
};

/// Time between two looks. It bounds a lost park; 56 runs that hung without kicks did not with this period.
pub(crate) const TICK: Duration = Duration::from_millis(5);
/// A core that looks rightly asleep is kicked every so many ticks all the same (100 ms).
const BACKSTOP_TICKS: u32 = 20;
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
}

impl Watch {
    /// One look at a core; kicks it if it may be lost.
    pub(crate) fn tick(&mut self, heartbeat: &Heartbeat, metrics: &CoreMetrics) {
        if self.wants_kick(heartbeat.observe()) {
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
