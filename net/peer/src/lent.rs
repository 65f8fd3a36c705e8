//! Memory of one thread as [`Bytes`], which QUIC takes without a copy.
//!
//! Invariant: what is lent is dropped on the thread that lent it. QUIC's state of a core never leaves that core, so this is
//! the way it goes; anywhere else the memory is kept for good, because giving a pooled buffer back to another core's pool
//! is a race.

use bytes::Bytes;
use std::mem::ManuallyDrop;
use std::thread::ThreadId;

struct Lent<B> {
    block: ManuallyDrop<B>,
    home: ThreadId,
}

// SAFETY: off its thread nothing of `block` is called: its bytes are read through the slice that `Bytes` took on the home
// thread when it was made, and `drop` leaves it alone.
unsafe impl<B> Send for Lent<B> {}

impl<B: AsRef<[u8]>> AsRef<[u8]> for Lent<B> {
    fn as_ref(&self) -> &[u8] {
        assert_eq!(self.home, std::thread::current().id(), "only the thread that lends looks for the bytes");
        (*self.block).as_ref()
    }
}

impl<B> Drop for Lent<B> {
    fn drop(&mut self) {
        if self.home == std::thread::current().id() {
            // SAFETY: dropped here and nowhere else.
            unsafe { ManuallyDrop::drop(&mut self.block) }
        }
    }
}

/// The bytes of a block, without a copy. The block is dropped with the last of them, for a file that is sent when the peer
/// has acknowledged it.
pub fn lend<B: AsRef<[u8]> + 'static>(block: B) -> Bytes {
    Bytes::from_owner(Lent { block: ManuallyDrop::new(block), home: std::thread::current().id() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;
    use std::rc::Rc;

    struct Block {
        bytes: Vec<u8>,
        dropped: Rc<Cell<u32>>,
    }

    impl AsRef<[u8]> for Block {
        fn as_ref(&self) -> &[u8] {
            &self.bytes
        }
    }

    impl Drop for Block {
        fn drop(&mut self) {
            self.dropped.set(self.dropped.get() + 1);
        }
    }

    fn block() -> (Block, Rc<Cell<u32>>) {
        let dropped = Rc::new(Cell::new(0));
        (Block { bytes: vec![7; 100], dropped: dropped.clone() }, dropped)
    }

    #[test]
    fn the_last_part_gives_the_block_back_and_nothing_was_copied() {
        let (block, dropped) = block();
        let place = block.bytes.as_ptr();
        let bytes = lend(block);
        assert_eq!(bytes.as_ptr(), place);
        let part = bytes.slice(40..50);
        drop(bytes);
        assert_eq!((dropped.get(), part.as_ptr()), (0, place.wrapping_add(40)));
        drop(part);
        assert_eq!(dropped.get(), 1);
    }

    #[test]
    fn another_thread_reads_but_never_drops() {
        let (block, dropped) = block();
        let bytes = lend(block);
        std::thread::spawn(move || assert_eq!(bytes.len(), 100)).join().unwrap();
        assert_eq!(dropped.get(), 0);
    }
}
