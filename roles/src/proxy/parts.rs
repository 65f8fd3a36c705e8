//! A body of line protocol, dealt to the data groups that its series belong to.
//!
//! Invariants: lines of a series keep their order; the parts hold every line of the body once, those that no parser takes
//! included, so that some node says what is wrong with them.

use bytes::Bytes;
use std::{collections::BTreeMap, ops::Range};
use tidemill_line::{LineRouter, PartitionMap};

/// What goes to one data group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// From 0.
    pub group: u32,
    pub body: Bytes,
    /// Partitions that its lines belong to, ascending.
    pub partitions: Vec<u32>,
}

/// Deals a body, in the order in which its groups first come up. No line: no part.
pub fn deal(router: &mut LineRouter, body: &Bytes, map: PartitionMap) -> Vec<Part> {
    let mut lines: Vec<(Range<usize>, Option<u32>)> = Vec::new();
    let mut is_touched = vec![false; map.count() as usize];
    router.route(body, map, |line, partition| {
        if let Some(partition) = partition {
            is_touched[partition as usize] = true;
        }
        let group = partition.map(|partition| map.group_of(partition));
        match lines.last_mut() {
            // Neighbours that go the same way go together.
            Some((last, known)) if *known == group && last.end == line.start => last.end = line.end,
            _ => lines.push((line, group)),
        }
    });
    // A line without a series goes with the first one that has one.
    let fallback = lines.iter().find_map(|(_, group)| *group).unwrap_or(0);
    let mut order: Vec<u32> = Vec::new();
    let mut sizes: BTreeMap<u32, usize> = BTreeMap::new();
    for (line, group) in &lines {
        let group = group.unwrap_or(fallback);
        if !order.contains(&group) {
            order.push(group);
        }
        *sizes.entry(group).or_default() += line.len() + 1;
    }
    let of_group = |group: u32| {
        let touched = is_touched.iter().zip(0..).filter(|(is_touched, _)| **is_touched);
        touched.map(|(_, partition)| partition).filter(|partition| map.group_of(*partition) == group).collect()
    };
    if let [group] = order[..] {
        return vec![Part { group, body: body.clone(), partitions: of_group(group) }];
    }
    let mut bodies: BTreeMap<u32, Vec<u8>> =
        sizes.into_iter().map(|(group, size)| (group, Vec::with_capacity(size))).collect();
    for (line, group) in lines {
        if let Some(part) = bodies.get_mut(&group.unwrap_or(fallback)) {
            part.extend_from_slice(&body[line]);
            if part.last() != Some(&b'\n') {
                part.push(b'\n');
            }
        }
    }
    let part = |group: u32| {
        let body = bodies.remove(&group).unwrap_or_default().into();
        Part { group, body, partitions: of_group(group) }
    };
    order.into_iter().map(part).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn dealt(body: &str, groups: u32) -> Vec<Part> {
        let map = PartitionMap::new(groups, 2).unwrap();
        deal(&mut LineRouter::new(), &Bytes::copy_from_slice(body.as_bytes()), map)
    }

    #[test]
    fn a_body_of_one_group_is_passed_as_it_is() {
        let body = "# c\n\nm v=1\n  n v=2";
        assert_eq!(dealt(body, 1)[0].body, body);
        assert!(dealt("\n# only a comment\n", 3).is_empty());
    }

    #[test]
    fn lines_without_a_series_go_with_others() {
        let parts = dealt("no fields\nm,h=1 v=1\n,bad v=1\nm,h=2 v=1\nm,h=3 v=1\nm,h=4 v=1", 2);
        let all: usize = parts.iter().map(|part| part.body.split(|byte| *byte == b'\n').count() - 1).sum();
        assert_eq!((parts.len(), all), (2, 6));
        assert_eq!(dealt(",bad v=1", 2), [Part { group: 0, body: ",bad v=1".into(), partitions: vec![] }]);
    }

    proptest! {
        #[test]
        fn every_line_goes_to_one_group_in_its_order(hosts in prop::collection::vec(0u8..20, 1..60), groups in 1u32..5) {
            let body: String = hosts.iter().zip(0..).map(|(host, at)| format!("m,h={host} v={at}\n")).collect();
            let parts = dealt(&body, groups);
            let mut seen = Vec::new();
            for part in &parts {
                let text = std::str::from_utf8(&part.body).unwrap();
                let numbers: Vec<usize> = text.lines().map(|line| line.rsplit('=').next().unwrap().parse().unwrap()).collect();
                prop_assert!(numbers.is_sorted());
                prop_assert!(!part.partitions.is_empty());
                seen.extend(numbers);
            }
            seen.sort_unstable();
            prop_assert_eq!(seen, (0..hosts.len()).collect::<Vec<_>>());
        }
    }
}
