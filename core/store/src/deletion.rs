//! What a delete covers: which series, which field, which times.
//!
//! A delete stays what the statement said, a predicate over series keys, and is evaluated series by series when one is
//! read, appended to or settled. So an entry that deletes a million series is applied in the time of one.
//! Invariants: it covers what entries before its own index wrote, and nothing else; its bytes in manifests are those of
//! its entry.
//! A delete that had a condition on values was resolved to points before it was proposed; those it names one by one.
//! Knows nothing of where points are.

use crate::{
    entry::{EntryError, Measurements, SeriesTimes},
    index::TagPredicate,
    manifest::Tombstone,
};
use std::rc::Rc;
use tidemill_line::series_key;

/// A tombstone that is ready to be evaluated.
#[derive(Debug)]
pub struct Deletion {
    tombstone: Tombstone,
    names: NameTest,
    predicate: TagPredicate,
}

#[derive(Debug)]
enum NameTest {
    All,
    Named(Vec<Vec<u8>>),
    Matching(regex::bytes::Regex),
    /// Those of the points, sorted.
    OfPoints(Vec<Vec<u8>>),
}

impl Deletion {
    /// # Errors
    /// If a regular expression of it does not compile.
    pub fn new(tombstone: Tombstone) -> Result<Deletion, EntryError> {
        let names = match &tombstone.measurements {
            Measurements::All => NameTest::All,
            Measurements::Named(names) => NameTest::Named(names.clone()),
            Measurements::Matching(regex) => NameTest::Matching(regex::bytes::Regex::new(regex)?),
            Measurements::Points { series, .. } => {
                let name = |one: &SeriesTimes| series_key::measurement(&one.key).into_owned();
                let mut names: Vec<Vec<u8>> = series.iter().map(name).collect();
                names.sort_unstable();
                names.dedup();
                NameTest::OfPoints(names)
            }
        };
        let predicate = tombstone.condition.compile()?;
        Ok(Deletion { tombstone, names, predicate })
    }

    pub fn tombstone(&self) -> &Tombstone {
        &self.tombstone
    }

    /// Index of the entry that deleted.
    pub fn index(&self) -> u64 {
        self.tombstone.index
    }

    pub fn predicate(&self) -> &TagPredicate {
        &self.predicate
    }

    /// Whether series of the measurement may be covered.
    pub fn covers_measurement(&self, name: &[u8]) -> bool {
        match &self.names {
            NameTest::All => true,
            NameTest::Named(names) => names.iter().any(|known| known == name),
            NameTest::Matching(regex) => regex.is_match(name),
            NameTest::OfPoints(names) => names.binary_search_by(|known| known.as_slice().cmp(name)).is_ok(),
        }
    }

    /// The points that are covered, if they are named one by one.
    pub fn points(&self) -> Option<&[SeriesTimes]> {
        match &self.tombstone.measurements {
            Measurements::Points { series, .. } => Some(series),
            _ => None,
        }
    }

    /// Whether shard groups of a retention policy are concerned.
    pub fn covers_policy(&self, policy: u32) -> bool {
        !matches!(&self.tombstone.measurements, Measurements::Points { policy: known, .. } if *known != policy)
    }

    /// The inclusive ranges in which points of a series that is covered are gone, ascending.
    pub fn ranges(&self, series_key: &[u8]) -> impl Iterator<Item = (i64, i64)> {
        let times =
            self.points().map(|points| match points.binary_search_by(|one| one.key.as_slice().cmp(series_key)) {
                Ok(at) => points[at].times.as_slice(),
                Err(_) => &[],
            });
        let whole = times.is_none().then(|| self.range());
        times.into_iter().flatten().map(|time| (*time, *time)).chain(whole)
    }

    /// Whether the series of this key is covered.
    pub fn covers(&self, series_key: &[u8]) -> bool {
        match self.points() {
            Some(points) => points.binary_search_by(|one| one.key.as_slice().cmp(series_key)).is_ok(),
            None => self.covers_measurement(&series_key::measurement(series_key)) && holds(&self.predicate, series_key),
        }
    }

    /// The only field that is covered; `None` for all of them.
    pub fn field(&self) -> Option<&[u8]> {
        self.tombstone.field.as_deref()
    }

    /// The first and the last time, inclusive. Where points are named, others lie between them.
    pub fn range(&self) -> (i64, i64) {
        (self.tombstone.min_time, self.tombstone.max_time)
    }

    /// Whether a point between these times may be covered.
    pub fn touches(&self, min_time: i64, max_time: i64) -> bool {
        self.tombstone.min_time <= max_time && self.tombstone.max_time >= min_time
    }
}

/// The inclusive ranges in which points of a field are gone, by deletions that cover its series: disjoint, ascending.
pub fn ranges_of(deletions: &[Rc<Deletion>], series_key: &[u8], field: &[u8]) -> Option<Rc<[(i64, i64)]>> {
    let of_field = |deletion: &&Rc<Deletion>| deletion.field().is_none_or(|known| known == field);
    let ranges: Vec<(i64, i64)> =
        deletions.iter().filter(of_field).flat_map(|deletion| deletion.ranges(series_key)).collect();
    let ranges = disjoint(ranges);
    (!ranges.is_empty()).then(|| ranges.into())
}

/// Of disjoint, ascending ranges those that end at a time or later.
pub fn ranges_from(ranges: &[(i64, i64)], time: i64) -> &[(i64, i64)] {
    &ranges[ranges.partition_point(|(_, max)| *max < time)..]
}

/// Inclusive ranges as disjoint ones that ascend.
fn disjoint(mut ranges: Vec<(i64, i64)>) -> Vec<(i64, i64)> {
    ranges.sort_unstable();
    let mut merged: Vec<(i64, i64)> = Vec::with_capacity(ranges.len());
    for (min, max) in ranges.into_iter().filter(|(min, max)| min <= max) {
        match merged.last_mut() {
            Some((_, known)) if min <= known.saturating_add(1) => *known = max.max(*known),
            _ => merged.push((min, max)),
        }
    }
    merged
}

/// Whether the tags of a key satisfy a condition. A series that lacks a tag has the empty value.
fn holds(predicate: &TagPredicate, series_key: &[u8]) -> bool {
    let value = |key: &[u8]| series_key::tag_value(series_key, key).unwrap_or_default();
    match predicate {
        TagPredicate::All => true,
        TagPredicate::And(parts) => parts.iter().all(|part| holds(part, series_key)),
        TagPredicate::Or(parts) => parts.iter().any(|part| holds(part, series_key)),
        TagPredicate::Equal { key, value: wanted } => *value(key) == **wanted,
        TagPredicate::NotEqual { key, value: unwanted } => *value(key) != **unwanted,
        TagPredicate::Matches { key, regex } => regex.is_match(&value(key)),
        TagPredicate::NotMatches { key, regex } => !regex.is_match(&value(key)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{entry::TagCondition, index::SeriesIndex};
    use proptest::prelude::*;

    fn condition() -> impl Strategy<Value = TagCondition> {
        let key = prop::sample::select(vec!["host", "dc", "rack"]);
        let value = prop::sample::select(vec!["", "a", "b", "ab", "c d"]);
        let regex = prop::sample::select(vec!["", "a", "^b", "^$", "a|c"]);
        let leaf = (key, value, regex, 0..5u8).prop_map(|(key, value, regex, kind)| {
            let (key, value, regex) = (key.as_bytes().to_vec(), value.as_bytes().to_vec(), regex.to_owned());
            match kind {
                0 => TagCondition::All,
                1 => TagCondition::Equal { key, value },
                2 => TagCondition::NotEqual { key, value },
                3 => TagCondition::Matches { key, regex },
                _ => TagCondition::NotMatches { key, regex },
            }
        });
        leaf.prop_recursive(3, 12, 3, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..3).prop_map(TagCondition::And),
                prop::collection::vec(inner, 0..3).prop_map(TagCondition::Or),
            ]
        })
    }

    fn deletion(measurements: Measurements, condition: TagCondition) -> Deletion {
        let field = None;
        Deletion::new(Tombstone { index: 1, measurements, condition, field, min_time: 0, max_time: 1 }).unwrap()
    }

    proptest! {
        #[test]
        fn a_key_is_covered_where_the_postings_select_its_series(
            condition in condition(),
            tags in prop::collection::vec((0..4usize, 0..4usize, 0..3usize), 1..20),
        ) {
            let mut index = SeriesIndex::default();
            let values = ["", "a", "ab", "c d"];
            for (host, dc, rack) in tags {
                let tags = [("dc", values[dc]), ("host", values[host]), ("rack", values[rack])];
                let tags: Vec<(&[u8], &[u8])> = tags
                    .iter()
                    .filter(|(_, value)| !value.is_empty())
                    .map(|(key, value)| (key.as_bytes(), value.as_bytes()))
                    .collect();
                index.insert_key(&series_key::format_key(b"m n", &tags));
            }
            let deletion = deletion(Measurements::Named(vec![b"m n".to_vec()]), condition);
            let selected = index.select(b"m n", deletion.predicate());
            for id in index.select(b"m n", &TagPredicate::All) {
                let key = index.key(crate::id::SeriesId(id));
                prop_assert_eq!(deletion.covers(key), selected.contains(id), "{}", key.escape_ascii());
            }
        }
    }

    #[test]
    fn measurements_are_meant_by_name_by_pattern_or_all() {
        let named = deletion(Measurements::Named(vec![b"cpu".to_vec()]), TagCondition::All);
        assert!(named.covers(b"cpu,host=a") && !named.covers(b"cpu2,host=a"));
        let matching = deletion(Measurements::Matching("^c".into()), TagCondition::All);
        assert!(matching.covers(b"cpu") && !matching.covers(b"mem,host=cpu"));
        assert!(deletion(Measurements::All, TagCondition::All).covers(b"mem"));
    }

    #[test]
    fn points_are_gone_one_by_one() {
        let one = |key: &str, times: &[i64]| SeriesTimes { key: key.into(), times: times.to_vec() };
        let series = vec![one("cpu,host=a", &[1, 2, 9]), one("m n", &[4])];
        let named = Rc::new(deletion(Measurements::Points { policy: 3, series }, TagCondition::All));
        assert!(named.covers(b"cpu,host=a") && named.covers(b"m n"));
        assert!(!named.covers(b"cpu,host=b") && !named.covers(b"cpu"));
        assert!(named.covers_measurement(b"cpu") && !named.covers_measurement(b"mem"));
        assert!(named.covers_policy(3) && !named.covers_policy(4));
        let ranges =
            |key: &str| ranges_of(std::slice::from_ref(&named), key.as_bytes(), b"v").map(|ranges| ranges.to_vec());
        assert_eq!(ranges("cpu,host=a"), Some(vec![(1, 2), (9, 9)]));
        assert_eq!(ranges("cpu,host=b"), None);
        assert_eq!(ranges_from(&[(1, 2), (9, 9)], 3), [(9, 9)]);
    }

    #[test]
    fn a_field_is_gone_where_it_or_every_field_was_deleted() {
        let of = |field: Option<&[u8]>, min_time, max_time| {
            let (measurements, condition) = (Measurements::All, TagCondition::All);
            let field = field.map(<[u8]>::to_vec);
            Rc::new(Deletion::new(Tombstone { index: 1, measurements, condition, field, min_time, max_time }).unwrap())
        };
        let deletions = [of(None, 0, 5), of(Some(b"v"), i64::MIN, i64::MAX)];
        assert_eq!(ranges_of(&deletions, b"m", b"v").unwrap().as_ref(), [(i64::MIN, i64::MAX)]);
        assert_eq!(ranges_of(&deletions, b"m", b"w").unwrap().as_ref(), [(0, 5)]);
        assert_eq!(ranges_of(&[], b"m", b"w"), None);
    }
}
