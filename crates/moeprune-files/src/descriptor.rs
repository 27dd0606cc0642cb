//! Paths that stand for a descriptor of this process: `/dev/stdout`, `/dev/fd/63`.

use std::path::Path;

/// The number of the descriptor that a path names, if it names one of this process.
#[cfg(unix)]
pub(crate) fn own(path: &Path) -> Option<u32> {
    match path.to_str() {
        Some("/dev/stdin") => return Some(0),
        Some("/dev/stdout") => return Some(1),
        Some("/dev/stderr") => return Some(2),
        _ => {}
    }
    let number = path.file_name()?.to_str()?;
    if !number.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let number = number.parse().ok()?;
    let folder = path.parent()?;
    if folder == Path::new("/dev/fd") {
        return Some(number);
    }
    let real = folder.canonicalize().ok()?;
    let process = format!("/proc/{}", std::process::id());
    let below = real.strip_prefix(process).ok()?;
    let mut parts = below.components().map(|part| part.as_os_str().to_string_lossy());
    match (parts.next().as_deref(), parts.nth(1).as_deref(), parts.next()) {
        (Some("fd"), None, None) => (below.components().count() == 1).then_some(number),
        (Some("task"), Some("fd"), None) => Some(number),
        _ => None,
    }
}

#[cfg(not(unix))]
pub(crate) fn own(_: &Path) -> Option<u32> {
    None
}

/// Whether a path is one of the descriptors of any process: what such a link leads to need not
/// have a name.
pub(crate) fn is_any(path: &Path) -> bool {
    let real = path.parent().and_then(|folder| folder.canonicalize().ok());
    real.is_some_and(|folder| folder.starts_with("/proc") && folder.ends_with("fd"))
}

/// Whether a descriptor was opened for reading only. `false` where the system does not tell.
#[cfg(unix)]
pub(crate) fn is_read_only(number: u32) -> bool {
    use rustix::fs::{OFlags, fcntl_getfl};
    let flags = match number {
        0 => fcntl_getfl(std::io::stdin()).ok(),
        1 => fcntl_getfl(std::io::stdout()).ok(),
        2 => fcntl_getfl(std::io::stderr()).ok(),
        _ => flags_in_proc(number),
    };
    flags.is_some_and(|flags| flags & OFlags::ACCMODE == OFlags::RDONLY)
}

#[cfg(not(unix))]
pub(crate) fn is_read_only(_: u32) -> bool {
    false
}

#[cfg(unix)]
fn flags_in_proc(number: u32) -> Option<rustix::fs::OFlags> {
    let text = std::fs::read_to_string(format!("/proc/self/fdinfo/{number}")).ok()?;
    let flags = text.lines().find_map(|line| line.strip_prefix("flags:"))?;
    let flags = u32::from_str_radix(flags.trim(), 8).ok()?;
    Some(rustix::fs::OFlags::from_bits_retain(flags))
}
