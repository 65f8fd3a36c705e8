//! Sealed files that go to the pool, and what meets them on the way.

use crate::{
    harness::*,
    model::{Model, Point, group_id},
};
use std::{
    cell::{Cell, RefCell},
    rc::Rc,
};
use tidemill_column::Value;
use tidemill_disk::{
    Disk, DiskFile, Purpose,
    sim::{Crash, Executor, Fault, Prng, SimDisk, block_on},
};
use tidemill_raft::{EntryId, LogIndex, Term};
use tidemill_store::{
    Command, CopyOrder, Floats, HandedFile, Measurements, Partition, ReadError, SimPool, TagCondition, Tier,
};

const DATABASE: u32 = 7;

struct Scene {
    store: Store,
    model: Model,
}

fn points(hosts: i64, times: impl Iterator<Item = i64>) -> Vec<Point> {
    let value = |number: i64| Value::Float((number.wrapping_mul(0x9e37_79b9) % 8191) as f64 * 0.1);
    let at = |time: i64| (0..hosts).map(move |host| (time, host));
    times
        .flat_map(at)
        .map(|(time, host)| point("cpu", &[("host", &format!("h{host}"))], &[("v", value(time * 10 + host))], time))
        .collect()
}

impl Scene {
    async fn new(seed: u64) -> Scene {
        let disk = SimDisk::new(seed);
        disk.set_yields(seed != 0);
        Scene { store: Store::new(disk, 1 << 16).await, model: Model::default() }
    }

    /// Three sealed files, and rows above them that are not sealed.
    async fn sealed(seed: u64) -> Scene {
        let mut scene = Scene::new(seed).await;
        scene.flushed(&points(3, 0..2000)).await;
        scene.copied(|order| order.file_bytes_max = 1).await;
        scene.flushed(&points(2, 3000..3100)).await;
        assert_eq!(scene.store.partition.sealed_files().len(), 3);
        scene
    }

    async fn flushed(&mut self, points: &[Point]) {
        points.iter().for_each(|point| self.model.write(DATABASE, point));
        self.store.write(DATABASE, points);
        self.store.flush().await;
    }

    fn delete(&mut self, host: &str, (min_time, max_time): (i64, i64)) {
        let condition = TagCondition::Equal { key: b"host".to_vec(), value: host.as_bytes().to_vec() };
        let measurements = Measurements::Named(vec![b"cpu".to_vec()]);
        self.store.command(&Command::Delete { database: DATABASE, measurements, condition, min_time, max_time });
        self.model.delete(DATABASE, |series| series.1["host"] == host, min_time, max_time);
    }

    fn decide(&mut self, change: impl FnOnce(&mut CopyOrder)) {
        let through = self.store.log.len() as u64 + 1;
        let mut order = CopyOrder {
            shard_group: group_id(DATABASE, 1),
            ordered_through: through,
            late_through: through,
            sealed: Vec::new(),
            with_deleted: true,
            floats: Floats::Gorilla,
            file_bytes_max: 1 << 30,
        };
        change(&mut order);
        self.store.command(&Command::Copy(order));
    }

    async fn copied(&mut self, change: impl FnOnce(&mut CopyOrder)) {
        self.decide(change);
        work_off(&self.store.partition).await;
    }

    async fn check(&self, context: &str) {
        check_points(&self.store.partition, &self.model, &mut Prng::new(1), 1, context).await;
    }

    async fn check_restarted(&mut self, context: &str) {
        self.check(context).await;
        self.store.crash(Crash::Drop, 1).await;
        self.check(&format!("{context}, restarted")).await;
    }

    fn tails(&self) -> Vec<String> {
        self.store.disk.paths().into_iter().filter(|path| path.ends_with(".tail")).collect()
    }

    async fn read(&self) -> Result<(), ReadError> {
        for (database, series) in &self.model.seen {
            let names = [String::from("v")];
            let rows =
                read(&self.store.partition, *database, &GROUPS, series, &names, (i64::MIN, i64::MAX), false).await?;
            assert_eq!(rows, self.model.rows(*database, &GROUPS, series, &names, (i64::MIN, i64::MAX)));
        }
        Ok(())
    }
}

async fn work_off(partition: &Partition<SimDisk>) {
    while partition.has_copies() || partition.has_work() {
        partition.maintain().await.unwrap();
        partition.copy().await.unwrap();
    }
}

#[test]
fn blocks_that_were_handed_over_are_read_from_the_pool_and_nothing_else_is() {
    block_on(1, async {
        let mut scene = Scene::sealed(1).await;
        let before = scene.store.partition.figures();
        assert_eq!(scene.store.hand_over(false), 3);
        scene.check("applied, and the blocks still here").await;
        assert_eq!(scene.store.pool.figures().reads, 0);
        work_off(&scene.store.partition).await;
        assert_eq!((scene.store.tsm_files().len(), scene.tails().len()), (1, 3));
        let after = scene.store.partition.figures();
        assert_eq!((after.pool_files, after.files), (3, 4));
        assert_eq!(after.disk_bytes + after.pool_bytes, before.disk_bytes);
        assert!(after.disk_bytes * 2 < before.disk_bytes);
        scene.check_restarted("handed over").await;
        let reads = scene.store.pool.figures().reads;
        assert!(reads > 0);
        // The series index is made from the tails.
        let index = scene.store.disk.paths().into_iter().find(|path| path.contains("/index-")).unwrap();
        scene.store.disk.lose(&index);
        scene.store.pool.set_away(true);
        let disk = scene.store.disk.crash(Crash::None, 1);
        scene.store.reopen(disk).await;
        assert!(scene.store.partition.index_was_rebuilt());
        check_index(&scene.store.partition, &scene.model, &[DATABASE], "made anew");
        // A count of whole blocks needs none of them.
        let statistics = scene.store.pool.figures().reads;
        let ReadError::Pool { error, .. } = scene.read().await.unwrap_err() else { panic!("another error") };
        assert_eq!(error, "the pool is away");
        assert!(scene.store.pool.figures().reads > statistics);
        scene.store.pool.set_away(false);
        scene.check_restarted("back").await;
        scene.store.crash(Crash::Drop, 9).await;
        let away = open(&scene.store.disk, 0).await.unwrap();
        assert_eq!(away.sealed_files().len(), 3);
        let pool = &scene.store.pool;
        let hash = scene.store.partition.pool_files()[0];
        pool.lose(&hash);
        assert!(scene.read().await.unwrap_err().to_string().contains("no copy is left"));
    });
}

#[test]
fn with_local_copies_kept_nothing_changes_until_they_are_not() {
    block_on(1, async {
        let mut scene = Scene::sealed(1).await;
        let files = scene.store.tsm_files();
        scene.store.hand_over(true);
        work_off(&scene.store.partition).await;
        scene.store.flush().await;
        assert_eq!((scene.store.tsm_files(), scene.tails().len()), (files, 0));
        assert_eq!(scene.store.partition.pool_files().len(), 3);
        scene.check_restarted("kept").await;
        assert_eq!(scene.store.pool.figures().reads, 0);
        let tiers =
            |scene: &Scene| scene.store.partition.sealed_files().iter().map(|file| file.tier).collect::<Vec<_>>();
        assert_eq!(tiers(&scene), [Tier::Both; 3]);
        scene.store.hand_over(false);
        // There is no way back but a copy.
        let handed: Vec<HandedFile> = scene.store.partition.sealed_files().iter().map(|file| file.handed()).collect();
        let group = group_id(DATABASE, 1);
        scene.store.command(&Command::HandOver { shard_group: group, files: handed, keeps_local: true });
        work_off(&scene.store.partition).await;
        assert_eq!(tiers(&scene), [Tier::Pool; 3]);
        assert_eq!(scene.tails().len(), 3);
        scene.check_restarted("not kept").await;
    });
}

#[test]
fn deletes_late_rows_and_drops_meet_files_in_the_pool() {
    block_on(1, async {
        let mut scene = Scene::sealed(1).await;
        scene.store.hand_over(false);
        work_off(&scene.store.partition).await;
        scene.delete("h1", (500, 1499));
        scene.delete("h2", (i64::MIN, i64::MAX));
        scene.check_restarted("deleted").await;
        // A late row of the one series whose file no delete touches: all three are written anew, here.
        scene.flushed(&[point("cpu", &[("host", "h0")], &[("v", Value::Float(7.5))], 700)]).await;
        scene.check("late").await;
        scene.copied(|_| {}).await;
        assert_eq!((scene.store.partition.pool_files().len(), scene.tails().len()), (0, 0));
        assert_eq!(scene.store.tsm_files().len(), 1);
        let reads = scene.store.pool.figures().reads;
        scene.check_restarted("copied").await;
        assert_eq!(scene.store.pool.figures().reads, reads);
        assert_eq!(scene.store.hand_over(false), 1);
        work_off(&scene.store.partition).await;
        scene.check_restarted("handed over again").await;
        scene.store.pool.set_away(true);
        scene.store.command(&Command::DropShardGroups { groups: vec![group_id(DATABASE, 1)] });
        scene.model.drop_group(DATABASE, 1);
        work_off(&scene.store.partition).await;
        scene.check("dropped").await;
        check_index(&scene.store.partition, &scene.model, &[DATABASE], "dropped");
        assert_eq!((scene.store.tsm_files().len(), scene.tails().len()), (0, 0));
    });
}

#[test]
fn a_copy_fails_while_the_pool_is_away_and_is_made_when_it_is_back() {
    block_on(1, async {
        let mut scene = Scene::sealed(1).await;
        scene.store.hand_over(false);
        work_off(&scene.store.partition).await;
        scene.store.pool.set_away(true);
        scene.decide(|order| order.sealed = (0..100).collect());
        for _ in 0..3 {
            assert!(scene.store.partition.copy().await.is_err());
            assert!(scene.store.partition.has_copies());
        }
        assert_eq!(scene.store.tsm_files().len(), 1, "what the attempts wrote is gone");
        scene.store.pool.set_away(false);
        work_off(&scene.store.partition).await;
        scene.check_restarted("copied").await;
        assert_eq!(scene.store.partition.pool_files().len(), 0);
    });
}

#[test]
fn a_file_that_was_copied_away_or_is_another_is_passed_over() {
    block_on(1, async {
        let mut scene = Scene::sealed(1).await;
        let handed = scene.store.shipped(|_| true);
        scene.copied(|order| order.sealed = (0..100).collect()).await;
        let digest = scene.store.manifest().digest();
        for (shard_group, mut files) in handed {
            let mut present = scene.store.partition.sealed_files()[0].handed();
            present.hash[0] ^= 1;
            files.push(present);
            scene.store.command(&Command::HandOver { shard_group, files: files.clone(), keeps_local: false });
            scene.store.command(&Command::HandOver { shard_group: 999, files, keeps_local: false });
        }
        // L1 files are never handed over.
        scene.flushed(&points(1, 4000..4100)).await;
        let flushed = scene.store.partition.file_records().into_iter().find(|file| file.level == 1).unwrap();
        let (shard_group, files) = (flushed.shard_group, vec![flushed.handed()]);
        scene.store.command(&Command::HandOver { shard_group, files, keeps_local: false });
        work_off(&scene.store.partition).await;
        assert!(scene.store.partition.pool_files().is_empty() && scene.tails().is_empty());
        assert_ne!(scene.store.manifest().digest(), digest);
        scene.check_restarted("passed over").await;
    });
}

/// A replica that is behind applies the hand-over of a file that its copy has yet to make.
#[test]
fn a_replica_that_makes_its_copy_later_has_the_same_files_handed_over() {
    for (keeps_local, restarts) in [(false, false), (true, false), (false, true), (true, true)] {
        block_on(1, async {
            let mut ahead = Scene::sealed(1).await;
            ahead.store.hand_over(keeps_local);
            ahead.store.flush().await;
            work_off(&ahead.store.partition).await;
            let log = ahead.store.log.clone();
            let mut behind = Scene::new(0).await;
            (behind.store.pool, behind.model) = (ahead.store.pool.clone(), ahead.model.clone());
            let disk = behind.store.disk.clone();
            behind.store.reopen(disk).await;
            for entry in log {
                behind.store.apply(entry);
                // Flushes are worked off, the copy waits.
                behind.store.partition.maintain().await.unwrap();
                if restarts {
                    behind.store.crash(Crash::Drop, 3).await;
                }
            }
            assert!(behind.store.partition.has_copies());
            assert_eq!(behind.store.partition.pool_files().len(), 3);
            behind.check("behind").await;
            work_off(&behind.store.partition).await;
            behind.check_restarted("made up").await;
            behind.store.flush().await;
            ahead.store.flush().await;
            assert_eq!(behind.store.manifest().digest(), ahead.store.manifest().digest());
            assert_eq!((behind.store.tsm_files(), behind.tails()), (ahead.store.tsm_files(), ahead.tails()));
        });
    }
}

/// A copy that has read its sources for a while meets their hand-over and a delete.
#[test]
fn a_copy_under_way_takes_its_sources_along_wherever_their_blocks_go() {
    for turns in 0..120 {
        let executor = Executor::new(turns);
        executor.clone().block_on(async {
            let mut scene = Scene::sealed(turns + 1).await;
            let handed = scene.store.shipped(|_| true);
            scene.decide(|order| order.sealed = (0..100).collect());
            let partition = scene.store.partition.clone();
            let copy = executor.spawn(async move { partition.copy().await.unwrap() });
            for _ in 0..turns * 3 {
                executor.yield_now().await;
            }
            for (shard_group, files) in handed {
                scene.store.command(&Command::HandOver { shard_group, files, keeps_local: false });
            }
            scene.store.partition.maintain().await.unwrap();
            scene.delete("h1", (100, 1000));
            copy.join().await;
            work_off(&scene.store.partition).await;
            scene.check_restarted(&format!("{turns} turns")).await;
            assert!(scene.tails().is_empty() && scene.store.partition.pool_files().is_empty());
        });
    }
}

/// At each place of a hand-over: the power fails, or a call does.
#[test]
fn a_power_loss_anywhere_in_a_hand_over_loses_and_doubles_nothing() {
    let points = Rc::new(Cell::new(0));
    let checked = Executor::new(1).block_on(async {
        let mut scene = Scene::sealed(0).await;
        scene.delete("h1", (10, 20));
        let outcomes: Rc<RefCell<Vec<SimDisk>>> = Rc::default();
        let (seen, count) = (outcomes.clone(), points.clone());
        scene.store.hand_over(false);
        scene.store.disk.observe(move |disk, _| {
            count.set(count.get() + 1);
            seen.borrow_mut().extend(Crash::ALL.map(|crash| disk.crash(crash, count.get())));
        });
        work_off(&scene.store.partition).await;
        scene.store.flush().await;
        scene.store.disk.stop_observing();
        let outcomes = outcomes.take();
        let mut forms = [0; 2];
        for (number, disk) in outcomes.iter().enumerate() {
            disk.set_yields(false);
            let context = format!("outcome {number}");
            let partition =
                open_with(disk, 0, &scene.store.pool).await.unwrap_or_else(|error| panic!("{context}: {error}"));
            forms[usize::from(partition.figures().pool_bytes > 0)] += 1;
            replay(&partition, &scene.store.log);
            check_points(&partition, &scene.model, &mut Prng::new(2), 2, &context).await;
            work_off(&partition).await;
            check_points(&partition, &scene.model, &mut Prng::new(2), 2, &context).await;
            assert_eq!(partition.figures().pool_files, 3, "{context}");
            let left = disk.paths().into_iter().filter(|path| path.contains("/g"));
            let (tails, others): (Vec<_>, Vec<_>) = left.partition(|path| path.ends_with(".tail"));
            assert_eq!((tails.len(), others.len()), (3, 1), "{context}: {tails:?} {others:?}");
        }
        assert!(forms[0] > 20 && forms[1] > 20, "{forms:?}");
        outcomes.len()
    });
    println!("{} points, {checked} outcomes", points.get());
}

#[test]
fn a_call_that_fails_anywhere_in_a_hand_over_is_made_again() {
    let mut struck = 0;
    for fault in [Fault::Eio, Fault::StorageFull, Fault::ShortWrite] {
        for nth in 1.. {
            let ended = Executor::new(nth).block_on(async {
                let mut scene = Scene::sealed(0).await;
                let context = format!("{fault:?} at call {nth}");
                scene.store.hand_over(false);
                scene.store.disk.fail_at(None, nth, fault);
                let before = scene.store.disk.operations_total();
                let result = scene.store.partition.maintain().await;
                if scene.store.disk.operations_total() - before < nth {
                    return true;
                }
                struck += u64::from(result.is_err());
                scene.check(&context).await;
                for crash in [Crash::None, Crash::Drop] {
                    let disk = scene.store.disk.crash(crash, nth);
                    disk.set_yields(false);
                    let opened = open_with(&disk, 0, &scene.store.pool).await;
                    let partition = opened.unwrap_or_else(|error| panic!("{context} {crash:?}: {error}"));
                    replay(&partition, &scene.store.log);
                    check_points(&partition, &scene.model, &mut Prng::new(2), 2, &format!("{context} {crash:?}")).await;
                }
                for _ in 0..3 {
                    let _ = scene.store.partition.maintain().await;
                }
                // Of a file that could not be read the blocks stay until the next start.
                scene.check_restarted(&context).await;
                work_off(&scene.store.partition).await;
                assert_eq!(scene.tails().len(), 3, "{context}");
                scene.check_restarted(&context).await;
                false
            });
            if ended {
                break;
            }
        }
    }
    println!("{struck} hand-overs that failed");
    assert!(struck > 30);
}

#[test]
fn a_rotten_copy_is_passed_over_for_another_and_named_if_there_is_none() {
    block_on(1, async {
        let mut scene = Scene::sealed(1).await;
        scene.store.hand_over(false);
        work_off(&scene.store.partition).await;
        for number in 0..40 {
            scene.store.crash(Crash::Drop, number).await;
            scene.store.pool.rot(2);
            scene.read().await.unwrap();
        }
        assert!(scene.store.pool.figures().distrusted > 20);
        scene.store.pool.rot(2);
        scene.copied(|order| order.sealed = (0..100).collect()).await;
        scene.check("copied by rotten reads").await;
        scene.store.hand_over(false);
        work_off(&scene.store.partition).await;
        scene.store.crash(Crash::Drop, 1).await;
        scene.store.pool.rot(u64::MAX);
        assert!(matches!(scene.read().await, Err(ReadError::Damaged { .. })));
        scene.store.pool.rot(0);
        scene.read().await.unwrap();
    });
}

#[test]
fn every_flipped_bit_of_a_tail_is_found_and_mended() {
    block_on(1, async {
        let mut scene = Scene::sealed(0).await;
        scene.store.hand_over(false);
        work_off(&scene.store.partition).await;
        scene.store.flush().await;
        let path = scene.tails().remove(0);
        let good = scene.store.disk.content(&path).unwrap();
        let (mut unopened, mut scrubbed) = (0, 0);
        for bit in (0..good.len() * 8).step_by(5) {
            let disk = scene.store.disk.crash(Crash::None, 0);
            disk.set_yields(false);
            disk.flip_bit(&path, bit / 8, (bit % 8) as u8);
            let Ok(partition) = open_with(&disk, 0, &scene.store.pool).await else {
                unopened += 1;
                continue;
            };
            let mut damaged = Vec::new();
            for record in partition.file_records() {
                let found = partition.scrub(&record, &mut async |_| true).await;
                if !found.findings.is_empty() {
                    damaged.push(record);
                }
            }
            assert_eq!(damaged.len(), 1, "bit {bit}");
            scrubbed += 1;
            let wanted = partition.wanted(&damaged[0]);
            assert!(path.ends_with(&wanted.source) && wanted.size == good.len() as u64);
            let wrong = [&good[..good.len() / 2], &[good[good.len() / 2] ^ 1], &good[good.len() / 2 + 1..]].concat();
            assert!(receive(&partition, &wanted, &wrong).await.is_err());
            receive(&partition, &wanted, &good).await.unwrap();
            partition.take_mended(&damaged[0]).await.unwrap();
            assert!(partition.scrub(&damaged[0], &mut async |_| true).await.is_complete);
            replay(&partition, &scene.store.log);
            check_points(&partition, &scene.model, &mut Prng::new(2), 4, "mended").await;
        }
        assert!(unopened > 10 && scrubbed > 10, "{unopened} {scrubbed}");
    });
}

/// Moves what `wanted` says from one disk to the other.
async fn fetch(from: &SimDisk, to: &Partition<SimDisk>, wanted: &tidemill_store::WantedFile) {
    let content = from.content(&format!("{FOLDER}/{}", wanted.source)).unwrap();
    receive(to, wanted, &content[..wanted.size as usize]).await.unwrap();
}

async fn receive(
    partition: &Partition<SimDisk>,
    wanted: &tidemill_store::WantedFile,
    mut bytes: &[u8],
) -> Result<(), tidemill_store::InstallError> {
    let mut arriving = partition.receive(wanted).await?;
    while !bytes.is_empty() {
        let room = arriving.room();
        let (now, later) = bytes.split_at(room.len().min(bytes.len()));
        room[..now.len()].copy_from_slice(now);
        arriving.advance(now.len()).await?;
        bytes = later;
    }
    arriving.finish().await
}

#[test]
fn a_replica_that_installs_a_manifest_fetches_tails_and_not_blocks() {
    block_on(1, async {
        let mut scene = Scene::sealed(1).await;
        let early = scene.store.manifest();
        scene.store.hand_over(false);
        scene.store.flush().await;
        work_off(&scene.store.partition).await;
        let manifest = scene.store.manifest();
        let base = EntryId { index: LogIndex(manifest.flushed_index), term: Term(manifest.flushed_term) };
        let disk = SimDisk::new(5);
        let pool: Rc<SimPool> = scene.store.pool.clone();
        let other = open_with(&disk, 1 << 16, &pool).await.unwrap();
        let installation = other.plan_installation(&manifest.encode(), base).unwrap();
        let (tails, whole): (Vec<_>, Vec<_>) =
            installation.wanted.iter().partition(|wanted| wanted.source.ends_with(".tail"));
        assert_eq!((tails.len(), whole.len()), (3, 2));
        for wanted in &installation.wanted {
            fetch(&scene.store.disk, &other, wanted).await;
        }
        other.install(installation).await.unwrap();
        check_points(&other, &scene.model, &mut Prng::new(1), 1, "installed").await;
        assert_eq!(pool_figures(&other), pool_figures(&scene.store.partition));
        // A file whose hand-over this replica knows of, and the manifest of the other one does not.
        let scene = Scene::sealed(1).await;
        let disk = scene.store.disk.crash(Crash::None, 0);
        let opened = open_with(&disk, 0, &pool).await.unwrap();
        replay(&opened, &scene.store.log);
        let shard_group = group_id(DATABASE, 1);
        let files = opened.sealed_files().iter().map(|file| file.handed()).collect();
        let entry = Command::HandOver { shard_group, files, keeps_local: false }.encode();
        let index = opened.applied().next();
        opened.apply(Term(1), index, Some(tidemill_store::Entry::parse(&entry).unwrap())).unwrap();
        work_off(&opened).await;
        // Its log is lost behind the flush before: the entry comes again after the installation.
        let newer = tidemill_store::Manifest { flushed_index: index.0 + 7, flushed_term: 3, index: None, ..early };
        let base = EntryId { index: LogIndex(newer.flushed_index), term: Term(3) };
        let installation = opened.plan_installation(&newer.encode(), base).unwrap();
        assert_eq!(installation.wanted.len(), 3);
        for wanted in &installation.wanted {
            fetch(&scene.store.disk, &opened, wanted).await;
        }
        opened.install(installation).await.unwrap();
        assert_eq!(pool_figures(&opened), (0, 0));
        check_points(&opened, &scene.model, &mut Prng::new(1), 1, "whole again").await;
    });
}

fn pool_figures(partition: &Partition<SimDisk>) -> (usize, u64) {
    let figures = partition.figures();
    (figures.pool_files, figures.pool_bytes)
}

#[test]
fn a_whole_file_can_be_read_wherever_it_is() {
    block_on(1, async {
        let mut scene = Scene::sealed(1).await;
        let files: Vec<Vec<u8>> = scene.store.tsm_files().into_values().collect();
        scene.store.hand_over(false);
        work_off(&scene.store.partition).await;
        let mut read = Vec::new();
        for record in scene.store.partition.file_records() {
            let mut bytes = Vec::new();
            let mut take = async |part: &[u8]| {
                bytes.extend_from_slice(part);
                Ok(())
            };
            scene.store.partition.read_whole(&record, &mut take).await.unwrap();
            read.push(bytes);
        }
        read.sort();
        let mut files = files;
        files.sort();
        assert_eq!(read, files);
        scene.store.pool.rot(1);
        let record = scene.store.partition.sealed_files()[0].clone();
        assert!(scene.store.partition.read_whole(&record, &mut async |_: &[u8]| Ok(())).await.is_err());
    });
}

#[test]
fn a_tail_that_was_lost_is_an_error_unless_the_file_is_here() {
    block_on(1, async {
        let mut scene = Scene::sealed(0).await;
        let whole = scene.store.tsm_files();
        scene.store.hand_over(false);
        work_off(&scene.store.partition).await;
        let path = scene.tails().remove(0);
        let disk = scene.store.disk.crash(Crash::None, 0);
        disk.lose(&path);
        let error = open_with(&disk, 0, &scene.store.pool).await.err().unwrap().to_string();
        assert!(error.contains(&path), "{error}");
        let name = path.replace(".tail", ".tsm");
        disk.plant(&name, whole[&name].clone());
        scene.store.reopen(disk).await;
        scene.check("the file is here").await;
        assert!(scene.store.partition.has_work());
        work_off(&scene.store.partition).await;
        assert_eq!(scene.tails().len(), 3);
        let file = scene.store.disk.open(&path, Purpose::Data).await.unwrap();
        file.set_len(100).await.unwrap();
        assert!(open_with(&scene.store.disk, 0, &scene.store.pool).await.is_err());
    });
}
