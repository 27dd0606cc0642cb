//! Where the control groups of this process are in the file system, of both versions.

use std::path::{Path, PathBuf};

use crate::system_file::read;

/// A version of control groups.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Version {
    One,
    Two,
}

/// The folders, below `root`, of the group that this process is in for a controller (`memory`, `cpu`) and of all groups
/// above it that are seen from here.
pub(crate) fn folders(root: &Path, version: Version, controller: &str) -> Vec<PathBuf> {
    let (Some(groups), Some(mounts)) =
        (read(&root.join("proc/self/cgroup")), read(&root.join("proc/self/mountinfo")))
    else {
        return Vec::new();
    };
    let group = groups.lines().find_map(|line| group_in(line, version, controller));
    let mount = mounts.lines().find_map(|line| Mount::of(line, version, controller));
    group.zip(mount).map_or_else(Vec::new, |(group, mount)| mount.folders(group))
}

/// The path of this process's group, of a line `NUMBER:CONTROLLERS:PATH`.
fn group_in<'l>(line: &'l str, version: Version, wanted: &str) -> Option<&'l str> {
    let mut fields = line.splitn(3, ':');
    let (number, controllers, path) = (fields.next()?, fields.next()?, fields.next()?);
    let is_it = match version {
        Version::One => controllers.split(',').any(|controller| controller == wanted),
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
    fn of(line: &str, version: Version, wanted: &str) -> Option<Self> {
        let (before, after) = line.split_once(" - ")?;
        let mut after = after.split(' ');
        let (kind, options) = (after.next()?, after.nth(1).unwrap_or_default());
        let is_it = match version {
            Version::One => kind == "cgroup" && options.split(',').any(|o| o == wanted),
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
