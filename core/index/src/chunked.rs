//! A vector that grows by chunks, so that growth neither copies what is there nor holds it twice.

use std::ops::{Index, IndexMut};

/// Elements of a chunk. Only the first one grows by doubling: a small vector stays small, and what is copied is bounded.
const CHUNK_LEN: usize = 8192;

/// Elements with stable indexes, which come and go at the end.
#[derive(Debug)]
pub struct ChunkedVec<T> {
    chunks: Vec<Vec<T>>,
    len: usize,
    capacity: usize,
}

impl<T> Default for ChunkedVec<T> {
    fn default() -> ChunkedVec<T> {
        ChunkedVec { chunks: Vec::new(), len: 0, capacity: 0 }
    }
}

impl<T> ChunkedVec<T> {
    pub fn push(&mut self, element: T) {
        if self.len.is_multiple_of(CHUNK_LEN) {
            self.chunks.push(if self.len == 0 { Vec::new() } else { Vec::with_capacity(CHUNK_LEN) });
            self.capacity += self.chunks.last().map_or(0, Vec::capacity);
        }
        let chunk = self.chunks.last_mut().expect("a chunk was made for the first element");
        let before = chunk.capacity();
        if chunk.len() == before {
            chunk.reserve_exact(before.clamp(4, CHUNK_LEN / 2));
        }
        chunk.push(element);
        self.capacity += chunk.capacity() - before;
        self.len += 1;
    }

    /// Takes the last element away.
    pub fn pop(&mut self) -> Option<T> {
        let chunk = self.chunks.last_mut()?;
        let element = chunk.pop();
        if chunk.is_empty() {
            self.capacity -= chunk.capacity();
            self.chunks.pop();
        }
        self.len -= usize::from(element.is_some());
        element
    }

    #[inline]
    pub fn get(&self, index: usize) -> Option<&T> {
        self.chunks.get(index / CHUNK_LEN)?.get(index % CHUNK_LEN)
    }

    #[inline]
    pub fn get_mut(&mut self, index: usize) -> Option<&mut T> {
        self.chunks.get_mut(index / CHUNK_LEN)?.get_mut(index % CHUNK_LEN)
    }

    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.chunks.iter().flatten()
    }

    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.chunks.iter_mut().flatten()
    }

    /// Bytes of the chunks, without what elements hold elsewhere.
    pub fn byte_size(&self) -> usize {
        self.capacity * size_of::<T>() + self.chunks.capacity() * size_of::<Vec<T>>()
    }
}

impl<T> Index<usize> for ChunkedVec<T> {
    type Output = T;

    #[inline]
    fn index(&self, index: usize) -> &T {
        &self.chunks[index / CHUNK_LEN][index % CHUNK_LEN]
    }
}

impl<T> IndexMut<usize> for ChunkedVec<T> {
    #[inline]
    fn index_mut(&mut self, index: usize) -> &mut T {
        &mut self.chunks[index / CHUNK_LEN][index % CHUNK_LEN]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_stay_where_they_were_put() {
        let mut vector = ChunkedVec::default();
        for number in 0..CHUNK_LEN * 3 + 7 {
            vector.push(number);
            assert!(vector.capacity <= (vector.len() * 2).max(4) || vector.len() > CHUNK_LEN);
        }
        assert!((0..vector.len()).all(|number| vector[number] == number));
        assert_eq!((vector.get(vector.len()), vector.iter().count()), (None, CHUNK_LEN * 3 + 7));
        assert_eq!(vector.capacity, CHUNK_LEN * 4);
        vector[CHUNK_LEN] = 5;
        assert_eq!(vector.get(CHUNK_LEN), Some(&5));
    }
}
