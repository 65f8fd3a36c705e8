//! Rot, lost files and files of others: refused with their place, or cut where nothing acknowledged is lost.

mod harness;

use harness::*;
use tidemill_disk::{
    BLOCK_BYTES,
    sim::{Crash, Executor, SimDisk, block_on},
};
use tidemill_log::{Durability, LogOptions, OpenError, Record, decision::Finding};
use tidemill_raft::{GroupId, LogIndex, Term};

const SEGMENT_BYTES: usize = 36 << 10;

fn small() -> LogOptions {
    options(SEGMENT_BYTES as u64, Durability::Fdatasync)
}

/// A log of three segments with one commit per entry. `closed`: with the commit that closing puts behind the last.
fn log_on(disk: &SimDisk, closed: bool) -> Groups {
    let executor = Executor::new(4);
    disk.set_yields(false);
    let (log, ..) = executor.block_on(recover(disk, &small(), &Truth::default())).unwrap();
    let runner = {
        let log = log.clone();
        executor.spawn(async move { log.run().await })
    };
    let mut groups = Groups::new();
    executor.block_on(async {
        for index in 1..=12u64 {
            let payload = [index as u8; 1500];
            let (group, index) = ((index % 2) as u32, index.div_ceil(2));
            let record =
                Record::Entry { group: GroupId(group), term: Term(2), index: LogIndex(index), payload: &payload };
            let position = loop {
                match log.append(record) {
                    Ok(position) => break position,
                    Err(_) => executor.yield_now().await,
                }
            };
            apply(&mut groups, &Owned::of(&record));
            log.stable(position).await.unwrap();
        }
        while log.metrics().segments_spare == 0 {
            executor.yield_now().await;
        }
        if closed {
            log.close();
            runner.join().await.unwrap();
        }
    });
    groups
}

fn open(disk: &SimDisk) -> Result<(Groups, bool), OpenError> {
    block_on(0, recover(disk, &small(), &Truth::default())).map(|(_, groups, cut)| (groups, cut))
}

fn refused(disk: &SimDisk) -> (Finding, String, u64) {
    match open(disk) {
        Err(OpenError::Refused { finding, file, offset, .. }) => (finding, file, offset),
        Err(error) => panic!("{error}"),
        Ok(_) => panic!("not refused"),
    }
}

/// Which bits of a byte of the log are flipped.
type Bits = fn(byte: usize) -> std::ops::Range<u8>;

/// Every bit of the headers of segments, commits and first frames; elsewhere one of each byte, in turn.
const CHOSEN: Bits = |byte| if byte % BLOCK_BYTES < 100 { 0..8 } else { (byte % 8) as u8..(byte % 8) as u8 + 1 };
const CHOSEN_BITS: u64 = 100 * 8 + (BLOCK_BYTES as u64 - 100);

/// Flips bits of the log one after the other; returns how often the open was refused, cut and unaffected.
fn flip_bits(closed: bool, bits: Bits) -> (u64, u64, u64) {
    let disk = SimDisk::new(1);
    let all = log_on(&disk, closed);
    assert_eq!(open(&disk.crash(Crash::Drop, 0)).unwrap(), (all.clone(), false));
    let (mut refused, mut cut, mut unaffected) = (0, 0, 0);
    for path in disk.paths() {
        let content = disk.content(&path).unwrap();
        for byte in 0..content.len() {
            // Where the log does not stand, a few are enough.
            let used = content[byte / BLOCK_BYTES * BLOCK_BYTES..][..BLOCK_BYTES].iter().any(|byte| *byte != 0);
            if !used && byte % 64 != 0 {
                continue;
            }
            for bit in bits(byte) {
                let damaged = disk.crash(Crash::Drop, 0);
                damaged.set_yields(false);
                damaged.flip_bit(&path, byte, bit);
                match open(&damaged) {
                    Err(OpenError::Refused { file, .. }) => {
                        assert_eq!(file, path);
                        refused += 1;
                    }
                    Err(error) => panic!("{path} {byte} {bit}: {error}"),
                    Ok((groups, was_cut)) => {
                        if was_cut {
                            cut += 1;
                        } else {
                            unaffected += 1;
                        }
                        if closed || !was_cut {
                            assert_eq!(groups, all, "{path} byte {byte} bit {bit}: entries lost");
                        } else {
                            // The one newest commit, as the crate's documentation says, and with a warning.
                            let mut fewer = all.clone();
                            fewer.get_mut(&0).unwrap().entries.remove(&6);
                            assert_eq!(groups, fewer, "{path} byte {byte} bit {bit}: more than the last commit");
                        }
                    }
                }
            }
        }
    }
    (refused, cut, unaffected)
}

#[test]
fn flipped_bits_of_a_closed_log_are_refused_or_harmless() {
    let (refused, cut, _) = flip_bits(true, CHOSEN);
    assert_eq!(cut, CHOSEN_BITS, "the closing commit holds nothing");
    // Twelve commits and the headers of the segments that hold them.
    assert!(refused >= (12 + 3) * CHOSEN_BITS, "{refused}");
}

#[test]
fn flipped_bits_of_an_open_log_cost_at_most_the_newest_commit() {
    let (refused, cut, _) = flip_bits(false, CHOSEN);
    assert_eq!(cut, CHOSEN_BITS);
    assert!(refused >= (11 + 3) * CHOSEN_BITS, "{refused}");
}

/// Minutes long: `cargo test -p tidemill-log --test damage -- --ignored --nocapture`.
#[test]
#[ignore = "minutes long"]
fn every_flipped_bit_is_refused_or_harmless() {
    for closed in [true, false] {
        let (refused, cut, unaffected) = flip_bits(closed, |_| 0..8);
        println!("closed {closed}: {refused} refused, {cut} in the newest commit, {unaffected} outside of the log");
        assert_eq!(cut, BLOCK_BYTES as u64 * 8);
    }
}

#[test]
fn damage_is_named_with_its_place() {
    let disk = SimDisk::new(1);
    log_on(&disk, true);
    let path = |sequence| format!("log/{sequence:016x}.log");
    let damaged = |change: &dyn Fn(&SimDisk)| {
        let disk = disk.crash(Crash::Drop, 0);
        change(&disk);
        refused(&disk)
    };
    let block = BLOCK_BYTES as u64;
    // In front of commits of the same segment, and of the next one.
    assert_eq!(damaged(&|disk| disk.flip_bit(&path(1), 5000, 0)), (Finding::DamageInside, path(1), block));
    let last_of_first = 5 * BLOCK_BYTES;
    assert_eq!(
        damaged(&|disk| disk.flip_bit(&path(1), last_of_first, 0)),
        (Finding::DamageInside, path(1), last_of_first as u64)
    );
    // The seal: what tells is the commit in the next segment.
    let seal = 6 * BLOCK_BYTES;
    assert_eq!(damaged(&|disk| disk.flip_bit(&path(1), seal, 0)), (Finding::DamageInside, path(1), seal as u64));
    assert_eq!(damaged(&|disk| disk.lose(&path(1))), (Finding::MissingSegment, path(1), 0));
    assert_eq!(damaged(&|disk| disk.lose(&path(2))), (Finding::MissingSegment, path(2), 0));
    let lose_last = |disk: &SimDisk| [3, 4].iter().for_each(|sequence| disk.lose(&path(*sequence)));
    assert_eq!(damaged(&lose_last), (Finding::MissingSegment, path(3), 0));
    assert_eq!(damaged(&|disk| disk.flip_bit(&path(2), 20, 0)), (Finding::DamagedHeader, path(2), 0));
    assert_eq!(damaged(&|disk| disk.flip_bit(&path(1), 20, 0)), (Finding::DamagedHeader, path(1), 0));
    let copy = |disk: &SimDisk, from: u64, to: u64| disk.plant(&path(to), disk.content(&path(from)).unwrap());
    assert_eq!(damaged(&|disk| copy(disk, 1, 2)), (Finding::MisnamedSegment, path(2), 0));
    let shorten = |disk: &SimDisk| disk.plant(&path(2), disk.content(&path(2)).unwrap()[..SEGMENT_BYTES / 2].to_vec());
    assert_eq!(damaged(&shorten), (Finding::ShortSegment, path(2), SEGMENT_BYTES as u64 / 2));
    let version = |disk: &SimDisk| {
        let mut content = disk.content(&path(2)).unwrap();
        content[4] = 9;
        let crc = crc32c::crc32c(&content[4..BLOCK_BYTES]).to_le_bytes();
        content[..4].copy_from_slice(&crc);
        disk.plant(&path(2), content);
    };
    assert_eq!(damaged(&version), (Finding::UnknownVersion, path(2), 0));
    let foreign = |disk: &SimDisk| {
        let other = SimDisk::new(9);
        let options = LogOptions { new_log_id: 1, ..small() };
        block_on(0, recover(&other, &options, &Truth::default())).map(drop).unwrap();
        let mut content = other.content(&path(1)).unwrap();
        content[24] = 2;
        let crc = crc32c::crc32c(&content[4..BLOCK_BYTES]).to_le_bytes();
        content[..4].copy_from_slice(&crc);
        disk.plant(&path(2), content);
    };
    assert_eq!(damaged(&foreign), (Finding::ForeignLog, path(2), 0));
    // A commit that was acknowledged but never reached the device: the one behind it tells.
    let lost_write = |disk: &SimDisk| {
        let mut content = disk.content(&path(1)).unwrap();
        content[2 * BLOCK_BYTES..3 * BLOCK_BYTES].fill(0);
        disk.plant(&path(1), content);
    };
    assert_eq!(damaged(&lost_write), (Finding::DamageInside, path(1), 2 * block));
    // A whole commit in the place of another.
    let astray = |disk: &SimDisk| {
        let mut content = disk.content(&path(1)).unwrap();
        content.copy_within(BLOCK_BYTES..2 * BLOCK_BYTES, 3 * BLOCK_BYTES);
        disk.plant(&path(1), content);
    };
    assert_eq!(damaged(&astray), (Finding::BrokenChain, path(1), 3 * block));
}

/// The header of the segment that was prepared but not used yet.
#[test]
fn a_damaged_header_of_an_unused_segment_is_written_anew() {
    let disk = SimDisk::new(1);
    let all = log_on(&disk, true);
    let unused = disk.paths().into_iter().rfind(|path| path.ends_with(".log")).unwrap();
    disk.flip_bit(&unused, 30, 1);
    assert_eq!(open(&disk).unwrap(), (all.clone(), false));
    assert!(disk.content(&unused).is_none(), "{:?}", disk.paths());
    assert_eq!(open(&disk).unwrap(), (all, false));
}

#[test]
fn entries_missing_behind_the_files_are_refused() {
    let disk = SimDisk::new(1);
    log_on(&disk, true);
    // The store says that it holds more of the group than nothing, but less than the log begins with.
    let options = small();
    let executor = Executor::new(1);
    let (log, _) = executor
        .block_on(async {
            let opened = tidemill_log::Log::open(disk.clone(), FOLDER, options.clone(), |_| LogIndex(4)).await;
            opened.map(|(log, recovery)| (log, recovery.cut().cloned()))
        })
        .unwrap();
    let runner = {
        let log = log.clone();
        executor.spawn(async move { log.run().await })
    };
    executor.block_on(async {
        log.release(GroupId(0), LogIndex(6));
        log.release(GroupId(1), LogIndex(6));
        while disk.content(&format!("log/{:016x}.log", 2)).is_some() {
            executor.yield_now().await;
        }
        log.close();
        runner.join().await.unwrap();
    });
    let segments: Vec<_> = disk.paths().into_iter().filter(|path| path.ends_with(".log")).collect();
    assert!(segments.len() < 4, "{segments:?}");
    assert_eq!(refused(&disk).0, Finding::IndexGap);
    let everything_in_files = |_: GroupId| LogIndex(6);
    assert!(block_on(0, tidemill_log::Log::open(disk.clone(), FOLDER, small(), everything_in_files)).is_ok());
}

#[test]
fn settling_protects_the_newest_commit_without_closing() {
    let disk = SimDisk::new(1);
    let executor = Executor::new(1);
    let (log, ..) = executor.block_on(recover(&disk, &small(), &Truth::default())).unwrap();
    let runner = {
        let log = log.clone();
        executor.spawn(async move { log.run().await })
    };
    executor.block_on(async {
        let record = Record::Entry { group: GroupId(1), term: Term(1), index: LogIndex(1), payload: b"once" };
        let position = log.append(record).unwrap();
        log.stable(position).await.unwrap();
        let commits = log.metrics().commits;
        for _ in 0..50 {
            log.settle();
            executor.yield_now().await;
        }
        while log.metrics().commits == commits {
            executor.yield_now().await;
        }
        log.settle();
        log.close();
        runner.join().await.unwrap();
        assert_eq!(log.metrics().commits, commits + 1, "settling twice writes once");
    });
    disk.flip_bit(&format!("log/{:016x}.log", 1), BLOCK_BYTES + 100, 0);
    assert_eq!(refused(&disk).0, Finding::DamageInside);
}
