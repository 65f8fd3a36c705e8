use super::*;
use crate::{FieldId, SeriesId, SeriesIndex, TagPredicate};
use proptest::prelude::*;
use roaring::RoaringBitmap;
use std::collections::BTreeMap;
use tidemill_column::FieldType;

/// A file and who wrote it.
struct File {
    bytes: Vec<u8>,
    end: (u64, u32),
    written: BTreeMap<u32, Written>,
}

impl File {
    fn begin() -> File {
        File { bytes: Vec::new(), end: (0, 0), written: BTreeMap::new() }
    }

    /// Appends what these indexes have more than before.
    fn append(&mut self, indexes: &mut BTreeMap<u32, SeriesIndex>, unsettled: &RoaringBitmap) {
        let mut writer =
            if self.bytes.is_empty() { ImageWriter::begin() } else { ImageWriter::resume(self.end.0, self.end.1) };
        let mut written = BTreeMap::new();
        for (database, index) in indexes {
            let mark = index.mark();
            let mut delta = Delta::new(*database, mark.clone(), self.written.get(database));
            while delta.push_next(index, &mut writer) {}
            writer.push_state(*database, index, (mark.series, mark.fields), unsettled);
            let (born, series, fields, epoch, version) =
                (mark.born, mark.series, mark.fields, mark.epoch, index.version());
            written.insert(*database, Written { born, series, fields, epoch, version });
        }
        writer.push_commit(written.iter().map(|(database, written)| (*database, *written)));
        self.written = written;
        self.end = writer.end();
        self.bytes.append(writer.pending());
        assert_eq!(self.bytes.len() as u64, self.end.0);
    }
}

fn read(bytes: &[u8], end: (u64, u32)) -> Result<Vec<RestoredIndex>, ImageError> {
    let mut reader = ImageReader::default();
    let mut at = 0;
    while at < bytes.len() {
        match reader.read_frame(&bytes[at..])? {
            0 => break,
            len => at += len,
        }
    }
    reader.finish(end.0, end.1).map(|restored| restored.indexes)
}

fn assert_same(restored: RestoredIndex, index: &SeriesIndex) {
    assert_equal(&restored.finish().unwrap(), index);
}

fn assert_equal(restored: &SeriesIndex, index: &SeriesIndex) {
    assert_eq!((restored.series_count(), restored.field_count()), (index.series_count(), index.field_count()));
    assert_eq!(
        (restored.alive_count(), restored.measurement_count()),
        (index.alive_count(), index.measurement_count())
    );
    assert!(restored.dead(index.series_count()).eq(index.dead(index.series_count())));
    for id in (0..index.series_count()).map(SeriesId) {
        assert_eq!((restored.key(id), restored.is_alive(id)), (index.key(id), index.is_alive(id)));
        assert_eq!(restored.watermark(1, id), index.watermark(1, id));
        assert_eq!(restored.watermark(2, id), index.watermark(2, id));
    }
    for id in (0..index.field_count()).map(FieldId) {
        assert_eq!((restored.field(id), restored.is_written(id)), (index.field(id), index.is_written(id)));
    }
    assert!(restored.measurement_names().eq(index.measurement_names()));
    for name in index.measurement_names() {
        assert!(restored.tag_keys(name).eq(index.tag_keys(name)));
        assert_eq!(restored.select(name, &TagPredicate::All), index.select(name, &TagPredicate::All));
        for tag in index.tag_keys(name) {
            let values = |index: &SeriesIndex| -> BTreeMap<Vec<u8>, Vec<u32>> {
                let value = |(value, ids): (std::borrow::Cow<'_, [u8]>, crate::PostingRef<'_>)| {
                    (value.to_vec(), ids.to_bitmap().iter().collect())
                };
                index.tag_values(name, tag).map(value).collect()
            };
            assert_eq!(values(restored), values(index));
            assert_eq!(restored.tag_value_count(name, tag), index.tag_value_count(name, tag));
            for (value, _) in index.tag_values(name, tag) {
                assert!(restored.has_tag_value(name, tag, &value));
            }
            let without = TagPredicate::Equal { key: tag.into(), value: Default::default() };
            assert_eq!(restored.select(name, &without), index.select(name, &without));
        }
    }
}

fn small() -> BTreeMap<u32, SeriesIndex> {
    let mut indexes = BTreeMap::from([(1, SeriesIndex::born_at(3)), (7, SeriesIndex::born_at(9))]);
    let index = indexes.get_mut(&1).unwrap();
    for key in ["cpu,host=a", "cpu,host=b", "mem,host=a"] {
        let id = index.insert_key(key.as_bytes());
        index.watermarks_mut(1).raise(id, 1_600_000_000_000_000_000 + i64::from(id.0));
    }
    index.insert_field(b"cpu", b"v", FieldType::Float);
    index.insert_field(b"mem", b"v", FieldType::Integer);
    index.remove(SeriesId(2));
    indexes.get_mut(&7).unwrap().insert_key(b"m");
    indexes
}

#[test]
fn every_flipped_bit_and_every_cut_is_noticed() {
    let mut indexes = small();
    let mut file = File::begin();
    file.append(&mut indexes, &RoaringBitmap::new());
    indexes.get_mut(&1).unwrap().insert_key(b"cpu,host=c");
    file.append(&mut indexes, &RoaringBitmap::from_iter([1]));
    let restored = read(&file.bytes, file.end).unwrap();
    assert_eq!(restored[0].unsettled.iter().collect::<Vec<_>>(), [1]);
    for (restored, index) in restored.into_iter().zip(indexes.values()) {
        assert_same(restored, index);
    }
    for bit in 0..file.bytes.len() * 8 {
        file.bytes[bit / 8] ^= 1 << (bit % 8);
        assert!(read(&file.bytes, file.end).is_err(), "bit {bit}");
        file.bytes[bit / 8] ^= 1 << (bit % 8);
    }
    for cut in 0..file.bytes.len() {
        assert!(read(&file.bytes[..cut], file.end).is_err(), "cut at {cut}");
    }
    // An older end of the same file is no damage of the file, but not the file that is named.
    assert!(read(&file.bytes[..file.bytes.len() / 2], file.end).is_err());
}

#[test]
fn a_database_that_was_dropped_is_gone_and_one_begun_anew_has_nothing_of_the_old() {
    let mut indexes = small();
    let mut file = File::begin();
    file.append(&mut indexes, &RoaringBitmap::new());
    indexes.remove(&7);
    indexes.insert(1, SeriesIndex::born_at(20));
    indexes.get_mut(&1).unwrap().insert_key(b"other,x=y");
    file.append(&mut indexes, &RoaringBitmap::new());
    let mut restored = read(&file.bytes, file.end).unwrap();
    assert_eq!(restored.len(), 1);
    assert_eq!((restored[0].database, restored[0].written.born), (1, 20));
    assert_same(restored.remove(0), &indexes[&1]);
}

#[test]
fn series_that_are_dead_stay_dead_through_two_starts() {
    let mut indexes = BTreeMap::from([(1, SeriesIndex::born_at(3))]);
    for start in 0..2 {
        let index = indexes.get_mut(&1).unwrap();
        index.insert_key(b"cpu,host=a");
        index.remove(SeriesId(0));
        let mut file = File::begin();
        file.append(&mut indexes, &RoaringBitmap::new());
        // The last ids of a restored index may all be dead.
        indexes.insert(1, read(&file.bytes, file.end).unwrap().remove(0).finish().unwrap());
        assert_eq!(indexes[&1].dead(1).count(), 1, "start {start}");
        let mut file = File::begin();
        file.append(&mut indexes, &RoaringBitmap::new());
        assert_eq!(read(&file.bytes, file.end).unwrap().remove(0).finish().unwrap().alive_count(), 0, "start {start}");
    }
}

#[test]
fn a_mark_holds_what_there_was_however_the_index_goes_on() {
    let mut indexes = small();
    let index = indexes.get_mut(&1).unwrap();
    let mark = index.mark();
    index.watermarks_mut(1).raise(SeriesId(0), i64::MAX);
    index.insert_key(b"cpu,host=later");
    index.insert_field(b"cpu", b"later", FieldType::Float);
    let mut writer = ImageWriter::begin();
    let mut delta = Delta::new(1, mark.clone(), None);
    while delta.push_next(index, &mut writer) {}
    writer.push_state(1, index, (mark.series, mark.fields), &RoaringBitmap::new());
    let written = Written { born: 3, series: mark.series, fields: mark.fields, epoch: mark.epoch, version: 0 };
    writer.push_commit([(1, written)].into_iter());
    let end = writer.end();
    let restored = read(writer.pending(), end).unwrap().remove(0);
    assert_eq!(restored.written.series, 3);
    assert_eq!(restored.finish().unwrap().watermark(1, SeriesId(0)), Some(1_600_000_000_000_000_000));
    // What changed behind the mark is in the next delta.
    let mut next = Delta::new(1, index.mark(), Some(&written));
    assert!(!next.is_empty());
    let mut writer = ImageWriter::resume(end.0, end.1);
    while next.push_next(index, &mut writer) {}
    assert!(writer.pending().len() > 3 * HEADER_BYTES);
}

/// Keys with all that a key may have, also what line protocol would not let through.
fn odd_keys() -> impl Strategy<Value = Vec<Vec<u8>>> {
    let part = proptest::sample::select(
        &["m", "n", "a=1", "b=2", "b=1", "a=", "c", "=", "", r"a\,b=1", r"a\ b=2", r"a=\=", "a b=2", "a=1=2"][..],
    );
    let key = proptest::collection::vec(part, 1..5).prop_map(|parts| parts.join(",").into_bytes());
    proptest::collection::vec(key, 1..60)
}

#[test]
fn a_key_that_comes_twice_is_damage() {
    let mut index = SeriesIndex::born_at(1);
    let keys = (0..3_000).map(|number| format!("m,n={}", number % 2_999));
    keys.for_each(|key| {
        index.restore_key(key.as_bytes()).unwrap();
    });
    let mut indexes = BTreeMap::from([(1, index)]);
    let mut file = File::begin();
    file.append(&mut indexes, &RoaringBitmap::new());
    let restored = read(&file.bytes, file.end).unwrap().remove(0);
    assert_eq!(restored.finish().err(), Some(ImageError::Twice(2_999)));
}

#[test]
fn an_index_that_was_restored_goes_on_as_the_one_that_was_written() {
    let mut indexes = BTreeMap::from([(1, SeriesIndex::born_at(1))]);
    let key = |number: u32| match number % 3 {
        0 => format!("cpu,dc=dc{},host=h{number}", number % 7),
        1 => format!("cpu,host=h{},n={number}", number / 10),
        _ => format!("mem\\ free,dc=dc\\,{},host=h{}", number % 4_000, number / 50),
    };
    let index = indexes.get_mut(&1).unwrap();
    (0..30_000).for_each(|number| {
        index.insert_key(key(number).as_bytes());
    });
    (0..30_000).step_by(11).for_each(|id| index.remove(SeriesId(id)));
    let mut file = File::begin();
    file.append(&mut indexes, &RoaringBitmap::new());
    let mut restored = read(&file.bytes, file.end).unwrap().remove(0).finish().unwrap();
    let index = indexes.get_mut(&1).unwrap();
    for changed in [&mut restored, index] {
        assert_eq!(changed.insert_key(key(5).as_bytes()), SeriesId(5));
        (0..30_000).step_by(7).for_each(|id| changed.remove(SeriesId(id)));
        (0..30_000).step_by(77).for_each(|number| {
            changed.insert_key(key(number).as_bytes());
        });
        (30_000..40_000).for_each(|number| {
            changed.insert_key(key(number).as_bytes());
        });
    }
    assert_equal(&restored, index);
    assert!(restored.tag_values_max() >= restored.tag_value_count(b"cpu", b"host"));
}

proptest! {
    #[test]
    fn odd_keys_have_the_postings_that_they_had(keys in odd_keys(), dead in proptest::collection::vec(any::<bool>(), 60)) {
        let mut indexes = BTreeMap::from([(5, SeriesIndex::born_at(1))]);
        let index = indexes.get_mut(&5).unwrap();
        for (key, dies) in keys.iter().zip(dead) {
            let id = index.insert_key(key);
            if dies {
                index.remove(id);
            }
        }
        let mut file = File::begin();
        file.append(&mut indexes, &RoaringBitmap::new());
        assert_same(read(&file.bytes, file.end).unwrap().remove(0), &indexes[&5]);
    }

    #[test]
    fn what_is_appended_again_and_again_reads_as_it_is(
        steps in proptest::collection::vec((0u8..8, 0u32..3_000, any::<i64>()), 1..120),
    ) {
        let mut indexes = BTreeMap::from([(5, SeriesIndex::born_at(1))]);
        let mut file = File::begin();
        for (kind, number, time) in steps {
            let index = indexes.get_mut(&5).unwrap();
            let id = SeriesId(number % index.series_count().max(1));
            match kind {
                0 | 1 => {
                    index.insert_key(format!("m{},host=h{number},dc={}", number % 3, number % 7).as_bytes());
                }
                2 if index.series_count() > 0 => index.remove(id),
                3 => {
                    for n in 0..number {
                        index.insert_key(format!("bulk,n={n}").as_bytes());
                    }
                }
                4 => {
                    let field_type = FieldType::ALL[number as usize % 5];
                    index.insert_field(b"m1", format!("f{}", number % 9).as_bytes(), field_type);
                }
                5 => index.unwrite_field(b"m1", format!("f{}", number % 9).as_bytes(), None),
                6 if index.series_count() > 0 => index.watermarks_mut(1 + number % 2).raise(id, time),
                _ => file.append(&mut indexes, &RoaringBitmap::new()),
            }
        }
        file.append(&mut indexes, &RoaringBitmap::new());
        let restored = read(&file.bytes, file.end).unwrap().remove(0);
        assert_same(restored, &indexes[&5]);
    }

    #[test]
    fn any_bytes_are_readable(mut bytes in proptest::collection::vec(any::<u8>(), 0..300), kind in 1u8..9) {
        // With a checksum that fits, so that bodies are read.
        let mut indexes = small();
        let mut file = File::begin();
        file.append(&mut indexes, &RoaringBitmap::new());
        let mut frame = (bytes.len() as u32).to_le_bytes().to_vec();
        frame.extend_from_slice(&[kind, 0, 0, 0, 1, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        frame.append(&mut bytes);
        let crc = writer::frame_crc(file.end.1, &frame);
        frame[HEADER_BYTES - 4..HEADER_BYTES].copy_from_slice(&crc.to_le_bytes());
        file.bytes.append(&mut frame);
        if let Ok(restored) = read(&file.bytes, (file.bytes.len() as u64, crc)) {
            restored.into_iter().for_each(|restored| drop(restored.finish()));
        }
    }
}
