//! The file of a partition's series indexes: frames are refused or read, and an index that was read is whole. The rest
//! of the input behind its first byte is read as a file, as a frame behind a real file, and as damage of that file.

#![no_main]

use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;
use tidemill_column::FieldType;
use tidemill_index::{Delta, ImageReader, ImageWriter, SeriesId, SeriesIndex, TagPredicate, Written, distinct_tags};
use tidemill_line::series_key;

const HEADER_BYTES: usize = 24;

fuzz_target!(|data: &[u8]| {
    let Some((&first, rest)) = data.split_first() else { return };
    read(rest, rest.len() as u64, 0);
    let mut bytes = IMAGE.get_or_init(image).clone();
    if first % 2 == 0 {
        let kind = u32::from(first / 2 % 9);
        bytes.extend_from_slice(&(rest.len() as u32).to_le_bytes());
        bytes.extend_from_slice(&kind.to_le_bytes());
        bytes.extend_from_slice(&1u32.to_le_bytes());
        bytes.extend_from_slice(&3u64.to_le_bytes());
        bytes.extend_from_slice(&[0; 4]);
        bytes.extend_from_slice(rest);
    } else {
        for change in rest.chunks_exact(3) {
            let at = usize::from(u16::from_le_bytes([change[0], change[1]])) % bytes.len();
            bytes[at] = change[2];
        }
    }
    let end = seal(&mut bytes);
    read(&bytes, bytes.len() as u64, end);
});

static IMAGE: OnceLock<Vec<u8>> = OnceLock::new();

/// Gives each frame the checksum that it wants; the last one.
fn seal(bytes: &mut [u8]) -> u32 {
    let (mut chain, mut at) = (0, 0);
    while let Some(header) = bytes.get(at..at + HEADER_BYTES) {
        let len = u32::from_le_bytes([header[0], header[1], header[2], header[3]]) as usize;
        let Some(frame) = bytes.get_mut(at..).and_then(|rest| rest.get_mut(..HEADER_BYTES + len)) else { break };
        let head = crc32c::crc32c_append(chain, &frame[..HEADER_BYTES - 4]);
        chain = crc32c::crc32c_append(head, &frame[HEADER_BYTES..]);
        frame[HEADER_BYTES - 4..HEADER_BYTES].copy_from_slice(&chain.to_le_bytes());
        at += HEADER_BYTES + len;
    }
    chain
}

fn read(bytes: &[u8], size: u64, end: u32) {
    let (mut reader, mut at) = (ImageReader::default(), 0);
    while at < bytes.len() {
        match reader.read_frame(&bytes[at..]) {
            Ok(0) | Err(_) => return,
            Ok(len) => at += len,
        }
    }
    let Ok(restored) = reader.finish(size, end) else { return };
    for index in restored.indexes {
        if let Ok(index) = index.finish() {
            check(&index);
        }
    }
}

fn check(index: &SeriesIndex) {
    let mut alive = 0;
    for id in (0..index.series_count()).map(SeriesId) {
        let key = index.key(id);
        assert_eq!(index.find(xxhash_rust::xxh3::xxh3_64(key), key), Some(id));
        if !index.is_alive(id) {
            continue;
        }
        alive += 1;
        let measurement = series_key::measurement(key);
        assert!(index.select(&measurement, &TagPredicate::All).contains(id.0));
        for (tag, value) in distinct_tags(key) {
            let equal = TagPredicate::Equal { key: (*tag).into(), value: (*value).into() };
            assert!(index.select(&measurement, &equal).contains(id.0));
        }
    }
    assert_eq!(index.alive_count(), alive);
    let names = index.measurement_names();
    assert_eq!(names.map(|name| index.series_count_of(name)).sum::<u64>(), alive);
}

fn image() -> Vec<u8> {
    let mut index = SeriesIndex::born_at(3);
    for number in 0..40 {
        let key = match number % 3 {
            0 => format!("cpu,dc=dc{},host=h{number}", number % 4),
            1 => format!("mem\\ free,host=h{}\\,x", number / 7),
            _ => format!("disk,path=/{number}"),
        };
        let id = index.insert_key(key.as_bytes());
        index.watermarks_mut(1).raise(id, 1_600_000_000_000_000_000 + number);
    }
    index.insert_field(b"cpu", b"v", FieldType::Float);
    index.insert_field(b"disk", b"used", FieldType::Integer);
    index.remove(SeriesId(7));
    let mut writer = ImageWriter::begin();
    let mark = index.mark();
    let (born, series, fields, epoch) = (mark.born, mark.series, mark.fields, mark.epoch);
    let mut delta = Delta::new(1, mark, None);
    while delta.push_next(&index, &mut writer) {}
    writer.push_state(1, &index, (series, fields), &Default::default());
    writer.push_commit([(1, Written { born, series, fields, epoch, version: 0 })].into_iter());
    std::mem::take(writer.pending())
}
