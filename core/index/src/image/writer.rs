//! Writing: what came since the last time, a little at a time.

use super::{
    ALIGN_BYTES, FRAME_BYTES, FRAME_SERIES, HEADER_BYTES, Kind, MAGIC, VERSION,
    bytes::{push_runs, push_varint, zigzag},
};
use crate::{
    id::{FieldId, SeriesId},
    series_index::{IndexMark, SeriesIndex},
};
use roaring::RoaringBitmap;

/// What the file says of an index so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Written {
    /// When the index began: the entry of the log.
    pub born: u64,
    pub series: u32,
    pub fields: u32,
    /// Watermarks that changed up to this epoch.
    pub epoch: u32,
    /// State of what is replaced as a whole.
    pub version: u64,
}

/// Makes frames one behind the other.
pub struct ImageWriter {
    pending: Vec<u8>,
    chain: u32,
    size: u64,
    /// Bytes of frames that nothing replaces.
    kept: u64,
}

/// What is to be written of one index.
pub struct Delta {
    database: u32,
    mark: IndexMark,
    series: u32,
    fields: u32,
    /// Column and chunk of the next watermarks.
    column: usize,
    chunk: usize,
    since: Option<u32>,
}

/// Chunks of watermarks in a frame.
const FRAME_CHUNKS: usize = 8;
/// Fields in a frame.
const FRAME_FIELDS: u32 = 512;

impl ImageWriter {
    /// A new file.
    pub fn begin() -> ImageWriter {
        let mut writer = ImageWriter { pending: Vec::new(), chain: 0, size: 0, kept: 0 };
        let start = writer.open(Kind::Head, 0, 0);
        writer.pending.extend_from_slice(&MAGIC);
        writer.pending.extend_from_slice(&VERSION.to_le_bytes());
        writer.close(start);
        writer
    }

    /// Goes on behind the commit that ends a file of this size and checksum.
    pub fn resume(size: u64, chain: u32) -> ImageWriter {
        ImageWriter { pending: Vec::new(), chain, size, kept: 0 }
    }

    /// Size and checksum of the file with everything so far.
    pub fn end(&self) -> (u64, u32) {
        (self.size, self.chain)
    }

    /// Bytes, since this writer was made, of frames that nothing replaces.
    pub fn kept(&self) -> u64 {
        self.kept
    }

    /// Bytes to be written behind those that were given before.
    pub fn pending(&mut self) -> &mut Vec<u8> {
        &mut self.pending
    }

    /// What changes as a whole: which series are dead, which may be, and which fields are not shown. It is that of
    /// the first so many series and fields, as they are now.
    pub fn push_state(
        &mut self,
        database: u32,
        index: &SeriesIndex,
        (series, fields): (u32, u32),
        unsettled: &RoaringBitmap,
    ) {
        let start = self.open(Kind::Dead, database, index.born());
        push_runs(index.dead(series).map(|id| id.0), &mut self.pending);
        self.close(start);
        let start = self.open(Kind::Unwritten, database, index.born());
        push_runs((0..fields).filter(|id| !index.is_written(FieldId(*id))), &mut self.pending);
        self.close(start);
        let start = self.open(Kind::Unsettled, database, index.born());
        push_runs(unsettled.iter().take_while(|id| *id < series), &mut self.pending);
        self.close(start);
    }

    /// Ends what was begun: these are all databases.
    pub fn push_commit(&mut self, databases: impl ExactSizeIterator<Item = (u32, Written)>) {
        let start = self.open(Kind::Commit, 0, 0);
        self.pending.extend_from_slice(&(databases.len() as u32).to_le_bytes());
        for (database, written) in databases {
            self.pending.extend_from_slice(&database.to_le_bytes());
            self.pending.extend_from_slice(&written.born.to_le_bytes());
            self.pending.extend_from_slice(&written.series.to_le_bytes());
            self.pending.extend_from_slice(&written.fields.to_le_bytes());
        }
        let end = self.size as usize + self.pending.len() - start;
        self.pending.resize(self.pending.len() + end.next_multiple_of(ALIGN_BYTES) - end, 0);
        self.close(start);
        assert!(self.size.is_multiple_of(ALIGN_BYTES as u64), "a commit ends at a block");
    }

    fn open(&mut self, kind: Kind, database: u32, born: u64) -> usize {
        let start = self.pending.len();
        self.pending.extend_from_slice(&[0; 4]);
        self.pending.extend_from_slice(&[kind as u8, 0, 0, 0]);
        self.pending.extend_from_slice(&database.to_le_bytes());
        self.pending.extend_from_slice(&born.to_le_bytes());
        self.pending.extend_from_slice(&[0; 4]);
        start
    }

    fn close(&mut self, start: usize) {
        let frame = &mut self.pending[start..];
        let len = u32::try_from(frame.len() - HEADER_BYTES).expect("frames are far below 4 GiB");
        frame[..4].copy_from_slice(&len.to_le_bytes());
        self.chain = frame_crc(self.chain, frame);
        frame[HEADER_BYTES - 4..HEADER_BYTES].copy_from_slice(&self.chain.to_le_bytes());
        self.size += frame.len() as u64;
        if matches!(Kind::of_code(frame[4]), Some(Kind::Series | Kind::Fields)) {
            self.kept += frame.len() as u64;
        }
    }
}

/// The checksum of a frame behind one with the checksum `chain`; what stands in its own place does not count.
pub(super) fn frame_crc(chain: u32, frame: &[u8]) -> u32 {
    let (header, body) = frame.split_at(HEADER_BYTES.min(frame.len()));
    let header = header.get(..HEADER_BYTES - 4).unwrap_or_default();
    crc32c::crc32c_append(crc32c::crc32c_append(chain, header), body)
}

impl Delta {
    /// What an index had at the mark and the file does not say.
    pub fn new(database: u32, mark: IndexMark, written: Option<&Written>) -> Delta {
        let written = written.filter(|written| written.born == mark.born);
        Delta {
            database,
            series: written.map_or(0, |written| written.series),
            fields: written.map_or(0, |written| written.fields),
            column: 0,
            chunk: 0,
            since: written.map(|written| written.epoch),
            mark,
        }
    }

    pub fn database(&self) -> u32 {
        self.database
    }

    pub fn mark(&self) -> &IndexMark {
        &self.mark
    }

    /// Whether nothing is to be written.
    pub fn is_empty(&self) -> bool {
        let mut columns = self.mark.watermarks.iter();
        self.series == self.mark.series
            && self.fields == self.mark.fields
            && columns.all(|(_, column)| column.changed_after(self.since).next().is_none())
    }

    /// Makes the next frame; `false` when there is none left. The index is the one of the mark, however it grew since.
    pub fn push_next(&mut self, index: &SeriesIndex, writer: &mut ImageWriter) -> bool {
        if self.series < self.mark.series {
            self.push_series(index, writer);
        } else if self.fields < self.mark.fields {
            self.push_fields(index, writer);
        } else if self.column < self.mark.watermarks.len() {
            self.push_watermarks(writer);
        } else {
            return false;
        }
        true
    }

    fn push_series(&mut self, index: &SeriesIndex, writer: &mut ImageWriter) {
        let start = writer.open(Kind::Series, self.database, self.mark.born);
        let out = &mut writer.pending;
        out.extend_from_slice(&self.series.to_le_bytes());
        let count_at = out.len();
        out.extend_from_slice(&[0; 4]);
        let mut count = 0;
        let mut last: &[u8] = &[];
        while self.series < self.mark.series && count < FRAME_SERIES && out.len() - start < FRAME_BYTES {
            let key = index.key(SeriesId(self.series));
            let shared = key.iter().zip(last).take_while(|(a, b)| a == b).count();
            push_varint(shared as u64, out);
            push_varint((key.len() - shared) as u64, out);
            out.extend_from_slice(&key[shared..]);
            last = key;
            count += 1;
            self.series += 1;
        }
        out[count_at..count_at + 4].copy_from_slice(&count.to_le_bytes());
        writer.close(start);
    }

    fn push_fields(&mut self, index: &SeriesIndex, writer: &mut ImageWriter) {
        let start = writer.open(Kind::Fields, self.database, self.mark.born);
        let out = &mut writer.pending;
        let end = self.mark.fields.min(self.fields + FRAME_FIELDS);
        out.extend_from_slice(&self.fields.to_le_bytes());
        out.extend_from_slice(&(end - self.fields).to_le_bytes());
        for id in self.fields..end {
            let field = index.field(FieldId(id));
            out.push(field.field_type.code());
            for text in [&field.measurement, &field.name] {
                push_varint(text.len() as u64, out);
                out.extend_from_slice(text);
            }
        }
        self.fields = end;
        writer.close(start);
    }

    fn push_watermarks(&mut self, writer: &mut ImageWriter) {
        let (policy, column) = &self.mark.watermarks[self.column];
        let mut chunks = column.changed_after(self.since).filter(|chunk| *chunk >= self.chunk);
        let chosen: Vec<usize> = chunks.by_ref().take(FRAME_CHUNKS).collect();
        if chosen.is_empty() {
            (self.column, self.chunk) = (self.column + 1, 0);
            return;
        }
        let start = writer.open(Kind::Watermarks, self.database, self.mark.born);
        let out = &mut writer.pending;
        out.extend_from_slice(&policy.to_le_bytes());
        let count_at = out.len();
        out.extend_from_slice(&[0; 4]);
        let (mut count, mut id, mut time) = (0u32, 0, 0i64);
        for (series, newest) in chosen.iter().flat_map(|chunk| column.chunk(*chunk)) {
            push_varint(u64::from(series.0 - id), out);
            push_varint(zigzag(newest.wrapping_sub(time)), out);
            (count, id, time) = (count + 1, series.0, newest);
        }
        out[count_at..count_at + 4].copy_from_slice(&count.to_le_bytes());
        writer.close(start);
        self.chunk = chosen.last().map_or(0, |last| last + 1);
    }
}
