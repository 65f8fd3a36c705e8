//! Answers that come back as mail.
//!
//! Owns: [`Pending`], the table of a core's open questions. A question goes out with a [`Token`]; the answer comes back
//! as a mail with the token and is handed to whoever waits.
//! Invariants: a token is good for one answer; a dropped future frees its slot, and an answer that comes after that
//! (or a second one) finds nobody and is given back. Knows nothing of mail or of what the answers are.

use slab::Slab;
use std::{
    cell::RefCell,
    future::Future,
    mem,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, Waker},
};

/// Names one open question of one core. Crosses cores as a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Token(pub u64);

/// The one who should answer is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the answer was given up: the other side has ended")]
pub struct Abandoned;

#[derive(Debug)]
enum Slot<T> {
    Open(Option<Waker>),
    Answered(T),
    Abandoned,
}

#[derive(Debug)]
struct Table<T> {
    slots: Slab<(u32, Slot<T>)>,
    generation: u32,
}

/// Open questions of one core.
#[derive(Debug)]
pub struct Pending<T>(Rc<RefCell<Table<T>>>);

impl<T> Clone for Pending<T> {
    fn clone(&self) -> Self {
        Pending(self.0.clone())
    }
}

impl<T> Default for Pending<T> {
    fn default() -> Self {
        Pending::new()
    }
}

impl<T> Pending<T> {
    pub fn new() -> Pending<T> {
        Pending(Rc::new(RefCell::new(Table { slots: Slab::new(), generation: 0 })))
    }

    /// Opens a question: the token to send out, and the future of its answer.
    pub fn register(&self) -> (Token, Answer<T>) {
        let mut table = self.0.borrow_mut();
        // The generation tells a new question from an old one in the same slot; it repeats after 2^32 questions, by when
        // an answer to the old one is long gone.
        table.generation = table.generation.wrapping_add(1);
        let generation = table.generation;
        let key = table.slots.insert((generation, Slot::Open(None)));
        let token = Token(u64::from(generation) << 32 | key as u64);
        (token, Answer { table: self.clone(), token })
    }

    /// Hands an answer over; gives it back when nobody waits for it (any more).
    pub fn complete(&self, token: Token, answer: T) -> Result<(), T> {
        self.settle(token, Slot::Answered(answer)).map_err(|slot| match slot {
            Slot::Answered(answer) => answer,
            Slot::Open(_) | Slot::Abandoned => unreachable!("the slot that was passed comes back"),
        })
    }

    /// Ends one question without an answer; false when it was not open.
    pub fn abandon(&self, token: Token) -> bool {
        self.settle(token, Slot::Abandoned).is_ok()
    }

    /// Ends all open questions without an answer: at a stop, or when the peer has ended.
    pub fn abandon_all(&self) {
        let mut wakers = Vec::new();
        for (_, (_, slot)) in self.0.borrow_mut().slots.iter_mut() {
            if let Slot::Open(waker) = slot {
                wakers.extend(waker.take());
                *slot = Slot::Abandoned;
            }
        }
        wakers.into_iter().for_each(Waker::wake);
    }

    /// Questions that wait or whose answer was not yet taken.
    pub fn len(&self) -> usize {
        self.0.borrow().slots.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn settle(&self, token: Token, settled: Slot<T>) -> Result<(), Slot<T>> {
        let mut table = self.0.borrow_mut();
        let waker = match slot_of(&mut table, token) {
            Some(slot @ Slot::Open(_)) => match mem::replace(slot, settled) {
                Slot::Open(waker) => waker,
                Slot::Answered(_) | Slot::Abandoned => None,
            },
            _ => return Err(settled),
        };
        drop(table);
        if let Some(waker) = waker {
            waker.wake();
        }
        Ok(())
    }
}

fn slot_of<T>(table: &mut Table<T>, token: Token) -> Option<&mut Slot<T>> {
    let (generation, key) = ((token.0 >> 32) as u32, (token.0 & 0xffff_ffff) as usize);
    table.slots.get_mut(key).filter(|(owner, _)| *owner == generation).map(|(_, slot)| slot)
}

/// Future of one answer.
#[derive(Debug)]
pub struct Answer<T> {
    table: Pending<T>,
    token: Token,
}

impl<T> Future for Answer<T> {
    type Output = Result<T, Abandoned>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let mut table = self.table.0.borrow_mut();
        // A slot that was taken already answers "abandoned": polling after ready is a mistake of the caller, not a hang.
        let Some(slot) = slot_of(&mut table, self.token) else { return Poll::Ready(Err(Abandoned)) };
        if let Slot::Open(waker) = slot {
            *waker = Some(context.waker().clone());
            return Poll::Pending;
        }
        match table.slots.remove((self.token.0 & 0xffff_ffff) as usize).1 {
            Slot::Answered(answer) => Poll::Ready(Ok(answer)),
            Slot::Open(_) | Slot::Abandoned => Poll::Ready(Err(Abandoned)),
        }
    }
}

impl<T> Drop for Answer<T> {
    fn drop(&mut self) {
        let mut table = self.table.0.borrow_mut();
        let removed = slot_of(&mut table, self.token)
            .is_some()
            .then(|| table.slots.remove((self.token.0 & 0xffff_ffff) as usize));
        // The answer may own anything, even another future of this table: it is dropped after the borrow.
        drop(table);
        drop(removed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_lite::future::{block_on, poll_once};

    #[test]
    fn an_answer_reaches_the_one_who_asked() {
        let pending = Pending::new();
        let (first, first_answer) = pending.register();
        let (second, second_answer) = pending.register();
        assert_eq!(pending.complete(second, "two"), Ok(()));
        assert_eq!(pending.complete(first, "one"), Ok(()));
        assert_eq!(block_on(first_answer), Ok("one"));
        assert_eq!(block_on(second_answer), Ok("two"));
        assert!(pending.is_empty());
    }

    #[test]
    fn a_dropped_question_is_forgotten_and_its_slot_is_not_mistaken() {
        let pending = Pending::new();
        let (gone, answer) = pending.register();
        drop(answer);
        let (next, mut answer) = pending.register();
        assert_eq!(pending.complete(gone, 1), Err(1), "a late answer comes back");
        block_on(async { assert_eq!(poll_once(&mut answer).await, None) });
        assert_eq!(pending.complete(next, 2), Ok(()));
        assert_eq!(pending.complete(next, 3), Err(3), "a token is good for one answer");
        assert_eq!(block_on(answer), Ok(2));
    }

    #[test]
    fn abandoned_questions_end() {
        let pending = Pending::<u8>::new();
        let (token, answer) = pending.register();
        let (_, other) = pending.register();
        assert!(pending.abandon(token));
        assert!(!pending.abandon(token));
        pending.abandon_all();
        assert_eq!(block_on(answer), Err(Abandoned));
        assert_eq!(block_on(other), Err(Abandoned));
        assert!(pending.is_empty());
    }

    #[test]
    fn an_answer_that_owns_a_question_of_the_same_table_can_be_dropped() {
        struct Nested(#[allow(dead_code, reason = "only its drop matters")] Option<Answer<Nested>>);
        let pending = Pending::<Nested>::new();
        let (outer, outer_answer) = pending.register();
        let (_, inner_answer) = pending.register();
        assert!(pending.complete(outer, Nested(Some(inner_answer))).is_ok());
        drop(outer_answer);
        assert!(pending.is_empty());
    }
}
