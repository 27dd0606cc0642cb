//! Whether a disk has room.

use std::path::Path;

use crate::Error;

/// Checks that the file system of `dir` has room for `bytes`, of which some may lie in `dir`
/// already. Passes where the system cannot tell.
pub(super) fn check(dir: &Path, bytes: u64, out: &Path) -> Result<(), Error> {
    let Some((free, taken)) = free_and_taken(dir)? else { return Ok(()) };
    let available = free.saturating_add(taken);
    if bytes <= available {
        return Ok(());
    }
    let begun = match taken {
        0 => String::new(),
        taken => format!(" beside {} that an earlier run has written", readable(taken)),
    };
    let reason = format!(
        "needs {}, but its file system has {} free{begun}; make room for {} more, or choose \
         another place",
        readable(bytes),
        readable(free),
        readable(bytes - available)
    );
    Err(Error::Output { path: out.to_owned(), reason })
}

/// Bytes that are free for this user, and bytes that the files in `dir` take.
#[cfg(unix)]
fn free_and_taken(dir: &Path) -> Result<Option<(u64, u64)>, Error> {
    let system = rustix::fs::statvfs(dir).map_err(|e| Error::io("inspect", dir)(e.into()))?;
    if system.f_blocks == 0 {
        return Ok(None); // some network file systems do not count
    }
    Ok(Some((system.f_bavail.saturating_mul(system.f_frsize), taken(dir)?)))
}

#[cfg(not(unix))]
fn free_and_taken(_dir: &Path) -> Result<Option<(u64, u64)>, Error> {
    Ok(None)
}

/// Holes of files take nothing, so sizes do not tell.
#[cfg(unix)]
fn taken(path: &Path) -> Result<u64, Error> {
    use std::{fs, os::unix::fs::MetadataExt};
    const BLOCK: u64 = 512; // that of st_blocks, whatever the file system's
    let metadata = path.symlink_metadata().map_err(Error::io("inspect", path))?;
    if !metadata.is_dir() {
        return Ok(metadata.blocks() * BLOCK);
    }
    let mut sum = 0;
    for entry in fs::read_dir(path).map_err(Error::io("list", path))? {
        sum += taken(&entry.map_err(Error::io("list", path))?.path())?;
    }
    Ok(sum)
}

/// As people write sizes of files.
fn readable(bytes: u64) -> String {
    let units = [("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)];
    let bytes_f = bytes as f64;
    match units.into_iter().find(|(_, size)| bytes_f >= *size) {
        Some((unit, size)) => format!("{:.1} {unit}", bytes_f / size),
        None => format!("{bytes} bytes"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        let check = |bytes, expected: &str| assert_eq!(readable(bytes), expected);
        check(0, "0 bytes");
        check(999, "999 bytes");
        check(1000, "1.0 kB");
        check(767_100_000_000, "767.1 GB");
        check(u64::MAX, "18446744.1 TB");
    }
}
