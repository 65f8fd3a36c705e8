//! Giving other tasks of the core a turn.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

/// Ready at the second poll: the executor runs what else is due in between. Needs no runtime, so the simulator and the
/// server's executors alike schedule it.
pub fn breathe() -> impl Future<Output = ()> {
    struct Breath(bool);

    impl Future for Breath {
        type Output = ();

        fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
            if std::mem::replace(&mut self.0, true) {
                return Poll::Ready(());
            }
            cx.waker().wake_by_ref();
            Poll::Pending
        }
    }

    Breath(false)
}
