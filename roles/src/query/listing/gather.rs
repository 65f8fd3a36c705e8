//! The part of a core: ids into sorted runs, and the texts of ids.

use crate::{
    data::{
        DataCore,
        question::{lossy, predicate},
    },
    query::{
        StatementError, elsewhere,
        error::Stopped,
        listing::{List, ListOrder, Listed, PageOrder, Run, Source},
    },
};
use std::{borrow::Cow, rc::Rc, sync::Arc};
use tidemill_column::Strings;
use tidemill_line::series_key;
use tidemill_query::TagFilter;
use tidemill_store::{SeriesId, SeriesIndex};

/// Ids of a run: what is sorted in one go, about half a millisecond.
const RUN_LEN: usize = 8192;

/// The rows that the partitions have whose requests come to this core.
///
/// # Errors
/// The query is to stop, or holds more than it may; partitions that other nodes hold can be read nowhere.
pub(crate) async fn gather(core: Rc<DataCore>, order: Arc<ListOrder>) -> Result<Vec<Run>, StatementError> {
    let held = core.held();
    let mut runs = elsewhere::list(&core, &order).await?;
    runs.extend(gather_of(core, order, held).await?);
    Ok(runs)
}

/// The rows that these partitions of this core have.
///
/// # Errors
/// The query is to stop, or holds more than it may.
pub(crate) async fn gather_of(
    core: Rc<DataCore>,
    order: Arc<ListOrder>,
    partitions: Vec<u32>,
) -> Result<Vec<Run>, Stopped> {
    let mut runs = Vec::new();
    for partition in partitions {
        let source = Source { database: order.database, partition, born: 0, tag: None };
        let measurements = {
            let Some(index) = core.index(partition, order.database) else { continue };
            order.wanted.of(&index)
        };
        for (name, filter) in measurements {
            for (list, source, ids) in lists(&core, &order, source.clone(), &name, &filter) {
                let mut charge = order.query.charge();
                charge.set(ids.capacity() * size_of::<u32>())?;
                for ids in ids.chunks(RUN_LEN) {
                    order.query.check(core.context().clock.monotonic_ns())?;
                    let Some(ids) = sorted(&core, &source, ids, order.rows_max) else { break };
                    let mut charge = order.query.charge();
                    charge.set(ids.capacity() * size_of::<u32>() + size_of::<Run>())?;
                    runs.push(Run { list: list.clone(), source: source.clone(), ids, charge });
                    core.context().yield_now_if_needed().await;
                }
            }
        }
    }
    Ok(runs)
}

/// The lists that a measurement has part in, with ids of their rows in no order.
fn lists(
    core: &DataCore,
    order: &ListOrder,
    source: Source,
    name: &[u8],
    filter: &TagFilter,
) -> Vec<(List, Source, Vec<u32>)> {
    let Some(index) = core.index(source.partition, source.database) else { return Vec::new() };
    let source = Source { born: index.born(), ..source };
    let tags = match &order.listed {
        Listed::Series => {
            let selected = index.select(name, &predicate(filter));
            return vec![(List::Series, source, selected.iter().collect())];
        }
        Listed::TagValues(tags) => tags,
    };
    let selected = (*filter != TagFilter::All).then(|| index.select(name, &predicate(filter)));
    let measurement: Arc<str> = lossy(name).into();
    let accepted = index.tag_keys(name).map(|tag| (tag, lossy(tag))).filter(|(_, text)| tags.accepts(text));
    let of_tag = |(tag, text): (&[u8], String)| {
        let ids = index.tag_postings(name, tag).filter_map(|posting| match &selected {
            Some(selected) if posting.is_disjoint(selected) => None,
            // Any series with the value tells its text.
            _ => posting.first(),
        });
        let list = List::TagValues { measurement: measurement.clone(), tag: text.into() };
        (list, Source { tag: Some(tag.into()), ..source.clone() }, ids.collect())
    };
    accepted.map(of_tag).collect()
}

/// The ids sorted by their texts, the smallest of them; `None` if the index has gone.
fn sorted(core: &DataCore, source: &Source, ids: &[u32], rows_max: Option<u64>) -> Option<Vec<u32>> {
    let index = core.index(source.partition, source.database).filter(|index| index.born() == source.born)?;
    let text = |id: u32| text_of(&index, source, id);
    let first = text(*ids.first()?);
    let shared = |other: Cow<'_, [u8]>| first.iter().zip(other.iter()).take_while(|(one, other)| one == other).count();
    let common = ids.iter().map(|id| shared(text(*id))).min().unwrap_or(0);
    // What follows what all have in common decides nearly always.
    let mut keyed: Vec<(u64, u32)> = ids.iter().map(|id| (leading(&text(*id)[common..]), *id)).collect();
    let compare = |a: &(u64, u32), b: &(u64, u32)| a.0.cmp(&b.0).then_with(|| text(a.1).cmp(&text(b.1)));
    if let Some(rows_max) = rows_max.map(|rows| rows as usize).filter(|rows| *rows < keyed.len()) {
        keyed.select_nth_unstable_by(rows_max, compare);
        keyed.truncate(rows_max);
    }
    keyed.sort_unstable_by(compare);
    Some(keyed.into_iter().map(|(_, id)| id).collect())
}

/// The first eight bytes as a number that sorts as they do.
fn leading(text: &[u8]) -> u64 {
    let mut bytes = [0; 8];
    let len = text.len().min(8);
    bytes[..len].copy_from_slice(&text[..len]);
    u64::from_be_bytes(bytes)
}

fn text_of<'a>(index: &'a SeriesIndex, source: &Source, id: u32) -> Cow<'a, [u8]> {
    let key = index.known_key(SeriesId(id)).unwrap_or_default();
    match &source.tag {
        None => Cow::Borrowed(key),
        Some(tag) => series_key::tag_value(key, tag).unwrap_or_default(),
    }
}

/// The texts of a page; none if the index has gone.
pub(crate) fn texts(core: &DataCore, order: &PageOrder) -> Strings {
    let mut texts = Strings::new();
    let source = &order.source;
    let Some(index) = core.index(source.partition, source.database).filter(|index| index.born() == source.born) else {
        return texts;
    };
    for id in &order.ids {
        texts.push(String::from_utf8_lossy(&text_of(&index, source, *id)).as_bytes());
    }
    texts
}
