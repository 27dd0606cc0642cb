//! How much memory this process may take, and what says so.

use std::{
    fmt,
    path::{Path, PathBuf},
};

use super::cgroups;
use crate::system_file::read;

/// Memory that is left for this process.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "plain data")]
pub struct AvailableMemory {
    /// In bytes.
    pub bytes: u64,
    /// What limits it to that.
    pub limit: MemoryLimit,
}

/// What limits the memory of a process.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "callers name each")]
pub enum MemoryLimit {
    /// What the machine has free.
    Machine,
    /// A control group, by the file that has the limit: `memory.max`, `memory.high`, or
    /// `memory.limit_in_bytes`.
    Cgroup(PathBuf),
    /// A limit of the process, as `ulimit` sets it: `RLIMIT_AS` or `RLIMIT_DATA`.
    Process(&'static str),
    /// What the user said.
    Asked,
    /// What a device has free.
    Device,
}

impl fmt::Display for MemoryLimit {
    /// As the subject of "… has 3 GB left".
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Machine => f.write_str("this machine"),
            Self::Cgroup(path) => write!(f, "the control group ({})", path.display()),
            Self::Process(name) => write!(f, "the limit of this process ({name}, ulimit)"),
            Self::Asked => f.write_str("--max-memory"),
            Self::Device => f.write_str("the device"),
        }
    }
}

impl AvailableMemory {
    /// The least that any limit leaves: the machine's free memory, the control groups that this process is in, its
    /// own limits, and what the user said; `None` where nothing is known.
    ///
    /// ```
    /// let all = moeprune_engine::AvailableMemory::now(None);
    /// let few = moeprune_engine::AvailableMemory::now(Some(1)).expect("a limit");
    /// assert_eq!(few.bytes, 1);
    /// assert!(all.is_none_or(|all| all.bytes > 1));
    /// ```
    #[must_use]
    pub fn now(asked: Option<u64>) -> Option<Self> {
        Self::below(Path::new("/"), asked)
    }

    /// As [`now`](Self::now), by the files `proc/…` and control groups below a folder.
    pub(crate) fn below(root: &Path, asked: Option<u64>) -> Option<Self> {
        let machine = free(root).map(|bytes| Self { bytes, limit: MemoryLimit::Machine });
        let asked = asked.map(|bytes| Self { bytes, limit: MemoryLimit::Asked });
        let groups = cgroups::left(root).into_iter();
        let groups = groups.map(|(path, bytes)| Self { bytes, limit: MemoryLimit::Cgroup(path) });
        let all = asked.into_iter().chain(machine).chain(groups).chain(of_process(root));
        // The first of equal ones: what the user said names itself.
        all.min_by_key(|available| available.bytes)
    }
}

/// What the system would give a new process.
fn free(root: &Path) -> Option<u64> {
    kilobytes(&read(&root.join("proc/meminfo"))?, "MemAvailable:")
}

/// What the process's own limits leave. `RLIMIT_RSS` has no effect on Linux since 2.4.30.
fn of_process(root: &Path) -> Vec<AvailableMemory> {
    let Some(limits) = read(&root.join("proc/self/limits")) else { return Vec::new() };
    let status = read(&root.join("proc/self/status")).unwrap_or_default();
    let rows = [
        ("RLIMIT_AS", "Max address space", "VmSize:"),
        ("RLIMIT_DATA", "Max data size", "VmData:"),
    ];
    let mut found = Vec::new();
    for (name, row, used) in rows {
        let soft =
            limits.lines().find_map(|line| line.strip_prefix(row)?.split_whitespace().next());
        let Some(limit) = soft.and_then(|soft| soft.parse::<u64>().ok()) else { continue };
        let bytes = limit.saturating_sub(kilobytes(&status, used).unwrap_or(0));
        found.push(AvailableMemory { bytes, limit: MemoryLimit::Process(name) });
    }
    found
}

/// A line such as `MemAvailable:   1234 kB`, in bytes.
fn kilobytes(text: &str, key: &str) -> Option<u64> {
    let value = text.lines().find_map(|line| line.strip_prefix(key))?;
    let kilobytes: u64 = value.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kilobytes.checked_mul(1024)
}

#[cfg(test)]
mod tests;
