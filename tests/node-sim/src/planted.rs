//! Defects on purpose: does the simulation find them?
//!
//! Each file of `planted/` is a patch with a sentence on top. It is applied to a copy of the crates (the product has no
//! switch for it), and seeds are run until one fails. `canary` is the defect that nothing may miss. `planted/missed/` has
//! those that this many seeds did not find.

use crate::campaign;
use anyhow::{Context, bail};
use std::{
    path::{Path, PathBuf},
    process::Command,
};

/// Seeds within which a defect has to be found.
const SEEDS_MAX: u64 = 2_000;
/// What the simulation is built from, besides the two modules of `roles`.
const CRATES: [&str; 11] = [
    "core/column",
    "core/line",
    "core/tsm",
    "core/raft",
    "core/influxql",
    "core/meta",
    "core/index",
    "core/disk",
    "core/log",
    "core/store",
    "tests/node-sim",
];
const MODULES: [&str; 2] = ["roles/src/replica", "roles/src/data/copy_policy.rs"];
/// What a patch may touch; built again for each, because the patch before may have touched it.
const PATCHED: [&str; 2] = ["core/store/src/lib.rs", "core/log/src/lib.rs"];

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

/// A workspace of these crates alone. Times are kept, so that only what a patch touches is built again.
fn copy(to: &Path) -> anyhow::Result<()> {
    for name in CRATES.iter().chain(&MODULES) {
        let target = to.join(name);
        std::fs::create_dir_all(target.parent().context("a crate in a folder")?)?;
        if target.is_dir() {
            std::fs::remove_dir_all(&target)?;
        }
        run(Command::new("cp").arg("-rp").arg(root().join(name)).arg(&target))?;
    }
    for path in PATCHED {
        run(Command::new("touch").arg(to.join(path)))?;
    }
    let manifest = std::fs::read_to_string(root().join("Cargo.toml"))?;
    let (before, members) = manifest.split_once("members = [").context("a list of members")?;
    let (_, after) = members.split_once(']').context("the end of the members")?;
    let list: Vec<String> = CRATES.iter().map(|name| format!("{name:?}")).collect();
    std::fs::write(to.join("Cargo.toml"), format!("{before}members = [{}]{after}", list.join(", ")))?;
    std::fs::copy(root().join("Cargo.lock"), to.join("Cargo.lock"))?;
    Ok(())
}

/// The first seed that fails with the tree as it is, and what it says.
fn search(tree: &Path, seeds: u64) -> anyhow::Result<Option<(u64, String)>> {
    let mut build = Command::new(env!("CARGO"));
    build.args(["build", "--offline", "--quiet", "-p", "tidemill-node-sim"]);
    build.env("CARGO_PROFILE_DEV_DEBUG", "0").env("CARGO_INCREMENTAL", "1");
    run(build.current_dir(tree))?;
    // With the target folder of another workspace what is of others need not be built again.
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or(tree.join("target"), PathBuf::from);
    let mut sim = Command::new(target.join("debug/tidemill-node-sim"));
    sim.args(["random", "--stop", "--seeds", &seeds.to_string()]).env("RUST_BACKTRACE", "0");
    let output = sim.output()?;
    let said = String::from_utf8_lossy(&output.stdout);
    let found = said.lines().find_map(|line| line.strip_prefix("seed ")?.split_once(": "));
    let Some((seed, what)) = found else {
        if !output.status.success() {
            bail!("{sim:?}: {said}{}", String::from_utf8_lossy(&output.stderr));
        }
        return Ok(None);
    };
    Ok(Some((seed.parse()?, what.to_owned())))
}

/// Plants the named defects, or all, one after the other; with `has_ledger` each gets a row in the ledger.
pub fn main(names: &[String], has_ledger: bool) -> anyhow::Result<()> {
    let tree = std::env::temp_dir().join("tidemill-planted-store");
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
        let found = search(&tree, SEEDS_MAX)?;
        let seeds = match &found {
            Some((seed, what)) => {
                println!("{name:<40} found by seed {seed:>5}: {}", what.chars().take(200).collect::<String>());
                seed + 1
            }
            None => {
                println!("{name:<40} NOT FOUND in {SEEDS_MAX} seeds");
                missed.push(name.clone());
                SEEDS_MAX
            }
        };
        if has_ledger {
            let mode = format!("store: planted {name}");
            campaign::ledger(&mode, 0, seeds, seeds, usize::from(found.is_some()))?;
        }
    }
    if missed.is_empty() { Ok(()) } else { bail!("not found: {missed:?}") }
}
