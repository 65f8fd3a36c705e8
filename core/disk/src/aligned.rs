//! Block-aligned memory.

use crate::BLOCK_BYTES;
use std::{
    alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error},
    ptr::NonNull,
};

/// Owned bytes that start on a block boundary and are zero when made.
///
/// All of its capacity is always initialised; its length says how much of it is in use (a short read, the filled part
/// of a write).
pub struct AlignedBuf {
    start: NonNull<u8>,
    len: usize,
    capacity: usize,
}

// SAFETY: the buffer owns its memory alone; moving it to another thread moves that ownership.
unsafe impl Send for AlignedBuf {}
// SAFETY: shared access only reads.
unsafe impl Sync for AlignedBuf {}

impl AlignedBuf {
    /// # Panics
    /// If `len` is zero or no multiple of [`BLOCK_BYTES`].
    pub fn new(len: usize) -> AlignedBuf {
        assert!(len > 0 && len.is_multiple_of(BLOCK_BYTES), "an aligned buffer of {len} bytes");
        let layout = AlignedBuf::layout(len);
        // SAFETY: the layout has a size above zero.
        let start = unsafe { alloc_zeroed(layout) };
        let start = NonNull::new(start).unwrap_or_else(|| handle_alloc_error(layout));
        AlignedBuf { start, len, capacity: len }
    }

    /// A buffer of just these bytes; its capacity is the next multiple of the block.
    pub fn copy_of(bytes: &[u8]) -> AlignedBuf {
        let mut buf = AlignedBuf::new(bytes.len().next_multiple_of(BLOCK_BYTES).max(BLOCK_BYTES));
        buf.set_len(bytes.len());
        buf.as_mut().copy_from_slice(bytes);
        buf
    }

    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// A multiple of [`BLOCK_BYTES`].
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// What lies between the old and the new length keeps its bytes.
    ///
    /// # Panics
    /// If `len` is above the capacity.
    pub fn set_len(&mut self, len: usize) {
        assert!(len <= self.capacity, "a length of {len} in a buffer of {} bytes", self.capacity);
        self.len = len;
    }

    fn layout(capacity: usize) -> Layout {
        Layout::from_size_align(capacity, BLOCK_BYTES).expect("buffer sizes are far below isize::MAX")
    }
}

impl Drop for AlignedBuf {
    fn drop(&mut self) {
        // SAFETY: allocated in `new` with this very layout.
        unsafe { dealloc(self.start.as_ptr(), AlignedBuf::layout(self.capacity)) }
    }
}

impl AsRef<[u8]> for AlignedBuf {
    fn as_ref(&self) -> &[u8] {
        // SAFETY: `len <= capacity` bytes at `start` are owned and initialised.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }
}

impl AsMut<[u8]> for AlignedBuf {
    fn as_mut(&mut self) -> &mut [u8] {
        // SAFETY: `len <= capacity` bytes at `start` are owned and initialised, and `self` is borrowed alone.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.len) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn starts_on_a_block_and_keeps_its_capacity() {
        let mut buf = AlignedBuf::copy_of(&[7; 5000]);
        assert_eq!((buf.len(), buf.capacity()), (5000, 8192));
        assert_eq!(buf.as_ref().as_ptr() as usize % BLOCK_BYTES, 0);
        buf.set_len(8192);
        assert_eq!(buf.as_ref()[4999..5001], [7, 0]);
        assert_eq!(AlignedBuf::copy_of(&[]).len(), 0);
    }

    #[test]
    #[should_panic(expected = "an aligned buffer of 100 bytes")]
    fn odd_sizes_panic() {
        AlignedBuf::new(100);
    }
}
