//! A TSM file on a disk, for tools: ours or upstream's, read block by block.
//!
//! Invariants: nothing is handed out before its checksum was verified; what is wrong says in which bytes of which file.
//! Holds the index of the file in memory, and one block.

use std::{
    fmt,
    fs::File,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};
use tidemill_tsm::{
    file::{FOOTER_BYTES, FileError, Layout, verify_block, verify_header},
    index::{Entry, FileIndex},
    statistics::Statistics,
};

/// Something that cannot be read, and where.
#[derive(Clone, Debug)]
pub struct Damage {
    pub path: PathBuf,
    /// First byte, and first byte behind.
    pub range: std::ops::Range<u64>,
    pub what: String,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: bytes {}..{}: {}", self.path.display(), self.range.start, self.range.end, self.what)
    }
}

impl std::error::Error for Damage {}

/// An open file; everything but its blocks is verified.
pub struct TsmSource {
    pub path: PathBuf,
    pub layout: Layout,
    pub index: FileIndex,
    /// `None` in a file of upstream.
    pub statistics: Option<Statistics>,
    file: File,
    stored: Vec<u8>,
}

impl TsmSource {
    pub fn open(path: &Path) -> Result<TsmSource, Damage> {
        let damage = |range, what: &dyn fmt::Display| Damage { path: path.into(), range, what: what.to_string() };
        let file = File::open(path).map_err(|error| damage(0..0, &error))?;
        let file_size = file.metadata().map_err(|error| damage(0..0, &error))?.len();
        let read = |start: u64, length: u64| {
            let mut bytes = vec![0; usize::try_from(length).unwrap_or(0)];
            let read = file.read_exact_at(&mut bytes, start);
            read.map(|()| bytes).map_err(|error| damage(start..start + length, &error))
        };
        let head_bytes = file_size.min(5);
        verify_header(&read(0, head_bytes)?).map_err(|error| damage(0..head_bytes, &error))?;
        let footer_start = file_size.saturating_sub(FOOTER_BYTES as u64);
        let footer = read(footer_start, file_size - footer_start)?;
        let wrong_footer = |error: &dyn fmt::Display| damage(footer_start..file_size, error);
        let footer = footer.first_chunk().ok_or_else(|| wrong_footer(&"no footer"))?;
        let layout = Layout::of(footer, file_size).map_err(|error| wrong_footer(&error))?;
        let index_range = layout.index.clone();
        let wrong_index = |error: FileError| damage(index_range.clone(), &error);
        let index = layout.parse_index(read(index_range.start, index_range.end - index_range.start)?);
        let index = index.map_err(wrong_index)?;
        let mut statistics = None;
        if let Some(range) = layout.statistics_trailer() {
            let trailer = read(range.start, range.end - range.start)?;
            let section = trailer.first_chunk().map(|trailer| layout.statistics(trailer, &index)).transpose();
            let section = section.map_err(|error| damage(range.clone(), &error))?;
            if let Some(section) = section.flatten() {
                let bytes = read(section.start, section.end - section.start)?;
                let parsed = layout.parse_statistics(bytes, &index);
                let (records, pages) = parsed.map_err(|error| damage(section.start..file_size, &error))?;
                for page in (0..pages.page_count()).filter_map(|number| pages.page(number)) {
                    let keys = page
                        .parse_index(read(page.index.start, page.index.end - page.index.start)?, index.blocks_end());
                    let keys = keys.map_err(|error| damage(page.index.clone(), &error))?;
                    let bytes = read(page.statistics.start, page.statistics.end - page.statistics.start)?;
                    let known = page.parse_statistics(bytes, &keys);
                    known.map_err(|error| damage(page.statistics.clone(), &error))?;
                }
                statistics = Some(records);
            }
        }
        Ok(TsmSource { path: path.into(), layout, index, statistics, file, stored: Vec::new() })
    }

    /// Reads a block and verifies its checksum.
    pub fn block(&mut self, entry: &Entry) -> Result<&[u8], Damage> {
        self.stored.resize(entry.size as usize, 0);
        let damage =
            |what: &dyn fmt::Display| Damage { path: self.path.clone(), range: entry.range(), what: what.to_string() };
        self.file.read_exact_at(&mut self.stored, entry.offset).map_err(|error| damage(&error))?;
        verify_block(entry, &self.stored).map_err(|error| damage(&error))
    }

    /// Something wrong with a block of this file.
    pub fn damage_at(&self, entry: &Entry, what: impl fmt::Display) -> Damage {
        Damage { path: self.path.clone(), range: entry.range(), what: what.to_string() }
    }
}

/// How a block's times and its values are encoded.
pub fn codecs(block: &tidemill_tsm::block::Parts<'_>) -> (&'static str, &'static str) {
    use tidemill_column::FieldType;
    let code = |part: &[u8]| part.first().map_or(u8::MAX, |head| head >> 4);
    let times = match code(block.times) {
        0 => "raw",
        1 => "simple8b",
        2 => "run",
        _ => "unknown",
    };
    let values = match (block.field_type, code(block.values)) {
        (FieldType::Float, 1) => "gorilla",
        (FieldType::Float, 2) => "alp",
        (FieldType::Integer | FieldType::Unsigned, 0) => "raw",
        (FieldType::Integer | FieldType::Unsigned, 1) => "simple8b",
        (FieldType::Integer | FieldType::Unsigned, 2) => "run",
        (FieldType::Boolean, 1) => "bits",
        (FieldType::String, 1) => "snappy",
        _ => "unknown",
    };
    (times, values)
}

/// All files below a folder, or the file itself, whose names end so; sorted.
pub fn files_below(path: &Path, extension: &str) -> std::io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut left = vec![path.to_path_buf()];
    while let Some(path) = left.pop() {
        if path.is_dir() {
            for entry in std::fs::read_dir(&path)? {
                left.push(entry?.path());
            }
        } else if path.extension().is_some_and(|known| known == extension) {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}
