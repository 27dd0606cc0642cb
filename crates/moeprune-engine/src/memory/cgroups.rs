//! What control groups leave of memory: of both versions, and of all groups above.

use std::path::{Path, PathBuf};

use crate::{
    cgroup_folders::{Version, folders},
    system_file::read,
};

/// Files with limits; the lowest counts.
fn limits(version: Version) -> &'static [&'static str] {
    match version {
        Version::One => &["memory.limit_in_bytes"],
        Version::Two => &["memory.max", "memory.high"],
    }
}

fn usage(version: Version) -> &'static str {
    match version {
        Version::One => "memory.usage_in_bytes",
        Version::Two => "memory.current",
    }
}

/// Lines of `memory.stat` with what is given back when memory is short: files in the cache.
fn reclaimable_lines(version: Version) -> [&'static str; 2] {
    match version {
        Version::One => ["total_inactive_file", "total_active_file"],
        Version::Two => ["inactive_file", "active_file"],
    }
}

/// Version 1 writes the largest number of pages for no limit.
const NO_LIMIT: u64 = 1 << 62;

/// What each limit of a group of this process leaves, and the file that has it.
pub(super) fn left(root: &Path) -> Vec<(PathBuf, u64)> {
    let mut found = Vec::new();
    for version in [Version::One, Version::Two] {
        for folder in folders(root, version, "memory") {
            found.extend(left_in(root, &folder, version));
        }
    }
    found
}

/// What the limits of one group leave.
fn left_in(root: &Path, folder: &Path, version: Version) -> Vec<(PathBuf, u64)> {
    let here = root.join(folder);
    let number = |name: &str| read(&here.join(name))?.trim().parse::<u64>().ok();
    let Some(usage) = number(usage(version)) else { return Vec::new() };
    let stat = read(&here.join("memory.stat")).unwrap_or_default();
    let line = |key: &str| -> Option<u64> {
        let value = stat.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' '))?;
        value.trim().parse().ok()
    };
    let reclaimable = reclaimable_lines(version).into_iter().filter_map(line);
    let reclaimable = reclaimable.fold(0_u64, u64::saturating_add);
    let used = usage.saturating_sub(reclaimable);
    let mut found = Vec::new();
    for name in limits(version) {
        if let Some(limit) = number(name).filter(|&limit| limit < NO_LIMIT) {
            found.push((Path::new("/").join(folder).join(name), limit.saturating_sub(used)));
        }
    }
    // Groups above that are not seen from here.
    let above = line("hierarchical_memory_limit").filter(|&limit| limit < NO_LIMIT);
    if let Some(limit) = above.filter(|_| version == Version::One) {
        let path = Path::new("/").join(folder).join("memory.stat");
        if found.iter().all(|(_, left)| limit.saturating_sub(used) < *left) {
            found.push((path, limit.saturating_sub(used)));
        }
    }
    found
}
