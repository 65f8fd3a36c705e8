//! Questions to the series indexes, answered by each core for its partitions and joined by the one who asked.

use crate::data::distinct::Distinct;
use std::collections::{BTreeMap, BTreeSet};
use tidemill_disk::Disk;
use tidemill_influxql::{Expr, TagKeyFilter};
use tidemill_query::TagFilter;
use tidemill_store::{Partition, PostingRef, SeriesId, SeriesIndex, TagPredicate};

/// What is asked of a database.
pub struct Question {
    pub database: tidemill_store::DatabaseId,
    /// Measurements that are meant, with the condition on their tags.
    pub wanted: Wanted,
    pub about: About,
}

/// Which series.
pub struct Wanted {
    /// `None`: all.
    pub measurements: Option<Vec<MeasurementTest>>,
    pub filter: Filter,
}

/// The condition on the tags of a measurement.
pub enum Filter {
    All,
    /// Of series with any value of the tag, or those that pass the tests: the same for all measurements.
    Same(TagFilter),
    /// The WHERE of a SHOW statement.
    Where {
        condition: Expr,
        /// Names in it that are fields of a measurement, and so no tags.
        fields: BTreeMap<String, BTreeSet<String>>,
    },
}

impl Filter {
    /// For a measurement, by its name.
    pub fn of(&self, measurement: &str) -> TagFilter {
        match self {
            Filter::All => TagFilter::All,
            Filter::Same(filter) => filter.clone(),
            Filter::Where { condition, fields } => {
                let fields = fields.get(measurement);
                let is_field = |name: &str| fields.is_some_and(|fields| fields.contains(name));
                TagFilter::of_show(condition, measurement, &is_field)
            }
        }
    }
}

/// A name or a pattern of one.
pub enum MeasurementTest {
    Name(String),
    Regex(tidemill_influxql::RegexLiteral),
}

/// What is to be told of them.
pub enum About {
    /// Names of measurements.
    Measurements,
    /// Tag keys by measurement.
    TagKeys,
    /// How many different values of the tags that pass, by measurement.
    TagValueCount(TagKeyFilter),
    /// Canonical series keys by measurement; all of them at once, where `query::listing` takes pages.
    Series,
    /// How many series, by measurement.
    SeriesCount,
}

/// The answer.
pub enum Finding {
    /// By measurement: tag keys, series keys, or nothing.
    Names(BTreeMap<String, BTreeSet<String>>),
    Counts(BTreeMap<String, u64>),
    /// By measurement: pairs of tag key and value, to be counted.
    Distinct(BTreeMap<String, Distinct>),
}

impl Question {
    /// The answer of one partition, joined to `finding`.
    pub fn ask<D: Disk>(&self, partition: &Partition<D>, finding: &mut Finding) {
        let Some(index) = partition.index(self.database) else { return };
        for (name, filter) in self.wanted.of(&index) {
            self.ask_measurement(&index, &name, lossy(&name), &filter, finding);
        }
    }

    fn ask_measurement(
        &self,
        index: &SeriesIndex,
        name: &[u8],
        text: String,
        filter: &TagFilter,
        finding: &mut Finding,
    ) {
        // Without a condition nothing is looked at one by one: what is counted is known.
        let selected = match filter {
            TagFilter::All => None,
            filter => Some(index.select(name, &predicate(filter))),
        };
        if selected.as_ref().is_some_and(|selected| selected.is_empty()) {
            return;
        }
        let is_meant =
            |posting: PostingRef<'_>| selected.as_ref().is_none_or(|selected| !posting.is_disjoint(selected));
        match (&self.about, finding) {
            (About::Measurements, Finding::Names(names)) => {
                names.entry(text).or_default();
            }
            (About::TagKeys, Finding::Names(names)) => {
                let keys = names.entry(text).or_default();
                for key in index.tag_keys(name) {
                    if selected.is_none() || index.tag_postings(name, key).any(is_meant) {
                        keys.insert(lossy(key));
                    }
                }
            }
            (About::TagValueCount(tags), Finding::Distinct(distinct)) => {
                let distinct = distinct.entry(text).or_default();
                for key in index.tag_keys(name).filter(|key| tags.accepts(&lossy(key))) {
                    let values = index.tag_values(name, key).filter(|(_, posting)| is_meant(*posting));
                    values.for_each(|(value, _)| distinct.add(key, &value));
                }
            }
            (About::Series, Finding::Names(names)) => {
                let keys = names.entry(text).or_default();
                let selected = selected.unwrap_or_else(|| index.select(name, &TagPredicate::All));
                keys.extend(selected.iter().map(|id| lossy(index.key(SeriesId(id)))));
            }
            (About::SeriesCount, Finding::Counts(counts)) => {
                let count = selected.map_or_else(|| index.series_count_of(name), |selected| selected.len());
                *counts.entry(text).or_default() += count;
            }
            _ => unreachable!("the finding is made for what is asked"),
        }
    }

    /// The answer of nobody.
    pub fn empty(&self) -> Finding {
        match self.about {
            About::Measurements | About::TagKeys | About::Series => Finding::Names(BTreeMap::new()),
            About::TagValueCount(_) => Finding::Distinct(BTreeMap::new()),
            About::SeriesCount => Finding::Counts(BTreeMap::new()),
        }
    }
}

impl Wanted {
    /// The measurements of an index that are meant, with the condition on the tags of each.
    pub fn of(&self, index: &SeriesIndex) -> Vec<(Vec<u8>, TagFilter)> {
        let mut measurements = Vec::new();
        for name in index.measurement_names() {
            let text = String::from_utf8_lossy(name);
            let tests = self.measurements.as_ref();
            if tests.is_none_or(|tests| tests.iter().any(|test| test.accepts(&text))) {
                measurements.push((name.to_vec(), self.filter.of(&text)));
            }
        }
        measurements
    }
}

impl Finding {
    /// Joins the answer of another core.
    pub fn join(&mut self, other: Finding) {
        match (self, other) {
            (Finding::Names(all), Finding::Names(more)) => {
                more.into_iter().for_each(|(name, keys)| all.entry(name).or_default().extend(keys));
            }
            (Finding::Counts(all), Finding::Counts(more)) => {
                more.into_iter().for_each(|(name, count)| *all.entry(name).or_default() += count);
            }
            (Finding::Distinct(all), Finding::Distinct(more)) => {
                more.into_iter().for_each(|(name, distinct)| all.entry(name).or_default().join(distinct));
            }
            _ => unreachable!("all cores answer one question"),
        }
    }
}

impl MeasurementTest {
    pub fn accepts(&self, name: &str) -> bool {
        match self {
            MeasurementTest::Name(wanted) => wanted == name,
            MeasurementTest::Regex(regex) => regex.is_match(name.as_bytes()),
        }
    }
}

/// A filter of the query as the index evaluates it.
pub fn predicate(filter: &TagFilter) -> TagPredicate {
    let bytes = |text: &String| text.as_bytes().into();
    match filter {
        TagFilter::All => TagPredicate::All,
        TagFilter::None => TagPredicate::Or(Vec::new()),
        TagFilter::And(parts) => TagPredicate::And(parts.iter().map(predicate).collect()),
        TagFilter::Or(parts) => TagPredicate::Or(parts.iter().map(predicate).collect()),
        TagFilter::Equal { tag, value } => TagPredicate::Equal { key: bytes(tag), value: bytes(value) },
        TagFilter::NotEqual { tag, value } => TagPredicate::NotEqual { key: bytes(tag), value: bytes(value) },
        TagFilter::Match { tag, regex } => TagPredicate::Matches { key: bytes(tag), regex: regex.program().clone() },
        TagFilter::NotMatch { tag, regex } => {
            TagPredicate::NotMatches { key: bytes(tag), regex: regex.program().clone() }
        }
    }
}

/// Names are bytes in the store and text in answers.
pub fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
