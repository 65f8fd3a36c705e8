//! Defects on purpose: does the simulation find them?
//!
//! Each file of `planted/` is a patch with a sentence on top. It is applied to a copy of the crates (the product has no
//! switch for it), and seeds are run until one fails. `canary` is the defect that nothing may miss. `planted/missed/` has
//! those that ten thousand seeds did not find: what the faults do not reach yet.

use anyhow::{Context, bail};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Seeds within which a defect has to be found.
const SEEDS_MAX: u64 = 10_000;
const TICKS: u64 = 1500;
/// What the simulation is built from.
const CRATES: [&str; 4] = ["core/raft", "core/disk", "core/log", "tests/sim"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Runs it, and fails with what it said if it fails.
fn run(command: &mut Command) -> anyhow::Result<String> {
    let output = command.output().with_context(|| format!("{command:?}"))?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() {
        return Ok(said);
    }
    bail!("{command:?}: {said}{}", String::from_utf8_lossy(&output.stderr))
}

/// A workspace of these crates alone.
fn copy(to: &Path) -> anyhow::Result<()> {
    for name in CRATES {
        let target = to.join(name);
        std::fs::create_dir_all(target.parent().context("a crate in a folder")?)?;
        if target.exists() {
            std::fs::remove_dir_all(&target)?;
        }
        run(Command::new("cp").arg("-rp").arg(root().join(name)).arg(&target))?;
    }
    // Times are kept so that only what a patch touches is built again; the patch before this one touched this crate.
    run(Command::new("touch").arg(to.join("core/raft/src/lib.rs")))?;
    let manifest = std::fs::read_to_string(root().join("Cargo.toml"))?;
    let (before, members) = manifest.split_once("members = [").context("a list of members")?;
    let (_, after) = members.split_once(']').context("the end of the members")?;
    let list: Vec<String> = CRATES.iter().map(|name| format!("{name:?}")).collect();
    std::fs::write(to.join("Cargo.toml"), format!("{before}members = [{}]{after}", list.join(", ")))?;
    std::fs::copy(root().join("Cargo.lock"), to.join("Cargo.lock"))?;
    Ok(())
}

/// The first seed that fails with the tree as it is, and what it says.
fn search(tree: &Path) -> anyhow::Result<Option<(u64, String)>> {
    let mut build = Command::new(env!("CARGO"));
    build.args(["build", "--release", "--offline", "--quiet", "-p", "tidemill-sim"]);
    for (setting, value) in [("LTO", "off"), ("DEBUG", "0"), ("CODEGEN_UNITS", "16"), ("INCREMENTAL", "true")] {
        build.env(format!("CARGO_PROFILE_RELEASE_{setting}"), value);
    }
    build.env_remove("CARGO_TARGET_DIR");
    run(build.current_dir(tree))?;
    let mut sim = Command::new(tree.join("target/release/tidemill-sim"));
    let output = sim
        .args(["fast", "--stop", "--seeds", &SEEDS_MAX.to_string(), "--ticks", &TICKS.to_string()])
        .env("RUST_BACKTRACE", "0")
        .output()?;
    let said = String::from_utf8_lossy(&output.stdout);
    let found = said.lines().find_map(|line| line.strip_prefix("seed ")?.split_once(": "));
    let Some((seed, what)) = found else { return Ok(None) };
    Ok(Some((seed.parse()?, what.to_owned())))
}

pub fn main(names: &[String]) -> anyhow::Result<()> {
    let tree = std::env::temp_dir().join("tidemill-planted");
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("planted");
    let mut patches: Vec<PathBuf> = std::fs::read_dir(folder)?.flatten().map(|entry| entry.path()).collect();
    patches.retain(|path| path.extension().is_some_and(|extension| extension == "patch"));
    patches.sort();
    let mut missed = Vec::new();
    for patch in patches {
        let name = patch.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        if !names.is_empty() && !names.contains(&name) {
            continue;
        }
        copy(&tree)?;
        run(Command::new("patch").args(["-p1", "--quiet", "-i"]).arg(&patch).current_dir(&tree))?;
        match search(&tree)? {
            Some((seed, what)) => println!("{name:<40} found by seed {:>5}: {what}", seed),
            None => {
                println!("{name:<40} NOT FOUND in {SEEDS_MAX} seeds");
                missed.push(name);
            }
        }
    }
    if missed.is_empty() { Ok(()) } else { bail!("not found: {missed:?}") }
}
