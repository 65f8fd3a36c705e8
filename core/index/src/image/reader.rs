//! Reading: frames into indexes, and those into ones with postings.

#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic))]

use super::{FRAME_BYTES_MAX, HEADER_BYTES, Kind, MAGIC, VERSION, bytes::Cursor, writer::Written, writer::frame_crc};
use crate::{
    id::{FieldId, SeriesId},
    id_table::IdTableBuilder,
    postings_builder::PostingsBuilder,
    series_index::SeriesIndex,
};
use roaring::RoaringBitmap;
use std::{collections::BTreeMap, ops::Range};
use tidemill_column::FieldType;
use xxhash_rust::xxh3::xxh3_64;

/// A file that does not say anything.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ImageError {
    #[error("index version {0}, this program reads version {VERSION}")]
    Version(u32),
    #[error("damaged index at offset {offset}: {what}")]
    Damaged { offset: u64, what: &'static str },
    #[error("damaged index: series {0} has the key of another")]
    Twice(u32),
}

/// Takes the bytes of a file as they come.
#[derive(Default)]
pub struct ImageReader {
    chain: u32,
    offset: u64,
    has_head: bool,
    /// The last frame was a commit.
    is_whole: bool,
    kept: u64,
    databases: BTreeMap<u32, Loading>,
    /// Bytes of the key that is being put together.
    key: Vec<u8>,
}

struct Loading {
    index: SeriesIndex,
    /// Of each key.
    hashes: Vec<u64>,
    dead: Vec<Range<u32>>,
    unwritten: Vec<Range<u32>>,
    unsettled: Vec<Range<u32>>,
}

/// What a whole file says.
pub struct Restored {
    pub indexes: Vec<RestoredIndex>,
    /// Bytes of frames that nothing replaces.
    pub kept: u64,
}

/// One index, its postings still to be made.
pub struct RestoredIndex {
    pub database: u32,
    pub written: Written,
    /// Series that may have lost their points.
    pub unsettled: RoaringBitmap,
    index: SeriesIndex,
    hashes: Vec<u64>,
    dead: Vec<Range<u32>>,
    unwritten: Vec<Range<u32>>,
    stage: Stage,
}

/// What of an index is being made.
enum Stage {
    Keys(IdTableBuilder),
    Postings(PostingsBuilder),
    Whole,
}

impl ImageReader {
    /// Reads the first frame of `bytes`; returns its length, or zero if they do not hold one whole frame. Nothing of a
    /// frame is believed before its checksum is verified.
    ///
    /// # Errors
    /// If the bytes are no such frame.
    pub fn read_frame(&mut self, bytes: &[u8]) -> Result<usize, ImageError> {
        let Some(header) = bytes.get(..HEADER_BYTES) else { return Ok(0) };
        let mut cursor = Cursor::new(header);
        let fields = (|| Some((cursor.word()?, cursor.word()?, cursor.word()?, cursor.long()?, cursor.word()?)))();
        let Some((len, kind, database, born, crc)) = fields else { return Ok(0) };
        let len = len as usize;
        if len > FRAME_BYTES_MAX {
            return Err(self.damaged("a frame that is too long"));
        }
        let Some(frame) = bytes.get(..HEADER_BYTES + len) else { return Ok(0) };
        if frame_crc(self.chain, frame) != crc {
            return Err(self.damaged("checksum mismatch"));
        }
        let kind = u8::try_from(kind).ok().and_then(Kind::of_code);
        let kind = kind.ok_or_else(|| self.damaged("a frame of unknown kind"))?;
        if self.has_head == (kind == Kind::Head) {
            return Err(self.damaged("no head at the start, or one behind it"));
        }
        let body = frame.get(HEADER_BYTES..).unwrap_or_default();
        match kind {
            Kind::Head => self.read_head(body)?,
            Kind::Commit => self.read_commit(body)?,
            _ => self.read_part(kind, database, born, body).ok_or_else(|| self.damaged("a frame that does not fit"))?,
        }
        if matches!(kind, Kind::Series | Kind::Fields) {
            self.kept += frame.len() as u64;
        }
        self.is_whole = kind == Kind::Commit;
        self.chain = crc;
        self.offset += frame.len() as u64;
        Ok(frame.len())
    }

    /// What was read, if it is the file of this size and checksum.
    ///
    /// # Errors
    /// If it is another one or ends within what was appended together.
    pub fn finish(self, size: u64, chain: u32) -> Result<Restored, ImageError> {
        if (self.offset, self.chain, self.is_whole) != (size, chain, true) {
            return Err(self.damaged("not the file that is named"));
        }
        let indexes = self.databases.into_iter().map(|(database, loading)| loading.restored(database)).collect();
        Ok(Restored { indexes, kept: self.kept })
    }

    fn damaged(&self, what: &'static str) -> ImageError {
        ImageError::Damaged { offset: self.offset, what }
    }

    fn read_head(&mut self, body: &[u8]) -> Result<(), ImageError> {
        let mut cursor = Cursor::new(body);
        if cursor.take(MAGIC.len()) != Some(&MAGIC) {
            return Err(self.damaged("no index by its first bytes"));
        }
        match cursor.word() {
            Some(VERSION) => {}
            Some(version) => return Err(ImageError::Version(version)),
            None => return Err(self.damaged("a short head")),
        }
        self.has_head = true;
        Ok(())
    }

    fn read_part(&mut self, kind: Kind, database: u32, born: u64, body: &[u8]) -> Option<()> {
        let loading = self.databases.entry(database).or_insert_with(|| Loading::begin(born));
        if loading.index.born() != born {
            // The database was dropped and begun anew.
            *loading = Loading::begin(born);
        }
        let mut cursor = Cursor::new(body);
        match kind {
            Kind::Series => read_series(loading, &mut self.key, &mut cursor)?,
            Kind::Fields => read_fields(&mut loading.index, &mut cursor)?,
            Kind::Watermarks => read_watermarks(&mut loading.index, &mut cursor)?,
            Kind::Dead => loading.dead = cursor.runs(loading.index.series_count())?,
            Kind::Unwritten => loading.unwritten = cursor.runs(loading.index.field_count())?,
            Kind::Unsettled => loading.unsettled = cursor.runs(loading.index.series_count())?,
            Kind::Head | Kind::Commit => return None,
        }
        cursor.is_empty().then_some(())
    }

    fn read_commit(&mut self, body: &[u8]) -> Result<(), ImageError> {
        let mut cursor = Cursor::new(body);
        let mut listed = BTreeMap::new();
        let count = cursor.word().unwrap_or(u32::MAX);
        for _ in 0..count {
            let entry = (|| Some((cursor.word()?, cursor.long()?, cursor.word()?, cursor.word()?)))();
            let Some((database, born, series, fields)) = entry else { return Err(self.damaged("a short commit")) };
            listed.insert(database, (born, series, fields));
        }
        if cursor.rest().iter().any(|byte| *byte != 0) {
            return Err(self.damaged("something behind a commit"));
        }
        self.databases.retain(|database, _| listed.contains_key(database));
        for (database, expected) in listed {
            // An index without series and fields has no frame.
            let loading = self.databases.entry(database).or_insert_with(|| Loading::begin(expected.0));
            let index = &loading.index;
            if (index.born(), index.series_count(), index.field_count()) != expected {
                return Err(self.damaged("other series and fields than the commit says"));
            }
        }
        Ok(())
    }
}

fn read_series(loading: &mut Loading, key: &mut Vec<u8>, cursor: &mut Cursor<'_>) -> Option<()> {
    if cursor.word()? != loading.index.series_count() {
        return None;
    }
    key.clear();
    for _ in 0..cursor.word()? {
        let shared = usize::try_from(cursor.varint()?).ok().filter(|shared| *shared <= key.len())?;
        key.truncate(shared);
        key.extend_from_slice(cursor.text()?);
        loading.index.restore_key(key)?;
        loading.hashes.push(xxh3_64(key));
    }
    Some(())
}

fn read_fields(index: &mut SeriesIndex, cursor: &mut Cursor<'_>) -> Option<()> {
    if cursor.word()? != index.field_count() {
        return None;
    }
    for _ in 0..cursor.word()? {
        let field_type = FieldType::from_code(cursor.byte()?)?;
        let (measurement, name) = (cursor.text()?, cursor.text()?);
        let next = index.field_count();
        if index.insert_field(measurement, name, field_type) != FieldId(next) {
            return None;
        }
    }
    Some(())
}

fn read_watermarks(index: &mut SeriesIndex, cursor: &mut Cursor<'_>) -> Option<()> {
    let end = index.series_count();
    let column = index.watermarks_mut(cursor.word()?);
    let (mut id, mut time) = (0u32, 0i64);
    for _ in 0..cursor.word()? {
        id = id.checked_add(u32::try_from(cursor.varint()?).ok()?).filter(|id| *id < end)?;
        time = time.wrapping_add(cursor.signed()?);
        column.raise(SeriesId(id), time);
    }
    Some(())
}

impl Loading {
    fn begin(born: u64) -> Loading {
        let index = SeriesIndex::born_at(born);
        Loading { index, hashes: Vec::new(), dead: Vec::new(), unwritten: Vec::new(), unsettled: Vec::new() }
    }

    fn restored(mut self, database: u32) -> RestoredIndex {
        let mark = self.index.mark();
        let mut unsettled = RoaringBitmap::new();
        self.unsettled.into_iter().for_each(|run| {
            unsettled.insert_range(run);
        });
        let written = Written {
            born: mark.born,
            series: mark.series,
            fields: mark.fields,
            epoch: mark.epoch,
            version: self.index.version(),
        };
        let stage = Stage::Keys(IdTableBuilder::new(&self.hashes));
        let Loading { index, hashes, dead, unwritten, .. } = self;
        RestoredIndex { database, written, unsettled, index, hashes, dead, unwritten, stage }
    }
}

impl RestoredIndex {
    /// Makes a little more of the index; `false` when it is whole.
    ///
    /// # Errors
    /// If the file says what no index says.
    pub fn advance(&mut self) -> Result<bool, ImageError> {
        match &mut self.stage {
            Stage::Keys(builder) => {
                let is_same = |one, other| self.index.key(SeriesId(one)) == self.index.key(SeriesId(other));
                let is_more = builder.advance(&self.hashes, is_same).map_err(ImageError::Twice)?;
                if !is_more && let Stage::Keys(builder) = std::mem::replace(&mut self.stage, Stage::Whole) {
                    self.hashes = Vec::new();
                    self.index.restore_keys(builder.finish());
                    self.index.restore_alive(&self.dead);
                    self.stage = Stage::Postings(PostingsBuilder::default());
                }
            }
            Stage::Postings(builder) => {
                if !builder.advance(&mut self.index) {
                    let unwritten = std::mem::take(&mut self.unwritten);
                    self.index.restore_unwritten(unwritten.into_iter().flatten().map(FieldId));
                    self.stage = Stage::Whole;
                }
            }
            Stage::Whole => return Ok(false),
        }
        Ok(true)
    }

    /// The index, made as a whole.
    ///
    /// # Errors
    /// As [`RestoredIndex::advance`].
    pub fn finish(mut self) -> Result<SeriesIndex, ImageError> {
        while self.advance()? {}
        Ok(self.index)
    }
}
