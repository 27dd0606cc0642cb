//! What control groups leave of memory: of both versions, and of all groups above.

use std::path::{Path, PathBuf};

use super::system_file::read;

/// A version of control groups, as far as memory goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Version {
    One,
    Two,
}

impl Version {
    /// Files with limits; the lowest counts.
    fn limits(self) -> &'static [&'static str] {
        match self {
            Self::One => &["memory.limit_in_bytes"],
            Self::Two => &["memory.max", "memory.high"],
        }
    }

    fn usage(self) -> &'static str {
        match self {
            Self::One => "memory.usage_in_bytes",
            Self::Two => "memory.current",
        }
    }

    /// Lines of `memory.stat` with what is given back when memory is short: files in the cache.
    fn reclaimable(self) -> [&'static str; 2] {
        match self {
            Self::One => ["total_inactive_file", "total_active_file"],
            Self::Two => ["inactive_file", "active_file"],
        }
    }
}

/// Version 1 writes the largest number of pages for no limit.
const NO_LIMIT: u64 = 1 << 62;

/// What each limit of a group of this process leaves, and the file that has it.
pub(super) fn left(root: &Path) -> Vec<(PathBuf, u64)> {
    let (Some(groups), Some(mounts)) =
        (read(&root.join("proc/self/cgroup")), read(&root.join("proc/self/mountinfo")))
    else {
        return Vec::new();
    };
    let mut found = Vec::new();
    for version in [Version::One, Version::Two] {
        let Some(group) = groups.lines().find_map(|line| group_in(line, version)) else { continue };
        let Some(mount) = mounts.lines().find_map(|line| Mount::of(line, version)) else {
            continue;
        };
        for folder in mount.folders(group) {
            found.extend(left_in(root, &folder, version));
        }
    }
    found
}

/// The path of this process's group, of a line `NUMBER:CONTROLLERS:PATH`.
fn group_in(line: &str, version: Version) -> Option<&str> {
    let mut fields = line.splitn(3, ':');
    let (number, controllers, path) = (fields.next()?, fields.next()?, fields.next()?);
    let is_it = match version {
        Version::One => controllers.split(',').any(|controller| controller == "memory"),
        Version::Two => number == "0" && controllers.is_empty(),
    };
    is_it.then_some(path)
}

/// Where groups are mounted.
#[derive(Debug, PartialEq, Eq)]
struct Mount {
    /// The group that is seen there.
    group: String,
    /// The folder.
    at: String,
}

impl Mount {
    /// Of a line of `mountinfo`: `ID PARENT DEVICES ROOT PLACE OPTIONS… - TYPE SOURCE OPTIONS`.
    fn of(line: &str, version: Version) -> Option<Self> {
        let (before, after) = line.split_once(" - ")?;
        let mut after = after.split(' ');
        let (kind, options) = (after.next()?, after.nth(1).unwrap_or_default());
        let is_it = match version {
            Version::One => kind == "cgroup" && options.split(',').any(|o| o == "memory"),
            Version::Two => kind == "cgroup2",
        };
        let mut before = before.split(' ');
        let (group, at) = (before.nth(3)?, before.next()?);
        is_it.then(|| Self { group: unescaped(group), at: unescaped(at) })
    }

    /// The folders of a group and of those above it, as far as they are seen. A group that is not seen from
    /// here is in the one that is mounted.
    fn folders(&self, group: &str) -> Vec<PathBuf> {
        let at = Path::new(self.at.trim_start_matches('/'));
        let below = Path::new(group).strip_prefix(&self.group).unwrap_or_else(|_| Path::new(""));
        let is_plain = below.components().all(|c| matches!(c, std::path::Component::Normal(_)));
        let below = if is_plain { below } else { Path::new("") };
        below.ancestors().map(|folder| at.join(folder)).collect()
    }
}

/// Spaces and the like are written as three octal digits.
fn unescaped(text: &str) -> String {
    let mut parts = text.split('\\');
    let mut plain = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let code = part.get(..3).and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match code.filter(u8::is_ascii) {
            Some(code) => {
                plain.push(char::from(code));
                plain.push_str(&part[3..]);
            }
            None => {
                plain.push('\\');
                plain.push_str(part);
            }
        }
    }
    plain
}

/// What the limits of one group leave.
fn left_in(root: &Path, folder: &Path, version: Version) -> Vec<(PathBuf, u64)> {
    let here = root.join(folder);
    let number = |name: &str| read(&here.join(name))?.trim().parse::<u64>().ok();
    let Some(usage) = number(version.usage()) else { return Vec::new() };
    let stat = read(&here.join("memory.stat")).unwrap_or_default();
    let line = |key: &str| -> Option<u64> {
        let value = stat.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' '))?;
        value.trim().parse().ok()
    };
    let reclaimable = version.reclaimable().into_iter().filter_map(line);
    let reclaimable = reclaimable.fold(0_u64, u64::saturating_add);
    let used = usage.saturating_sub(reclaimable);
    let mut found = Vec::new();
    for name in version.limits() {
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
