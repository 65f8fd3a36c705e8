//! A control group of the kernel that bounds the memory of one process.
//!
//! Owns: making the group, putting a process into it, what it counted, and removing it. Version 2 where its memory
//! controller can be used (kernel: Documentation/admin-guide/cgroup-v2.rst), else version 1.
//! Knows nothing of what runs in it. Needs the rights of the machine's administrator.

use anyhow::{Context, Result, bail};
use std::fs;
use std::path::{Path, PathBuf};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Version {
    V1,
    V2,
}

/// One group; removed when it is dropped, which works once no process is in it.
#[derive(Debug)]
pub struct ControlGroup {
    folder: PathBuf,
    version: Version,
}

/// What the kernel counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GroupFigures {
    /// The most that was charged to the group: its processes, their pages of files, kernel memory on their behalf.
    pub bytes_max: Option<u64>,
    /// Processes that the kernel killed for lack of memory.
    pub killed: Option<u64>,
}

impl ControlGroup {
    /// Makes a group whose memory is bounded.
    ///
    /// # Errors
    /// The machine has no such groups, or does not let this process make one.
    pub fn make(name: &str, limit_bytes: u64) -> Result<ControlGroup> {
        let root = Path::new("/sys/fs/cgroup");
        let controllers = fs::read_to_string(root.join("cgroup.controllers")).unwrap_or_default();
        if controllers.split_ascii_whitespace().any(|name| name == "memory") {
            let _ = fs::write(root.join("cgroup.subtree_control"), "+memory");
            let group = ControlGroup { folder: root.join(name), version: Version::V2 };
            return group.set_up("memory.max", limit_bytes);
        }
        if root.join("memory/memory.limit_in_bytes").exists() {
            let group = ControlGroup { folder: root.join("memory").join(name), version: Version::V1 };
            return group.set_up("memory.limit_in_bytes", limit_bytes);
        }
        bail!("no control groups with memory limits are mounted in {}", root.display())
    }

    fn set_up(self, limit: &str, limit_bytes: u64) -> Result<ControlGroup> {
        let folder = self.folder.display();
        fs::create_dir(&self.folder).with_context(|| format!("make the control group {folder}"))?;
        fs::write(self.folder.join(limit), limit_bytes.to_string()).with_context(|| format!("{folder}/{limit}"))?;
        if self.version == Version::V2 {
            // A process that is squeezed out to swap would look as if it held its limit.
            let _ = fs::write(self.folder.join("memory.swap.max"), "0");
        }
        Ok(self)
    }

    /// The file that takes the number of a process.
    pub fn entrance(&self) -> PathBuf {
        self.folder.join("cgroup.procs")
    }

    pub fn describe(&self) -> String {
        let version = if self.version == Version::V2 { 2 } else { 1 };
        format!("control group version {version}, {}", self.folder.display())
    }

    pub fn figures(&self) -> GroupFigures {
        let (peak, events) = match self.version {
            Version::V1 => ("memory.max_usage_in_bytes", "memory.oom_control"),
            Version::V2 => ("memory.peak", "memory.events"),
        };
        let read = |name| fs::read_to_string(self.folder.join(name)).ok();
        GroupFigures {
            bytes_max: read(peak).and_then(|text| text.trim().parse().ok()),
            killed: read(events).and_then(|text| event(&text, "oom_kill")),
        }
    }
}

impl Drop for ControlGroup {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.folder);
    }
}

/// The count of one kind in a file of lines such as `oom_kill 0`.
fn event(text: &str, name: &str) -> Option<u64> {
    let mut lines = text.lines().filter_map(|line| line.split_once(' '));
    lines.find(|(known, _)| *known == name)?.1.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_found_by_their_whole_name() {
        let text = "low 0\nmax 12\noom 3\noom_kill 1\n";
        assert_eq!((event(text, "oom_kill"), event(text, "oom"), event(text, "o")), (Some(1), Some(3), None));
    }
}
