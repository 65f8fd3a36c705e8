//! A file in chunks, each with a value of its own, from which the file's name follows.
//!
//! BLAKE3 is a tree: the value of each mebibyte is a node of it (section 2.1 of the BLAKE3 paper), so that chunks that
//! arrive in any order, from anywhere, are hashed once, when they arrive, and the name of the whole needs no second look.

use crate::FileId;
use blake3::{
    Hasher,
    hazmat::{HasherExt, Mode, merge_subtrees_non_root, merge_subtrees_root},
};

/// Of all chunks but the last, which may be shorter. A power of two above the 1 KiB of BLAKE3's own chunks, or its values
/// would be no nodes of the tree; at 1 MiB, 16 lanes of vectors are full and a disk is busy with one write.
pub const CHUNK_BYTES: usize = 1 << 20;
const _: () = assert!(CHUNK_BYTES.is_power_of_two() && CHUNK_BYTES > blake3::CHUNK_LEN);

/// Of one chunk.
pub type ChunkValue = [u8; 32];

/// Chunks of a file of so many bytes: at least one. Of sizes that no memory holds it is the most that there can be.
pub fn chunk_count(size: u64) -> u32 {
    u32::try_from(size.div_ceil(CHUNK_BYTES as u64).max(1)).unwrap_or(u32::MAX)
}

/// The value of a chunk of a file of so many chunks.
pub fn chunk_value(number: u32, count: u32, bytes: &[u8]) -> ChunkValue {
    if count == 1 || bytes.is_empty() {
        return *blake3::hash(bytes).as_bytes();
    }
    let mut hasher = Hasher::new();
    hasher.set_input_offset(u64::from(number) * CHUNK_BYTES as u64);
    hasher.update(bytes).finalize_non_root()
}

/// The name of the file whose chunks have these values; none without chunks.
pub fn file_of(values: &[ChunkValue]) -> Option<FileId> {
    if let [only] = values {
        return Some(FileId(*only));
    }
    let (left, right) = halves(values)?;
    Some(FileId(*merge_subtrees_root(&node(left)?, &node(right)?, Mode::Hash).as_bytes()))
}

fn node(values: &[ChunkValue]) -> Option<ChunkValue> {
    if let [only] = values {
        return Some(*only);
    }
    let (left, right) = halves(values)?;
    Some(merge_subtrees_non_root(&node(left)?, &node(right)?, Mode::Hash))
}

/// The left one has as many chunks as a power of two, and the right one at least one of them.
fn halves(values: &[ChunkValue]) -> Option<(&[ChunkValue], &[ChunkValue])> {
    let bits = values.len().checked_sub(1)?.checked_ilog2()?;
    values.split_at_checked(1 << bits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_values_of_chunks_give_the_hash_of_the_whole() {
        let content: Vec<u8> = (0..9 * CHUNK_BYTES + 5).map(|at| (at * 31 + at / 251) as u8).collect();
        let sizes = (1..=9).flat_map(|count| [count * CHUNK_BYTES - 1, count * CHUNK_BYTES, count * CHUNK_BYTES + 1]);
        for size in sizes.chain([0, 1, 1023, 1024, 1025, 9 * CHUNK_BYTES + 5]) {
            let bytes = &content[..size];
            let count = chunk_count(size as u64);
            let mut values: Vec<ChunkValue> = bytes
                .chunks(CHUNK_BYTES)
                .enumerate()
                .map(|(number, chunk)| chunk_value(number as u32, count, chunk))
                .collect();
            if size == 0 {
                values.push(chunk_value(0, 1, &[]));
            }
            assert_eq!(values.len(), count as usize);
            assert_eq!(file_of(&values), Some(FileId(*blake3::hash(bytes).as_bytes())), "{size} bytes");
        }
        assert_eq!(file_of(&[]), None);
    }

    #[test]
    fn chunks_in_each_others_places_are_another_file() {
        let values: Vec<ChunkValue> = (0..3).map(|number| chunk_value(number, 3, &[number as u8; 7])).collect();
        let swapped = [values[1], values[0], values[2]];
        assert_ne!(file_of(&values), file_of(&swapped));
        assert_ne!(chunk_value(0, 3, b"same"), chunk_value(1, 3, b"same"));
    }
}
