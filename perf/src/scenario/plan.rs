//! What the scenarios are.

use crate::cluster::Duty;
use anyhow::{Result, bail};

/// Data groups, replicas of each, meta nodes and pool masters of every scenario.
const DATA_GROUPS: u32 = 2;
const REPLICAS: usize = 3;
const META_NODES: usize = 3;
const POOL_MASTERS: usize = 3;

/// When the nodes of a scenario are killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Faults {
    /// Where the reference has them: some before the load, the slaves after it.
    After,
    /// All of them while rows are written.
    During,
}

/// One of the five.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scenario {
    pub number: u8,
    /// Of each database.
    pub rows: u64,
    pub slaves: usize,
    /// Killed one after the other, each when the files of the one before have been copied again.
    pub slaves_killed: usize,
    /// Killed before the load: one meta node, one pool master, one data node of each group.
    pub loses_others: bool,
    /// Every L1 file becomes an L2 file of its own.
    pub seals_each_file: bool,
    pub reference: Reference,
}

/// What the reference system showed, by database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reference {
    pub rows_per_second: [u64; 2],
    /// Rows that it counted, too many (above zero) or too few.
    pub miscounted: [i64; 2],
}

impl Scenario {
    /// The scenario of a number, with its number of rows.
    pub fn numbered(number: u8) -> Result<Scenario> {
        let plain = Scenario {
            number,
            rows: 50_000_000,
            slaves: 12,
            slaves_killed: 6,
            loses_others: false,
            seals_each_file: false,
            reference: Reference { rows_per_second: [14_011, 13_199], miscounted: [0, 0] },
        };
        let reference = |rows_per_second, miscounted| Reference { rows_per_second, miscounted };
        Ok(match number {
            1 => Scenario { slaves: 9, slaves_killed: 0, ..plain },
            2 => Scenario { slaves_killed: 4, reference: reference([13_267, 12_465], [0, -254]), ..plain },
            3 => Scenario { reference: reference([13_406, 12_460], [5_328, -870]), ..plain },
            4 => Scenario {
                rows: 10_000_000,
                seals_each_file: true,
                reference: reference([14_763, 12_637], [0, 0]),
                ..plain
            },
            5 => Scenario { loses_others: true, reference: reference([14_684, 14_582], [-1_268, 0]), ..plain },
            _ => bail!("scenario {number}: there are 1 to 5"),
        })
    }

    /// What the nodes are there for, from node 1 on.
    pub fn duties(&self) -> Vec<Duty> {
        let data = (1..=DATA_GROUPS).flat_map(|group| [Duty::Data(group); REPLICAS]);
        let others = [(Duty::Meta, META_NODES), (Duty::PoolMaster, POOL_MASTERS), (Duty::PoolSlave, self.slaves)];
        data.chain(others.into_iter().flat_map(|(duty, count)| std::iter::repeat_n(duty, count))).collect()
    }

    /// Nodes that are killed before the slaves: the last one of each kind.
    pub fn others_killed(&self) -> Vec<usize> {
        if !self.loses_others {
            return Vec::new();
        }
        let kinds = [Duty::Meta, Duty::PoolMaster].into_iter().chain((1..=DATA_GROUPS).map(Duty::Data));
        kinds.filter_map(|kind| self.nodes_of(kind).last().copied()).collect()
    }

    /// Slaves that are killed, in their order.
    pub fn slaves_to_kill(&self) -> Vec<usize> {
        self.nodes_of(Duty::PoolSlave).into_iter().take(self.slaves_killed).collect()
    }

    /// The nodes that have a duty.
    pub fn nodes_of(&self, duty: Duty) -> Vec<usize> {
        let numbered = (1..).zip(self.duties());
        numbered.filter(|(_, known)| *known == duty).map(|(node, _)| node).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_group_keeps_most_of_its_nodes() {
        for number in 1..=5 {
            let scenario = Scenario::numbered(number).unwrap();
            assert_eq!(scenario.duties().len(), 12 + scenario.slaves);
            let killed = scenario.others_killed();
            for duty in [Duty::Meta, Duty::PoolMaster, Duty::Data(1), Duty::Data(2)] {
                let nodes = scenario.nodes_of(duty);
                let left = nodes.iter().filter(|node| !killed.contains(node)).count();
                assert!(nodes.len() == 3 && left >= 2, "scenario {number}: {duty:?}");
            }
            let slaves = scenario.nodes_of(Duty::PoolSlave);
            assert!(scenario.slaves_to_kill().iter().all(|node| slaves.contains(node)));
            assert_eq!(killed.len(), if number == 5 { 4 } else { 0 });
        }
        assert!(Scenario::numbered(0).is_err() && Scenario::numbered(6).is_err());
    }
}
