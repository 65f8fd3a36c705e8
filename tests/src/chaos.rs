//! Nodes of a cluster are killed, frozen and stopped, the lines between them cut and disturbed, and the disk of one filled
//! up, while clients write and read at all of them.
//!
//! Each writer numbers its rows; a row's number is its time and its value. Held to: a row that was acknowledged is there
//! once, with its value, at every node, also after all of them were killed; no row is there that was not sent; a read
//! that is answered shows everything that its writer had acknowledged before it was asked (I3).
//! The seed decides the faults and what the clients do, not when: threads and processes have their own time.

use crate::{
    cluster::{Cluster, NODES},
    small_disk::SmallDisk,
    subject,
    wires::{Faults, Wires},
};
use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use std::{
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};
use tidemill_perf::{http::Client, random::Sequence};

const WRITERS: usize = 3;
/// Series of a writer: enough for some in each partition.
const SERIES: u64 = 11;
const ROWS_MAX: u64 = 60;
/// A client that has waited so long goes to another node.
const CLIENT_PATIENCE: Duration = Duration::from_secs(10);
/// A batch is offered so often before its writer goes on to the next one.
const OFFERS_MAX: u64 = 6;

/// One run.
#[derive(Clone, Copy, Debug)]
pub struct Chaos {
    pub seed: u64,
    pub time: Duration,
    /// The lines between the nodes suffer, too.
    pub has_wires: bool,
    /// The third node has a disk of its own, which is full now and then.
    pub has_small_disk: bool,
}

/// A disk with room for some minutes of the load.
const SMALL_DISK_MEBIBYTES: u64 = 640;
const OF_SMALL_DISK: usize = 3;

/// What happened in it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Report {
    pub rows_acknowledged: u64,
    /// Of which nobody knows; they may be there.
    pub rows_unknown: u64,
    pub reads: u64,
    pub reads_failed: u64,
    pub kills: u64,
    pub freezes: u64,
    pub stops: u64,
    pub cuts: u64,
    pub one_way_cuts: u64,
    pub isolations: u64,
    /// Lines that lose, delay, double, damage, and change the order.
    pub bad_lines: u64,
    pub datagrams_disturbed: u64,
    pub datagrams_passed: u64,
    pub full_disks: u64,
}

/// What all threads see.
struct Shared {
    addresses: Mutex<[Option<String>; 3]>,
    is_over: AtomicBool,
    /// The newest row of each writer that was sent, and that was acknowledged with all before it that ever will be.
    sent: [AtomicU64; WRITERS],
    acknowledged: [AtomicU64; WRITERS],
}

/// First and last row of a batch, and whether it was acknowledged.
type Batch = (u64, u64, bool);

impl Chaos {
    /// Runs it.
    ///
    /// # Errors
    /// What was broken, with the seed.
    pub fn run(&self) -> Result<Report> {
        let mut prepared = Cluster::prepare("");
        let wires = self.has_wires.then(|| Wires::lay(&prepared, self.seed));
        let disk = self.has_small_disk.then(|| SmallDisk::mount(SMALL_DISK_MEBIBYTES)).transpose();
        let disk = disk.map_err(|why| anyhow::anyhow!("no small file system can be mounted: {why}"))?;
        if let Some(disk) = &disk {
            prepared.put_data(OF_SMALL_DISK, disk.path().join("data"));
        }
        let mut cluster = prepared.started();
        subject::query(&mut cluster.client(1), "CREATE DATABASE d", "")?;
        let surroundings = Surroundings { wires: wires.as_ref(), disk: disk.as_ref() };
        self.run_on(&mut cluster, surroundings).with_context(|| format!("chaos of seed {}", self.seed))
    }

    fn run_on(&self, cluster: &mut Cluster, surroundings: Surroundings<'_>) -> Result<Report> {
        let Surroundings { wires, disk } = surroundings;
        let shared = Shared {
            addresses: Mutex::new(NODES.map(|node| Some(cluster.node(node).address()))),
            is_over: AtomicBool::new(false),
            sent: Default::default(),
            acknowledged: Default::default(),
        };
        let mut report = Report::default();
        let written: Vec<Vec<Batch>> = thread::scope(|scope| -> Result<_> {
            let shared = &shared;
            let sequence = |number: u64| Sequence::new(self.seed.wrapping_mul(1000).wrapping_add(number));
            let writers: Vec<_> = (0..WRITERS)
                .map(|writer| scope.spawn(move || or_end(shared, write(shared, writer, sequence(writer as u64)))))
                .collect();
            let readers: Vec<_> = (0..2)
                .map(|reader| scope.spawn(move || or_end(shared, read(shared, sequence(100 + reader)))))
                .collect();
            // A fault that panics ends the threads too.
            let end = End(shared);
            let begun = Instant::now();
            let mut random = sequence(200);
            while begun.elapsed() < self.time && !shared.is_over.load(Ordering::Relaxed) {
                match (wires, disk) {
                    (Some(wires), _) if random.below(3) > 0 => disturb(wires, &mut random, &mut report),
                    (_, Some(disk)) if random.below(3) == 0 => fill(disk, &mut random, &mut report)?,
                    _ => strike(cluster, shared, &mut random, &mut report),
                }
            }
            drop(end);
            for reader in readers {
                let (reads, failed) = reader.join().expect("a reader does not panic")?;
                report.reads += reads;
                report.reads_failed += failed;
            }
            writers.into_iter().map(|writer| writer.join().expect("a writer does not panic")).collect()
        })?;
        for (first, last, is_acknowledged) in written.iter().flatten() {
            let rows = if *is_acknowledged { &mut report.rows_acknowledged } else { &mut report.rows_unknown };
            *rows += last - first + 1;
        }
        if let Some(wires) = wires {
            (report.datagrams_disturbed, report.datagrams_passed) = wires.counts();
        }
        cluster.wait_for_leaders();
        check_all(cluster, &written)?;
        NODES.iter().for_each(|node| cluster.kill(*node));
        NODES.iter().for_each(|node| cluster.start_node(*node));
        cluster.wait_for_leaders();
        check_all(cluster, &written).context("after all nodes were killed")?;
        Ok(report)
    }
}

/// What suffers beside the processes.
#[derive(Clone, Copy)]
struct Surroundings<'a> {
    wires: Option<&'a Wires>,
    disk: Option<&'a SmallDisk>,
}

/// Tells the threads that it is over, also if what it stands in panics.
struct End<'a>(&'a Shared);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.is_over.store(true, Ordering::Relaxed);
    }
}

fn pause_ms(random: &mut Sequence, most: u64) {
    thread::sleep(Duration::from_millis(random.below(most)));
}

/// One fault, and its end.
fn strike(cluster: &mut Cluster, shared: &Shared, random: &mut Sequence, report: &mut Report) {
    pause_ms(random, 1500);
    let node = NODES[random.below(3) as usize];
    let other = NODES[(node + random.below(2) as usize) % 3];
    let is_told = |node: usize, address: Option<String>| shared.addresses.lock().unwrap()[node - 1] = address;
    match random.below(10) {
        0..4 => {
            is_told(node, None);
            cluster.kill(node);
            report.kills += 1;
            // Now and then nobody has a majority.
            if random.below(4) == 0 {
                freeze(cluster, other, random, report);
            } else {
                pause_ms(random, 3000);
            }
            cluster.start_node(node);
            is_told(node, Some(cluster.node(node).address()));
        }
        4..8 => freeze(cluster, node, random, report),
        _ => {
            is_told(node, None);
            cluster.stop(node);
            report.stops += 1;
            pause_ms(random, 1000);
            cluster.start_node(node);
            is_told(node, Some(cluster.node(node).address()));
        }
    }
}

/// A node has no space on its disk for a while.
fn fill(disk: &SmallDisk, random: &mut Sequence, report: &mut Report) -> Result<()> {
    pause_ms(random, 1500);
    disk.fill().context("filling the small disk")?;
    report.full_disks += 1;
    pause_ms(random, 5000);
    disk.free().context("freeing the small disk")
}

/// Something happens to the lines between the nodes, and they are good again.
fn disturb(wires: &Wires, random: &mut Sequence, report: &mut Report) {
    pause_ms(random, 1500);
    let node = NODES[random.below(3) as usize];
    let other = NODES[(node + random.below(2) as usize) % 3];
    match random.below(5) {
        0 => {
            wires.cut(node, other);
            report.cuts += 1;
        }
        1 => {
            wires.cut_one_way(node, other);
            report.one_way_cuts += 1;
        }
        2 => {
            wires.isolate(node);
            report.isolations += 1;
        }
        _ => {
            let faults = bad_line(random);
            wires.disturb(node, other, &faults);
            // Now and then all of them.
            if random.below(3) == 0 {
                let third = 6 - node - other;
                wires.disturb(node, third, &faults);
                wires.disturb(other, third, &faults);
            }
            report.bad_lines += 1;
        }
    }
    pause_ms(random, 5000);
    wires.heal();
}

/// Some of what lines do to datagrams.
fn bad_line(random: &mut Sequence) -> Faults {
    let mut part = |most: u64| random.below(most) as f64 / 100.0;
    let (drop, duplicate, corrupt, reorder, replay) = (0.2 + part(31), part(20), part(10), part(40), part(5));
    let (drop, corrupt) = if part(2) > 0.0 { (drop, 0.0) } else { (part(5), corrupt) };
    let delay = Duration::from_millis(1 + random.below(10) * random.below(50));
    let jitter = Duration::from_millis(random.below(200));
    Faults { drop, duplicate, corrupt, reorder, replay, delay, jitter, ..Faults::default() }
}

/// A node that stands still and then goes on as if nothing had been.
fn freeze(cluster: &Cluster, node: usize, random: &mut Sequence, report: &mut Report) {
    report.freezes += 1;
    cluster.node(node).signal(libc::SIGSTOP);
    pause_ms(random, 4000);
    cluster.node(node).signal(libc::SIGCONT);
}

/// A client of some node that is told to run.
fn some_client(shared: &Shared, random: &mut Sequence) -> Option<Client> {
    let addresses = shared.addresses.lock().unwrap().clone();
    let address = addresses[random.below(3) as usize].clone()?;
    Some(Client::new(address).with_timeout(CLIENT_PATIENCE))
}

fn write(shared: &Shared, writer: usize, mut random: Sequence) -> Result<Vec<Batch>> {
    let mut batches = Vec::new();
    let mut next = 1;
    while !shared.is_over.load(Ordering::Relaxed) {
        let (first, last) = (next, next + random.below(ROWS_MAX));
        next = last + 1;
        let lines: String =
            (first..=last).map(|row| format!("m,w=w{writer},s=s{} v={row}i {row}\n", row % SERIES)).collect();
        shared.sent[writer].store(last, Ordering::SeqCst);
        let mut is_acknowledged = false;
        let offers = 1 + random.below(OFFERS_MAX);
        for _ in 0..offers {
            let Some(mut client) = some_client(shared, &mut random) else {
                pause_ms(&mut random, 100);
                continue;
            };
            match client.write("db=d", lines.as_bytes()) {
                Ok(answer) if answer.status == 204 => {
                    is_acknowledged = true;
                    break;
                }
                Ok(answer) if matches!(answer.status, 500 | 503 | 507) => pause_ms(&mut random, 100),
                Ok(answer) => bail!("rows {first} to {last}: {} {}", answer.status, answer.text()),
                Err(_) => pause_ms(&mut random, 100),
            }
        }
        batches.push((first, last, is_acknowledged));
        if is_acknowledged {
            shared.acknowledged[writer].store(last, Ordering::SeqCst);
        }
    }
    Ok(batches)
}

/// Ends the run early when a client has found something.
fn or_end<T>(shared: &Shared, found: Result<T>) -> Result<T> {
    found.inspect_err(|_| shared.is_over.store(true, Ordering::Relaxed))
}

/// Reads the newest rows; returns how many reads there were and how many failed.
fn read(shared: &Shared, mut random: Sequence) -> Result<(u64, u64)> {
    let (mut reads, mut failed) = (0, 0);
    while !shared.is_over.load(Ordering::Relaxed) {
        pause_ms(&mut random, 20);
        let writer = random.below(WRITERS as u64) as usize;
        let Some(mut client) = some_client(shared, &mut random) else { continue };
        let before = shared.acknowledged[writer].load(Ordering::SeqCst);
        let statement = format!("SELECT last(v) FROM m WHERE w='w{writer}'");
        reads += 1;
        let answer = client.query(&statement, "db=d&epoch=ns").ok().filter(|answer| answer.status == 200);
        let value: Option<Value> = answer.and_then(|answer| serde_json::from_slice(&answer.body).ok());
        let Some(value) = value.filter(|value| value["results"][0]["error"].is_null() && value["error"].is_null())
        else {
            failed += 1;
            continue;
        };
        let found = value["results"][0]["series"][0]["values"][0][1].as_u64().unwrap_or(0);
        let sent = shared.sent[writer].load(Ordering::SeqCst);
        ensure!(found >= before, "writer {writer}: row {before} was acknowledged, a later read shows {found}: {value}");
        ensure!(found <= sent, "writer {writer}: row {found} was read, {sent} is the last one sent");
    }
    Ok((reads, failed))
}

/// Every node has the rows that it must have, and no others.
fn check_all(cluster: &Cluster, written: &[Vec<Batch>]) -> Result<()> {
    for node in NODES {
        for (writer, batches) in written.iter().enumerate() {
            let found = rows(cluster, node, writer)?;
            check(batches, &found).with_context(|| format!("writer {writer} at node {node}"))?;
        }
    }
    Ok(())
}

/// Times and values of a writer's rows, as a node answers them.
fn rows(cluster: &Cluster, node: usize, writer: usize) -> Result<Vec<(u64, u64)>> {
    let statement = format!("SELECT v FROM m WHERE w='w{writer}'");
    let text = subject::query(&mut cluster.client(node), &statement, "db=d&epoch=ns")?;
    let value: Value = serde_json::from_str(&text)?;
    let rows = value["results"][0]["series"][0]["values"].as_array().map_or(&[][..], Vec::as_slice);
    let row = |row: &Value| Some((row[0].as_u64()?, row[1].as_u64()?));
    rows.iter().map(|found| row(found).with_context(|| format!("no row: {found}"))).collect()
}

fn check(batches: &[Batch], found: &[(u64, u64)]) -> Result<()> {
    let mut found = found.iter().copied().peekable();
    for (first, last, is_acknowledged) in batches {
        for row in *first..=*last {
            match found.next_if(|(time, _)| *time <= row) {
                Some((time, value)) => ensure!((time, value) == (row, row), "row {row}: found {value} at {time}"),
                None => ensure!(!is_acknowledged, "row {row} was acknowledged and is not there"),
            }
        }
    }
    ensure!(found.peek().is_none(), "{:?} was never sent", found.peek());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_lost_doubled_or_made_up_is_found() {
        let batches = [(1, 2, true), (3, 4, false), (5, 5, true)];
        let rows = |rows: &[u64]| rows.iter().map(|row| (*row, *row)).collect::<Vec<_>>();
        for fine in [&[1, 2, 5][..], &[1, 2, 3, 5], &[1, 2, 3, 4, 5]] {
            assert!(check(&batches, &rows(fine)).is_ok(), "{fine:?}");
        }
        for wrong in [&[1, 5][..], &[1, 2], &[1, 1, 2, 5], &[1, 2, 5, 5], &[1, 2, 5, 6], &[0, 1, 2, 5], &[]] {
            assert!(check(&batches, &rows(wrong)).is_err(), "{wrong:?}");
        }
        assert!(check(&batches, &[(1, 1), (2, 7), (5, 5)]).is_err());
    }
}
