//! Small writes of different clients to one target, joined while an earlier one is on its way.
//!
//! Owns: what waits, by target. A write that finds none of its target under way goes at once; those that come meanwhile go
//! together when it has ended, or as soon as they are `flush-size` bytes.
//! Invariants: a write is answered after the load that it went with, so that what follows it on its connection does not
//! overtake it; a client that leaves takes nothing from the others; what is joined has no quote, so that no line reaches
//! from one body into the next.
//! Knows nothing of how a load is sent.

use super::verdict::Verdict;
use bytes::Bytes;
use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    future::poll_fn,
    rc::Rc,
    task::{Poll, Waker},
};

/// The writes of one thread that wait for others.
#[derive(Default)]
pub struct Gather(RefCell<BTreeMap<String, Lane>>);

/// One target.
#[derive(Default)]
struct Lane {
    /// Loads on their way.
    under_way: usize,
    waiting: Option<Rc<Load>>,
}

/// Writes that go together.
#[derive(Default)]
pub struct Load {
    bodies: RefCell<Vec<Bytes>>,
    bytes: Cell<usize>,
    verdict: RefCell<Option<Option<Verdict>>>,
    /// Of the task that sends it, and of those who wait for what came of it.
    wakers: RefCell<Vec<Waker>>,
}

/// A place in a load.
pub struct Joined {
    pub load: Rc<Load>,
    /// The load is new: somebody has to send it.
    pub is_first: bool,
}

/// A load on its way; its target is told when this is dropped.
pub struct UnderWay<'a> {
    gather: &'a Gather,
    target: String,
    /// One body behind the other.
    pub body: Bytes,
}

/// Whether a body may stand before another one.
pub fn is_joinable(body: &[u8]) -> bool {
    memchr::memchr(b'"', body).is_none()
}

impl Gather {
    /// Adds a write to what waits for its target.
    pub fn join(&self, target: &str, body: Bytes) -> Joined {
        let mut lanes = self.0.borrow_mut();
        let lane = match lanes.get_mut(target) {
            Some(lane) => lane,
            None => lanes.entry(target.to_owned()).or_default(),
        };
        let is_first = lane.waiting.is_none();
        let load = lane.waiting.get_or_insert_default().clone();
        load.bytes.set(load.bytes.get() + body.len() + 1);
        load.bodies.borrow_mut().push(body);
        load.wake();
        Joined { load, is_first }
    }

    /// Waits until the load that waits for a target is to go: none is under way, or it is large enough.
    pub async fn depart(&self, target: &str, load: &Rc<Load>, flush_bytes: usize) -> UnderWay<'_> {
        poll_fn(|context| {
            let is_free = self.0.borrow().get(target).is_none_or(|lane| lane.under_way == 0);
            if is_free || load.bytes.get() >= flush_bytes {
                return Poll::Ready(());
            }
            load.wait(context.waker());
            Poll::Pending
        })
        .await;
        if let Some(lane) = self.0.borrow_mut().get_mut(target) {
            lane.waiting = None;
            lane.under_way += 1;
        }
        UnderWay { gather: self, target: target.to_owned(), body: load.body() }
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        let mut lanes = self.gather.0.borrow_mut();
        let Some(lane) = lanes.get_mut(&self.target) else { return };
        lane.under_way -= 1;
        match &lane.waiting {
            Some(load) => load.wake(),
            None if lane.under_way == 0 => drop(lanes.remove(&self.target)),
            None => {}
        }
    }
}

impl Load {
    fn body(&self) -> Bytes {
        let bodies = self.bodies.borrow();
        if let [body] = &bodies[..] {
            return body.clone();
        }
        let mut whole = Vec::with_capacity(self.bytes.get());
        for body in bodies.iter() {
            whole.extend_from_slice(body);
            whole.push(b'\n');
        }
        whole.into()
    }

    /// How many writes went together.
    pub fn count(&self) -> usize {
        self.bodies.borrow().len()
    }

    /// Tells all of them what came of the load; `None`: there was no line in it.
    pub fn settle(&self, verdict: Option<Verdict>) {
        *self.verdict.borrow_mut() = Some(verdict);
        self.wake();
    }

    /// What came of the load.
    pub async fn settled(&self) -> Option<Verdict> {
        poll_fn(|context| match &*self.verdict.borrow() {
            Some(verdict) => Poll::Ready(verdict.clone()),
            None => {
                self.wait(context.waker());
                Poll::Pending
            }
        })
        .await
    }

    fn wait(&self, waker: &Waker) {
        let mut wakers = self.wakers.borrow_mut();
        if !wakers.iter().any(|known| known.will_wake(waker)) {
            wakers.push(waker.clone());
        }
    }

    fn wake(&self) {
        let wakers = std::mem::take(&mut *self.wakers.borrow_mut());
        wakers.into_iter().for_each(Waker::wake);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_lite::future::{block_on, poll_once};

    const STORED: Option<Verdict> = Some(Verdict::Stored { session: None });

    #[test]
    fn writes_go_together_while_one_is_under_way() {
        let gather = Gather::default();
        let first = gather.join("t", "a".into());
        let under_way = block_on(gather.depart("t", &first.load, 100));
        assert!(first.is_first && under_way.body == "a");
        let (second, third) = (gather.join("t", "b".into()), gather.join("t", "c".into()));
        assert!(second.is_first && !third.is_first);
        assert!(block_on(poll_once(gather.depart("t", &second.load, 100))).is_none());
        assert!(gather.join("other", "x".into()).is_first);
        drop(under_way);
        let under_way = block_on(gather.depart("t", &second.load, 100));
        assert_eq!((&under_way.body[..], second.load.count()), (&b"b\nc\n"[..], 2));
        second.load.settle(STORED);
        assert_eq!(block_on(third.load.settled()), STORED);
        drop(under_way);
        assert!(!gather.0.borrow().contains_key("t"), "nothing is kept of a target that is quiet");
    }

    #[test]
    fn what_is_large_enough_does_not_wait() {
        let gather = Gather::default();
        let first = gather.join("t", "a".into());
        let _under_way = block_on(gather.depart("t", &first.load, 100));
        let second = gather.join("t", vec![b'x'; 100].into());
        assert_eq!(block_on(gather.depart("t", &second.load, 100)).body.len(), 100);
        assert!(is_joinable(b"m v=1") && !is_joinable(b"m v=\"open"));
    }
}
