//! The workloads of the performance goals, and the request bodies that a client sends for them.

use crate::cardinality::{SeriesLines, SeriesSpec};
use crate::devices::{Device, DeviceSpec, csv_to_line};
use crate::emission::{Emission, SendOrder};
use crate::hosts::{HostLines, HostSpec};
use anyhow::{Context, Result, bail};
use flate2::Compression;
use flate2::write::GzEncoder;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};

/// What is written.
#[derive(Clone, Debug)]
pub enum Workload {
    /// The reference set, generated in memory.
    Devices { spec: DeviceSpec, order: SendOrder },
    /// The reference set, read from the files that `perf gen` wrote.
    Files { spec: DeviceSpec, directory: PathBuf },
    /// Hosts in the manner of TSBS.
    Hosts(HostSpec),
    /// Many series with few points.
    Series(SeriesSpec),
}

/// The disorder of w5.
const DAY_LATE: SendOrder = SendOrder { interleave: 1, late_part: 0.2, lag_ms_max: 86_400_000, duplicate_part: 0.05 };

impl Workload {
    /// A workload by its name in the goal sheet: w1, w2a, w2b, w3, w4. `rows` cuts or grows it. w5 is w1 with a fifth of
    /// the rows up to a day late and a twentieth sent twice; w5i the same with all devices of a client in turn, so that
    /// late rows come long after the files that they fall into were written.
    pub fn named(name: &str, rows: Option<u64>, seed: u64) -> Result<Self> {
        let order = SendOrder::default();
        Ok(match name.to_ascii_lowercase().as_str() {
            "w1" => Workload::Devices { spec: DeviceSpec::with_rows(rows.unwrap_or(10_000_000), seed), order },
            "w2a" => Workload::Hosts(HostSpec { hosts: 100, steps: rows.map_or(25_920, |n| (n / 100).max(1)), seed }),
            "w2b" => Workload::Hosts(HostSpec { hosts: 4000, steps: rows.map_or(720, |n| (n / 4000).max(1)), seed }),
            "w3" => {
                Workload::Series(SeriesSpec { series: rows.map_or(1_000_000, |n| (n / 10).max(1)), points: 10, seed })
            }
            "w4" => Workload::Devices {
                spec: DeviceSpec::with_rows(rows.unwrap_or(10_000_000), seed),
                order: SendOrder { interleave: 1, late_part: 0.1, lag_ms_max: 3_600_000, duplicate_part: 0.01 },
            },
            "w5" => Workload::Devices {
                spec: DeviceSpec::with_rows(rows.unwrap_or(10_000_000), seed),
                order: SendOrder { interleave: 1, ..DAY_LATE },
            },
            "w5i" => Workload::Devices {
                spec: DeviceSpec::with_rows(rows.unwrap_or(10_000_000), seed),
                order: SendOrder { interleave: u64::MAX, ..DAY_LATE },
            },
            other => bail!("unknown workload {other:?}: w1, w2a, w2b, w3, w4, w5 and w5i are known"),
        })
    }

    /// Distinct rows.
    pub fn rows(&self) -> u64 {
        match self {
            Workload::Devices { spec, .. } | Workload::Files { spec, .. } => spec.rows(),
            Workload::Hosts(spec) => spec.rows(),
            Workload::Series(spec) => spec.rows(),
        }
    }

    /// The reference set behind this workload, if it is one.
    pub fn device_spec(&self) -> Option<DeviceSpec> {
        match self {
            Workload::Devices { spec, .. } | Workload::Files { spec, .. } => Some(*spec),
            _ => None,
        }
    }

    /// Value of the `precision` parameter.
    pub fn precision(&self) -> &'static str {
        match self {
            Workload::Hosts(_) => "ns",
            _ => "ms",
        }
    }

    /// Rows in one request unless the caller says otherwise.
    pub fn rows_per_request(&self) -> u64 {
        match self {
            Workload::Hosts(_) => 5000,
            _ => 1000,
        }
    }

    /// A statement whose single answer is `rows()`.
    pub fn count_statement(&self) -> &'static str {
        match self {
            Workload::Devices { .. } | Workload::Files { .. } => "SELECT count(temperature) FROM devices",
            Workload::Hosts(_) => "SELECT count(usage_user) FROM cpu",
            Workload::Series(_) => "SELECT count(value) FROM meter",
        }
    }

    /// The lines of one client in sending order.
    pub fn lines(&self, client: u64, clients: u64) -> Result<Lines> {
        Ok(match self {
            Workload::Devices { spec, order } => {
                Lines::Devices(Emission::new(*spec, *order, spec.devices_of_client(client, clients)))
            }
            Workload::Files { spec, directory } => Lines::Files(FileLines {
                directory: directory.clone(),
                files: spec.files_of_client(client, clients),
                reader: None,
                line: Vec::new(),
            }),
            Workload::Hosts(spec) => Lines::Hosts(HostLines::new(*spec, client, clients)),
            Workload::Series(spec) => Lines::Series(SeriesLines::new(*spec, client, clients)),
        })
    }
}

/// A client's lines, one at a time.
#[derive(Debug)]
pub enum Lines {
    Devices(Emission),
    Files(FileLines),
    Hosts(HostLines),
    Series(SeriesLines),
    /// Rows of the reference set that were picked already.
    Ready(std::vec::IntoIter<(Device, u64)>),
}

impl Lines {
    /// Appends the next line; false at the end.
    pub fn push_next(&mut self, out: &mut Vec<u8>) -> Result<bool> {
        match self {
            Lines::Devices(emission) => match emission.next() {
                Some((device, number)) => {
                    device.push_line(&device.row(number), out);
                    Ok(true)
                }
                None => Ok(false),
            },
            Lines::Files(lines) => lines.push_next(out),
            Lines::Hosts(lines) => Ok(lines.push_next(out)),
            Lines::Series(lines) => Ok(lines.push_next(out)),
            Lines::Ready(rows) => {
                let next = rows.next();
                if let Some((device, number)) = next {
                    device.push_line(&device.row(number), out);
                }
                Ok(next.is_some())
            }
        }
    }
}

/// Lines from CSV files, which may end anywhere within a batch.
#[derive(Debug)]
pub struct FileLines {
    directory: PathBuf,
    files: std::ops::Range<u64>,
    reader: Option<BufReader<std::fs::File>>,
    line: Vec<u8>,
}

/// Name of one CSV file of a set.
pub fn csv_path(directory: &Path, file: u64) -> PathBuf {
    directory.join(format!("testdata{file}.csv"))
}

impl FileLines {
    fn push_next(&mut self, out: &mut Vec<u8>) -> Result<bool> {
        loop {
            let Some(reader) = &mut self.reader else {
                let Some(file) = self.files.next() else { return Ok(false) };
                let path = csv_path(&self.directory, file);
                let opened = std::fs::File::open(&path).with_context(|| format!("open {}", path.display()))?;
                self.reader = Some(BufReader::with_capacity(1 << 20, opened));
                continue;
            };
            self.line.clear();
            if reader.read_until(b'\n', &mut self.line)? == 0 {
                self.reader = None;
                continue;
            }
            let csv = self.line.strip_suffix(b"\n").unwrap_or(&self.line);
            if csv_to_line(csv, out).is_none() {
                bail!("not a row of the reference set: {:?}", String::from_utf8_lossy(csv));
            }
            return Ok(true);
        }
    }
}

/// One request body within a plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Batch {
    /// Byte range in the plan's bodies.
    pub start: usize,
    pub end: usize,
    /// Positions of the first and last row in the client's sending order, both inclusive.
    pub first_row: u64,
    pub last_row: u64,
}

impl Batch {
    pub fn rows(&self) -> u64 {
        self.last_row - self.first_row + 1
    }
}

/// Ready request bodies of one client.
#[derive(Debug, Default)]
pub struct ClientPlan {
    pub bodies: Vec<u8>,
    pub batches: Vec<Batch>,
    pub gzip: bool,
}

impl ClientPlan {
    /// Renders up to `rows_max` lines from `lines`; the first of them has position `first_row`.
    pub fn render(lines: &mut Lines, first_row: u64, rows_max: u64, rows_per_request: u64, gzip: bool) -> Result<Self> {
        let mut plan = ClientPlan { gzip, ..ClientPlan::default() };
        let mut text = Vec::new();
        let mut next = first_row;
        let end = first_row.saturating_add(rows_max);
        while next < end {
            let first = next;
            let start = plan.bodies.len();
            let body = if gzip { &mut text } else { &mut plan.bodies };
            while next < end && next - first < rows_per_request && lines.push_next(body)? {
                next += 1;
            }
            if next == first {
                break;
            }
            if gzip {
                let mut encoder = GzEncoder::new(&mut plan.bodies, Compression::fast());
                encoder.write_all(&text)?;
                encoder.finish()?;
                text.clear();
            }
            plan.batches.push(Batch { start, end: plan.bodies.len(), first_row: first, last_row: next - 1 });
        }
        Ok(plan)
    }

    pub fn body(&self, batch: &Batch) -> &[u8] {
        &self.bodies[batch.start..batch.end]
    }

    pub fn rows(&self) -> u64 {
        self.batches.iter().map(Batch::rows).sum()
    }
}

/// Renders everything that `clients` clients send, one thread a client.
pub fn render_all(workload: &Workload, clients: u64, rows_per_request: u64, gzip: bool) -> Result<Vec<ClientPlan>> {
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..clients)
            .map(|client| {
                scope.spawn(move || {
                    let mut lines = workload.lines(client, clients)?;
                    ClientPlan::render(&mut lines, 0, u64::MAX, rows_per_request, gzip)
                })
            })
            .collect();
        workers.into_iter().map(|worker| worker.join().map_err(|_| anyhow::anyhow!("a renderer died"))?).collect()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_cross_device_borders_and_cover_every_row() {
        let spec = DeviceSpec { devices: 3, files: 3, rows_per_device: 700, seed: 5 };
        let workload = Workload::Devices { spec, order: SendOrder::default() };
        let plans = render_all(&workload, 1, 1000, false).unwrap();
        let rows: Vec<u64> = plans[0].batches.iter().map(Batch::rows).collect();
        assert_eq!(rows, [1000, 1000, 100]);
        let text = String::from_utf8(plans[0].bodies.clone()).unwrap();
        assert_eq!(text.lines().count(), 2100);
        assert!(text.lines().nth(700).unwrap().starts_with("devices,devgroup=2,devid=2,devname=dev_2 "));
    }

    #[test]
    fn gzip_bodies_unpack_to_the_plain_ones() {
        let workload = Workload::named("w3", Some(300), 1).unwrap();
        let plain = render_all(&workload, 1, 100, false).unwrap();
        let packed = render_all(&workload, 1, 100, true).unwrap();
        for (a, b) in plain[0].batches.iter().zip(&packed[0].batches) {
            let mut text = Vec::new();
            let mut decoder = flate2::read::GzDecoder::new(packed[0].body(b));
            std::io::Read::read_to_end(&mut decoder, &mut text).unwrap();
            assert_eq!(text, plain[0].body(a));
        }
    }

    #[test]
    fn files_give_the_same_bodies_as_generation_in_memory() {
        let spec = DeviceSpec { devices: 6, files: 3, rows_per_device: 50, seed: 5 };
        let directory = std::env::temp_dir().join(format!("tidemill-perf-files-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        for file in 0..3 {
            spec.write_csv(file, std::fs::File::create(csv_path(&directory, file)).unwrap(), |_, _| ()).unwrap();
        }
        let files = render_all(&Workload::Files { spec, directory: directory.clone() }, 2, 64, false).unwrap();
        let memory = render_all(&Workload::Devices { spec, order: SendOrder::default() }, 2, 64, false).unwrap();
        std::fs::remove_dir_all(&directory).unwrap();
        for (a, b) in files.iter().zip(&memory) {
            assert_eq!(a.bodies, b.bodies);
            assert_eq!(a.batches, b.batches);
        }
    }
}
