//! The simulated disk against a model of what a disk may and may not do.

use proptest::prelude::*;
use std::{cell::Cell, collections::BTreeMap, io, rc::Rc};
use tidemill_disk::{
    BLOCK_BYTES, Disk, DiskFile, Purpose,
    sim::{Crash, Executor, Fault, OPERATIONS, Operation, SECTOR_BYTES, SimDisk, SimFile, block_on, is_power_loss},
};

async fn write(file: &SimFile, block: usize, blocks: usize, byte: u8) -> io::Result<()> {
    let mut buf = file.alloc(blocks * BLOCK_BYTES);
    buf.as_mut().fill(byte);
    file.write_at(buf, (block * BLOCK_BYTES) as u64).await.map(drop)
}

async fn named(disk: &SimDisk, path: &str) -> SimFile {
    let file = disk.create(path, Purpose::Data).await.unwrap();
    disk.sync_dir("").await.unwrap();
    file
}

#[derive(Clone, Debug)]
enum Step {
    Write { block: usize, blocks: usize, byte: u8, durable: bool },
    SetLen(usize),
    Sync,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0usize..6, 1usize..4, 1u8.., any::<bool>())
            .prop_map(|(block, blocks, byte, durable)| Step::Write { block, blocks, byte, durable }),
        1 => (0usize..8).prop_map(|blocks| Step::SetLen(blocks * BLOCK_BYTES)),
        2 => Just(Step::Sync),
    ]
}

/// For each sector the bytes that it may have after a power loss.
#[derive(Default)]
struct Model {
    current: Vec<u8>,
    possible: BTreeMap<usize, Vec<u8>>,
}

impl Model {
    fn sector(content: &[u8], sector: usize) -> u8 {
        content.get(sector * SECTOR_BYTES).copied().unwrap_or(0)
    }

    fn took(&mut self, sector: usize, byte: u8) {
        self.possible.entry(sector).or_insert_with(|| vec![0]).push(byte);
    }

    fn synced(&mut self) {
        self.possible.clear();
        for sector in 0..self.current.len() / SECTOR_BYTES {
            self.possible.insert(sector, vec![Model::sector(&self.current, sector)]);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    /// After every power loss each sector holds what it had at the last sync or something written to it since; with
    /// `None` and `Drop` the content is known exactly.
    #[test]
    fn content_after_a_power_loss_is_possible(steps in prop::collection::vec(step(), 1..20), seed: u64) {
        block_on(seed, async {
            let disk = SimDisk::new(seed);
            let file = named(&disk, "a").await;
            let mut model = Model::default();
            let mut at_last_sync = Vec::new();
            let mut dropped_is_known = true;
            for step in steps {
                match step {
                    Step::Write { block, blocks, byte, durable } => {
                        let mut buf = file.alloc(blocks * BLOCK_BYTES);
                        buf.as_mut().fill(byte);
                        let offset = block * BLOCK_BYTES;
                        let end = offset + blocks * BLOCK_BYTES;
                        if durable {
                            file.write_durable(buf, offset as u64).await.unwrap();
                            dropped_is_known = false;
                        } else {
                            file.write_at(buf, offset as u64).await.unwrap();
                        }
                        if model.current.len() < end {
                            model.current.resize(end, 0);
                        }
                        model.current[offset..end].fill(byte);
                        for sector in offset / SECTOR_BYTES..end / SECTOR_BYTES {
                            if durable {
                                model.possible.insert(sector, vec![byte]);
                            } else {
                                model.took(sector, byte);
                            }
                        }
                    }
                    Step::SetLen(len) => {
                        for sector in len / SECTOR_BYTES..model.current.len() / SECTOR_BYTES {
                            model.took(sector, 0);
                        }
                        file.set_len(len as u64).await.unwrap();
                        model.current.resize(len, 0);
                    }
                    Step::Sync => {
                        file.sync_data().await.unwrap();
                        model.synced();
                        at_last_sync = model.current.clone();
                        dropped_is_known = true;
                    }
                }
                prop_assert_eq!(disk.content("a").unwrap(), model.current.clone());
                for crash in Crash::ALL {
                    let after = disk.crash(crash, seed);
                    let content = after.content("a").expect("its name is durable");
                    match crash {
                        Crash::None => prop_assert_eq!(&content, &model.current),
                        Crash::Drop if dropped_is_known => prop_assert_eq!(&content, &at_last_sync),
                        _ => {}
                    }
                    for sector in 0..content.len() / SECTOR_BYTES {
                        let byte = Model::sector(&content, sector);
                        let fine = model.possible.get(&sector).map_or(byte == 0, |bytes| bytes.contains(&byte));
                        prop_assert!(fine, "sector {} holds {}", sector, byte);
                        let whole = content[sector * SECTOR_BYTES..][..SECTOR_BYTES].iter().all(|other| *other == byte);
                        prop_assert!(whole, "sector {} is torn inside", sector);
                    }
                    prop_assert_eq!(after.crash(Crash::Drop, seed).content("a"), Some(content), "a found disk is durable");
                }
            }
            Ok(())
        })?;
    }
}

#[test]
fn every_policy_does_what_its_name_says() {
    let mut torn_prefix = false;
    let mut reordered = false;
    for seed in 0..200 {
        block_on(seed, async {
            let disk = SimDisk::new(seed);
            let file = named(&disk, "a").await;
            write(&file, 0, 2, 1).await.unwrap();
            file.sync_data().await.unwrap();
            write(&file, 0, 1, 2).await.unwrap();
            write(&file, 1, 1, 3).await.unwrap();
            let blocks = |disk: SimDisk| {
                let content = disk.content("a").unwrap();
                (content[..BLOCK_BYTES].to_vec(), content[BLOCK_BYTES..].to_vec())
            };
            assert_eq!(blocks(disk.crash(Crash::None, seed)), (vec![2; BLOCK_BYTES], vec![3; BLOCK_BYTES]));
            assert_eq!(blocks(disk.crash(Crash::Drop, seed)), (vec![1; BLOCK_BYTES], vec![1; BLOCK_BYTES]));
            let (first, second) = blocks(disk.crash(Crash::Tear, seed));
            assert!(first.contains(&1) && second.contains(&1), "a torn write is never whole");
            torn_prefix |= first[0] == 2 && first[BLOCK_BYTES - 1] == 1;
            let (first, second) = blocks(disk.crash(Crash::Reorder, seed));
            assert!(first == vec![first[0]; BLOCK_BYTES] && second == vec![second[0]; BLOCK_BYTES]);
            reordered |= first[0] == 1 && second[0] == 3;
        });
    }
    assert!(torn_prefix && reordered);
}

#[test]
fn names_are_durable_only_after_sync_dir() {
    block_on(1, async {
        let disk = SimDisk::new(1);
        disk.create_dir("x/y").await.unwrap();
        let file = disk.create("x/y/new", Purpose::Data).await.unwrap();
        write(&file, 0, 1, 9).await.unwrap();
        file.sync_data().await.unwrap();
        assert_eq!(disk.crash(Crash::Drop, 0).paths(), [""; 0]);
        assert_eq!(disk.crash(Crash::Drop, 0).list("x").await.unwrap(), ["y"]);
        disk.sync_dir("x/y").await.unwrap();
        disk.rename("x/y/new", "x/y/named").await.unwrap();
        assert_eq!(disk.crash(Crash::Drop, 0).paths(), ["x/y/new"]);
        assert_eq!(disk.crash(Crash::None, 0).paths(), ["x/y/named"]);
        disk.sync_dir("x/y").await.unwrap();
        disk.remove("x/y/named").await.unwrap();
        assert_eq!(disk.crash(Crash::Drop, 0).paths(), ["x/y/named"]);
        assert_eq!(disk.crash(Crash::Drop, 0).content("x/y/named").unwrap(), vec![9; BLOCK_BYTES]);
        disk.sync_dir("x/y").await.unwrap();
        assert_eq!(disk.crash(Crash::Drop, 0).paths(), [""; 0]);
    });
}

#[test]
fn a_move_between_folders_never_loses_the_file() {
    for seed in 0..100 {
        block_on(seed, async {
            let disk = SimDisk::new(seed);
            disk.create_dir("a").await.unwrap();
            disk.create_dir("b").await.unwrap();
            drop(disk.create("a/f", Purpose::Data).await.unwrap());
            disk.rename("a/f", "b/f").await.unwrap();
            disk.sync_dir("b").await.unwrap();
            for crash in Crash::ALL {
                assert_eq!(disk.crash(crash, seed).paths(), ["b/f"]);
            }
            disk.sync_dir("a").await.unwrap();
            assert_eq!(disk.crash(Crash::Random, seed).paths(), ["b/f"]);
        });
    }
}

#[test]
fn published_files_are_whole_at_every_crash_point() {
    let mut torn = 0;
    for seed in 0..20 {
        let disk = SimDisk::new(seed);
        let points = Rc::new(Cell::new(0));
        let seen = points.clone();
        disk.observe(move |disk, _| {
            seen.set(seen.get() + 1);
            for crash in Crash::ALL {
                if let Some(content) = disk.crash(crash, seen.get() ^ seed).content("final") {
                    assert_eq!(content, vec![5; 3 * BLOCK_BYTES], "{crash:?}");
                }
            }
        });
        block_on(seed, async {
            let file = disk.create("tmp", Purpose::Data).await.unwrap();
            write(&file, 0, 3, 5).await.unwrap();
            disk.publish(file, "tmp", "final").await.unwrap();
        });
        assert!(points.get() >= 6);
        assert_eq!(disk.crash(Crash::Drop, 0).paths(), ["final"]);
        assert!(disk.faults().names_dropped > 0);
        torn += disk.faults().writes_torn;
    }
    assert!(torn > 0);
}

#[test]
fn the_kth_call_fails_and_only_it() {
    for fault in [Fault::Eio, Fault::StorageFull, Fault::ShortWrite] {
        for k in 1..=6 {
            block_on(k, async {
                let disk = SimDisk::new(k);
                disk.fail_at(Some(Operation::Write), k, fault);
                let file = named(&disk, "a").await;
                for nth in 1..=6 {
                    let outcome = write(&file, nth as usize, 1, 7).await;
                    assert_eq!(outcome.is_err(), nth == k, "{fault:?} at {k}");
                    if let Err(error) = outcome {
                        assert_eq!(error.kind() == io::ErrorKind::StorageFull, fault == Fault::StorageFull);
                        assert!(!is_power_loss(&error) && error.to_string().contains("Write a:"), "{error}");
                    }
                }
                assert_eq!(disk.operations(Operation::Write), 6);
                let faults = disk.faults();
                assert_eq!(faults.eio + faults.storage_full + faults.short_writes, 1);
            });
        }
    }
}

#[test]
fn a_failed_sync_may_lose_what_reads_still_show() {
    let mut lost = 0;
    for seed in 0..100 {
        block_on(seed, async {
            let disk = SimDisk::new(seed);
            let file = named(&disk, "a").await;
            write(&file, 0, 1, 1).await.unwrap();
            disk.fail_at(Some(Operation::SyncData), 1, Fault::Eio);
            file.sync_data().await.unwrap_err();
            file.sync_data().await.expect("the second sync lies, as Linux does");
            assert_eq!(disk.content("a").unwrap(), vec![1; BLOCK_BYTES]);
            lost += u32::from(disk.crash(Crash::None, seed).content("a").unwrap().is_empty());
        });
    }
    assert!((20..80).contains(&lost), "{lost} of 100");
}

#[test]
fn a_sync_covers_only_what_returned_before_it() {
    let mut uncovered = 0;
    for seed in 0..200 {
        let executor = Executor::new(seed);
        let disk = SimDisk::new(seed);
        let file = Rc::new(executor.block_on(named(&disk, "a")));
        let writer = {
            let file = file.clone();
            executor.spawn(async move { write(&file, 0, 1, 1).await.unwrap() })
        };
        executor.block_on(async {
            file.sync_data().await.unwrap();
            let dropped = disk.crash(Crash::Drop, 0).content("a").unwrap().is_empty();
            uncovered += u32::from(dropped && writer.is_done());
            writer.join().await;
            file.sync_data().await.unwrap();
        });
        assert_eq!(disk.crash(Crash::Drop, 0).content("a").unwrap().len(), BLOCK_BYTES);
    }
    assert!(uncovered > 0);
}

#[test]
fn power_loss_strikes_once_and_stays() {
    for k in 1..12 {
        block_on(k, async {
            let disk = SimDisk::new(k);
            disk.crash_at(k);
            let mut failed = false;
            for call in 0..12 {
                let outcome = disk.create(&format!("f{call}"), Purpose::Log).await;
                assert_eq!(outcome.is_err(), failed || call + 1 == k);
                if let Err(error) = outcome {
                    assert!(is_power_loss(&error));
                    failed = true;
                }
            }
            assert_eq!(disk.crash(Crash::None, 0).paths().len() as u64, k, "the struck call may have had its effect");
            assert!(disk.crash(Crash::Drop, 0).open("f0", Purpose::Log).await.is_err());
        });
    }
}

#[test]
fn a_full_disk_refuses_growth_and_recovers_when_space_is_back() {
    block_on(3, async {
        let disk = SimDisk::new(3);
        disk.set_capacity(Some(4 * BLOCK_BYTES as u64));
        let file = named(&disk, "a").await;
        write(&file, 0, 3, 1).await.unwrap();
        let other = named(&disk, "b").await;
        write(&other, 0, 1, 1).await.unwrap();
        assert_eq!(write(&file, 3, 1, 1).await.unwrap_err().kind(), io::ErrorKind::StorageFull);
        assert_eq!(file.set_len(5 * BLOCK_BYTES as u64).await.unwrap_err().kind(), io::ErrorKind::StorageFull);
        write(&file, 0, 3, 2).await.expect("overwriting needs no space");
        disk.remove("b").await.unwrap();
        assert!(write(&file, 3, 1, 1).await.is_err(), "an open file keeps its space");
        drop(other);
        write(&file, 3, 1, 1).await.unwrap();
        assert_eq!(disk.used_bytes(), 4 * BLOCK_BYTES as u64);
        assert_eq!(disk.faults().storage_full, 3);
    });
}

#[test]
fn reads_end_at_the_end_of_the_file_and_fresh_buffers_are_not_zero() {
    block_on(4, async {
        let disk = SimDisk::new(4);
        let file = named(&disk, "a").await;
        write(&file, 0, 2, 6).await.unwrap();
        file.set_len(5000).await.unwrap();
        assert_eq!(file.read_at(4096, 8192).await.unwrap().as_ref(), &[6; 904][..]);
        assert_eq!(file.read_at(8192, 4096).await.unwrap().as_ref(), &[0; 0][..]);
        assert!(file.alloc(4096).as_ref().iter().all(|byte| *byte != 0));
        disk.flip_bit("a", 10, 3);
        assert_eq!(disk.content("a").unwrap()[10], 6 ^ 8);
        let mut large = file.alloc(4 * BLOCK_BYTES);
        large.as_mut().fill(1);
        let back = file.write_prefix_at(large, BLOCK_BYTES, 0).await.unwrap();
        assert_eq!(back.as_ref().len(), 4 * BLOCK_BYTES);
        assert_eq!(disk.content("a").unwrap()[4095..4097], [1, 6]);
    });
}

#[test]
fn the_same_seed_gives_the_same_run() {
    let run = |seed| {
        block_on(seed, async {
            let disk = SimDisk::new(seed);
            let file = named(&disk, "a").await;
            disk.fail_at(None, 7, Fault::Eio);
            for at in 0..10 {
                let _ = write(&file, at, 2, at as u8).await;
            }
            let _ = file.sync_data().await;
            (disk.crash(Crash::Random, seed).content("a"), disk.faults(), disk.operations_total())
        })
    };
    assert_eq!(run(5), run(5));
}

#[test]
fn each_operation_is_counted() {
    block_on(6, async {
        let disk = SimDisk::new(6);
        disk.create_dir("d").await.unwrap();
        let file = disk.create("d/a", Purpose::Data).await.unwrap();
        let buf = file.write_at(file.alloc(4096), 0).await.unwrap();
        file.write_durable(buf, 0).await.unwrap();
        file.read_at(0, 4096).await.unwrap();
        file.sync_data().await.unwrap();
        file.set_len(1).await.unwrap();
        file.len().await.unwrap();
        file.close().await.unwrap();
        disk.open("d/a", Purpose::Data).await.unwrap();
        disk.rename("d/a", "d/b").await.unwrap();
        disk.remove("d/b").await.unwrap();
        disk.list("d").await.unwrap();
        disk.sync_dir("d").await.unwrap();
        assert!(OPERATIONS.iter().all(|operation| disk.operations(*operation) == 1));
        assert_eq!(disk.operations_total(), 14);
    });
}

#[test]
#[should_panic(expected = "direct I/O of 4096 bytes at 100")]
fn unaligned_offsets_panic() {
    block_on(0, async {
        let file = named(&SimDisk::new(0), "a").await;
        let _ = file.read_at(100, 4096).await;
    });
}

#[test]
#[should_panic(expected = "direct I/O of 100 bytes at 0")]
fn unaligned_lengths_panic() {
    block_on(0, async {
        let file = named(&SimDisk::new(0), "a").await;
        let mut buf = file.alloc(4096);
        buf.set_len(100);
        let _ = file.write_at(buf, 0).await;
    });
}

#[test]
#[should_panic(expected = "no path below the data folder")]
fn paths_that_leave_the_folder_panic() {
    block_on(0, async {
        let _ = SimDisk::new(0).open("../etc", Purpose::Data).await;
    });
}
