//! What a node says of where series go (`GET /cluster/placement`).

#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic))]

use serde::Deserialize;
use tidemill_line::PartitionMap;

/// The version that this proxy understands.
const VERSION: u32 = 1;

/// One node's word.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placement {
    pub cluster: Option<String>,
    /// The data group that the node holds, from 1; none: it takes no writes and answers no queries.
    pub data_group: Option<u32>,
    pub map: PartitionMap,
    /// Partitions that the node leads, ascending.
    pub leads: Vec<u32>,
    /// The node stamps identities that a proxy gives.
    pub knows_proxies: bool,
}

#[derive(Deserialize)]
struct Told {
    version: u32,
    cluster: Option<String>,
    data_group: Option<u32>,
    data_groups: u32,
    partitions: u32,
    leads: Vec<u32>,
    knows_proxies: bool,
}

impl Placement {
    /// # Errors
    /// The text is no placement, or of a version that is not known here.
    pub fn parse(bytes: &[u8]) -> Result<Placement, String> {
        let told: Told = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
        if told.version != VERSION {
            return Err(format!("a placement of version {}, and {VERSION} is understood", told.version));
        }
        let per_group = told.partitions.checked_div(told.data_groups).unwrap_or(0);
        let map = PartitionMap::new(told.data_groups, per_group).map_err(|error| error.to_string())?;
        let mut leads = told.leads;
        leads.sort_unstable();
        if map.count() != told.partitions || leads.last().is_some_and(|last| *last >= map.count()) {
            return Err("a placement whose numbers do not fit".to_owned());
        }
        Ok(Placement {
            cluster: told.cluster,
            data_group: told.data_group,
            map,
            leads,
            knows_proxies: told.knows_proxies,
        })
    }

    /// How many of these partitions the node leads.
    pub fn led_of(&self, partitions: &[u32]) -> usize {
        partitions.iter().filter(|partition| self.leads.binary_search(partition).is_ok()).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const GOOD: &str = r#"{"version":1,"cluster":"c","node":2,"role":"data","data_group":1,"data_groups":2,
        "partitions":8,"leads":[3,1],"knows_proxies":true}"#;

    #[test]
    fn a_placement_is_read_or_refused() {
        let placement = Placement::parse(GOOD.as_bytes()).unwrap();
        assert_eq!((placement.map.groups(), placement.map.count(), placement.data_group), (2, 8, Some(1)));
        assert_eq!(placement.led_of(&[0, 1, 2, 3]), 2);
        for (good, bad) in [
            ("\"version\":1", "\"version\":2"),
            ("\"partitions\":8", "\"partitions\":7"),
            ("\"partitions\":8", "\"partitions\":2"),
            ("\"data_groups\":2", "\"data_groups\":0"),
            ("[3,1]", "[9]"),
            ("[3,1]", "[-1]"),
        ] {
            assert!(Placement::parse(GOOD.replace(good, bad).as_bytes()).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn no_text_breaks_the_reader(at in 0usize..200, with in any::<char>()) {
            let mut text: Vec<char> = GOOD.chars().collect();
            let at = at % text.len();
            text[at] = with;
            let _ = Placement::parse(text.into_iter().collect::<String>().as_bytes());
        }
    }
}
