//! Batches whose identities a proxy has given: the same ones at whatever node it tries.
//!
//! Invariants: an image that the claim does not cover is never proposed, and then no other of its body is. Whether a claim
//! without shard groups is enough follows from the times of all rows of the body and from the shard groups alone, not from
//! what is kept of it: where one node says that it is not, no other has stored anything by it.

use tidemill_http::Refusal;
use tidemill_line::{BatchClaim, CLAIM_GROUPS_MAX, PartitionImage, ShardGroupRange};

/// The status of what the proxy has to claim in another way; nothing was done.
pub const STATUS: u16 = 409;
/// How the text begins that lists the shard groups which a claim must name, in hexadecimal digits and joined by commas.
pub const GROUPS: &str = "claim needs shard groups ";
/// How the text begins that tells up to which session a partition has forgotten all.
pub const FORGOTTEN: &str = "claim is of a session before ";

/// Gives each image its identity. `range`: the first and the last time of all rows of the body.
///
/// # Errors
/// The claim does not cover one of them. Nothing was done.
pub fn stamp(
    claim: &BatchClaim,
    images: &mut [PartitionImage],
    shard_groups: &[ShardGroupRange],
    range: (i64, i64),
) -> Result<(), Refusal> {
    let mut groups: Vec<u64> = images.iter().map(|image| image.shard_group).collect();
    groups.sort_unstable();
    groups.dedup();
    let is_covered = match claim.shard_groups.as_slice() {
        [] => {
            let holds_all = |group: &ShardGroupRange| group.start <= range.0 && range.1 < group.end;
            groups.is_empty() || shard_groups.iter().any(holds_all)
        }
        named => groups.iter().all(|group| named.binary_search(group).is_ok()),
    };
    if !is_covered {
        groups.extend(&claim.shard_groups);
        groups.sort_unstable();
        groups.dedup();
        if groups.len() > CLAIM_GROUPS_MAX {
            let text = format!("the points of one write fall into more than {CLAIM_GROUPS_MAX} shard groups");
            return Err(Refusal::new(413, text));
        }
        let list: Vec<String> = groups.iter().map(|group| format!("{group:x}")).collect();
        return Err(Refusal::new(STATUS, format!("{GROUPS}{}", list.join(","))));
    }
    for image in images {
        let Some(identity) = claim.identity_of(image.partition, image.shard_group) else {
            // The proxy and this node do not agree on where series go.
            let text = format!("the claim does not cover partition {}", image.partition);
            return Err(Refusal::new(400, text));
        };
        let is_stamped = identity.stamp(&mut image.bytes);
        assert!(is_stamped, "an image of the splitter has a header");
    }
    Ok(())
}

/// The answer where a partition remembers no session so old; nothing of its image was stored.
pub fn forgotten(through: u64) -> Refusal {
    Refusal::new(STATUS, format!("{FORGOTTEN}{through:x}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidemill_line::{Batch, ParseOptions, PartitionBatch, PartitionMap, Precision, SplitPlan, Splitter};

    const GROUPS_OF_TEN: [ShardGroupRange; 2] =
        [ShardGroupRange { id: 3, start: 0, end: 10 }, ShardGroupRange { id: 12, start: 10, end: 20 }];

    /// Identities of the images of a body of which the rows before `oldest` are left out.
    fn stamped(claim: &str, body: &str, oldest: i64) -> Result<Vec<(u64, u64)>, String> {
        let options = ParseOptions { precision: Precision::Nanosecond, now_ns: 0, validate_keys: false };
        let mut batch = Batch::new(1);
        let parsed = batch.parse(body.as_bytes(), &options).unwrap();
        let plan = SplitPlan {
            database: 1,
            retention_policy: 1,
            shard_groups: &GROUPS_OF_TEN,
            partitions: PartitionMap::single(1),
            session: 0,
            sequence: 0,
        };
        let mut splitter = Splitter::new();
        let mut images = splitter.split(&parsed, &plan, |_, row| row.time >= oldest).unwrap();
        let range = parsed.time_range().unwrap();
        stamp(&claim.parse().unwrap(), &mut images, &GROUPS_OF_TEN, range).map_err(|refusal| refusal.text)?;
        let header = |image: &PartitionImage| PartitionBatch::header_of(&image.bytes).unwrap();
        Ok(images.iter().map(|image| (image.shard_group, header(image).sequence)).collect())
    }

    #[test]
    fn images_get_the_sequences_of_their_shard_groups() {
        assert_eq!(stamped("1 0 - 0.1.7.0", "m v=1 3\nm v=2 4", 0), Ok(vec![(3, 7)]));
        assert_eq!(stamped("1 0 3,c 0.1.7.0", "m v=1 3\nm v=2 14", 0), Ok(vec![(3, 7), (12, 8)]));
        assert_eq!(stamped("1 0 3,c 0.1.7.0", "m v=2 14", 0), Ok(vec![(12, 8)]));
    }

    #[test]
    fn a_claim_that_is_not_enough_says_which_would_be() {
        let needs = |list: &str| Err(format!("{GROUPS}{list}"));
        assert_eq!(stamped("1 0 - 0.1.7.0", "m v=1 3\nm v=2 14", 0), needs("3,c"));
        assert_eq!(stamped("1 0 c 0.1.7.0", "m v=1 3\nm v=2 14", 0), needs("3,c"));
        // Also where nothing is left of one of the groups: another node's clock may be behind.
        assert_eq!(stamped("1 0 - 0.1.7.0", "m v=1 3\nm v=2 14", 5), needs("c"));
        assert!(stamped("1 0 - 1.1.7.0", "m v=1 3", 0).unwrap_err().contains("does not cover partition 0"));
    }
}
