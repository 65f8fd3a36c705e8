//! Bytes of upstream's file formats and of our own TSM files: they are refused or read, never with a panic, and what was
//! read can be written and read again. The first byte chooses the reader. Files have checksums that would stop nearly
//! every input: a whole file is damaged by the input and then gets the checksums of its new content.

#![no_main]

use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;
use tidemill_column::{FieldType, Strings, Values};
use tidemill_tsm::file::{FileBytes, FileWriter, HEADER};
use tidemill_tsm::directory::Directory;
use tidemill_tsm::index::FileIndex;
use tidemill_tsm::statistics::{BlockStatistics, Statistics, TRAILER_BYTES};
use tidemill_tsm::wal::{WalEntry, WalReader};
use tidemill_tsm::{
    EncodeError, FloatEncoding, block, booleans, fields_idx, floats, integers, simple8b, strings, timestamps,
    tombstone, unsigned,
};

fuzz_target!(|data: &[u8]| {
    let Some((&first, rest)) = data.split_first() else { return };
    match first % 12 {
        0 => read_block(rest),
        1 => read_times(rest),
        2 => read_floats(rest),
        3 => read_integers(rest),
        4 => read_strings(rest),
        5 => read_file(rest),
        6 => read_file(&damaged(rest)),
        7 => read_index(rest),
        8 => read_statistics(rest),
        9 => read_tombstones(rest),
        10 => read_fields(rest),
        _ => read_wal(rest),
    }
});

/// Blocks of a file that are decoded. An index may name the same block often, which would only cost time.
const BLOCKS_MAX: usize = 8;

fn read_block(bytes: &[u8]) {
    let count = block::point_count(bytes);
    for code in 0..5 {
        let field_type = FieldType::from_code(code).unwrap();
        let (mut times, mut values) = (vec![7], Values::new(field_type));
        let alone = block::decode_values(bytes, &mut values);
        assert_eq!(values.len(), alone.unwrap_or(0));
        let mut values = Values::new(field_type);
        let decoded = block::decode(bytes, &mut times, &mut values);
        let rows = decoded.unwrap_or(0);
        assert_eq!((times.len(), values.len()), (1 + rows, rows));
        if decoded.is_err() {
            continue;
        }
        assert_eq!((count, alone), (decoded, decoded));
        assert!(times[1..].is_sorted_by(|before, after| before < after));
        let mut again = Vec::new();
        if let Err(error) = block::encode(&times[1..], &values, 0..rows, &mut again) {
            assert!(matches!(error, EncodeError::NotANumber { .. }), "{error}");
            continue;
        }
        let (mut times_again, mut values_again) = (vec![7], Values::new(field_type));
        block::decode(&again, &mut times_again, &mut values_again).unwrap();
        assert_eq!(times_again, times);
        assert_eq!(format!("{values_again:?}"), format!("{values:?}"));
    }
}

fn read_times(bytes: &[u8]) {
    let mut times = Vec::new();
    let decoded = timestamps::decode(bytes, &mut times);
    assert_eq!(timestamps::count(bytes).ok(), decoded.is_ok().then_some(times.len()));
    if decoded.is_ok() {
        let (mut written, mut again) = (Vec::new(), Vec::new());
        timestamps::encode(&times, &mut written);
        timestamps::decode(&written, &mut again).unwrap();
        assert_eq!(again, times);
    }
}

fn read_floats(bytes: &[u8]) {
    let mut values = Vec::new();
    if floats::decode(bytes, &mut values).is_ok() {
        let (mut written, mut again) = (Vec::new(), Vec::new());
        if floats::encode(&values, &mut written).is_ok() {
            floats::decode(&written, &mut again).unwrap();
            assert!(again.iter().map(|value| value.to_bits()).eq(values.iter().map(|value| value.to_bits())));
        } else {
            assert!(values.iter().any(|value| value.is_nan()));
        }
        let (mut dense, mut again) = (Vec::new(), Vec::new());
        floats::encode_as(&values, FloatEncoding::Alp, &mut dense).unwrap();
        floats::decode(&dense, &mut again).unwrap();
        assert!(again.iter().map(|value| value.to_bits()).eq(values.iter().map(|value| value.to_bits())));
    }
}

fn read_integers(bytes: &[u8]) {
    let (mut written, mut values, mut again) = (Vec::new(), Vec::new(), Vec::new());
    if integers::decode(bytes, &mut values).is_ok() {
        integers::encode(&values, &mut written);
        integers::decode(&written, &mut again).unwrap();
        assert_eq!(again, values);
    }
    let mut values = Vec::new();
    let _ = unsigned::decode(bytes, &mut values);
    let mut words = Vec::new();
    let decoded = simple8b::decode(bytes, &mut words);
    assert_eq!(simple8b::count(bytes).ok(), decoded.is_ok().then_some(words.len()));
    let _ = booleans::decode(bytes, &mut Vec::new());
}

fn read_strings(bytes: &[u8]) {
    let (mut values, mut again) = (Strings::new(), Strings::new());
    let _ = strings::decode(bytes, &mut Strings::new());
    if strings::decode(&[&[0x10], packed(bytes).as_slice()].concat(), &mut values).is_ok() {
        let mut written = Vec::new();
        strings::encode(&values, 0..values.len(), &mut written).unwrap();
        strings::decode(&written, &mut again).unwrap();
        assert_eq!(again, values);
    }
}

fn read_file(bytes: &[u8]) {
    let Ok(file) = FileBytes::open(bytes) else { return };
    let keys = 0..file.index.key_count();
    let entries = keys.flat_map(|position| file.index.key(position).unwrap().entries.iter());
    for entry in entries.take(BLOCKS_MAX) {
        let range = entry.range();
        let (start, end) = (range.start as usize, range.end as usize);
        // The index may be right and the checksum of the block not: it gets the one that it wants.
        let mut sealed = bytes.to_vec();
        let crc = crc32fast::hash(&bytes[start + 4..end]);
        sealed[start..start + 4].copy_from_slice(&crc.to_be_bytes());
        assert_eq!(file.block(&entry).is_ok(), sealed == bytes);
        let Ok(sealed) = FileBytes::open(&sealed) else { continue };
        if let Ok(stored) = sealed.block(&entry) {
            read_block(stored);
        }
    }
    read_index_keys(&file.index);
    if let Some(statistics) = &file.statistics {
        read_records(statistics, &file.index);
    }
}

fn read_index(bytes: &[u8]) {
    if let Ok(index) = FileIndex::parse(bytes.to_vec(), 1 << 20) {
        read_index_keys(&index);
    }
}

fn read_index_keys(index: &FileIndex) {
    for (position, key) in index.iter().enumerate() {
        assert_eq!((index.find(key.key), index.lower_bound(key.key)), (Some(position), position));
        let (first, last) = key.entries.time_range();
        assert_eq!(key.entries.overlapping(first, last), 0..key.entries.len());
    }
    assert_eq!(index.iter().count(), index.key_count());
    assert_eq!(index.iter().map(|key| key.entries.len() as u64).sum::<u64>(), index.block_count());
}

/// The input as the records of a section that is right otherwise.
fn read_statistics(records: &[u8]) {
    let index = FileBytes::open(file()).unwrap().index;
    if let Ok((statistics, directory)) = Statistics::parse(section(records, &[], &index), &index) {
        assert!(directory.is_empty());
        read_records(&statistics, &index);
    }
    if let Ok((_, directory)) = Statistics::parse(section(&[], records, &index), &index) {
        read_directory(&directory);
    }
    read_directory(records);
}

/// Whatever it says lies where it may lie, and its pages are found by their first keys.
fn read_directory(bytes: &[u8]) {
    let Ok(directory) = Directory::parse(bytes, 1000..2000, 500..600) else { return };
    let pages: Vec<_> = (0..directory.page_count()).map(|number| directory.page(number).unwrap()).collect();
    assert_eq!((pages[0].index.start, pages[pages.len() - 1].index.end), (1000, 2000));
    assert!(pages.is_sorted_by(|a, b| a.index.end == b.index.start && a.statistics.end == b.statistics.start));
    let (first, last) = directory.key_range();
    assert_eq!((directory.find(first), directory.find(last)), (Some(0), Some(pages.len() - 1)));
    for page in &pages {
        assert!(page.parse_index(bytes.to_vec(), 500).is_err());
    }
}

fn read_records(statistics: &Statistics, index: &FileIndex) {
    for (position, key) in index.iter().enumerate() {
        let blocks: Vec<Option<BlockStatistics>> = statistics.of_key(index, position).collect();
        assert_eq!(blocks.len(), key.entries.len());
        for known in blocks.iter().flatten() {
            assert_eq!(known.summary.field_type(), key.field_type);
        }
    }
}

fn section(records: &[u8], directory: &[u8], index: &FileIndex) -> Vec<u8> {
    let index_offset = index.blocks_end() + (records.len() + directory.len() + TRAILER_BYTES) as u64;
    let index_crc = crc32fast::hash(&[index.bytes(), &index_offset.to_be_bytes()].concat());
    let mut section = [records, directory].concat();
    section.extend_from_slice(&(records.len() as u64).to_be_bytes());
    section.extend_from_slice(&(directory.len() as u64).to_be_bytes());
    section.extend_from_slice(&(index.block_count() as u32).to_be_bytes());
    section.extend_from_slice(&index_crc.to_be_bytes());
    let crc = crc32fast::hash(&section);
    section.extend_from_slice(&crc.to_be_bytes());
    section.extend_from_slice(b"TMSTATS2");
    section
}

fn read_tombstones(bytes: &[u8]) {
    let plain = [&[0, 0, 0x15, 2], bytes].concat();
    for file in [bytes, &plain] {
        let Ok(tombstones) = tombstone::read(file) else { continue };
        let mut written = tombstone::HEADER.to_vec();
        tombstone::push_member(&tombstones, &mut written);
        assert_eq!(tombstone::read(&written), Ok(tombstones));
    }
}

fn read_fields(bytes: &[u8]) {
    let mut file = Vec::new();
    fields_idx::write(&[], &mut file);
    file.extend_from_slice(bytes);
    if let Ok(measurements) = fields_idx::read(&file) {
        let mut written = Vec::new();
        fields_idx::write(&measurements, &mut written);
        assert_eq!(fields_idx::read(&written), Ok(measurements));
    }
    let _ = fields_idx::read(bytes);
}

/// The bytes as a segment, and as the payload of an entry of each kind.
fn read_wal(bytes: &[u8]) {
    read_segment(bytes);
    let payload = packed(bytes);
    for code in 1..=3 {
        let length = (payload.len() as u32).to_be_bytes();
        read_segment(&[&[code], length.as_slice(), &payload].concat());
    }
}

fn read_segment(segment: &[u8]) {
    let mut reader = WalReader::new(segment);
    loop {
        let before = reader.offset();
        match reader.next_entry() {
            Ok(Some(entry)) => {
                assert!(reader.offset() > before);
                if let WalEntry::Write(keys) = entry {
                    assert!(keys.iter().all(|points| points.times.len() == points.values.len()));
                }
            }
            Ok(None) => return assert_eq!(before, segment.len()),
            Err(_) => return assert_eq!(reader.offset(), before),
        }
    }
}

fn packed(bytes: &[u8]) -> Vec<u8> {
    snap::raw::Encoder::new().compress_vec(bytes).unwrap()
}

/// The file with bytes changed by threes (place and value), its statistics sealed for what the index has become.
fn damaged(changes: &[u8]) -> Vec<u8> {
    let mut bytes = file().to_vec();
    for change in changes.chunks_exact(3) {
        let at = usize::from(u16::from_le_bytes([change[0], change[1]])) % bytes.len();
        bytes[at] = change[2];
    }
    let real = FileBytes::open(file()).unwrap();
    let (start, end) = (real.layout.index.start as usize, real.layout.index.end as usize);
    let records_end = real.directory.unwrap().page(0).unwrap().statistics.end as usize;
    if let Ok(index) = FileIndex::parse(bytes[start..end].to_vec(), bytes.len() as u64)
        && let Ok(blocks_end) = usize::try_from(index.blocks_end())
        && let Some(records) = bytes.get(blocks_end..records_end)
    {
        let section = section(records, &bytes[records_end..start - TRAILER_BYTES], &index);
        bytes[blocks_end..start].copy_from_slice(&section);
    }
    bytes
}

/// Two blocks of a key of each type, with statistics.
fn file() -> &'static [u8] {
    static FILE: OnceLock<Vec<u8>> = OnceLock::new();
    FILE.get_or_init(|| {
        let mut out = Vec::new();
        let mut writer = FileWriter::begin(&mut out);
        assert_eq!(out, HEADER);
        let times: Vec<i64> = (0..6).map(|row| row * row).collect();
        let mut texts = Strings::new();
        ["a", "", "b", "a longer text", "b", "c"].iter().for_each(|text| texts.push(text.as_bytes()));
        let columns = [
            Values::Float(vec![1.5, 1.5, -2.0, 0.0, 3.25, f64::INFINITY]),
            Values::Integer(vec![1, 2, 3, -4, i64::MAX, i64::MIN]),
            Values::Boolean([true, false, true, true, false, false].to_vec()),
            Values::String(texts),
            Values::Unsigned(vec![1, 2, 3, u64::MAX, 0, 9]),
        ];
        for (number, values) in columns.iter().enumerate() {
            for rows in [0..3, 3..6] {
                let mut bytes = Vec::new();
                block::encode(&times, values, rows.clone(), &mut bytes).unwrap();
                let statistics = BlockStatistics::of(&times, values, rows.clone());
                let key = format!("cpu,host=a#!~#f{number}");
                let (min_time, max_time) = (times[rows.start], times[rows.end - 1]);
                writer
                    .push_block(
                        key.as_bytes(),
                        values.field_type(),
                        min_time,
                        max_time,
                        &bytes,
                        Some(&statistics),
                        &mut out,
                    )
                    .unwrap();
            }
        }
        writer.finish(&mut out);
        out
    })
}
