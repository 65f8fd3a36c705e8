//! Batches whose identities a proxy has given: the same ones at whatever node it tries.
//!
//! Invariant: an image that the claim does not cover is never proposed, and then no other of its body is.

use tidemill_http::Refusal;
use tidemill_line::{BatchClaim, CLAIM_GROUPS_MAX, PartitionImage};

/// The status of what the proxy has to claim in another way; nothing was done.
pub const STATUS: u16 = 409;
/// How the text begins that lists the shard groups which a claim must name, in hexadecimal digits and joined by commas.
pub const GROUPS: &str = "claim needs shard groups ";
/// How the text begins that tells up to which session a partition has forgotten all.
pub const FORGOTTEN: &str = "claim is of a session before ";

/// Gives each image its identity.
///
/// # Errors
/// The claim does not cover one of them. Nothing was done.
pub fn stamp(claim: &BatchClaim, images: &mut [PartitionImage]) -> Result<(), Refusal> {
    let mut groups: Vec<u64> = images.iter().map(|image| image.shard_group).collect();
    groups.sort_unstable();
    groups.dedup();
    let is_covered = match claim.shard_groups.as_slice() {
        [] => groups.len() <= 1,
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
