//! The identities that a sender gives to the batches of one body before it is cut, as a line of text.
//!
//! A sender that does not read fields cannot cut a body into images; it can name the partitions that the body touches and
//! give each an identity, which whoever cuts the body stamps on the images. A body that falls into several shard groups has
//! several images for a partition: their sequences follow each other in the order of the list of groups, which the claim
//! carries, so that everybody who cuts the body gives each image the same one (I6).
//!
//! `1 now groups identities`, with the numbers of groups joined by commas, and an identity as
//! `partition.session.sequence.behind`, joined by commas; `-` stands for none of them; all in hexadecimal digits but `now`, ns.

#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic))]

use crate::{Identity, PARTITIONS_MAX};
use std::{collections::BTreeMap, fmt, str::FromStr};

/// Shard groups of a claim at most: as many sequences are used up in each partition.
pub const CLAIM_GROUPS_MAX: usize = 256;

/// What a sender says of a body.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BatchClaim {
    /// The time of lines without one, ns since the epoch.
    pub now_ns: i64,
    /// Ascending. Empty: all rows fall into one, whichever it is.
    pub shard_groups: Vec<u64>,
    /// By partition; the identity of the image of the first shard group.
    pub identities: BTreeMap<u32, Identity>,
}

/// A text that is no claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this is no claim of identities")]
pub struct NoClaim;

impl BatchClaim {
    /// The identity of an image; `None` if the claim does not cover it.
    pub fn identity_of(&self, partition: u32, shard_group: u64) -> Option<Identity> {
        let rank = match self.shard_groups.as_slice() {
            [] => 0,
            groups => groups.binary_search(&shard_group).ok()?,
        };
        let first = self.identities.get(&partition)?;
        let behind = first.behind.checked_add(u16::try_from(rank).ok()?)?;
        Some(Identity { sequence: first.sequence.checked_add(rank as u64)?, behind, ..*first })
    }
}

impl fmt::Display for BatchClaim {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "1 {} ", self.now_ns)?;
        if self.shard_groups.is_empty() {
            formatter.write_str("-")?;
        }
        for (number, group) in self.shard_groups.iter().enumerate() {
            write!(formatter, "{}{group:x}", if number > 0 { "," } else { "" })?;
        }
        formatter.write_str(if self.identities.is_empty() { " -" } else { " " })?;
        for (number, (partition, Identity { session, sequence, behind })) in self.identities.iter().enumerate() {
            let comma = if number > 0 { "," } else { "" };
            write!(formatter, "{comma}{partition:x}.{session:x}.{sequence:x}.{behind:x}")?;
        }
        Ok(())
    }
}

impl FromStr for BatchClaim {
    type Err = NoClaim;

    fn from_str(text: &str) -> Result<BatchClaim, NoClaim> {
        let mut parts = text.split(' ');
        let (version, now, groups, identities) = (parts.next(), parts.next(), parts.next(), parts.next());
        if version != Some("1") || parts.next().is_some() {
            return Err(NoClaim);
        }
        let now_ns = now.and_then(|now| now.parse().ok()).ok_or(NoClaim)?;
        let shard_groups: Vec<u64> = match groups.ok_or(NoClaim)? {
            "-" => Vec::new(),
            list => list.split(',').map(number).collect::<Result<_, _>>()?,
        };
        if shard_groups.len() > CLAIM_GROUPS_MAX || !shard_groups.is_sorted_by(|a, b| a < b) {
            return Err(NoClaim);
        }
        let mut claim = BatchClaim { now_ns, shard_groups, identities: BTreeMap::new() };
        for identity in identities.ok_or(NoClaim)?.split(',').filter(|identity| *identity != "-") {
            let mut parts = identity.split('.');
            let mut next = || number(parts.next().ok_or(NoClaim)?);
            let (partition, session, sequence, behind) = (next()?, next()?, next()?, next()?);
            let partition = u32::try_from(partition).ok().filter(|partition| *partition < PARTITIONS_MAX);
            let partition = partition.ok_or(NoClaim)?;
            let behind = u16::try_from(behind).map_err(|_| NoClaim)?;
            let is_sound = session > 0 && sequence > 0 && parts.next().is_none();
            let before = claim.identities.insert(partition, Identity { session, sequence, behind });
            if !is_sound || before.is_some() {
                return Err(NoClaim);
            }
        }
        Ok(claim)
    }
}

fn number(text: &str) -> Result<u64, NoClaim> {
    // `from_str_radix` would take a sign.
    let is_plain = text.bytes().all(|byte| byte.is_ascii_hexdigit());
    u64::from_str_radix(text, 16).ok().filter(|_| is_plain).ok_or(NoClaim)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn claims() -> impl Strategy<Value = BatchClaim> {
        let identity = (1u64.., 1u64.., any::<u16>()).prop_map(|(session, sequence, behind)| Identity {
            session,
            sequence,
            behind,
        });
        let identities = prop::collection::btree_map(0..PARTITIONS_MAX, identity, 0..20);
        (any::<i64>(), prop::collection::btree_set(any::<u64>(), 0..20), identities).prop_map(
            |(now_ns, groups, identities)| BatchClaim {
                now_ns,
                shard_groups: groups.into_iter().collect(),
                identities,
            },
        )
    }

    proptest! {
        #[test]
        fn claims_come_back(claim in claims()) {
            prop_assert_eq!(claim.to_string().parse(), Ok(claim));
        }

        #[test]
        fn any_text_is_refused_or_read(text in "1 [0-9-]{1,3} [0-9a-f,-]{0,8} [0-9a-f.,+]{0,30}|.{0,40}") {
            if let Ok(claim) = text.parse::<BatchClaim>() {
                prop_assert_eq!(claim.to_string().parse(), Ok(claim));
            }
        }

        #[test]
        fn images_of_a_partition_have_different_sequences(claim in claims()) {
            for (partition, first) in &claim.identities {
                for (rank, group) in claim.shard_groups.iter().enumerate() {
                    if let Some(found) = claim.identity_of(*partition, *group) {
                        prop_assert_eq!((found.session, found.sequence), (first.session, first.sequence + rank as u64));
                    }
                }
            }
        }
    }

    #[test]
    fn what_is_not_covered_has_no_identity() {
        let claim: BatchClaim = "1 5 3,7 a.1.9.0".parse().unwrap();
        assert_eq!(claim.identity_of(10, 7), Some(Identity { session: 1, sequence: 10, behind: 1 }));
        assert_eq!((claim.identity_of(10, 4), claim.identity_of(11, 3)), (None, None));
        let anywhere: BatchClaim = "1 5 - a.1.9.2".parse().unwrap();
        assert_eq!(anywhere.identity_of(10, 99), Some(Identity { session: 1, sequence: 9, behind: 2 }));
    }
}
