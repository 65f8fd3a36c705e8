//! The repository's own rules as tests: who may depend on whom, how long a file may be, names that say nothing.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Crates without I/O, clocks, threads.
const PURE: [&str; 9] = ["column", "line", "tsm", "influxql", "query", "raft", "meta", "pool", "index"];
/// What no pure crate may reach, at any depth. `libc` would open the door to every system call.
const BOUND: [&str; 12] = [
    "glommio",
    "io-uring",
    "libc",
    "tokio",
    "mio",
    "hyper",
    "socket2",
    "quinn",
    "nix",
    "rustix",
    "getrandom",
    "tempfile",
];
/// Our own crates that a pure crate may use besides other pure ones: none.
const OURS_BOUND: [&str; 8] = [
    "tidemill",
    "tidemill-disk",
    "tidemill-reactor",
    "tidemill-log",
    "tidemill-store",
    "tidemill-http",
    "tidemill-edge",
    "tidemill-peer",
];
/// Layers from the inside out: a crate may depend on its own layer and on those before it.
const LAYERS: [&[&str]; 4] = [
    &[
        "tidemill-column",
        "tidemill-line",
        "tidemill-tsm",
        "tidemill-influxql",
        "tidemill-query",
        "tidemill-raft",
        "tidemill-meta",
        "tidemill-pool",
        "tidemill-index",
    ],
    &["tidemill-disk", "tidemill-reactor", "tidemill-log", "tidemill-store"],
    &["tidemill-http", "tidemill-edge", "tidemill-peer"],
    &["tidemill"],
];
const LINES_MAX: usize = 800;
const EMPTY_NAMES: [&str; 8] = ["common", "util", "utils", "helper", "helpers", "impls", "types", "misc"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Names in `cargo tree` of one of our crates, without development dependencies.
fn tree(package: &str, depth: Option<&str>) -> BTreeSet<String> {
    let mut command = Command::new(env!("CARGO"));
    command.current_dir(root());
    command.args(["tree", "--locked", "--offline", "-p", package, "-e", "normal", "--prefix", "none", "-f", "{p}"]);
    if let Some(depth) = depth {
        command.args(["--depth", depth]);
    }
    let output = command.output().unwrap();
    assert!(output.status.success(), "cargo tree -p {package}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout)
        .lines()
        .filter_map(|line| line.split(' ').next())
        .filter(|name| !name.is_empty())
        .map(str::to_owned)
        .collect()
}

#[test]
fn pure_crates_reach_nothing_that_does_input_or_output() {
    let mut faults = Vec::new();
    for name in PURE {
        let reached = tree(&format!("tidemill-{name}"), None);
        faults.extend(
            BOUND
                .iter()
                .chain(&OURS_BOUND)
                .filter(|bound| reached.contains(**bound))
                .map(|bound| format!("{name} reaches {bound}")),
        );
    }
    assert!(faults.is_empty(), "{faults:#?}");
}

#[test]
fn dependencies_point_inwards() {
    let mut faults = Vec::new();
    for (layer, crates) in LAYERS.iter().enumerate() {
        for package in *crates {
            let direct = tree(package, Some("1"));
            for (outer, others) in LAYERS.iter().enumerate().skip(layer + 1) {
                faults.extend(
                    others
                        .iter()
                        .filter(|other| direct.contains(**other))
                        .map(|other| format!("{package} (layer {layer}) depends on {other} (layer {outer})")),
                );
            }
        }
    }
    // The HTTP surface knows no storage; turning requests into reads and writes is the roles' work.
    let http = tree("tidemill-http", None);
    for storage in ["tidemill-store", "tidemill-log", "tidemill-tsm", "tidemill-raft"] {
        if http.contains(storage) {
            faults.push(format!("tidemill-http reaches {storage}"));
        }
    }
    // What travels between nodes is bytes to those who carry it.
    let ours = tree("tidemill-peer", None).into_iter().filter(|name| name.starts_with("tidemill-"));
    faults.extend(ours.filter(|name| name != "tidemill-peer").map(|name| format!("tidemill-peer reaches {name}")));
    assert!(faults.is_empty(), "{faults:#?}");
}

/// All Rust sources of the workspace.
fn sources() -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders: Vec<PathBuf> =
        ["core", "net", "roles", "perf", "tests"].iter().map(|folder| root().join(folder)).collect();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).unwrap().flatten() {
            let path = entry.path();
            let name = entry.file_name().to_string_lossy().into_owned();
            if path.is_dir() && !name.starts_with("target") && name != "corpus" {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }
    assert!(found.len() > 50, "only {} sources found: the lint looks at the wrong place", found.len());
    found
}

#[test]
fn files_are_short_and_named_after_what_they_hold() {
    let mut faults = Vec::new();
    for path in sources() {
        let lines = std::fs::read_to_string(&path).unwrap().lines().count();
        if lines > LINES_MAX {
            faults.push(format!("{} has {lines} lines", path.display()));
        }
        let parts: Vec<String> =
            path.components().map(|part| part.as_os_str().to_string_lossy().into_owned()).collect();
        let stem = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        for name in EMPTY_NAMES {
            if stem == name || parts.iter().any(|part| part == name) {
                faults.push(format!("{} is named {name:?}", path.display()));
            }
        }
    }
    assert!(faults.is_empty(), "{faults:#?}");
}

#[test]
fn nothing_is_left_to_do_later() {
    // Put together here, so that this file does not find itself.
    let marks =
        [["to", "do!("].concat(), ["unimple", "mented!("].concat(), ["TO", "DO"].concat(), ["FIX", "ME"].concat()];
    let mut faults = Vec::new();
    for path in sources() {
        let text = std::fs::read_to_string(&path).unwrap();
        for (index, line) in text.lines().enumerate() {
            if marks.iter().any(|mark| line.contains(mark.as_str())) {
                faults.push(format!("{}:{}: {}", path.display(), index + 1, line.trim()));
            }
        }
    }
    assert!(faults.is_empty(), "{faults:#?}");
}

#[test]
fn library_roots_hold_documentation_and_names_only() {
    let mut faults = Vec::new();
    for path in sources() {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if name != "lib.rs" {
            continue;
        }
        let text = std::fs::read_to_string(&path).unwrap();
        if !text.starts_with("//!") {
            faults.push(format!("{} does not begin with its documentation", path.display()));
        }
    }
    assert!(faults.is_empty(), "{faults:#?}");
}
