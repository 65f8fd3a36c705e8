//! Figures of a process from `/proc`, and of a folder from the file system.

use std::io;
use std::path::Path;

/// CPU seconds (user and system) that process `pid` has used.
pub fn cpu_seconds(pid: u32) -> io::Result<f64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The command name in parentheses may hold spaces: fields are counted behind its end (proc_pid_stat(5)).
    let rest = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    let mut fields = rest.split_ascii_whitespace().skip(11).map(|field| field.parse::<u64>().unwrap_or(0));
    let ticks = fields.next().unwrap_or(0) + fields.next().unwrap_or(0);
    // SAFETY: sysconf only reads a constant of the system.
    let per_second = unsafe { libc::sysconf(libc::_SC_CLK_TCK) };
    Ok(ticks as f64 / per_second.max(1) as f64)
}

/// CPU seconds (user and system) of this process.
pub fn own_cpu_seconds() -> f64 {
    let mut usage = std::mem::MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: getrusage fills the struct it is given; zeroed is a valid value of it should it fail.
    let usage = unsafe {
        libc::getrusage(libc::RUSAGE_SELF, usage.as_mut_ptr());
        usage.assume_init()
    };
    let seconds = |time: libc::timeval| time.tv_sec as f64 + time.tv_usec as f64 / 1e6;
    seconds(usage.ru_utime) + seconds(usage.ru_stime)
}

/// Highest resident set of process `pid` so far, in bytes.
pub fn peak_rss_bytes(pid: u32) -> io::Result<u64> {
    status_kib(pid, "VmHWM:").map(|kib| kib * 1024)
}

/// Resident set of process `pid` now, in bytes.
pub fn rss_bytes(pid: u32) -> io::Result<u64> {
    status_kib(pid, "VmRSS:").map(|kib| kib * 1024)
}

fn status_kib(pid: u32, name: &str) -> io::Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    status
        .lines()
        .find_map(|line| line.strip_prefix(name))
        .and_then(|value| value.split_ascii_whitespace().next()?.parse().ok())
        .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, format!("{name} is missing in /proc/{pid}/status")))
}

/// Starts the count of the highest resident set anew. Needs the right to write `/proc/PID/clear_refs`.
pub fn reset_peak_rss(pid: u32) -> io::Result<()> {
    std::fs::write(format!("/proc/{pid}/clear_refs"), "5")
}

/// What a folder holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FolderSize {
    /// Lengths of all files.
    pub bytes: u64,
    /// Blocks that all files occupy.
    pub allocated_bytes: u64,
    /// Lengths of the TSM files among them.
    pub tsm_bytes: u64,
    pub files: u64,
}

/// Size of everything below `path`. Files that vanish while it looks are left out.
pub fn folder_size(path: &Path) -> FolderSize {
    use std::os::unix::fs::MetadataExt;
    let mut size = FolderSize::default();
    let mut folders = vec![path.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).into_iter().flatten().flatten() {
            let Ok(metadata) = entry.metadata() else { continue };
            if metadata.is_dir() {
                folders.push(entry.path());
            } else {
                size.files += 1;
                size.bytes += metadata.len();
                size.allocated_bytes += metadata.blocks() * 512;
                if entry.path().extension().is_some_and(|extension| extension == "tsm") {
                    size.tsm_bytes += metadata.len();
                }
            }
        }
    }
    size
}

/// What each thread of a process is doing, a line each, and how full its io_uring rings are: for the report of one that
/// does not answer.
pub fn threads(pid: u32) -> String {
    let read = |path: String| std::fs::read_to_string(path).unwrap_or_default();
    let entries = |path: String| {
        let names = std::fs::read_dir(path).into_iter().flatten().flatten();
        names.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect::<Vec<_>>()
    };
    let mut report = String::new();
    for thread in entries(format!("/proc/{pid}/task")) {
        let folder = format!("/proc/{pid}/task/{thread}");
        let status = read(format!("{folder}/status"));
        let wanted = ["Name:", "State:", "voluntary_ctxt_switches:", "nonvoluntary_ctxt_switches:"];
        let lines = status.lines().filter(|line| wanted.iter().any(|name| line.starts_with(name)));
        let status = lines.collect::<Vec<_>>().join(" ").replace('\t', " ");
        let run = read(format!("{folder}/schedstat"));
        report.push_str(&format!(
            "{thread} {status} waits in: {} schedstat: {}\n",
            read(format!("{folder}/wchan")),
            run.trim()
        ));
    }
    for number in entries(format!("/proc/{pid}/fd")) {
        let target = std::fs::read_link(format!("/proc/{pid}/fd/{number}")).unwrap_or_default();
        if target.to_string_lossy().contains("io_uring") {
            let figures = read(format!("/proc/{pid}/fdinfo/{number}"));
            let lines = figures.lines().filter(|line| line.starts_with("Sq") || line.starts_with("Cq"));
            report.push_str(&format!("ring {number}: {}\n", lines.collect::<Vec<_>>().join(" ").replace('\t', " ")));
        }
    }
    report
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_uses_cpu_and_memory() {
        let pid = std::process::id();
        assert!(peak_rss_bytes(pid).unwrap() >= rss_bytes(pid).unwrap() / 2);
        assert!(own_cpu_seconds() >= 0.0 && cpu_seconds(pid).unwrap() >= 0.0);
        assert!(cpu_seconds(u32::MAX).is_err());
    }
}
