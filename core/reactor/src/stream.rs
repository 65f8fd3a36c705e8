//! Streams of chunks from one core to another, with a window.
//!
//! Owns: [`chunk_stream`]: a producer's end and a consumer's end, both `Send`, so that a mail carries one of them to the
//! core that works. At most `window` chunks are in flight; the consumer's pace is the producer's.
//! Invariants: chunks arrive in order; when either end is dropped, the other one learns it at its next step, so a query
//! that is given up stops its remote parts. Knows nothing of what the chunks are.

use crate::{mail::ticking, metrics::CoreMetrics};
use glommio::{
    GlommioError, ResourceType,
    channels::shared_channel::{self, ConnectedReceiver, ConnectedSender, SharedReceiver, SharedSender},
};
use std::{sync::Arc, time::Duration};

/// The consumer has gone; the chunk comes back.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("nobody reads the stream any more")]
pub struct StreamClosed<T>(pub T);

/// Shortest and longest sleep of a producer whose window is full. Polling, because the executor's own wait for room never
/// ends when the consumer goes away while the window is full.
const ROOM_WAIT_MIN: Duration = Duration::from_micros(20);
const ROOM_WAIT_MAX: Duration = Duration::from_millis(1);

/// A stream with at most `window` chunks (rounded up to a power of two) in flight. Either end may stay on this core.
///
/// # Panics
/// If the window is zero.
pub fn chunk_stream<T: Send + 'static>(window: usize) -> (ChunkProducerEnd<T>, ChunkConsumerEnd<T>) {
    assert!(window > 0, "a stream with a window of zero never moves");
    let (sender, receiver) = shared_channel::new_bounded(window);
    (ChunkProducerEnd(sender), ChunkConsumerEnd(receiver))
}

/// The producer's end on its way to its core.
#[derive(Debug)]
pub struct ChunkProducerEnd<T: Send + 'static>(SharedSender<T>);

/// The consumer's end on its way to its core.
#[derive(Debug)]
pub struct ChunkConsumerEnd<T: Send + 'static>(SharedReceiver<T>);

impl<T: Send + 'static> ChunkProducerEnd<T> {
    /// Arrives at a core; waits until the consumer has arrived at its own (or is gone).
    pub async fn arrive(self, metrics: &Arc<CoreMetrics>) -> ChunkProducer<T> {
        ChunkProducer { sender: ticking(self.0.connect()).await, metrics: metrics.clone() }
    }
}

impl<T: Send + 'static> ChunkConsumerEnd<T> {
    /// Arrives at a core; waits until the producer has arrived at its own (or is gone).
    pub async fn arrive(self) -> ChunkConsumer<T> {
        ChunkConsumer { receiver: ticking(self.0.connect()).await }
    }
}

/// Sends chunks. Dropping it ends the stream.
#[derive(Debug)]
pub struct ChunkProducer<T: Send + 'static> {
    sender: ConnectedSender<T>,
    metrics: Arc<CoreMetrics>,
}

impl<T: Send + 'static> ChunkProducer<T> {
    /// Sends one chunk, waiting while the window is full.
    pub async fn send(&self, chunk: T) -> Result<(), StreamClosed<T>> {
        let mut chunk = chunk;
        let mut wait = ROOM_WAIT_MIN;
        loop {
            chunk = match self.sender.try_send(chunk) {
                Ok(()) => {
                    self.metrics.stream_chunks.add(1);
                    return Ok(());
                }
                Err(GlommioError::WouldBlock(ResourceType::Channel(chunk))) => chunk,
                Err(GlommioError::Closed(ResourceType::Channel(chunk))) => return Err(StreamClosed(chunk)),
                Err(other) => unreachable!("a queue between cores is full or closed: {other}"),
            };
            if wait == ROOM_WAIT_MIN {
                self.metrics.stream_waits.add(1);
            }
            glommio::timer::sleep(wait).await;
            wait = (wait * 2).min(ROOM_WAIT_MAX);
        }
    }
}

/// Receives chunks. Dropping it tells the producer to stop.
#[derive(Debug)]
pub struct ChunkConsumer<T: Send + 'static> {
    receiver: ConnectedReceiver<T>,
}

impl<T: Send + 'static> ChunkConsumer<T> {
    /// The next chunk; none when the producer is done (or gone).
    pub async fn next(&self) -> Option<T> {
        match self.receiver.recv().await {
            // The executor looks for a chunk before it looks whether the producer is gone: one that came in between is
            // found by looking again.
            None => self.receiver.recv().await,
            chunk => chunk,
        }
    }
}
