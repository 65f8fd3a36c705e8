//! What a holder of partitions answers.

#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic))]

use super::order::SourceText;
use crate::{
    data::{distinct::Distinct, question::Finding},
    query::{
        account::{Charge, RunningQuery},
        error::Stopped,
        listing::{List, Run},
        scan::ScanCost,
    },
};
use rkyv::{Archive, Deserialize, Serialize, rancor::Error};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};
use tidemill_column::Strings;
use tidemill_store::ReadCost;

/// Bytes that are no piece of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the archive of an answer is damaged")]
pub struct PieceError;

#[derive(Archive, Serialize, Deserialize, Debug)]
pub enum Piece {
    /// Of a scan, as [`tidemill_query::PartEncoder`] makes them, with what was read since the piece before.
    Outputs {
        points: u64,
        series: u64,
        bytes: Vec<u8>,
    },
    /// All outputs of the scan were sent.
    End {
        points: u64,
        series: u64,
    },
    Cost {
        series: u64,
        cached_values: u64,
        files: u64,
        blocks: u64,
        block_bytes: u64,
    },
    Found(FindingImage),
    Listed(Vec<RunImage>),
    Texts(Strings),
    /// Another holder may know more.
    Unready(String),
    /// So it is, whoever is asked.
    Failed(String),
}

#[derive(Archive, Serialize, Deserialize, Debug)]
pub enum FindingImage {
    Names(BTreeMap<String, BTreeSet<String>>),
    Counts(BTreeMap<String, u64>),
    Distinct(BTreeMap<String, Distinct>),
}

#[derive(Archive, Serialize, Deserialize, Debug)]
pub struct RunImage {
    /// Measurement and tag; none: series.
    values_of: Option<(String, String)>,
    source: SourceText,
    ids: Vec<u32>,
}

impl Piece {
    pub fn decode(bytes: &[u8]) -> Result<Piece, PieceError> {
        rkyv::from_bytes::<Piece, Error>(bytes).map_err(|_| PieceError)
    }

    pub fn of_cost(cost: &ScanCost) -> Piece {
        let ReadCost { cached_values, files, blocks, block_bytes } = cost.read;
        Piece::Cost { series: cost.series, cached_values, files, blocks, block_bytes }
    }
}

impl From<Finding> for FindingImage {
    fn from(finding: Finding) -> FindingImage {
        match finding {
            Finding::Names(names) => FindingImage::Names(names),
            Finding::Counts(counts) => FindingImage::Counts(counts),
            Finding::Distinct(distinct) => FindingImage::Distinct(distinct),
        }
    }
}

impl FindingImage {
    /// The finding, if it is one of the kind that was asked for.
    pub fn finding(self, asked: &Finding) -> Option<Finding> {
        match (self, asked) {
            (FindingImage::Names(names), Finding::Names(_)) => Some(Finding::Names(names)),
            (FindingImage::Counts(counts), Finding::Counts(_)) => Some(Finding::Counts(counts)),
            (FindingImage::Distinct(distinct), Finding::Distinct(_)) if distinct.values().all(Distinct::is_sound) => {
                Some(Finding::Distinct(distinct))
            }
            _ => None,
        }
    }
}

impl RunImage {
    pub fn of(run: Run) -> RunImage {
        let values_of = match &run.list {
            List::Series => None,
            List::TagValues { measurement, tag } => Some((measurement.to_string(), tag.to_string())),
        };
        RunImage { values_of, source: SourceText::of(&run.source), ids: run.ids }
    }

    /// The run, charged to the query that asked.
    pub fn run(self, query: &Arc<RunningQuery>) -> Result<Run, Stopped> {
        let list = match self.values_of {
            None => List::Series,
            Some((measurement, tag)) => List::TagValues { measurement: measurement.into(), tag: tag.into() },
        };
        let mut charge: Charge = query.charge();
        charge.set(self.ids.capacity() * size_of::<u32>() + size_of::<Run>())?;
        Ok(Run { list, source: self.source.source(), ids: self.ids, charge })
    }
}

#[cfg(test)]
mod tests {
    use super::{super::order::encode, *};
    use proptest::prelude::*;

    #[test]
    fn findings_of_another_kind_are_refused() {
        let names = || Finding::Names([("m".to_owned(), ["host".to_owned()].into())].into());
        let Piece::Found(back) = Piece::decode(&encode(&Piece::Found(names().into()))).unwrap() else { panic!() };
        assert!(matches!(back.finding(&names()), Some(Finding::Names(names)) if names["m"].contains("host")));
        assert!(FindingImage::from(names()).finding(&Finding::Counts(BTreeMap::new())).is_none());
    }

    #[test]
    fn texts_that_were_counted_come_back() {
        let mut distinct = Distinct::default();
        (0..1000u32).for_each(|number| distinct.add(b"host", &number.to_le_bytes()));
        let found = Finding::Distinct([("m".to_owned(), distinct)].into());
        let Piece::Found(back) = Piece::decode(&encode(&Piece::Found(found.into()))).unwrap() else { panic!() };
        let Some(Finding::Distinct(mut back)) = back.finding(&Finding::Distinct(BTreeMap::new())) else { panic!() };
        let back = back.get_mut("m").unwrap();
        assert_eq!(std::iter::from_fn(|| back.count_next()).sum::<u64>(), 1000);
    }

    proptest! {
        #[test]
        fn any_bytes_are_refused_or_a_piece(noise in prop::collection::vec(any::<u8>(), 0..100)) {
            let _ = Piece::decode(&noise);
        }
    }
}
