//! What a core counts, and how it is shown.

use crate::{
    data::{
        cluster_figures::{self, ClusterFigures},
        core::DataCore,
        scrub::ScrubFigures,
    },
    handoff::HandoffFigures,
    pool::{master::MasterFigures, slave::SlaveFigures},
    query::continuous::ContinuousFigures,
};
use hdrhistogram::Histogram;
use std::cell::{Cell, RefCell};
use tidemill_http::metrics::{HttpMetrics, HttpSnapshot, TextWriter};
use tidemill_log::LogMetrics;
use tidemill_store::{CacheFigures, PartitionFigures};

/// Longest latency that is told from longer ones.
const LATENCY_US_MAX: u64 = 60_000_000;
/// Two digits: 20 KiB a histogram.
const LATENCY_DIGITS: u8 = 2;

/// Latencies of one stage, in microseconds.
#[derive(Clone)]
pub struct Latency {
    histogram: RefCell<Histogram<u64>>,
    sum_us: Cell<u64>,
}

impl Default for Latency {
    fn default() -> Latency {
        let histogram = Histogram::new_with_bounds(1, LATENCY_US_MAX, LATENCY_DIGITS);
        Latency { histogram: RefCell::new(histogram.expect("the bounds are constants")), sum_us: Cell::new(0) }
    }
}

impl Latency {
    pub fn record(&self, ns: u64) {
        let us = ns / 1_000;
        self.sum_us.set(self.sum_us.get() + us);
        self.histogram.borrow_mut().saturating_record(us.max(1));
    }
}

/// Counters of the way of a write on one core.
#[derive(Clone, Default)]
pub struct WriteFigures {
    pub requests: Cell<u64>,
    pub rows: Cell<u64>,
    pub body_bytes: Cell<u64>,
    /// Requests that waited because memory was short, and those that were refused for it.
    pub slowed: Cell<u64>,
    pub refused: Cell<u64>,
    /// Times that nobody knew what became of a batch, and it was sent again.
    pub resent: Cell<u64>,
    /// New series that were refused.
    pub series_refused: Cell<u64>,
    pub parse: Latency,
    pub split: Latency,
    /// From the proposal to durable and applied, over all partitions of a request.
    pub commit: Latency,
    pub request: Latency,
    pub flush: Latency,
    pub flushes: Cell<u64>,
    pub flush_failures: Cell<u64>,
    pub copy: Latency,
    pub copy_failures: Cell<u64>,
}

/// A copy that can travel to the core that shows it.
pub struct CoreFigures {
    pub write: WriteFigures,
    pub scrub: ScrubFigures,
    pub handoff: HandoffFigures,
    pub continuous: ContinuousFigures,
    pub http: HttpSnapshot,
    pub log: LogMetrics,
    pub cache: CacheFigures,
    pub store: PartitionFigures,
    pub reactor: Vec<(&'static str, u64)>,
    /// Parts of the core's memory (see `budget`): name, bytes held, bytes that it may hold.
    pub memory: Vec<(&'static str, u64, u64)>,
    pub process: ProcessMemory,
    /// None without a cluster.
    pub cluster: Option<ClusterFigures>,
    /// Of a pool slave.
    pub pool: Option<SlaveFigures>,
    /// Of a pool master.
    pub master: Option<MasterFigures>,
}

/// What the whole process takes.
#[derive(Clone, Copy, Debug)]
pub struct ProcessMemory {
    pub limit_bytes: u64,
    pub resident_bytes: u64,
    pub resident_bytes_max: u64,
    pub queries_bytes: u64,
    pub queries_bytes_max: u64,
}

impl CoreFigures {
    pub fn of(core: &DataCore) -> CoreFigures {
        let mut store = PartitionFigures::default();
        for partition in core.partitions.values() {
            let part = partition.figures();
            store.active_bytes += part.active_bytes;
            store.frozen_bytes += part.frozen_bytes;
            store.index_bytes += part.index_bytes;
            store.file_bytes += part.file_bytes;
            store.files += part.files;
            store.series += part.series;
            store.disk_bytes += part.disk_bytes;
            store.pool_files += part.pool_files;
            store.pool_bytes += part.pool_bytes;
            store.copied_files += part.copied_files;
            store.late_files += part.late_files;
            store.copies.add(&part.copies);
        }
        store.index_bytes += core.held.tag_values_bytes.get();
        CoreFigures {
            write: core.figures.clone(),
            scrub: core.scrub_figures.clone(),
            handoff: core.handoff.figures.clone(),
            continuous: core.continuous_figures.clone(),
            http: core.http_metrics.snapshot(),
            log: core.replicas.log().metrics(),
            cache: core.cache.figures(),
            store,
            reactor: core.context.metrics.fields(),
            memory: memory_parts(core, &store),
            process: process_memory(core),
            cluster: ClusterFigures::of(core),
            pool: core.pool.slave.as_ref().map(|slave| slave.figures()),
            master: core.pool.master.as_ref().map(|master| master.figures()),
        }
    }
}

fn memory_parts(core: &DataCore, store: &PartitionFigures) -> Vec<(&'static str, u64, u64)> {
    let (held, budget) = (&core.held, &core.budget);
    let parts = [
        // Registered as a whole; how much of it was touched, nobody counts.
        ("io", budget.io_bytes, budget.io_bytes),
        ("rows", store.active_bytes + store.frozen_bytes, budget.rows_bytes_max),
        ("bodies", core.http_metrics.snapshot().body_bytes_held as usize, budget.bodies_bytes_max),
        ("parsing", held.parsing_bytes.get() + held.parsers_bytes.get(), budget.parsing_bytes_max),
        ("log-queue", core.replicas.queued_bytes(), budget.log_queue_bytes_max),
        ("index", store.index_bytes, budget.index_bytes_max),
        ("files", store.file_bytes + core.cache.figures().bytes, budget.files_bytes_max),
    ];
    parts.map(|(name, bytes, bytes_max)| (name, bytes as u64, bytes_max as u64)).into()
}

fn process_memory(core: &DataCore) -> ProcessMemory {
    core.gauge.measure();
    ProcessMemory {
        limit_bytes: core.gauge.limit_bytes(),
        resident_bytes: core.gauge.resident_bytes(),
        resident_bytes_max: core.gauge.resident_bytes_max(),
        queries_bytes: core.query_memory.bytes(),
        queries_bytes_max: core.query_memory.bytes_max(),
    }
}

/// The parts of all cores, those of the process, and what is left.
fn write_memory(writer: &mut TextWriter, cores: &[CoreFigures]) {
    let process = cores.last().map(|core| core.process);
    let Some(process) = process else { return };
    const BYTES: &str = "tidemill_memory_bytes";
    writer.family(BYTES, "gauge", "Memory by part of the budget.");
    for (core, figures) in cores.iter().enumerate() {
        for (part, bytes, _) in &figures.memory {
            writer.sample(BYTES, &[("core", &core.to_string()), ("part", part)], *bytes as f64);
        }
    }
    writer.sample(BYTES, &[("core", "all"), ("part", "queries")], process.queries_bytes as f64);
    const BUDGET: &str = "tidemill_memory_budget_bytes";
    writer.family(BUDGET, "gauge", "What each part may hold.");
    for (core, figures) in cores.iter().enumerate() {
        for (part, _, bytes_max) in &figures.memory {
            writer.sample(BUDGET, &[("core", &core.to_string()), ("part", part)], *bytes_max as f64);
        }
    }
    writer.sample(BUDGET, &[("core", "all"), ("part", "queries")], process.queries_bytes_max as f64);
    for (name, help, value) in [
        ("tidemill_memory_limit_bytes", "What the process may take.", process.limit_bytes),
        ("tidemill_memory_resident_bytes", "What the process takes.", process.resident_bytes),
        ("tidemill_memory_resident_bytes_max", "The most that it was seen to take.", process.resident_bytes_max),
        ("tidemill_memory_counted_bytes", "Sum of all parts.", counted_bytes(cores)),
    ] {
        writer.family(name, "gauge", help);
        writer.sample(name, &[], value as f64);
    }
    const UNCOUNTED: &str = "tidemill_memory_uncounted_bytes";
    writer.family(UNCOUNTED, "gauge", "What the process takes beside its parts; below zero if parts are not touched.");
    writer.sample(UNCOUNTED, &[], process.resident_bytes as f64 - counted_bytes(cores) as f64);
}

fn counted_bytes(cores: &[CoreFigures]) -> u64 {
    let of_cores: u64 = cores.iter().flat_map(|core| &core.memory).map(|(_, bytes, _)| bytes).sum();
    of_cores + cores.last().map_or(0, |core| core.process.queries_bytes)
}

/// All cores' figures in the Prometheus text format.
pub fn metrics_text(cores: &[CoreFigures]) -> String {
    let mut writer = TextWriter::new();
    for (name, help, value) in counters() {
        writer.family(name, "counter", help);
        for (core, figures) in cores.iter().enumerate() {
            writer.sample(name, &[("core", &core.to_string())], value(figures) as f64);
        }
    }
    for (name, help, value) in gauges() {
        writer.family(name, "gauge", help);
        for (core, figures) in cores.iter().enumerate() {
            writer.sample(name, &[("core", &core.to_string())], value(figures) as f64);
        }
    }
    write_memory(&mut writer, cores);
    cluster_figures::write(&mut writer, &cores.iter().map(|core| core.cluster.as_ref()).collect::<Vec<_>>());
    cores.iter().filter_map(|core| core.pool.as_ref()).for_each(|figures| figures.write(&mut writer));
    cores.iter().filter_map(|core| core.master.as_ref()).for_each(|figures| figures.write(&mut writer));
    const STAGES: &str = "tidemill_write_stage_seconds";
    writer.family(STAGES, "summary", "Latency of a write request by stage.");
    for (stage, latency) in stages() {
        let mut all = Latency::default().histogram.into_inner();
        let mut sum_us = 0;
        for figures in cores {
            // The same bounds everywhere: adding cannot fail.
            let _ = all.add(&*latency(figures).histogram.borrow());
            sum_us += latency(figures).sum_us.get();
        }
        writer.summary(STAGES, &[("stage", stage)], &all, 1e-6, sum_us as f64 * 1e-6);
    }
    const REACTOR: &str = "tidemill_core_events_total";
    writer.family(REACTOR, "untyped", "Events of a core's executor, ring and mail, by kind.");
    for (core, figures) in cores.iter().enumerate() {
        for (event, value) in &figures.reactor {
            writer.sample(REACTOR, &[("core", &core.to_string()), ("event", event)], *value as f64);
        }
    }
    let mut http = HttpMetrics::default().snapshot();
    cores.iter().for_each(|figures| http.merge(&figures.http));
    http.write_text(&mut writer);
    writer.finish()
}

/// What is counted beside upstream's figures, by its name.
pub fn counted_figures() -> impl Iterator<Item = (&'static str, fn(&CoreFigures) -> u64)> {
    counters().into_iter().chain(gauges()).map(|(name, _, value)| (name.trim_start_matches("tidemill_"), value))
}

/// All cores' figures as members of the `/debug/vars` object.
pub fn debug_vars(cores: &[CoreFigures]) -> serde_json::Value {
    let mut values = serde_json::Map::new();
    for (name, _, value) in counters().into_iter().chain(gauges()) {
        let sum: u64 = cores.iter().map(value).sum();
        values.insert(name.to_string(), sum.into());
    }
    if let Some(core) = cores.last() {
        let process = core.process;
        values.insert("tidemill_memory_limit_bytes".into(), process.limit_bytes.into());
        values.insert("tidemill_memory_resident_bytes".into(), process.resident_bytes.into());
        values.insert("tidemill_memory_counted_bytes".into(), counted_bytes(cores).into());
    }
    serde_json::Value::Object(values)
}

type Figure = (&'static str, &'static str, fn(&CoreFigures) -> u64);

fn counters() -> Vec<Figure> {
    vec![
        ("tidemill_write_requests_total", "Write requests.", |c| c.write.requests.get()),
        ("tidemill_write_rows_total", "Rows stored.", |c| c.write.rows.get()),
        ("tidemill_write_body_bytes_total", "Bytes of line protocol.", |c| c.write.body_bytes.get()),
        ("tidemill_write_resent_total", "Batches sent again because their fate was not known.", |c| {
            c.write.resent.get()
        }),
        ("tidemill_write_slowed_total", "Requests that waited for memory.", |c| c.write.slowed.get()),
        ("tidemill_write_refused_total", "Requests refused for lack of memory.", |c| c.write.refused.get()),
        ("tidemill_write_series_refused_total", "New series refused.", |c| c.write.series_refused.get()),
        ("tidemill_log_commits_total", "Group commits.", |c| c.log.commits),
        ("tidemill_log_syncs_total", "Durable writes and syncs.", |c| c.log.syncs),
        ("tidemill_log_bytes_total", "Bytes appended to the log.", |c| c.log.bytes),
        ("tidemill_log_frames_total", "Records appended to the log.", |c| c.log.frames),
        ("tidemill_log_appends_full_total", "Appends refused for lack of disk.", |c| c.log.appends_full),
        ("tidemill_flushes_total", "Partitions written to files.", |c| c.write.flushes.get()),
        ("tidemill_flush_failures_total", "Tries to write files that failed.", |c| c.write.flush_failures.get()),
        ("tidemill_copies_total", "Copies of files to the next level.", |c| c.store.copies.copies),
        ("tidemill_copy_failures_total", "Tries to copy files that failed.", |c| c.write.copy_failures.get()),
        ("tidemill_copy_files_read_total", "Files that copies took.", |c| c.store.copies.files_read),
        ("tidemill_copy_files_written_total", "Files that copies made.", |c| c.store.copies.files_written),
        ("tidemill_copy_read_bytes_total", "Bytes of files that copies took.", |c| c.store.copies.bytes_read),
        ("tidemill_copy_written_bytes_total", "Bytes of files that copies made.", |c| c.store.copies.bytes_written),
        ("tidemill_copy_block_bytes_total", "Bytes of blocks copied as they are.", |c| c.store.copies.bytes_copied),
        ("tidemill_copy_blocks_total", "Blocks copied as they are.", |c| c.store.copies.blocks_copied),
        ("tidemill_copy_blocks_merged_total", "Blocks decoded for late points or deletes.", |c| {
            c.store.copies.blocks_merged
        }),
        ("tidemill_copy_blocks_joined_total", "Small blocks decoded to become larger ones.", |c| {
            c.store.copies.blocks_joined
        }),
        ("tidemill_copy_blocks_vanished_total", "Blocks whose points were all deleted.", |c| {
            c.store.copies.blocks_vanished
        }),
        ("tidemill_cache_hits_total", "Parts of files found in memory.", |c| c.cache.hits),
        ("tidemill_cache_misses_total", "Parts of files read from disk.", |c| c.cache.misses),
        ("tidemill_cache_waits_total", "Parts of files that another task was reading.", |c| c.cache.waits),
        ("tidemill_cache_evictions_total", "Parts of files that made room for others.", |c| c.cache.evictions),
        ("tidemill_scrub_bytes_total", "Bytes read again by the scrub.", |c| c.scrub.bytes.get()),
        ("tidemill_scrub_files_total", "Files read again to their end.", |c| c.scrub.files.get()),
        ("tidemill_scrub_passes_total", "Passes of the scrub over all files.", |c| c.scrub.passes.get()),
        ("tidemill_handoff_queued_total", "Batches kept for partitions without a majority.", |c| {
            c.handoff.queued.get()
        }),
        ("tidemill_handoff_queued_bytes_total", "Bytes of these.", |c| c.handoff.queued_bytes.get()),
        ("tidemill_handoff_delivered_total", "Kept batches that their partitions took.", |c| c.handoff.delivered.get()),
        ("tidemill_handoff_delivered_bytes_total", "Bytes of these.", |c| c.handoff.delivered_bytes.get()),
        ("tidemill_handoff_retries_total", "Tries to deliver that came to nothing.", |c| c.handoff.retries.get()),
        ("tidemill_handoff_refused_total", "Batches that the queue did not take.", |c| c.handoff.refused.get()),
        ("tidemill_handoff_purged_total", "Kept batches lost by their age.", |c| c.handoff.purged.get()),
        ("tidemill_handoff_purged_bytes_total", "Bytes of these.", |c| c.handoff.purged_bytes.get()),
        ("tidemill_handoff_dropped_total", "Kept batches that their partitions refused.", |c| c.handoff.dropped.get()),
        ("tidemill_handoff_dropped_bytes_total", "Bytes of these.", |c| c.handoff.dropped_bytes.get()),
        ("tidemill_files_mended_total", "Damaged files fetched from other nodes.", |c| c.scrub.mended.get()),
        ("tidemill_scrub_findings_total", "Damage found by the scrub.", |c| c.scrub.findings.get()),
    ]
}

fn gauges() -> Vec<Figure> {
    vec![
        ("tidemill_log_pending_bytes", "Bytes waiting for their commit.", |c| c.log.pending_bytes),
        ("tidemill_log_segments_live", "Log segments in use.", |c| c.log.segments_live),
        ("tidemill_log_segments_spare", "Log segments ready for use.", |c| c.log.segments_spare),
        ("tidemill_scrub_rate_bytes", "The most that the scrub reads in a second.", |c| c.scrub.rate_bytes.get()),
        ("tidemill_scrub_pass_bytes", "Files of the scrub's present or last pass.", |c| c.scrub.pass_bytes.get()),
        ("tidemill_scrub_left_bytes", "Left of the scrub's present pass.", |c| c.scrub.left_bytes.get()),
        ("tidemill_handoff_batches", "Batches that wait for their partitions.", |c| c.handoff.waiting.get()),
        ("tidemill_handoff_bytes", "Bytes of these.", |c| c.handoff.waiting_bytes.get()),
        ("tidemill_memtable_active_bytes", "Rows that take more rows.", |c| c.store.active_bytes as u64),
        ("tidemill_memtable_frozen_bytes", "Rows on their way to files.", |c| c.store.frozen_bytes as u64),
        ("tidemill_index_bytes", "Series index, and values of tags that are counted.", |c| c.store.index_bytes as u64),
        ("tidemill_open_files_bytes", "Directories of open files, taken from the cache's share.", |c| {
            c.store.file_bytes as u64
        }),
        ("tidemill_files", "TSM files.", |c| c.store.files as u64),
        ("tidemill_files_l2", "TSM files made by copies.", |c| c.store.copied_files as u64),
        ("tidemill_files_late", "TSM files of late rows.", |c| c.store.late_files as u64),
        ("tidemill_files_disk_bytes", "TSM files on disk.", |c| c.store.disk_bytes),
        ("tidemill_files_pool", "TSM files that are in the storage pool.", |c| c.store.pool_files as u64),
        ("tidemill_files_pool_bytes", "Of these, bytes that are in the pool alone.", |c| c.store.pool_bytes),
        ("tidemill_series", "Series with points.", |c| c.store.series),
        ("tidemill_cache_bytes", "Parts of files in memory.", |c| c.cache.bytes as u64),
        ("tidemill_cache_page_bytes", "Of these, pages of indexes and statistics.", |c| c.cache.page_bytes as u64),
    ]
}

type Stage = (&'static str, fn(&CoreFigures) -> &Latency);

fn stages() -> [Stage; 6] {
    [
        ("parse", |c| &c.write.parse),
        ("split", |c| &c.write.split),
        ("commit", |c| &c.write.commit),
        ("request", |c| &c.write.request),
        ("flush", |c| &c.write.flush),
        ("copy", |c| &c.write.copy),
    ]
}
