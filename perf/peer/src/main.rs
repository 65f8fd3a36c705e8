//! The transport between nodes beside quinn on tokio, in one run: two threads on two cores, over loopback.
//!
//! `--bulk` moves one file from memory to memory and tells MB/s and the processor seconds of both ends per GiB; `--small`
//! keeps a window of 1 KiB messages in flight, each answered by an equal one, and tells round trips; `--files DIR` moves a
//! file from disk to disk by the server's own links, beside the device alone, memory to memory, and plain reads and writes
//! with quinn. Candidates take turns within a round, so that a busy machine is busy for all of them.

mod files;
mod measure;
mod ours;
mod quinn_tokio;

use clap::Parser;
use ours::Executor;

#[derive(Parser)]
#[command(name = "perf-peer", version)]
struct Arguments {
    /// Move a file from memory to memory
    #[arg(long)]
    bulk: bool,
    /// Send small messages and wait for their answers
    #[arg(long)]
    small: bool,
    /// Move a file from disk to disk, both below this folder
    #[arg(long)]
    files: Option<std::path::PathBuf>,
    /// UDP payloads to measure with
    #[arg(long, value_delimiter = ',', default_value = "1452,8952")]
    mtu: Vec<u16>,
    /// MiB to move in a bulk run
    #[arg(long, default_value_t = 2048)]
    size: u64,
    /// Messages in flight
    #[arg(long, value_delimiter = ',', default_value = "1,16,64")]
    window: Vec<usize>,
    /// Messages in a small run
    #[arg(long, default_value_t = 100_000)]
    messages: u64,
    /// Rounds of all candidates
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Microseconds that glommio polls before it sleeps, as `data.spin-before-park-us`; one more candidate if not 0
    #[arg(long, default_value_t = 50)]
    spin: u64,
    /// Only candidates whose name contains this
    #[arg(long)]
    only: Option<String>,
}

/// Who is compared.
#[derive(Clone, Copy)]
enum Candidate {
    Ours(Executor),
    Quinn,
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    anyhow::ensure!(arguments.bulk || arguments.small || arguments.files.is_some(), "--bulk, --small or --files DIR");
    let mut candidates = vec![
        ("peer/glommio".to_owned(), Candidate::Ours(Executor::Glommio { spin_us: 0 })),
        ("peer/monoio".to_owned(), Candidate::Ours(Executor::Monoio)),
        ("quinn/tokio".to_owned(), Candidate::Quinn),
    ];
    if arguments.spin > 0 {
        let spinning = Candidate::Ours(Executor::Glommio { spin_us: arguments.spin });
        candidates.insert(1, (format!("peer/glommio s{}", arguments.spin), spinning));
    }
    if let Some(part) = &arguments.only {
        candidates.retain(|(name, _)| name.contains(part));
    }
    let sample = match &arguments.files {
        Some(folder) => Some(files::Sample::make(folder, arguments.size << 20)?),
        None => None,
    };
    for _ in 0..arguments.rounds {
        if let Some(sample) = &sample {
            move_files(&arguments, sample)?;
        }
        if arguments.bulk {
            for mtu in &arguments.mtu {
                for (name, candidate) in &candidates {
                    let bytes = arguments.size << 20;
                    match candidate {
                        // Spinning is for waiting; a bulk run waits for nothing.
                        Candidate::Ours(Executor::Glommio { spin_us }) if *spin_us > 0 => continue,
                        Candidate::Ours(executor) => ours::bulk(*executor, *mtu, bytes)?,
                        Candidate::Quinn => quinn_tokio::bulk(*mtu, bytes)?,
                    }
                    .print(name, *mtu);
                }
            }
        }
        if arguments.small {
            for window in &arguments.window {
                for (name, candidate) in &candidates {
                    match candidate {
                        Candidate::Ours(executor) => ours::small(*executor, *window, arguments.messages)?,
                        Candidate::Quinn => quinn_tokio::small(*window, arguments.messages)?,
                    }
                    .print(name, *window);
                }
            }
        }
    }
    Ok(())
}

/// One round of files.
fn move_files(arguments: &Arguments, sample: &files::Sample) -> anyhow::Result<()> {
    use files::{Direction, Taking};
    let is_wanted = |name: &str| arguments.only.as_ref().is_none_or(|part| name.contains(part.as_str()));
    for (name, direction) in
        [("device reads", Direction::Read), ("device writes", Direction::Write), ("device does both", Direction::Both)]
    {
        if is_wanted(name) {
            files::device(sample, direction)?.print(name, 0);
        }
    }
    for mtu in arguments.mtu.iter().copied() {
        if is_wanted("memory to memory") {
            ours::bulk(Executor::Glommio { spin_us: 0 }, mtu, sample.bytes())?.print("memory to memory", mtu);
        }
        for (name, taking) in [("file to file", Taking::Stream), ("file to slave", Taking::Pool)] {
            if is_wanted(name) {
                files::ours(sample, mtu, taking)?.print(name, mtu);
            }
        }
        if is_wanted("plain with quinn") {
            sample.forget_cached()?;
            let bulk = quinn_tokio::file(mtu, &sample.path(), &sample.target())?;
            bulk.print("plain with quinn", mtu);
            sample.check(&sample.target())?;
        }
    }
    Ok(())
}
