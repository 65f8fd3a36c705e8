//! How long nobody can write when a node that leads is killed.
//!
//! A client writes rows of all partitions without pause to a node that stays. The gap is the time from the SIGKILL to the
//! first acknowledgement behind it of a request that every partition had to take.

use crate::{
    cluster::{Cluster, NODES},
    subject,
};
use anyhow::{Context, Result, bail, ensure};
use std::{
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};
use tidemill_perf::{cluster::leaders, random::Sequence};

/// Enough series for some in each partition.
const SERIES: u64 = 24;
const GAP_MAX: Duration = Duration::from_secs(60);
/// Before each kill, so that nothing of the last one is under way.
const CALM: Duration = Duration::from_secs(2);

/// Kills so many nodes that lead, one after the other; returns the gaps in ascending order.
///
/// # Errors
/// There is no acknowledgement within a minute, or rows are not there at the end.
pub fn measure(kills: usize, seed: u64) -> Result<Vec<Duration>> {
    let mut cluster = Cluster::start();
    subject::query(&mut cluster.client(1), "CREATE DATABASE d", "")?;
    let mut random = Sequence::new(seed);
    let mut gaps = Vec::new();
    let mut next = 1;
    for _ in 0..kills {
        cluster.wait_for_leaders();
        thread::sleep(CALM);
        let leading: Vec<u64> = leaders(&mut cluster.client(1))?.into_iter().map(|(_, leader)| leader).collect();
        let killed = leading[random.below(leading.len() as u64) as usize] as usize;
        let asked = NODES[(killed + random.below(2) as usize) % 3];
        gaps.push(kill_and_wait(&mut cluster, killed, asked, &mut next)?);
        cluster.start_node(killed);
    }
    cluster.wait_for_leaders();
    let text = subject::query(&mut cluster.client(1), "SELECT count(v) FROM m", "db=d")?;
    ensure!(text.contains(&format!(",{}]", next - 1)), "{} rows were acknowledged: {text}", next - 1);
    gaps.sort_unstable();
    Ok(gaps)
}

fn kill_and_wait(cluster: &mut Cluster, killed: usize, asked: usize, next: &mut u64) -> Result<Duration> {
    let acknowledged: Mutex<Vec<Instant>> = Mutex::default();
    let is_over = AtomicBool::new(false);
    let mut client = cluster.client(asked).with_timeout(GAP_MAX);
    thread::scope(|scope| {
        let writer = scope.spawn(|| -> Result<()> {
            while !is_over.load(Ordering::Relaxed) {
                let lines: String = (0..SERIES).map(|row| format!("m,s=s{row} v=1i {}\n", *next + row)).collect();
                // Refused, or nobody knows: the same rows again, which are there once in the end.
                if client.write("db=d", lines.as_bytes()).is_ok_and(|answer| answer.status == 204) {
                    acknowledged.lock().unwrap().push(Instant::now());
                    *next += SERIES;
                } else {
                    thread::sleep(Duration::from_millis(5));
                }
            }
            Ok(())
        });
        let any_since = |from: Instant| acknowledged.lock().unwrap().iter().filter(|at| **at > from).min().copied();
        let begun = Instant::now();
        let mut killed_at = None;
        let gap = loop {
            if begun.elapsed() > GAP_MAX {
                break None;
            }
            match killed_at {
                // The writer is under way.
                None if any_since(begun + Duration::from_millis(100)).is_some() => {
                    killed_at = Some(Instant::now());
                    cluster.kill(killed);
                }
                // What is acknowledged at once may have been on its way before.
                Some(at) => {
                    if let Some(first) = any_since(at + Duration::from_millis(20)) {
                        break Some(first - at);
                    }
                }
                None => {}
            }
            thread::sleep(Duration::from_millis(1));
        };
        is_over.store(true, Ordering::Relaxed);
        writer.join().expect("the writer does not panic")?;
        match gap {
            Some(gap) => Ok(gap),
            None => bail!("node {killed} was killed, and node {asked} acknowledged nothing for {GAP_MAX:?}"),
        }
    })
    .context("a leader was killed")
}
