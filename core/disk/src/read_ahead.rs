//! A file read from one end of a range to the other, with several reads under way.
//!
//! Owns: which reads are under way. Invariants: what is handed out follows the range byte by byte, in the disk's own
//! buffers, and is never copied; a file that ends too early is an error, not a short range.
//! Knows nothing of what is read.

use crate::{BLOCK_BYTES, DiskFile, in_order::InOrder};
use std::{io, ops::Range, rc::Rc};

/// Reads a range of a file, any bytes of it, by reads of whole blocks.
pub struct ReadAhead<F: DiskFile> {
    file: Rc<F>,
    reads: InOrder<io::Result<F::Buf>>,
    piece_bytes: usize,
    reads_max: usize,
    /// Where the next read begins.
    asked: u64,
    /// What was handed out ends here.
    given: u64,
    end: u64,
}

impl<F: DiskFile> ReadAhead<F> {
    /// Reads of `piece_bytes`, at most `reads_max` at a time.
    ///
    /// # Panics
    /// If a piece is no number of blocks, or no read may be under way, or the range ends before it begins.
    pub fn new(file: Rc<F>, range: Range<u64>, piece_bytes: usize, reads_max: usize) -> ReadAhead<F> {
        assert!(piece_bytes > 0 && piece_bytes.is_multiple_of(BLOCK_BYTES), "pieces of {piece_bytes} bytes");
        assert!(reads_max > 0 && range.start <= range.end, "{reads_max} reads of {range:?}");
        let asked = range.start - range.start % BLOCK_BYTES as u64;
        ReadAhead { file, reads: InOrder::new(), piece_bytes, reads_max, asked, given: range.start, end: range.end }
    }

    /// The next bytes: a buffer and which of its bytes they are, never none; no buffer behind the range.
    ///
    /// # Errors
    /// The disk's, and `UnexpectedEof`. After one there is nothing more to be had.
    pub async fn next(&mut self) -> io::Result<Option<(F::Buf, Range<usize>)>> {
        while self.asked < self.end && self.reads.len() < self.reads_max {
            let (file, offset) = (self.file.clone(), self.asked);
            let left = self.end.next_multiple_of(BLOCK_BYTES as u64) - offset;
            let length = usize::try_from(left).unwrap_or(usize::MAX).min(self.piece_bytes);
            self.asked += length as u64;
            self.reads.begin(async move { file.read_at(offset, length).await }).await;
        }
        let Some(read) = self.reads.next().await else { return Ok(None) };
        let buffer = read?;
        // Every read but the first begins on a block where the one before has ended.
        let start = (self.given % BLOCK_BYTES as u64) as usize;
        let left = usize::try_from(self.end - self.given).unwrap_or(usize::MAX);
        let wanted = left.min(self.piece_bytes - start);
        if buffer.as_ref().len() < start + wanted {
            let text = format!("the file ends before byte {}", self.given + wanted as u64);
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, text));
        }
        self.given += wanted as u64;
        Ok(Some((buffer, start..start + wanted)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        Disk, Purpose,
        sim::{Fault, Operation, SimDisk, block_on},
    };
    use proptest::prelude::*;

    const PIECE: usize = 2 * BLOCK_BYTES;

    fn planted(length: usize) -> (SimDisk, Vec<u8>) {
        let disk = SimDisk::new(length as u64);
        let content: Vec<u8> = (0..length).map(|at| (at * 31 + at / 256) as u8).collect();
        disk.plant("f", content.clone());
        (disk, content)
    }

    async fn read(disk: &SimDisk, range: Range<u64>, reads_max: usize) -> io::Result<Vec<u8>> {
        let file = Rc::new(disk.open("f", Purpose::Data).await?);
        let mut reading = ReadAhead::new(file, range, PIECE, reads_max);
        let mut bytes = Vec::new();
        while let Some((buffer, part)) = reading.next().await? {
            assert!(!part.is_empty());
            bytes.extend_from_slice(&buffer.as_ref()[part]);
        }
        assert!(reading.next().await?.is_none(), "the end stays the end");
        Ok(bytes)
    }

    proptest! {
        #[test]
        fn any_range_comes_whole(length in 0usize..9 * BLOCK_BYTES, ends in any::<[prop::sample::Index; 2]>(), reads_max in 1usize..5) {
            let (disk, content) = planted(length);
            let ends = ends.map(|end| end.index(length + 1));
            let (start, end) = (ends[0].min(ends[1]), ends[0].max(ends[1]));
            let read = block_on(1, read(&disk, start as u64..end as u64, reads_max)).unwrap();
            prop_assert!(read == content[start..end]);
        }
    }

    #[test]
    fn a_file_that_is_too_short_and_a_read_that_fails_are_errors() {
        for (length, end) in [(0, 1), (10, 11), (3 * PIECE, 3 * PIECE + 1), (PIECE - 1, PIECE)] {
            let (disk, _) = planted(length);
            let error = block_on(1, read(&disk, 0..end as u64, 3)).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof, "{length} {end}");
        }
        for nth in 1..=4 {
            let (disk, _) = planted(4 * PIECE);
            disk.fail_at(Some(Operation::Read), nth, Fault::Eio);
            assert!(block_on(1, read(&disk, 0..4 * PIECE as u64, 3)).is_err(), "read {nth}");
        }
    }

    #[test]
    fn so_many_reads_are_under_way_and_no_more() {
        let (disk, _) = planted(16 * PIECE);
        block_on(1, async {
            let file = Rc::new(disk.open("f", Purpose::Data).await.unwrap());
            let mut reading = ReadAhead::new(file, 0..16 * PIECE as u64, PIECE, 4);
            for given in 1..=16 {
                reading.next().await.unwrap().unwrap();
                assert_eq!(disk.operations(Operation::Read), (given + 3).min(16));
            }
        });
    }
}
