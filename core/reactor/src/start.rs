//! Starting and stopping the cores.
//!
//! Owns: [`run`]: checks, the lock of the data folder, one pinned thread per core, and the supervisor (the calling thread).
//!
//! Order of a start, and what breaks otherwise:
//! 1. Signals are blocked before any thread exists: a thread that has them open would die of them.
//! 2. Kernel, CPUs, lock, direct I/O: all that can be refused is refused before a core runs.
//! 3. Per core: heartbeat (before anything that could park), queues, primer (before any direct open), poll-ring check,
//!    disk, mail, and then the caller's main.
//!
//! Order of a stop: the flag is set and every core kicked; the mains drain and return; the thread ends its heartbeat before
//! the executor goes (the supervisor must not wake a task of a dead executor); `run` returns when all have ended, or when
//! the grace is over. The first failure is the one that is reported. A second signal ends the process at once.
//! Knows nothing of what the mains do.

use crate::{
    clock::{Clock, Seed},
    core_context::{CoreContext, LATENCY, Queues, TaskClass, watch_stalls},
    core_id::CoreId,
    kernel_probe::KernelProbe,
    kicker::{Heartbeat, TICK, Watch},
    mail::{self, Mail, MailEnds},
    metrics::CoreMetrics,
    options::{CoreError, ReactorOptions, StartError},
    primer,
    ring_disk::{DiskSettings, OWN_NAME_PREFIX, RingDisk},
    shutdown::{Shutdown, StopFlag},
    side_ring::SideRing,
    syscall,
};
use glommio::{LocalExecutorBuilder, Placement};
use std::{
    any::Any,
    fs,
    future::Future,
    io::{self, Read, Write},
    os::{
        fd::{AsFd, OwnedFd},
        unix::fs::OpenOptionsExt,
    },
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    sync::{Arc, mpsc},
    time::Instant,
};
use tidemill_disk::{AlignedBuf, BLOCK_BYTES};

/// Data files with a descriptor per core: fewer would open files all the time, more cost kernel memory for nothing.
const OPEN_FILES_MIN: u64 = 16;
const OPEN_FILES_MAX: u64 = 1 << 16;
/// Depth of the executor's rings.
const RING_DEPTH: usize = 256;

/// Runs `main` on every core, each on a thread of its own that is pinned to a CPU of the process. Returns when all cores
/// have ended: `Ok` when every main returned `Ok`, otherwise the first failure; the others are asked to stop as soon as
/// one fails. SIGTERM and SIGINT ask all to stop.
pub fn run<M, F, Fut>(options: ReactorOptions, main: F) -> Result<(), StartError>
where
    M: Send + 'static,
    F: Fn(CoreContext<M>) -> Fut + Clone + Send + 'static,
    Fut: Future<Output = Result<(), CoreError>> + 'static,
{
    let _signals = syscall::block_stop_signals().map_err(system("block the stop signals"))?;
    syscall::allow_interrupts().map_err(system("take the signal that interrupts a core"))?;
    let kernel = KernelProbe::ask()?;
    kernel.check()?;
    check_options(&options, &kernel)?;
    fs::create_dir_all(&options.data_dir)
        .map_err(|source| StartError::DataFolder { path: options.data_dir.clone(), source })?;
    let _lock = lock_data_dir(&options.data_dir)?;
    let kernel = Arc::new(probe_data_dir(&options, kernel)?);
    let descriptors = syscall::raise_descriptors_max().map_err(system("ask how many files may be open"))?;
    // Half for data files; connections, logs and what is being written have the rest.
    let share = (descriptors / 2 / options.cores as u64).clamp(OPEN_FILES_MIN, OPEN_FILES_MAX) as usize;
    let open_files_max = options.open_files_max.unwrap_or(share);

    let event = syscall::event_fd().map_err(system("make the supervisor's event"))?;
    let stop = Arc::new(StopFlag::new(event));
    let all_metrics: Arc<[Arc<CoreMetrics>]> = (0..options.cores).map(|_| Arc::new(CoreMetrics::default())).collect();
    let heartbeats: Vec<Arc<Heartbeat>> = (0..options.cores).map(|_| Arc::new(Heartbeat::default())).collect();
    let (ended, endings) = mpsc::channel();
    let ends = mail::make_ends::<M>(options.cores, options.mail_capacity);
    let mut threads = Vec::new();
    for (index, ends) in ends.into_iter().enumerate() {
        let seat = CoreSeat {
            core: CoreId(index as u16),
            cpu: kernel.cpus[index],
            options: options.clone(),
            ends,
            kernel: kernel.clone(),
            stop: stop.clone(),
            heartbeat: heartbeats[index].clone(),
            all_metrics: all_metrics.clone(),
            open_files_max,
        };
        let (main, tell_ended, tell_stop) = (main.clone(), ended.clone(), stop.clone());
        let thread = std::thread::Builder::new().name(format!("core-{index}")).spawn(move || {
            let core = seat.core;
            let ending = run_core(seat, main);
            // The supervisor may have given up on this core; then nobody listens.
            let _ = tell_ended.send((core, ending));
            tell_stop.notify_supervisor();
        });
        match thread {
            Ok(thread) => threads.push(Some(thread)),
            Err(source) => {
                // The cores that run wait for this one's mail, so they are told to stop and are waited for as usual.
                stop.request();
                threads.push(None);
                let _ =
                    ended.send((CoreId(index as u16), Err(StartError::Core { core: CoreId(index as u16), source })));
            }
        }
    }
    drop(ended);
    supervise(&options, &stop, &heartbeats, &threads, &all_metrics, &endings)?;
    for thread in threads.into_iter().flatten() {
        // A core's panic was caught inside its thread, which says all there is to say about it.
        let _ = thread.join();
    }
    Ok(())
}

fn system(what: &'static str) -> impl Fn(io::Error) -> StartError {
    move |source| StartError::System { what, source }
}

fn check_options(options: &ReactorOptions, kernel: &KernelProbe) -> Result<(), StartError> {
    let asked = options.cores;
    let cpus = kernel.cpus.len();
    if asked == 0 {
        return Err(StartError::Cores { asked, reason: String::from("at least one core is needed") });
    }
    if asked > cpus || asked > usize::from(u16::MAX) {
        let reason =
            format!("this process may use {cpus} CPUs (affinity and cpuset), and each core needs one of its own");
        return Err(StartError::Cores { asked, reason });
    }
    if options.mail_capacity == 0 {
        return Err(StartError::Option { option: "the mail capacity", value: 0 });
    }
    Ok(())
}

/// The lock lives as long as the file is open; the kernel gives it back when the process ends, however it ends.
fn lock_data_dir(data_dir: &Path) -> Result<fs::File, StartError> {
    let path = data_dir.join(format!("{OWN_NAME_PREFIX}lock"));
    let failed = |source| StartError::DataFolder { path: data_dir.to_path_buf(), source };
    let mut file = fs::OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o644)
        .open(&path)
        .map_err(failed)?;
    if !syscall::lock_exclusively(file.as_fd()).map_err(failed)? {
        let mut holder = String::new();
        let known = file.read_to_string(&mut holder).is_ok_and(|_| !holder.trim().is_empty());
        let holder = if known { holder.trim().to_owned() } else { String::from("unknown") };
        return Err(StartError::DataFolderInUse { path: data_dir.to_path_buf(), holder });
    }
    file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id())).map_err(failed)?;
    Ok(file)
}

fn probe_data_dir(options: &ReactorOptions, mut kernel: KernelProbe) -> Result<KernelProbe, StartError> {
    let failed = |source| StartError::DataFolder { path: options.data_dir.clone(), source };
    let folder = primer::make(&options.data_dir).map_err(failed)?;
    kernel.direct_io = folder.direct && !options.guards.refuse_direct_io;
    (kernel.direct_memory_align, kernel.direct_offset_align) = folder.alignment.unwrap_or((0, 0));
    let offset_align = kernel.direct_offset_align as usize;
    if kernel.direct_io && offset_align > BLOCK_BYTES {
        let reason =
            format!("direct I/O asks for blocks of {offset_align} bytes, more than the {BLOCK_BYTES} that are used");
        return Err(failed(io::Error::new(io::ErrorKind::Unsupported, reason)));
    }
    if !kernel.direct_io && !options.allow_buffered {
        return Err(StartError::NoDirectIo { path: options.data_dir.clone() });
    }
    if !kernel.direct_io {
        tracing::warn!(
            data_dir = %options.data_dir.display(),
            "the data folder has no direct I/O: all reads and writes go through the page cache, slower and with worse tails"
        );
    }
    let probe = fs::OpenOptions::new().write(true).open(primer::probe_path(&options.data_dir)).map_err(failed)?;
    let mut block = AlignedBuf::new(BLOCK_BYTES);
    block.as_mut().fill(0x5a);
    let dsync = syscall::write_block_dsync(std::os::fd::AsRawFd::as_raw_fd(&probe), &block);
    kernel.dsync = dsync.is_ok();
    match dsync {
        Err(source) if options.dsync => Err(StartError::NoDsync { source }),
        _ => Ok(kernel),
    }
}

/// What a core's thread starts with.
struct CoreSeat<M: Send + 'static> {
    core: CoreId,
    cpu: usize,
    options: ReactorOptions,
    ends: MailEnds<M>,
    kernel: Arc<KernelProbe>,
    stop: Arc<StopFlag>,
    heartbeat: Arc<Heartbeat>,
    all_metrics: Arc<[Arc<CoreMetrics>]>,
    open_files_max: usize,
}

fn run_core<M, F, Fut>(seat: CoreSeat<M>, main: F) -> Result<(), StartError>
where
    M: Send + 'static,
    F: Fn(CoreContext<M>) -> Fut + 'static,
    Fut: Future<Output = Result<(), CoreError>> + 'static,
{
    let (core, heartbeat) = (seat.core, seat.heartbeat.clone());
    let preempt = if seat.options.guards.latency_queues { LATENCY } else { std::time::Duration::from_millis(100) };
    let executor = LocalExecutorBuilder::new(Placement::Fixed(seat.cpu))
        .name(&format!("core-{}", core.0))
        .io_memory(seat.options.io_memory_bytes)
        .ring_depth(RING_DEPTH)
        .preempt_timer(preempt)
        .spin_before_park(seat.options.spin_before_park)
        .make();
    let executor = executor.map_err(|error| StartError::Core { core, source: io::Error::from(error) })?;
    let ending = catch_unwind(AssertUnwindSafe(|| executor.run(core_main(seat, main))));
    heartbeat.end();
    match ending {
        Ok(ending) => ending,
        Err(panic) => {
            // The tasks of a torn executor may hold anything; dropping them could panic again. The process ends soon.
            std::mem::forget(executor);
            Err(StartError::CorePanicked { core, message: panic_message(&*panic) })
        }
    }
}

fn panic_message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| String::from("(no message)"))
}

async fn core_main<M, F, Fut>(seat: CoreSeat<M>, main: F) -> Result<(), StartError>
where
    M: Send + 'static,
    F: Fn(CoreContext<M>) -> Fut + 'static,
    Fut: Future<Output = Result<(), CoreError>> + 'static,
{
    let CoreSeat { core, options, ends, kernel, stop, heartbeat, all_metrics, open_files_max, .. } = seat;
    let failed = |source: io::Error| StartError::Core { core, source };
    let metrics = all_metrics[core.index()].clone();
    let shutdown = Shutdown::new(stop);
    let queues = Queues::make(options.guards.latency_queues);
    let spawn_into = |future| glommio::spawn_local_into(future, queues.latency).expect("made by this executor");
    let beat: std::pin::Pin<Box<dyn Future<Output = ()>>> = Box::pin(heartbeat.beat(shutdown.clone()));
    let beat = spawn_into(beat);
    if kernel.direct_io {
        if options.guards.empty_file_first {
            primer::open_an_empty_file(&options.data_dir).await.map_err(failed)?;
        }
        if options.guards.primer {
            primer::prime(&options.data_dir).await.map_err(failed)?;
        }
        if primer::writes_poll_by_mistake(&options.data_dir).await.map_err(failed)? {
            return Err(StartError::PollRing { core });
        }
    }
    let ring = SideRing::new(&kernel.cpus, metrics.clone()).map_err(failed)?;
    let drive_ring = ring.clone();
    let drive = glommio::spawn_local_into(async move { drive_ring.drive().await }, queues.latency);
    let drive = drive.expect("made by this executor");
    let settings = DiskSettings {
        root_path: options.data_dir.clone(),
        direct: kernel.direct_io,
        dsync: options.dsync,
        pool_bytes_max: options.io_memory_bytes / 2,
        open_files_max,
    };
    let disk = RingDisk::new(ring.clone(), settings, metrics.clone()).map_err(failed)?;
    let mail = Mail::connect(core, ends, options.mail_capacity, queues.latency, &shutdown, metrics.clone()).await;
    let outcome = match mail {
        // Another core failed before all had met; its failure is the one that is told.
        None => Ok(()),
        Some(mail) => {
            let context = CoreContext {
                core,
                cores: options.cores,
                mail,
                disk,
                queues,
                shutdown,
                clock: Clock::system(),
                seed: Seed::from_system().map_err(failed)?,
                metrics: metrics.clone(),
                all_metrics,
                kernel,
            };
            let main = watch_stalls("main", TaskClass::Latency, metrics, main(context));
            glommio::spawn_local_into(main, queues.latency).expect("made by this executor").await
        }
    };
    ring.end();
    drive.await.map_err(failed)?;
    beat.cancel().await;
    outcome.map_err(|source| StartError::CoreFailed { core, source })
}

/// Waits for signals, for cores that end, and kicks those that may have parked with work to do.
fn supervise(
    options: &ReactorOptions,
    stop: &StopFlag,
    heartbeats: &[Arc<Heartbeat>],
    threads: &[Option<std::thread::JoinHandle<()>>],
    metrics: &[Arc<CoreMetrics>],
    endings: &mpsc::Receiver<(CoreId, Result<(), StartError>)>,
) -> Result<(), StartError> {
    let signals: OwnedFd = syscall::stop_signal_fd().map_err(system("watch the stop signals"))?;
    let mut watches: Vec<Watch> = heartbeats.iter().map(|_| Watch::default()).collect();
    let mut running: Vec<CoreId> = (0..heartbeats.len()).map(|index| CoreId(index as u16)).collect();
    let mut first_failure = Ok(());
    let mut stop_at: Option<Instant> = None;
    let mut signals_seen = 0;
    while !running.is_empty() {
        let [_, event] = syscall::wait_readable([&signals, stop.supervisor()], TICK);
        if event {
            syscall::drain_event(stop.supervisor());
        }
        while let Some(signal) = syscall::next_stop_signal(&signals) {
            signals_seen += 1;
            if signals_seen > 1 {
                syscall::exit_at_once(128 + signal);
            }
            tracing::info!(signal, "stopping; a second signal ends the process at once");
            stop.request();
        }
        while let Ok((core, ending)) = endings.try_recv() {
            running.retain(|other| *other != core);
            if let Err(failure) = ending {
                stop.request();
                if first_failure.is_ok() {
                    first_failure = Err(failure);
                } else {
                    tracing::error!(%failure, "another core failed as well");
                }
            }
        }
        if stop.is_requested() {
            let newly = stop_at.is_none();
            let give_up = *stop_at.get_or_insert_with(|| Instant::now() + options.stop_grace);
            if newly {
                heartbeats.iter().for_each(|heartbeat| heartbeat.kick());
            }
            if Instant::now() >= give_up {
                return first_failure.and(Err(StartError::StopTimedOut { cores: running }));
            }
        }
        if options.guards.kicker {
            for (((watch, heartbeat), thread), metrics) in watches.iter_mut().zip(heartbeats).zip(threads).zip(metrics)
            {
                watch.tick(heartbeat, thread.as_ref(), metrics);
            }
        }
    }
    first_failure
}
