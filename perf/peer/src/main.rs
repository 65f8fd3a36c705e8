//! The transport between nodes beside quinn on tokio, in one run: two threads on two cores, over loopback.
//!
//! `--bulk` moves one file from memory to memory and tells MB/s and the processor seconds of both ends per GiB; `--small`
//! keeps a window of 1 KiB messages in flight, each answered by an equal one, and tells round trips. Candidates take
//! turns within a round, so that a busy machine is busy for all of them.

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
    anyhow::ensure!(arguments.bulk || arguments.small, "--bulk, --small or both");
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
    for _ in 0..arguments.rounds {
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
