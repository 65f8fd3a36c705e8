//! Runs tasks one step at a time, in a seeded random order.

use super::Prng;
use std::{
    cell::{Cell, RefCell},
    future::Future,
    pin::Pin,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
};

/// A run that takes more polls than this does not end.
const POLLS_MAX: u64 = 200_000_000;

/// Clones share the tasks.
#[derive(Clone)]
pub struct Executor {
    shared: Rc<Shared>,
}

struct Shared {
    prng: RefCell<Prng>,
    tasks: RefCell<Vec<Slot>>,
    /// Spawned while a task runs; joins `tasks` before the next step.
    spawned: RefCell<Vec<Slot>>,
}

struct Slot {
    future: Option<Pin<Box<dyn Future<Output = ()>>>>,
    ready: Arc<Ready>,
}

struct Ready(AtomicBool);

impl Wake for Ready {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// A spawned task. Dropping it lets the task run on.
pub struct Task<T> {
    output: Rc<RefCell<Option<T>>>,
    done: Rc<Cell<bool>>,
    joined: Rc<crate::Notify>,
}

impl<T> Task<T> {
    pub fn is_done(&self) -> bool {
        self.done.get()
    }

    /// Waits for the end of the task.
    pub async fn join(self) -> T {
        loop {
            let ended = self.joined.notified();
            if let Some(output) = self.output.borrow_mut().take() {
                return output;
            }
            ended.await;
        }
    }
}

impl Executor {
    pub fn new(seed: u64) -> Executor {
        Executor {
            shared: Rc::new(Shared {
                prng: RefCell::new(Prng::new(seed)),
                tasks: RefCell::new(Vec::new()),
                spawned: RefCell::new(Vec::new()),
            }),
        }
    }

    pub fn spawn<T: 'static>(&self, future: impl Future<Output = T> + 'static) -> Task<T> {
        let output = Rc::new(RefCell::new(None));
        let done = Rc::new(Cell::new(false));
        let joined = Rc::new(crate::Notify::new());
        let task = Task { output: output.clone(), done: done.clone(), joined: joined.clone() };
        let future = Box::pin(async move {
            let value = future.await;
            *output.borrow_mut() = Some(value);
            done.set(true);
            joined.notify();
        });
        let ready = Arc::new(Ready(AtomicBool::new(true)));
        self.shared.spawned.borrow_mut().push(Slot { future: Some(future), ready });
        task
    }

    /// Runs all tasks until this future ends. The others stay as they are (as after a kill) and may go on in a later
    /// call.
    ///
    /// # Panics
    /// If nothing can run and the future has not ended: the tasks wait for each other.
    pub fn block_on<T>(&self, future: impl Future<Output = T>) -> T {
        let mut root = std::pin::pin!(future);
        let root_ready = Arc::new(Ready(AtomicBool::new(true)));
        let root_waker = Waker::from(root_ready.clone());
        for _ in 0..POLLS_MAX {
            let ready = self.ready();
            let root_is_ready = root_ready.0.load(Ordering::Relaxed);
            let choices = ready.len() + usize::from(root_is_ready);
            assert!(choices > 0, "every task waits and nothing can wake them");
            let choice = self.shared.prng.borrow_mut().below(choices as u64) as usize;
            if choice == ready.len() {
                root_ready.0.store(false, Ordering::Relaxed);
                if let Poll::Ready(output) = root.as_mut().poll(&mut Context::from_waker(&root_waker)) {
                    return output;
                }
            } else {
                self.step(ready[choice]);
            }
        }
        panic!("the run took more than {POLLS_MAX} polls");
    }

    /// Runs tasks that can run, up to `polls` times; returns how often. For worlds of several executors.
    pub fn run(&self, polls: u64) -> u64 {
        for ran in 0..polls {
            let ready = self.ready();
            if ready.is_empty() {
                return ran;
            }
            let choice = self.shared.prng.borrow_mut().below(ready.len() as u64) as usize;
            self.step(ready[choice]);
        }
        polls
    }

    /// Ends all tasks where they are, as a kill does, and gives back what they hold.
    pub fn kill(&self) {
        // What is dropped may spawn or wake: the lists are not borrowed meanwhile.
        let tasks = std::mem::take(&mut *self.shared.tasks.borrow_mut());
        let spawned = std::mem::take(&mut *self.shared.spawned.borrow_mut());
        drop((tasks, spawned));
    }

    /// Lets any other task run first.
    pub async fn yield_now(&self) {
        yield_now().await;
    }

    /// The tasks that can run, new ones among them.
    fn ready(&self) -> Vec<usize> {
        let mut tasks = self.shared.tasks.borrow_mut();
        tasks.append(&mut self.shared.spawned.borrow_mut());
        (0..tasks.len()).filter(|at| tasks[*at].ready.0.load(Ordering::Relaxed)).collect()
    }

    fn step(&self, at: usize) {
        let (mut future, ready) = {
            let mut tasks = self.shared.tasks.borrow_mut();
            (tasks[at].future.take().expect("a task that is not running"), tasks[at].ready.clone())
        };
        ready.0.store(false, Ordering::Relaxed);
        let waker = Waker::from(ready);
        let ended = future.as_mut().poll(&mut Context::from_waker(&waker)).is_ready();
        let mut tasks = self.shared.tasks.borrow_mut();
        if ended {
            tasks.swap_remove(at);
        } else {
            tasks[at].future = Some(future);
        }
    }
}

/// Runs one future and what it awaits.
pub fn block_on<T>(seed: u64, future: impl Future<Output = T>) -> T {
    Executor::new(seed).block_on(future)
}

/// Pending once.
pub(super) async fn yield_now() {
    let mut yielded = false;
    std::future::poll_fn(|context| {
        if std::mem::replace(&mut yielded, true) {
            return Poll::Ready(());
        }
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trace(seed: u64) -> Vec<u32> {
        let executor = Executor::new(seed);
        let trace = Rc::new(RefCell::new(Vec::new()));
        let tasks: Vec<_> = (0..4)
            .map(|task| {
                let trace = trace.clone();
                executor.spawn(async move {
                    for _ in 0..3 {
                        trace.borrow_mut().push(task);
                        yield_now().await;
                    }
                    task
                })
            })
            .collect();
        executor.block_on(async move {
            for (at, task) in tasks.into_iter().enumerate() {
                assert_eq!(task.join().await, at as u32);
            }
        });
        trace.take()
    }

    #[test]
    fn the_seed_decides_the_order() {
        assert_eq!(trace(1), trace(1));
        assert!((2..20).any(|seed| trace(seed) != trace(1)));
    }

    #[test]
    #[should_panic(expected = "every task waits")]
    fn waiting_for_nothing_is_noticed() {
        block_on(0, std::future::pending::<()>());
    }
}
