//! Calls that run at the same time and are answered in the order in which they began.

use std::{collections::VecDeque, future::Future, future::poll_fn, pin::Pin, task::Context, task::Poll};

/// Calls under way, oldest first. Dropping it gives them up: the disk keeps what they work on until they end.
pub(crate) struct InOrder<T> {
    calls: VecDeque<Call<T>>,
}

enum Call<T> {
    UnderWay(Pin<Box<dyn Future<Output = T>>>),
    Answered(T),
}

impl<T> InOrder<T> {
    pub fn new() -> InOrder<T> {
        InOrder { calls: VecDeque::new() }
    }

    pub fn len(&self) -> usize {
        self.calls.len()
    }

    /// Begins a call: by the end of this it is with the disk, not only from the first wait for its answer on.
    pub async fn begin(&mut self, call: impl Future<Output = T> + 'static) {
        let mut call = Call::UnderWay(Box::pin(call));
        poll_fn(|context| {
            call.poll(context);
            Poll::Ready(())
        })
        .await;
        self.calls.push_back(call);
    }

    /// Waits for the oldest; none without calls.
    pub async fn next(&mut self) -> Option<T> {
        poll_fn(|context| {
            // All of them: one may have more than one step.
            self.calls.iter_mut().for_each(|call| call.poll(context));
            match self.calls.front() {
                Some(Call::UnderWay(_)) => Poll::Pending,
                Some(Call::Answered(_)) | None => Poll::Ready(()),
            }
        })
        .await;
        match self.calls.pop_front()? {
            Call::Answered(answer) => Some(answer),
            Call::UnderWay(_) => unreachable!("the oldest was waited for"),
        }
    }
}

impl<T> Call<T> {
    fn poll(&mut self, context: &mut Context<'_>) {
        if let Call::UnderWay(call) = self
            && let Poll::Ready(answer) = call.as_mut().poll(context)
        {
            *self = Call::Answered(answer);
        }
    }
}
