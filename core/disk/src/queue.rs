//! A bounded queue between tasks of one core.

use crate::Notify;
use std::{cell::RefCell, collections::VecDeque};

/// First in, first out, never more than its capacity.
pub struct LocalQueue<T> {
    items_max: usize,
    state: RefCell<State<T>>,
    pushed: Notify,
    popped: Notify,
}

struct State<T> {
    items: VecDeque<T>,
    closed: bool,
}

impl<T> LocalQueue<T> {
    /// # Panics
    /// If `items_max` is zero.
    pub fn new(items_max: usize) -> LocalQueue<T> {
        assert!(items_max > 0, "a queue without room");
        LocalQueue {
            items_max,
            state: RefCell::new(State { items: VecDeque::new(), closed: false }),
            pushed: Notify::new(),
            popped: Notify::new(),
        }
    }

    pub fn len(&self) -> usize {
        self.state.borrow().items.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Gives the item back if the queue is full or closed.
    pub fn try_push(&self, item: T) -> Result<(), T> {
        {
            let mut state = self.state.borrow_mut();
            if state.closed || state.items.len() == self.items_max {
                return Err(item);
            }
            state.items.push_back(item);
        }
        self.pushed.notify();
        Ok(())
    }

    /// Waits for room; gives the item back if the queue is closed.
    pub async fn push(&self, mut item: T) -> Result<(), T> {
        loop {
            let room = self.popped.notified();
            item = match self.try_push(item) {
                Ok(()) => return Ok(()),
                Err(item) if self.state.borrow().closed => return Err(item),
                Err(item) => item,
            };
            room.await;
        }
    }

    pub fn try_pop(&self) -> Option<T> {
        let item = self.state.borrow_mut().items.pop_front()?;
        self.popped.notify();
        Some(item)
    }

    /// The first item, if it is as wanted.
    pub fn try_pop_if(&self, is_wanted: impl FnOnce(&T) -> bool) -> Option<T> {
        let item = self.state.borrow_mut().items.pop_front_if(|item| is_wanted(item))?;
        self.popped.notify();
        Some(item)
    }

    /// Waits for an item; `None` once the queue is closed and empty.
    pub async fn pop(&self) -> Option<T> {
        loop {
            let more = self.pushed.notified();
            if let Some(item) = self.try_pop() {
                return Some(item);
            }
            if self.state.borrow().closed {
                return None;
            }
            more.await;
        }
    }

    /// Nothing goes in any more; what is in comes out.
    pub fn close(&self) {
        self.state.borrow_mut().closed = true;
        self.pushed.notify();
        self.popped.notify();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::Executor;
    use std::rc::Rc;

    #[test]
    fn order_and_bound_hold_under_every_interleaving() {
        for seed in 0..200 {
            let executor = Executor::new(seed);
            let queue = Rc::new(LocalQueue::new(1 + seed as usize % 4));
            let producer = {
                let (queue, executor) = (queue.clone(), executor.clone());
                executor.clone().spawn(async move {
                    for item in 0..100 {
                        queue.push(item).await.expect("nobody closed it");
                        assert!(queue.len() <= 4);
                        if item % 7 == 0 {
                            executor.yield_now().await;
                        }
                    }
                    queue.close();
                })
            };
            let received = executor.block_on(async move {
                let mut received = Vec::new();
                while let Some(item) = queue.pop().await {
                    received.push(item);
                }
                received
            });
            assert!(producer.is_done());
            assert_eq!(received, (0..100).collect::<Vec<_>>());
        }
    }

    #[test]
    fn full_and_closed_give_the_item_back() {
        let queue = LocalQueue::new(1);
        assert_eq!(queue.try_push(1), Ok(()));
        assert_eq!(queue.try_push(2), Err(2));
        queue.close();
        assert_eq!(futures_lite::future::block_on(queue.push(3)), Err(3));
        assert_eq!(queue.try_pop(), Some(1));
        assert_eq!(futures_lite::future::block_on(queue.pop()), None);
    }
}
