//! How many values each tag of a measurement has, in all partitions of all cores, and whether there may be more.
//!
//! Owns: `data.max-values-per-tag`. As with series, a batch is asked about before it goes into its log.
//! Invariants: no tag has more values than the limit allows, unless it had them when it was set (a value that is dropped
//! while a row of it is on its way comes back uncounted, and two values with the same 64-bit hash count as one); a
//! series is refused only if one of its tags has no room for a value that no series of the database has.
//! Most tags are never counted: as long as a partition has no more values of a tag than its even share of the limit,
//! new ones come without a question, as all shares together are the limit. Beyond it a partition asks the core of the
//! metadata, which then knows the hashes of all values of that tag, and from then on every partition asks it for each
//! value that the partition does not have. A core that has just started asks for every value until the others have told
//! it which tags have more than their share somewhere. What the core of the metadata knows is made anew, at the next
//! value for which there seems to be no room, if series went meanwhile.
//! Knows nothing of rows.

use crate::data::{
    SeriesRefusal,
    core::{DataCore, META_CORE},
    message::{Call, CallError, Reply},
    series_ledger::{Denial, SeriesCounts},
};
use std::{
    cell::{Cell, RefCell},
    collections::{BTreeMap, BTreeSet, HashSet},
    rc::Rc,
    sync::Arc,
    time::Duration,
};
use tidemill_disk::Disk;
use tidemill_line::{PartitionBatch, series_key};
use tidemill_reactor::CoreId;
use tidemill_store::{DatabaseId, Partition, distinct_tags};
use xxhash_rust::xxh3::xxh3_64;

/// Counting anew takes at most this part of the time.
const RECOUNT_PART: u64 = 8;
/// Batches that were in the log before a count began are applied soon; longer than that and something is broken.
const SETTLE_PAUSE: Duration = Duration::from_millis(1);
const SETTLE_TRIES_MAX: u32 = 20_000;

/// A tag of a measurement of a database.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TagName {
    database: u32,
    measurement: Box<[u8]>,
    tag: Box<[u8]>,
}

/// Whether a tag may have these values, asked by a core that does not have them.
pub struct ValueQuestion {
    core: CoreId,
    number: u64,
    /// All questions of the core with smaller numbers have come to their end: what was granted is in the log, or will
    /// never be.
    oldest_open: u64,
    tag: TagName,
    values: Vec<u64>,
}

/// The answer.
pub struct ValueVerdict {
    refused: BTreeSet<u64>,
    /// Values that no series had.
    inserted: bool,
    /// Values that the tag has.
    count: u64,
}

/// Values of a tag on one core.
pub struct CollectedValues {
    hashes: Vec<u64>,
    /// Questions whose batches may come later.
    open: BTreeSet<u64>,
}

/// New values by their tags.
pub type NewValues = BTreeMap<TagName, BTreeSet<u64>>;

/// One core's part.
pub struct TagLedger {
    /// Zero: any number.
    values_max: u64,
    /// Values of a tag that a partition takes without a question.
    share: u64,
    /// Tags that are counted: every new value is asked for.
    counted: RefCell<BTreeSet<TagName>>,
    /// All tags that have more than a share in any partition are among them.
    is_complete: Cell<bool>,
    open: RefCell<BTreeSet<u64>>,
    next: Cell<u64>,
    /// What is known of counted tags; only on the core of the metadata.
    counts: RefCell<BTreeMap<TagName, TagCount>>,
}

struct TagCount {
    hashes: HashSet<u64>,
    /// By core and number of the question: what was granted, and may not be in the log yet.
    granted: BTreeMap<(CoreId, u64), Vec<u64>>,
    /// The state of the counter of removals that the hashes are of.
    removals: u64,
    counted_ns: u64,
    took_ns: u64,
}

/// Values that a batch was granted, until it is in the log.
pub struct Granted {
    ledger: Rc<TagLedger>,
    counts: Arc<SeriesCounts>,
    values: NewValues,
    open: Vec<u64>,
    /// Some of the values are new to the count.
    inserted: bool,
    is_entered: bool,
}

impl TagCount {
    /// Bytes that it takes besides itself.
    fn byte_size(&self) -> usize {
        // Each bucket of a table is an entry and a byte; an eighth of them stays free, and their number is a power of two.
        let buckets = match self.hashes.capacity() {
            0 => 0,
            capacity => (capacity * 8 / 7).next_power_of_two(),
        };
        let granted = self.granted.values().map(|values| values.capacity() * size_of::<u64>() + 64);
        buckets * (size_of::<u64>() + 1) + granted.sum::<usize>()
    }
}

impl TagLedger {
    pub fn new(values_max: u64, partitions: u32) -> TagLedger {
        TagLedger {
            values_max,
            share: values_max / u64::from(partitions),
            counted: RefCell::default(),
            is_complete: Cell::new(false),
            open: RefCell::default(),
            next: Cell::default(),
            counts: RefCell::default(),
        }
    }

    /// Whether the new series of a batch may come as far as the values of their tags go; how many new series it may
    /// have. `coming`: so many may be on their way to the partition already.
    ///
    /// # Errors
    /// What has to be asked.
    pub fn admit<D: Disk>(
        &self,
        partition: &Partition<D>,
        image: &[u8],
        coming: u64,
        granted: Option<&Granted>,
    ) -> Result<u64, Denial> {
        let Some(header) = PartitionBatch::header_of(image) else { return Ok(0) };
        let series = u64::from(header.series_count);
        let index = partition.index(DatabaseId(header.database));
        let most = index.as_ref().map_or(0, |index| index.tag_values_max());
        let is_complete = self.is_complete.get();
        let is_small = most + coming + series <= self.share && self.counted.borrow().is_empty();
        if self.values_max == 0 || (is_small && is_complete) {
            return Ok(series);
        }
        let Ok(batch) = PartitionBatch::parse(image) else { return Ok(0) };
        let counted = self.counted.borrow();
        let (mut fresh, mut here, mut asked) = (0, NewValues::new(), NewValues::new());
        let is_known = |hash, key| index.as_ref().is_some_and(|index| index.contains(hash, key));
        for series in batch.series().filter(|series| !is_known(series.hash, series.key)) {
            fresh += 1;
            let measurement = series_key::measurement(series.key);
            for (tag, value) in distinct_tags(series.key) {
                if index.as_ref().is_some_and(|index| index.has_tag_value(&measurement, &tag, &value)) {
                    continue;
                }
                let name = TagName {
                    database: header.database,
                    measurement: measurement.as_ref().into(),
                    tag: tag.as_ref().into(),
                };
                let hash = xxh3_64(&value);
                if granted.is_some_and(|granted| granted.values.get(&name).is_some_and(|all| all.contains(&hash))) {
                    continue;
                }
                let has = index.as_ref().map_or(0, |index| index.tag_value_count(&measurement, &tag));
                let new = here.entry(name.clone()).or_default();
                new.insert(hash);
                if !is_complete || counted.contains(&name) || has + coming + new.len() as u64 > self.share {
                    asked.entry(name).or_default().insert(hash);
                }
            }
        }
        if asked.is_empty() { Ok(fresh) } else { Err(Denial::NewValues(asked)) }
    }

    /// Bytes of what is counted here, of one tag or of all.
    fn byte_size(&self, of: Option<&TagName>) -> usize {
        let counts = self.counts.borrow();
        match of {
            Some(tag) => counts.get(tag).map_or(0, TagCount::byte_size),
            None => counts.values().map(TagCount::byte_size).sum(),
        }
    }

    fn open(&self) -> u64 {
        let number = self.next.get();
        self.next.set(number + 1);
        self.open.borrow_mut().insert(number);
        number
    }
}

impl Granted {
    pub fn new(ledger: &Rc<TagLedger>, counts: &Arc<SeriesCounts>) -> Granted {
        Granted {
            ledger: ledger.clone(),
            counts: counts.clone(),
            values: NewValues::new(),
            open: Vec::new(),
            inserted: false,
            is_entered: false,
        }
    }

    /// The batch is in the log.
    pub fn entered(mut self) {
        self.is_entered = true;
    }
}

impl Drop for Granted {
    fn drop(&mut self) {
        let mut open = self.ledger.open.borrow_mut();
        self.open.iter().for_each(|number| {
            open.remove(number);
        });
        if !self.is_entered && self.inserted {
            // Values were counted that do not come.
            self.counts.count_removal();
        }
    }
}

impl DataCore {
    /// Asks for the values that a batch brings.
    ///
    /// # Errors
    /// Which series may not come.
    pub(super) async fn ask_values(
        self: &Rc<Self>,
        image: &[u8],
        asked: NewValues,
        granted: &mut Granted,
    ) -> Result<(), CallError> {
        let mut refused: BTreeMap<TagName, ValueVerdict> = BTreeMap::new();
        for (tag, values) in asked {
            let number = self.tags.open();
            granted.open.push(number);
            let oldest_open = self.tags.open.borrow().first().copied().unwrap_or(number);
            let question = ValueQuestion {
                core: self.context.core,
                number,
                oldest_open,
                tag: tag.clone(),
                values: values.iter().copied().collect(),
            };
            let verdict = match self.call(META_CORE, Call::CountTagValues(question)).await? {
                Reply::TagValuesCounted(verdict) => verdict?,
                _ => unreachable!("values are counted as such"),
            };
            granted.inserted |= verdict.inserted;
            let all = granted.values.entry(tag.clone()).or_default();
            all.extend(values.iter().filter(|value| !verdict.refused.contains(value)));
            if !verdict.refused.is_empty() {
                refused.insert(tag, verdict);
            }
        }
        if refused.is_empty() { Ok(()) } else { Err(self.refusal(image, &refused).into()) }
    }

    /// The series of a batch with refused values; the first of them is named.
    fn refusal(&self, image: &[u8], refused: &BTreeMap<TagName, ValueVerdict>) -> SeriesRefusal {
        let mut refusal = SeriesRefusal { why: String::new(), series: Vec::new() };
        let Ok(batch) = PartitionBatch::parse(image) else { return refusal };
        for series in batch.series() {
            let measurement = series_key::measurement(series.key);
            let found = distinct_tags(series.key).find_map(|(tag, value)| {
                let name = TagName {
                    database: batch.header().database,
                    measurement: measurement.as_ref().into(),
                    tag: tag.as_ref().into(),
                };
                let verdict = refused.get(&name).filter(|verdict| verdict.refused.contains(&xxh3_64(&value)))?;
                Some((verdict.count, tag, value))
            });
            let Some((count, tag, value)) = found else { continue };
            if refusal.series.is_empty() {
                refusal.why = format!(
                    "max-values-per-tag limit exceeded ({count}/{}): measurement={} tag={} value={}",
                    self.tags.values_max,
                    quoted(&measurement),
                    quoted(&tag),
                    quoted(&value)
                );
            }
            refusal.series.push(series.hash);
        }
        refusal.series.sort_unstable();
        self.figures.series_refused.set(self.figures.series_refused.get() + refusal.series.len() as u64);
        refusal
    }

    /// Learns which tags are to be counted because some partition has more than its share of their values. To be run
    /// once, after the start.
    pub(super) async fn learn_large_tags(self: Rc<Self>) {
        let calls: Vec<_> = self.cores().map(|core| self.call(core, Call::LargeTags)).collect();
        for call in calls {
            match call.await {
                Ok(Reply::LargeTags(tags)) => self.tags.counted.borrow_mut().extend(tags),
                Ok(_) => unreachable!("tags are told as such"),
                // Every value is asked for, then.
                Err(error) => return tracing::warn!(%error, "a core does not tell its large tags"),
            }
        }
        self.tags.is_complete.set(true);
    }

    /// Tags of which a partition of this core has more values than its share.
    pub(super) fn large_tags(&self) -> Vec<TagName> {
        let mut large = Vec::new();
        for partition in self.partitions.values() {
            for database in partition.databases() {
                let Some(index) = partition.index(database) else { continue };
                for measurement in index.measurement_names() {
                    let is_large = |tag: &&[u8]| index.tag_value_count(measurement, tag) > self.tags.share;
                    large.extend(index.tag_keys(measurement).filter(is_large).map(|tag| TagName {
                        database: database.0,
                        measurement: measurement.into(),
                        tag: tag.into(),
                    }));
                }
            }
        }
        large
    }

    /// Grants values as long as there is room. On the core of the metadata.
    pub(super) async fn count_tag_values(self: &Rc<Self>, question: ValueQuestion) -> Result<ValueVerdict, CallError> {
        let _turn = self.counting.take().await;
        let tag = &question.tag;
        let mut is_collected = !self.tags.counts.borrow().contains_key(tag);
        if is_collected {
            self.collect_all(tag).await?;
        }
        let before = self.tags.byte_size(Some(tag));
        let mut verdict = self.judge(&question);
        if !verdict.refused.is_empty() && self.may_collect_again(tag) {
            self.collect_all(tag).await?;
            verdict = self.judge(&question);
            is_collected = true;
        }
        // They are of the index's share: at its end no new series come, and so no new values.
        let held = &self.held.tag_values_bytes;
        held.set(match is_collected {
            true => self.tags.byte_size(None),
            false => held.get() + self.tags.byte_size(Some(tag)) - before,
        });
        Ok(verdict)
    }

    fn judge(&self, question: &ValueQuestion) -> ValueVerdict {
        let mut counts = self.tags.counts.borrow_mut();
        let count = counts.get_mut(&question.tag).expect("it was collected");
        let (core, oldest) = (question.core, question.oldest_open);
        count.granted.retain(|(asker, number), _| *asker != core || *number >= oldest);
        let mut verdict = ValueVerdict { refused: BTreeSet::new(), inserted: false, count: 0 };
        let mut granted = Vec::new();
        for value in &question.values {
            if count.hashes.contains(value) {
                // It may be another's who has not written it yet, and may never do.
                granted.push(*value);
            } else if (count.hashes.len() as u64) < self.tags.values_max {
                count.hashes.insert(*value);
                verdict.inserted = true;
                granted.push(*value);
            } else {
                verdict.refused.insert(*value);
            }
        }
        count.granted.entry((core, question.number)).or_default().extend(granted);
        verdict.count = count.hashes.len() as u64;
        verdict
    }

    /// Whether values may have gone, and counting them did not take too much of the time lately.
    fn may_collect_again(&self, tag: &TagName) -> bool {
        let counts = self.tags.counts.borrow();
        let now_ns = self.context.clock.monotonic_ns();
        counts.get(tag).is_none_or(|count| {
            count.removals != self.ledger.counts().removals()
                && now_ns.saturating_sub(count.counted_ns) >= RECOUNT_PART * count.took_ns
        })
    }

    async fn collect_all(self: &Rc<Self>, tag: &TagName) -> Result<(), CallError> {
        let begun_ns = self.context.clock.monotonic_ns();
        let removals = self.ledger.counts().removals();
        let calls: Vec<_> =
            self.cores().map(|core| (core, self.call(core, Call::CollectTagValues(tag.clone())))).collect();
        let mut granted = self.tags.counts.borrow_mut().remove(tag).map(|old| old.granted).unwrap_or_default();
        let mut hashes = HashSet::new();
        for (core, call) in calls {
            let collected = match call.await? {
                Reply::TagValuesCollected(collected) => collected?,
                _ => unreachable!("values are collected as such"),
            };
            hashes.extend(collected.hashes);
            granted.retain(|(asker, number), _| *asker != core || collected.open.contains(number));
        }
        hashes.extend(granted.values().flatten());
        let counted_ns = self.context.clock.monotonic_ns();
        let took_ns = counted_ns - begun_ns;
        let mut counts = self.tags.counts.borrow_mut();
        // Of databases that were dropped nobody asks again.
        counts.retain(|known, _| self.meta().database_by_id(tidemill_meta::DatabaseId(known.database)).is_some());
        counts.insert(tag.clone(), TagCount { hashes, granted, removals, counted_ns, took_ns });
        Ok(())
    }

    /// The values of a tag in the partitions of this core, which from now on asks for each that is new.
    pub(super) async fn collect_tag_values(&self, tag: TagName) -> Result<CollectedValues, CallError> {
        self.tags.counted.borrow_mut().insert(tag.clone());
        let open = self.tags.open.borrow().clone();
        // What came into the log before is to be in the indexes.
        let entered = self.ledger.entered();
        let mut tries = 0;
        while !self.ledger.has_applied(&entered) {
            tries += 1;
            if tries > SETTLE_TRIES_MAX {
                return Err(CallError::Unknown("entries of the log are not applied".to_owned()));
            }
            self.context.sleep(SETTLE_PAUSE).await;
        }
        let mut hashes = Vec::new();
        for partition in self.partitions.values() {
            if let Some(index) = partition.index(DatabaseId(tag.database)) {
                hashes.extend(index.tag_values(&tag.measurement, &tag.tag).map(|(value, _)| xxh3_64(&value)));
            }
            self.context.yield_now_if_needed().await;
        }
        Ok(CollectedValues { hashes, open })
    }
}

/// A text in quotes, as upstream writes it.
fn quoted(text: &[u8]) -> String {
    let mut out = String::from("\"");
    for character in String::from_utf8_lossy(text).chars() {
        match character {
            '"' | '\\' => out.extend(['\\', character]),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            control if control.is_ascii_control() => out.push_str(&format!("\\x{:02x}", control as u32)),
            other => out.push(other),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bytes_of_counted_values_are_those_of_their_table() {
        let mut count =
            TagCount { hashes: HashSet::new(), granted: BTreeMap::new(), removals: 0, counted_ns: 0, took_ns: 0 };
        assert_eq!(count.byte_size(), 0);
        for values in [3, 28, 29, 1_000, 100_000] {
            count.hashes.extend(0..values);
            let bytes = count.byte_size();
            assert!(bytes >= values as usize * 9 && bytes <= values as usize * 24 + 64, "{values}: {bytes}");
        }
        count.granted.insert((CoreId(0), 1), vec![0; 100]);
        assert!(count.byte_size() >= 100_000 * 9 + 800);
    }

    #[test]
    fn texts_are_quoted_as_upstream_quotes_them() {
        assert_eq!(quoted(b"a \"b\"\\\n\x01\xc3\xa4"), "\"a \\\"b\\\"\\\\\\n\\x01\u{e4}\"");
    }
}
