//! What the device does without any of us: overwriting a segment that was written before, with direct I/O.

use crate::measure::histogram;
use anyhow::{Context, Result};
use hdrhistogram::Histogram;
use std::{
    fs::{File, OpenOptions},
    os::{
        fd::AsRawFd,
        unix::fs::{FileExt, OpenOptionsExt},
    },
    path::Path,
    time::{Duration, Instant},
};

const SEGMENT_BYTES: usize = 64 << 20;
const BLOCK_BYTES: usize = 4096;
const LARGE_BYTES: usize = 1 << 20;

/// Latencies of one write of 4 KiB with its fdatasync, nanoseconds, and bytes a second of writes of 1 MiB with theirs.
pub struct Device {
    /// fdatasync alone.
    pub sync: Histogram<u64>,
    pub write_and_sync: Histogram<u64>,
    pub large_bytes_per_second: f64,
}

impl Device {
    pub fn new() -> Device {
        Device { sync: histogram(), write_and_sync: histogram(), large_bytes_per_second: 0.0 }
    }

    pub fn merge(&mut self, other: &Device) -> Result<()> {
        self.sync.add(&other.sync)?;
        self.write_and_sync.add(&other.write_and_sync)?;
        self.large_bytes_per_second = self.large_bytes_per_second.max(other.large_bytes_per_second);
        Ok(())
    }

    pub fn print(&self, name: &str) {
        let ms = |histogram: &Histogram<u64>, quantile| histogram.value_at_quantile(quantile) as f64 / 1e6;
        println!(
            "device, {name:<14} fdatasync p50 {:.3} ms, p99 {:.3}, p99.9 {:.3}; write and fdatasync p50 {:.3}, p99 {:.3}; {} times; 1 MiB at a time: {:.0} MB/s",
            ms(&self.sync, 0.5),
            ms(&self.sync, 0.99),
            ms(&self.sync, 0.999),
            ms(&self.write_and_sync, 0.5),
            ms(&self.write_and_sync, 0.99),
            self.sync.len(),
            self.large_bytes_per_second / 1e6
        );
    }
}

/// Measures for so long with blocks and a third of it with MiBs, by so many writers at a time, each in a file of its own.
pub fn measure(folder: &Path, writers: usize, length: Duration) -> Result<Device> {
    std::fs::create_dir_all(folder)?;
    let files: Vec<File> =
        (0..writers).map(|at| segment(&folder.join(format!("device-{at}")))).collect::<Result<_>>()?;
    let mut device = Device::new();
    let small = each(&files, |file| overwrite(file, BLOCK_BYTES, length))?;
    for (sync, both, _) in &small {
        device.sync.add(sync)?;
        device.write_and_sync.add(both)?;
    }
    let large = each(&files, |file| overwrite(file, LARGE_BYTES, length / 3))?;
    device.large_bytes_per_second = large.iter().map(|(_, _, rate)| rate).sum();
    for at in 0..writers {
        std::fs::remove_file(folder.join(format!("device-{at}")))?;
    }
    Ok(device)
}

type Overwritten = (Histogram<u64>, Histogram<u64>, f64);

fn each(files: &[File], act: impl Fn(&File) -> Result<Overwritten> + Sync) -> Result<Vec<Overwritten>> {
    std::thread::scope(|scope| {
        let threads: Vec<_> = files.iter().map(|file| scope.spawn(|| act(file))).collect();
        threads.into_iter().map(|thread| thread.join().map_err(|_| anyhow::anyhow!("a writer died"))?).collect()
    })
}

/// A file all of whose blocks are on the device.
fn segment(path: &Path) -> Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(true).custom_flags(libc::O_DIRECT);
    let file = options.open(path).with_context(|| format!("{} with direct I/O", path.display()))?;
    let zeros = Aligned::new(LARGE_BYTES);
    for at in 0..SEGMENT_BYTES / LARGE_BYTES {
        file.write_all_at(zeros.bytes(), (at * LARGE_BYTES) as u64)?;
    }
    file.sync_all()?;
    Ok(file)
}

fn overwrite(file: &File, bytes: usize, length: Duration) -> Result<Overwritten> {
    let block = Aligned::new(bytes);
    let (mut sync, mut both, mut written) = (histogram(), histogram(), 0u64);
    let start = Instant::now();
    while start.elapsed() < length {
        let begun = Instant::now();
        file.write_all_at(block.bytes(), written % SEGMENT_BYTES as u64)?;
        let syncing = Instant::now();
        // SAFETY: the descriptor is open for as long as the file lives.
        anyhow::ensure!(unsafe { libc::fdatasync(file.as_raw_fd()) } == 0, std::io::Error::last_os_error());
        sync.saturating_record(syncing.elapsed().as_nanos() as u64);
        both.saturating_record(begun.elapsed().as_nanos() as u64);
        written += bytes as u64;
    }
    Ok((sync, both, written as f64 / start.elapsed().as_secs_f64()))
}

/// Memory as direct I/O wants it.
struct Aligned(Vec<u8>, usize, usize);

impl Aligned {
    fn new(bytes: usize) -> Aligned {
        let memory = vec![0x5a; bytes + BLOCK_BYTES];
        let skipped = memory.as_ptr().align_offset(BLOCK_BYTES);
        Aligned(memory, skipped, bytes)
    }

    fn bytes(&self) -> &[u8] {
        &self.0[self.1..self.1 + self.2]
    }
}
