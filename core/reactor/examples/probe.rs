//! Prints the figures behind `kernel-notes/`: one probe per page.
//!
//! `cargo run --release -p tidemill-reactor --example probe -- <name> [folder]`; without a name it lists them. The folder
//! (default: a new one in the current folder) decides which device is measured.

use glommio::{LocalExecutorBuilder, Placement, io::OpenOptions as GlommioOpen};
use std::{
    env,
    error::Error,
    fs, io,
    net::{TcpListener, TcpStream},
    os::{
        fd::AsRawFd,
        unix::fs::{FileExt, OpenOptionsExt},
    },
    path::{Path, PathBuf},
    rc::Rc,
    time::{Duration, Instant},
};
use tidemill_disk::{AlignedBuf, BLOCK_BYTES, Disk, DiskFile, Purpose};
use tidemill_reactor::{CoreContext, CoreError, CoreId, KernelProbe, Listeners, ReactorOptions, run};

type Outcome = Result<(), Box<dyn Error + Send + Sync>>;
type ProbeFn = fn(&Path) -> Outcome;

const PROBES: [(&str, &str, ProbeFn); 8] = [
    ("direct-io-alignment", "what direct I/O asks of offsets, lengths and memory", direct_io_alignment),
    ("fdatasync", "durable appends to pre-written and growing files, alone and in groups", fdatasync),
    ("rwf-dsync", "one RWF_DSYNC write against a write and an fdatasync", rwf_dsync),
    ("reuseport", "how connections spread over the sockets of a port, and who may join", reuseport),
    ("locked-memory", "the limit of locked memory and what the rings take of it", locked_memory),
    ("io-uring", "operations and flags of this kernel", io_uring),
    ("park-kick", "CPU of idle cores, kicks, and round trips between cores", park_kick),
    ("poll-ring", "direct writes after an empty file was opened first", poll_ring),
];

fn main() -> Outcome {
    let name = env::args().nth(1).unwrap_or_default();
    let Some((_, _, probe)) = PROBES.iter().find(|(known, _, _)| *known == name) else {
        PROBES.iter().for_each(|(name, what, _)| println!("{name:20} {what}"));
        return Ok(());
    };
    let own = PathBuf::from(format!("probe-{}", std::process::id()));
    let folder = env::args().nth(2).map_or_else(|| own.clone(), PathBuf::from);
    fs::create_dir_all(&folder)?;
    println!("{name}: kernel {}, folder {}", KernelProbe::ask()?.release, folder.display());
    let outcome = probe(&folder);
    if folder == own {
        fs::remove_dir_all(&own)?;
    }
    outcome
}

/// CPU time and voluntary context switches of the process so far.
fn usage() -> (Duration, i64) {
    // SAFETY: the kernel fills one rusage record.
    let usage = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        libc::getrusage(libc::RUSAGE_SELF, &mut usage);
        usage
    };
    let time = |value: libc::timeval| Duration::new(value.tv_sec as u64, value.tv_usec as u32 * 1_000);
    (time(usage.ru_utime) + time(usage.ru_stime), usage.ru_nvcsw)
}

/// Latencies of one series.
struct Latencies(Vec<Duration>);

impl Latencies {
    fn quantile_us(&mut self, quantile: f64) -> f64 {
        self.0.sort_unstable();
        self.0[((self.0.len() - 1) as f64 * quantile) as usize].as_nanos() as f64 / 1e3
    }
}

fn on_cores<F, Fut>(folder: &Path, cores: usize, dsync: bool, main: F) -> Outcome
where
    F: Fn(CoreContext<u64>) -> Fut + Clone + Send + 'static,
    Fut: Future<Output = Result<(), CoreError>> + 'static,
{
    let mut options = ReactorOptions::new(cores, folder.join("data"));
    options.dsync = dsync;
    Ok(run(options, main)?)
}

fn direct_io_alignment(folder: &Path) -> Outcome {
    let path = folder.join("aligned");
    fs::write(&path, vec![1; 16 * BLOCK_BYTES])?;
    let file = fs::OpenOptions::new().read(true).write(true).custom_flags(libc::O_DIRECT).open(&path)?;
    // SAFETY: the kernel fills one statx record; the path is an empty string.
    let stat = unsafe {
        let mut stat: libc::statx = std::mem::zeroed();
        libc::statx(file.as_raw_fd(), c"".as_ptr(), libc::AT_EMPTY_PATH, 0x2000, &mut stat);
        stat
    };
    println!("statx DIOALIGN: memory {} offset {}", stat.stx_dio_mem_align, stat.stx_dio_offset_align);
    let buffer = AlignedBuf::new(2 * BLOCK_BYTES);
    for (offset, len, shift) in [(0, 4096, 0), (512, 512, 0), (256, 512, 0), (0, 100, 0), (0, 512, 4), (0, 512, 1)] {
        let result = file.write_at(&buffer.as_ref()[shift..shift + len], offset);
        println!("write offset {offset:4} len {len:4} memory +{shift}: {result:?}");
    }
    Ok(())
}

/// Durable writes of `bytes` each, in order, by one task; the file is pre-written or grows.
async fn durable_writes(
    context: &CoreContext<u64>,
    prewritten: bool,
    bytes: usize,
    count: u64,
) -> Result<f64, CoreError> {
    let name = format!("log-{prewritten}-{bytes}");
    let file = context.disk.create(&name, Purpose::Log).await?;
    if prewritten {
        for at in 0..(count * bytes as u64).div_ceil(1 << 20) {
            file.write_at(file.alloc(1 << 20), at << 20).await?;
        }
        file.sync_data().await?;
    }
    let mut latencies = Latencies(Vec::new());
    let mut buf = file.alloc(bytes);
    buf.as_mut().fill(7);
    let (cpu, switches) = usage();
    for index in 0..count {
        let start = Instant::now();
        buf = file.write_durable(buf, index * bytes as u64).await?;
        latencies.0.push(start.elapsed());
    }
    let (cpu_after, switches_after) = usage();
    let median = latencies.quantile_us(0.5);
    println!(
        "{} {:3} KiB: p50 {median:6.0} us, p99 {:6.0} us, CPU {:4.0} us, context switches {:.1} a write",
        if prewritten { "pre-written" } else { "growing    " },
        bytes >> 10,
        latencies.quantile_us(0.99),
        (cpu_after - cpu).as_secs_f64() * 1e6 / count as f64,
        (switches_after - switches) as f64 / count as f64
    );
    file.close().await?;
    context.disk.remove(&name).await?;
    Ok(median)
}

fn fdatasync(folder: &Path) -> Outcome {
    on_cores(folder, 1, false, |context| async move {
        for bytes in [4 << 10, 96 << 10] {
            let overwritten = durable_writes(&context, true, bytes, 500).await?;
            let growing = durable_writes(&context, false, bytes, 500).await?;
            println!("growing / pre-written: {:.1}", growing / overwritten);
        }
        group_commit(&context).await
    })
}

/// Records of 700 bytes by many tasks; whoever finds no commit running commits all that has gathered.
async fn group_commit(context: &CoreContext<u64>) -> Result<(), CoreError> {
    use std::cell::{Cell, RefCell};
    const RECORD_BYTES: usize = 700;
    const RECORDS: usize = 20_000;
    let file = Rc::new(context.disk.create("group", Purpose::Log).await?);
    for at in 0..64u64 {
        file.write_at(file.alloc(1 << 20), at << 20).await?;
    }
    let mut alone = 0.0;
    for producers in [1usize, 16, 64, 256] {
        let per_producer = if producers == 1 { 1_000 } else { RECORDS / producers };
        let waiting: Rc<RefCell<Vec<tidemill_reactor::Token>>> = Rc::default();
        let pending = tidemill_reactor::Pending::<()>::new();
        let (busy, commits) = (Rc::new(Cell::new(false)), Rc::new(Cell::new(0u64)));
        let start = Instant::now();
        let tasks: Vec<_> = (0..producers)
            .map(|_| {
                let (file, waiting, pending) = (file.clone(), waiting.clone(), pending.clone());
                let (busy, commits) = (busy.clone(), commits.clone());
                context.spawn(context.queues.latency, "producer", async move {
                    for _ in 0..per_producer {
                        let (token, answer) = pending.register();
                        waiting.borrow_mut().push(token);
                        if !busy.replace(true) {
                            while !waiting.borrow().is_empty() {
                                let group = std::mem::take(&mut *waiting.borrow_mut());
                                let bytes = (group.len() * RECORD_BYTES).next_multiple_of(BLOCK_BYTES);
                                let offset = commits.get() % 200 * (256 << 10);
                                file.write_durable(file.alloc(bytes), offset).await.expect("the disk writes");
                                commits.set(commits.get() + 1);
                                group.into_iter().for_each(|token| _ = pending.complete(token, ()));
                            }
                            busy.set(false);
                        }
                        let _ = answer.await;
                    }
                })
            })
            .collect();
        for task in tasks {
            task.await;
        }
        let rate = (producers * per_producer) as f64 / start.elapsed().as_secs_f64();
        if producers == 1 {
            alone = rate;
        }
        println!("{producers:3} producers: {rate:8.0} records/s ({:.0}x), {} commits", rate / alone, commits.get());
    }
    Ok(())
}

fn rwf_dsync(folder: &Path) -> Outcome {
    for dsync in [false, true] {
        println!("{}", if dsync { "RWF_DSYNC" } else { "write, linked fdatasync" });
        on_cores(folder, 1, dsync, |context| async move {
            for bytes in [4 << 10, 64 << 10] {
                durable_writes(&context, true, bytes, 1_000).await?;
            }
            Ok(())
        })?;
    }
    Ok(())
}

fn reuseport(_: &Path) -> Outcome {
    let anywhere = "127.0.0.1:0".parse()?;
    let ours = Listeners::bind(anywhere, 2)?;
    println!("a second server that binds as we do: {:?}", Listeners::bind(ours.addr(), 2).err().map(|e| e.kind()));
    println!("one that binds plainly: {:?}", TcpListener::bind(ours.addr()).err().map(|e| e.kind()));
    let theirs = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)?;
    theirs.set_reuse_port(true)?;
    println!(
        "one of the same user with SO_REUSEPORT from the start: {:?}",
        theirs.bind(&ours.addr().into()).map_err(|e| e.kind())
    );
    drop((ours, theirs));

    const CONNECTIONS: usize = 1_000;
    let cores = std::thread::available_parallelism()?.get().min(4);
    let shared = Listeners::bind(anywhere, cores)?;
    let addr = shared.addr();
    let folder = tempfile::tempdir()?;
    let client = std::thread::spawn(move || -> io::Result<Vec<TcpStream>> {
        (0..CONNECTIONS).map(|_| TcpStream::connect(addr)).collect()
    });
    on_cores(folder.path(), cores, false, move |context| {
        let shared = shared.clone();
        async move {
            let listener = shared.take(context.core, &context.metrics)?;
            let accepted = || context.all_metrics.iter().map(|core| core.connections_accepted.value()).sum::<u64>();
            while accepted() < CONNECTIONS as u64 {
                let next = async { listener.accept().await.map(drop) };
                let pause = async {
                    context.sleep(Duration::from_millis(20)).await;
                    Ok(())
                };
                futures_lite::future::or(next, pause).await?;
            }
            println!("{}: {} of {CONNECTIONS} connections", context.core, context.metrics.connections_accepted.value());
            Ok(())
        }
    })?;
    client.join().map_err(|_| "the client panicked")??;
    Ok(())
}

fn locked_memory(_: &Path) -> Outcome {
    println!("soft limit: {} bytes", KernelProbe::ask()?.locked_memory_bytes);
    for mib in [1, 8, 16, 64] {
        let ring = io_uring::IoUring::new(8)?;
        let memory = AlignedBuf::new(mib << 20);
        let bytes = memory.as_ref();
        let vector = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
        // SAFETY: the memory outlives the ring's registration, which ends with the ring below.
        let result = unsafe { ring.submitter().register_buffers(&[vector]) };
        println!("register {mib:2} MiB with one ring: {result:?}");
        drop(ring);
    }
    Ok(())
}

fn io_uring(folder: &Path) -> Outcome {
    on_cores(folder, 1, false, |context| async move {
        context.kernel.fields().into_iter().for_each(|(name, value)| println!("{name:22} {value}"));
        Ok(())
    })
}

fn park_kick(folder: &Path) -> Outcome {
    let cores = std::thread::available_parallelism()?.get().min(2);
    on_cores(folder, cores, false, move |context| async move {
        if context.core != CoreId(0) {
            // Gives every mail back until the end; `try` suffices, as only one is on the way.
            while let Some((from, mail)) = context.mail.receive().await {
                if mail == u64::MAX {
                    break;
                }
                context.mail.try_send_to(from, mail)?;
            }
            return Ok(());
        }
        const IDLE: Duration = Duration::from_secs(5);
        context.sleep(Duration::from_secs(1)).await;
        let kicks = || context.all_metrics.iter().map(|core| core.kicks.value()).sum::<u64>();
        let (before, kicks_before) = (usage(), kicks());
        context.sleep(IDLE).await;
        let cpu = (usage().0 - before.0).as_secs_f64() / IDLE.as_secs_f64();
        println!(
            "idle: {:.2} % of one CPU for {cores} cores and the supervisor, {:.0} kicks/s",
            cpu * 100.0,
            (kicks() - kicks_before) as f64 / IDLE.as_secs_f64()
        );
        if cores == 2 {
            let mut latencies = Latencies(Vec::new());
            for number in 0..5_000 {
                let start = Instant::now();
                context.mail.send_to(CoreId(1), number).await?;
                context.mail.receive().await;
                latencies.0.push(start.elapsed());
            }
            let (half, most) = (latencies.quantile_us(0.5), latencies.quantile_us(0.99));
            println!("round trip by mail between sleeping cores: p50 {half:.0} us, p99 {most:.0} us");
            context.mail.send_to(CoreId(1), u64::MAX).await?;
        }
        Ok(())
    })
}

fn poll_ring(folder: &Path) -> Outcome {
    fs::write(folder.join("non-empty"), vec![1; 2 * BLOCK_BYTES])?;
    let mut medians = Vec::new();
    for first in ["non-empty", "empty"] {
        let folder = folder.to_path_buf();
        // The executor remembers its finding per thread, so each case has a thread of its own.
        let median =
            std::thread::spawn(move || writes_after(&folder, first)).join().map_err(|_| "the probe panicked")??;
        medians.push(median);
    }
    println!("empty / non-empty: {:.0}", medians[1] / medians[0]);
    Ok(())
}

/// Median of direct 4-KiB writes in microseconds, on an executor that opened the named file first.
fn writes_after(folder: &Path, first: &str) -> io::Result<f64> {
    let executor = LocalExecutorBuilder::new(Placement::Fixed(0)).make()?;
    executor.run(async {
        if first == "non-empty" {
            let file = GlommioOpen::new().read(true).dma_open(folder.join(first)).await?;
            file.read_at_aligned(0, BLOCK_BYTES).await?;
            file.close().await?;
        }
        let mut how = GlommioOpen::new();
        let file = how.read(true).write(true).create(true).truncate(true).dma_open(folder.join("empty")).await?;
        let mut latencies = Latencies(Vec::new());
        let cpu = usage().0;
        for index in 0..300u64 {
            let mut buffer = file.alloc_dma_buffer(BLOCK_BYTES);
            buffer.as_bytes_mut().fill(1);
            let start = Instant::now();
            file.write_at(buffer, index * BLOCK_BYTES as u64).await?;
            latencies.0.push(start.elapsed());
        }
        let cpu = (usage().0 - cpu).as_secs_f64();
        file.close().await?;
        let polled = glommio::executor().io_stats().poll_ring.file_writes().0;
        let median = latencies.quantile_us(0.5);
        println!(
            "first file {first:9}: 4-KiB write p50 {median:5.0} us, CPU {cpu:.2} s, {polled} of 300 in the poll ring"
        );
        Ok(median)
    })
}
