//! Counters of one core, readable by all.
//!
//! Owns: [`Counter`] and [`CoreMetrics`]. Invariant: each counter has one writing thread (its core, or for `kicks` the
//! supervisor), so an increment is a load and a store. Knows nothing of how they are shown.

use std::sync::atomic::{AtomicU64, Ordering};

/// A number with one writer and any readers.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    pub fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    pub(crate) fn add(&self, count: u64) {
        self.0.store(self.value().wrapping_add(count), Ordering::Relaxed);
    }

    pub(crate) fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }

    pub(crate) fn raise_to(&self, value: u64) {
        if value > self.value() {
            self.set(value);
        }
    }
}

macro_rules! core_metrics {
    ($($(#[$doc:meta])* $name:ident,)+) => {
        /// What one core has done since the start.
        #[derive(Debug, Default)]
        pub struct CoreMetrics {
            $($(#[$doc])* pub $name: Counter,)+
        }

        impl CoreMetrics {
            /// Name and value of each counter, in the order of the struct.
            pub fn fields(&self) -> Vec<(&'static str, u64)> {
                vec![$((stringify!($name), self.$name.value()),)+]
            }
        }
    };
}

core_metrics! {
    /// Mails handed to other cores or to itself.
    mail_sent,
    /// Mails taken out of the inbox.
    mail_received,
    /// Sends that found the other side's queue full and had to wait.
    mail_waits,
    /// Mails in the inbox now.
    mail_depth,
    /// Chunks sent over streams to other cores.
    stream_chunks,
    /// Chunks that had to wait for their consumer.
    stream_waits,
    /// Operations given to the side ring (each link of a chain counts).
    side_ring_ops,
    /// Operations that waited because the side ring had its maximum in flight.
    side_ring_waits,
    /// Operations whose future was dropped before the kernel was done with them.
    side_ring_forgotten,
    /// Direct reads of data files.
    disk_reads,
    /// Bytes of them.
    disk_read_bytes,
    /// Direct writes, data files and logs.
    disk_writes,
    /// Bytes of them.
    disk_write_bytes,
    /// Durable writes and syncs.
    disk_syncs,
    /// Data files that were opened again because they had given up their descriptor.
    files_reopened,
    /// Buffers that came back out of the pool instead of being made.
    buffers_reused,
    /// Bytes that were copied because an operation still held a buffer that was to be filled again.
    buffer_bytes_copied,
    /// Polls of a task that held the core for longer than the limit.
    stalls,
    /// The longest of them in nanoseconds.
    stall_ns_max,
    /// Polls of tasks that somebody waits for: those that took more than a millisecond, and the longest. By the clock on
    /// the wall: on a busy machine the thread may just not have run.
    latency_polls_over_1ms,
    latency_poll_ns_max,
    /// The same of queries, in CPU time.
    query_polls_over_1ms,
    query_poll_ns_max,
    /// The same of flushes, copies and other background work, in CPU time.
    background_polls_over_1ms,
    background_polls_over_4ms,
    background_poll_ns_max,
    /// Wakes by the supervisor, against lost parks.
    kicks,
    /// Connections accepted.
    connections_accepted,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_named_and_add_up() {
        let metrics = CoreMetrics::default();
        metrics.mail_sent.add(2);
        metrics.mail_sent.add(3);
        metrics.stall_ns_max.raise_to(9);
        metrics.stall_ns_max.raise_to(4);
        let fields = metrics.fields();
        assert!(fields.contains(&("mail_sent", 5)) && fields.contains(&("stall_ns_max", 9)));
    }
}
