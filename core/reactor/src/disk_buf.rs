//! Buffers of direct I/O.
//!
//! Owns: [`DiskBuf`] and the pool behind it. Three kinds of memory: registered with the executor's rings (made by
//! `alloc` for data files), the result of a read (shared with the executor until dropped), and plain aligned memory (logs,
//! long reads, and disks without direct I/O).
//! Invariants: bytes that a caller can see are initialised (the executor's own buffers are not: they are zeroed once when
//! made, and the pool hands out only such ones); the pool holds at most its share of the registered memory.
//! Knows nothing of files.

use crate::metrics::CoreMetrics;
use glommio::io::{DmaBuffer, ReadResult};
use std::{cell::RefCell, collections::BTreeMap, rc::Rc, sync::Arc};
use tidemill_disk::AlignedBuf;

/// Idle registered buffers of a core, by their exact length: a buffer of the executor cannot be made longer again.
pub(crate) struct BufPool {
    idle: RefCell<Idle>,
    bytes_max: usize,
    metrics: Arc<CoreMetrics>,
}

#[derive(Default)]
struct Idle {
    by_len: BTreeMap<usize, Vec<DmaBuffer>>,
    bytes: usize,
}

impl BufPool {
    pub(crate) fn new(bytes_max: usize, metrics: Arc<CoreMetrics>) -> Rc<BufPool> {
        Rc::new(BufPool { idle: RefCell::default(), bytes_max, metrics })
    }

    /// A registered buffer where there is room for it, plain memory of the executor otherwise.
    pub(crate) fn take(self: &Rc<Self>, len: usize) -> DiskBuf {
        let mut idle = self.idle.borrow_mut();
        let pooled = idle.by_len.get_mut(&len).and_then(Vec::pop);
        let buffer = match pooled {
            Some(buffer) => {
                idle.bytes -= len;
                self.metrics.buffers_reused.add(1);
                buffer
            }
            None => {
                let mut buffer = glommio::allocate_dma_buffer(len);
                buffer.as_bytes_mut().fill(0);
                buffer
            }
        };
        DiskBuf { memory: Memory::Registered { buffer: Some(Rc::new(buffer)), pool: self.clone() }, len }
    }

    fn put(&self, buffer: DmaBuffer) {
        let mut idle = self.idle.borrow_mut();
        if idle.bytes + buffer.len() <= self.bytes_max {
            idle.bytes += buffer.len();
            idle.by_len.entry(buffer.len()).or_default().push(buffer);
        }
    }
}

enum Memory {
    Registered { buffer: Option<Rc<DmaBuffer>>, pool: Rc<BufPool> },
    Read(ReadResult),
    Plain(AlignedBuf),
}

/// An owned, block-aligned buffer of a [`crate::DiskFile`](tidemill_disk::DiskFile).
pub struct DiskBuf {
    memory: Memory,
    len: usize,
}

impl DiskBuf {
    pub(crate) fn plain(len: usize) -> DiskBuf {
        DiskBuf { memory: Memory::Plain(AlignedBuf::new(len)), len }
    }

    pub(crate) fn of_read(result: ReadResult) -> DiskBuf {
        let len = result.len();
        DiskBuf { memory: Memory::Read(result), len }
    }

    /// Cuts what lies past the end of a file.
    pub(crate) fn shorten(&mut self, len: usize) {
        self.len = self.len.min(len);
    }

    /// Undoes [`DiskBuf::shorten`]; `len` is the length from before.
    pub(crate) fn restore(&mut self, len: usize) {
        self.len = len;
    }

    /// The registered buffer, if it is one and whole: the executor can write only such ones.
    pub(crate) fn registered(&self) -> Option<Rc<DmaBuffer>> {
        match &self.memory {
            Memory::Registered { buffer: Some(buffer), .. } if buffer.len() == self.len => Some(buffer.clone()),
            _ => None,
        }
    }

    /// True if the rings know the memory, so that the kernel need not map it for each operation.
    pub fn is_from_executor(&self) -> bool {
        matches!(self.memory, Memory::Registered { .. } | Memory::Read(_))
    }
}

impl AsRef<[u8]> for DiskBuf {
    fn as_ref(&self) -> &[u8] {
        let all: &[u8] = match &self.memory {
            Memory::Registered { buffer, .. } => buffer.as_deref().map_or(&[], DmaBuffer::as_bytes),
            Memory::Read(result) => result,
            Memory::Plain(buffer) => buffer.as_ref(),
        };
        &all[..self.len]
    }
}

impl AsMut<[u8]> for DiskBuf {
    /// The result of a read may be shared with the executor: the first write access copies it.
    fn as_mut(&mut self) -> &mut [u8] {
        let shared = match &self.memory {
            Memory::Registered { buffer, .. } => buffer.as_ref().is_some_and(|buffer| Rc::strong_count(buffer) > 1),
            Memory::Read(_) => true,
            Memory::Plain(_) => false,
        };
        if shared && self.len > 0 {
            let mut copy = AlignedBuf::new(self.len.next_multiple_of(tidemill_disk::BLOCK_BYTES));
            copy.as_mut()[..self.len].copy_from_slice(self.as_ref());
            if let Memory::Registered { pool, .. } = &self.memory {
                pool.metrics.buffer_bytes_copied.add(self.len as u64);
            }
            self.memory = Memory::Plain(copy);
        }
        let len = self.len;
        let all: &mut [u8] = match &mut self.memory {
            Memory::Registered { buffer, .. } => {
                buffer.as_mut().and_then(Rc::get_mut).map_or(&mut [], DmaBuffer::as_bytes_mut)
            }
            Memory::Read(_) => &mut [],
            Memory::Plain(buffer) => buffer.as_mut(),
        };
        &mut all[..len]
    }
}

impl Drop for DiskBuf {
    fn drop(&mut self) {
        if let Memory::Registered { buffer, pool } = &mut self.memory
            && let Some(Ok(buffer)) = buffer.take().map(Rc::try_unwrap)
        {
            pool.put(buffer);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use glommio::LocalExecutorBuilder;

    fn on_executor(test: impl FnOnce(Rc<BufPool>, Arc<CoreMetrics>)) {
        let executor = LocalExecutorBuilder::new(glommio::Placement::Unbound).io_memory(256 << 10).make().unwrap();
        executor.run(async {
            let metrics = Arc::new(CoreMetrics::default());
            test(BufPool::new(128 << 10, metrics.clone()), metrics);
        });
    }

    #[test]
    fn the_executors_buffers_show_old_bytes_and_ours_do_not() {
        on_executor(|pool, _| {
            // The executor's region is not initialised and not cleared: the second owner sees the bytes of the first.
            let mut first = glommio::allocate_dma_buffer(8_192);
            first.as_bytes_mut().fill(0xab);
            drop(first);
            let shown = glommio::allocate_dma_buffer(8_192);
            let leaks = shown.as_bytes().contains(&0xab);
            drop(shown);
            assert!(leaks, "the trap is gone from this executor: buffers need no clearing");
            assert!(pool.take(8_192).as_ref().iter().all(|byte| *byte == 0));
        });
    }

    #[test]
    fn buffers_come_back_by_length_and_the_pool_is_bounded() {
        on_executor(|pool, metrics| {
            let first = pool.take(65_536);
            drop(first);
            let again = pool.take(65_536);
            assert_eq!(metrics.buffers_reused.value(), 1);
            assert_eq!(pool.take(4_096).as_ref().len(), 4_096);
            let many: Vec<DiskBuf> = (0..8).map(|_| pool.take(65_536)).collect();
            drop((again, many));
            assert!(pool.idle.borrow().bytes <= 128 << 10);
        });
    }

    #[test]
    fn more_than_the_registered_memory_is_still_served() {
        on_executor(|pool, _| {
            let mut large = pool.take(4 << 20);
            large.as_mut()[(4 << 20) - 1] = 1;
            assert!(large.as_ref()[..(4 << 20) - 1].iter().all(|byte| *byte == 0));
        });
    }

    #[test]
    fn a_buffer_that_an_operation_still_holds_is_copied_before_it_is_written() {
        on_executor(|pool, metrics| {
            let mut buffer = pool.take(4_096);
            buffer.as_mut().fill(1);
            let in_flight = buffer.registered().unwrap();
            buffer.as_mut().fill(2);
            assert!(in_flight.as_bytes().iter().all(|byte| *byte == 1));
            assert!(buffer.as_ref().iter().all(|byte| *byte == 2));
            assert_eq!(metrics.buffer_bytes_copied.value(), 4_096);
        });
    }
}
