//! Defects on purpose: does a simulation find them?
//!
//! Each file of its folder of patches is one with a sentence on top. It is applied to a copy of the crates (the product
//! has no switch for it), and seeds are run until one fails. Its `missed/` has those that this many seeds did not find.
//! `canary` is the defect that nothing may miss; the tree as it is must be silent.

use crate::ledger::{Row, root};
use anyhow::{Context, bail};
use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    process::Command,
};

/// The name under which the tree without a defect is run.
const NOTHING: &str = "nothing";

/// What a simulation is built from, and how it is run.
#[derive(Clone, Copy, Debug)]
pub struct Planting<'a> {
    /// What the simulation is of: the name of its rows in the ledger.
    pub subject: &'a str,
    pub package: &'a str,
    /// The folder of patches, below that of the last one of `crates`.
    pub folder: &'a str,
    /// The crates that it is built from, its own last.
    pub crates: &'a [&'a str],
    /// Files and folders of other crates that it is built from.
    pub modules: &'a [&'a str],
    pub profile: Profile,
    /// The command line of a campaign, but for `--stop --seeds N`.
    pub campaign: &'a [&'a str],
    /// Seeds within which a defect has to be found.
    pub seeds_max: u64,
}

/// How a copy of the tree is built.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Profile {
    Dev,
    /// Without what makes release builds slow.
    Release,
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

impl Planting<'_> {
    /// Plants the defects that are named on the command line, or all, one after the other, and runs the tree without any;
    /// with `--ledger` each gets a row in the ledger.
    ///
    /// # Errors
    /// If one was not found, or something where there is nothing.
    pub fn main(&self, arguments: &[String]) -> anyhow::Result<()> {
        let names: Vec<&String> = arguments.iter().filter(|argument| !argument.starts_with("--")).collect();
        let has_ledger = crate::has(arguments, "--ledger");
        // Of this command alone: another one may plant at the same time.
        let tree = std::env::temp_dir().join(format!("{}-planted-{}", self.package, std::process::id()));
        let own = self.crates.last().context("the crate of the simulation")?;
        let folder = root()?.join(own).join(self.folder);
        let mut patches: Vec<PathBuf> = std::fs::read_dir(folder)?.flatten().map(|entry| entry.path()).collect();
        patches.retain(|path| path.extension().is_some_and(|extension| extension == "patch"));
        patches.sort();
        let patches = std::iter::once(None).chain(patches.into_iter().map(Some));
        let mut wrong = Vec::new();
        // A target folder that is used again may hold other copies.
        let mut to_build: BTreeSet<&str> = self.crates.iter().copied().collect();
        for patch in patches {
            let stem = patch.as_deref().and_then(Path::file_stem);
            let name = stem.map_or(NOTHING.into(), |stem| stem.to_string_lossy().into_owned());
            if !names.is_empty() && !names.contains(&&name) {
                continue;
            }
            self.copy(&tree)?;
            for name in std::mem::take(&mut to_build) {
                run(Command::new("touch").arg(tree.join(name).join("src/lib.rs")))?;
            }
            if let Some(patch) = &patch {
                run(Command::new("patch").args(["-p1", "--quiet", "-i"]).arg(patch).current_dir(&tree))?;
                // The next copy has what was there before, and times that do not tell.
                to_build = self.touched(own, &std::fs::read_to_string(patch)?);
            }
            let found = self.search(&tree)?;
            let seeds = found.as_ref().map_or(self.seeds_max, |(seed, _)| seed + 1);
            match &found {
                Some((seed, what)) => {
                    println!("{name:<40} found by seed {seed:>5}: {}", what.chars().take(200).collect::<String>());
                }
                None => println!("{name:<40} not found in {seeds} seeds"),
            }
            if found.is_some() != patch.is_some() {
                wrong.push(name.clone());
            }
            if has_ledger {
                let mode = format!("{}: planted {name}", self.subject);
                let violations = usize::from(found.is_some());
                Row { mode: &mode, first_seed: 0, seeds, work: seeds, violations }.append()?;
            }
        }
        std::fs::remove_dir_all(&tree)?;
        if wrong.is_empty() { Ok(()) } else { bail!("missed, or found where there is nothing: {wrong:?}") }
    }

    /// The crates that a patch touches; modules are built into the simulation's own.
    fn touched<'b>(&'b self, own: &'b str, patch: &str) -> BTreeSet<&'b str> {
        let paths = patch.lines().filter_map(|line| line.strip_prefix("+++ b/"));
        let crate_of = |path: &str| {
            let holds = |name: &&&str| path.strip_prefix(**name).is_some_and(|rest| rest.starts_with('/'));
            self.crates.iter().find(holds).copied().unwrap_or(own)
        };
        paths.map(crate_of).collect()
    }

    /// A workspace of these crates alone. Times are kept, so that only what a patch touches is built again.
    fn copy(&self, to: &Path) -> anyhow::Result<()> {
        let root = root()?;
        for name in self.crates.iter().chain(self.modules) {
            let target = to.join(name);
            std::fs::create_dir_all(target.parent().context("a crate in a folder")?)?;
            if target.is_dir() {
                std::fs::remove_dir_all(&target)?;
            }
            run(Command::new("cp").arg("-rp").arg(root.join(name)).arg(&target))?;
        }
        let manifest = std::fs::read_to_string(root.join("Cargo.toml"))?;
        let (before, members) = manifest.split_once("members = [").context("a list of members")?;
        let (_, after) = members.split_once(']').context("the end of the members")?;
        let list: Vec<String> = self.crates.iter().map(|name| format!("{name:?}")).collect();
        std::fs::write(to.join("Cargo.toml"), format!("{before}members = [{}]{after}", list.join(", ")))?;
        std::fs::copy(root.join("Cargo.lock"), to.join("Cargo.lock"))?;
        Ok(())
    }

    /// The first seed that fails with the tree as it is, and what it says.
    fn search(&self, tree: &Path) -> anyhow::Result<Option<(u64, String)>> {
        let mut build = Command::new("cargo");
        build.args(["build", "--offline", "--quiet", "-p", self.package]);
        let (profile, folder) = match self.profile {
            Profile::Dev => ("DEV", "debug"),
            Profile::Release => {
                build.arg("--release").env("CARGO_PROFILE_RELEASE_LTO", "off");
                build.env("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "16");
                ("RELEASE", "release")
            }
        };
        build.env(format!("CARGO_PROFILE_{profile}_DEBUG"), "0").env("CARGO_INCREMENTAL", "1");
        run(build.current_dir(tree))?;
        // With the target folder of another workspace what is of others need not be built again.
        let target = std::env::var_os("CARGO_TARGET_DIR").map_or(tree.join("target"), PathBuf::from);
        let mut simulation = Command::new(target.join(folder).join(self.package));
        simulation.args(self.campaign).args(["--stop", "--seeds", &self.seeds_max.to_string()]);
        let output = simulation.env("RUST_BACKTRACE", "0").output()?;
        let said = String::from_utf8_lossy(&output.stdout);
        let found = said.lines().find_map(|line| line.strip_prefix("seed ")?.split_once(": "));
        let Some((seed, what)) = found else {
            if !output.status.success() {
                bail!("{simulation:?}: {said}{}", String::from_utf8_lossy(&output.stderr));
            }
            return Ok(None);
        };
        Ok(Some((seed.parse()?, what.to_owned())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_patch_touches_is_built_again_after_it() {
        let planting = Planting {
            subject: "store",
            package: "sim",
            folder: "planted",
            crates: &["core/log", "core/store", "tests/sim"],
            modules: &["roles/src/replica"],
            profile: Profile::Dev,
            campaign: &[],
            seeds_max: 1,
        };
        let patch = "--- a/core/store/src/a.rs\n+++ b/core/store/src/a.rs\n+++ b/roles/src/replica/b.rs\n";
        assert_eq!(planting.touched("tests/sim", patch), BTreeSet::from(["core/store", "tests/sim"]));
        assert_eq!(planting.touched("tests/sim", "+++ b/core/logs/src/a.rs"), BTreeSet::from(["tests/sim"]));
    }
}
