//! Whether a disk has room.

use std::path::Path;

use crate::Error;

/// Checks that the file system of `dir` has room for `bytes`, of which some may be in `dir`
/// already. Passes where the system cannot tell.
pub(super) fn check(dir: &Path, bytes: u64, out: &Path) -> Result<(), Error> {
    let Some((free, taken)) = free_and_taken(dir)? else { return Ok(()) };
    let refused = |reason| Error::Output { path: out.to_owned(), reason };
    check_numbers(bytes, free, taken).map_err(refused)
}

fn check_numbers(bytes: u64, free: u64, taken: u64) -> Result<(), String> {
    let available = free.saturating_add(taken);
    if bytes <= available {
        return Ok(());
    }
    let begun = match taken {
        0 => String::new(),
        taken => format!(" beside the {} that are written", readable(taken)),
    };
    Err(format!(
        "needs {}, but its file system has {} free{begun}; make room for {} more, or choose \
         another place",
        readable(bytes),
        readable(free),
        readable(bytes - available)
    ))
}

/// Bytes that are free for this user, and bytes that the files in `dir` take.
#[cfg(unix)]
fn free_and_taken(dir: &Path) -> Result<Option<(u64, u64)>, Error> {
    let Ok(system) = rustix::fs::statvfs(dir) else { return Ok(None) };
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
    const BLOCK: u64 = 512; // that of st_blocks, on every file system
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
    #[cfg(unix)]
    use std::fs::File;

    use super::*;

    #[test]
    fn enough_and_too_little() {
        let check = |bytes, free, taken, expected: Result<(), &str>| {
            let got = check_numbers(bytes, free, taken);
            assert_eq!(got.as_ref().map_err(String::as_str), expected.as_ref().map_err(|e| *e));
        };
        check(0, 0, 0, Ok(()));
        check(10, 10, 0, Ok(()));
        check(10, 4, 6, Ok(()));
        check(u64::MAX, u64::MAX, u64::MAX, Ok(()));
        check(
            3_000_000_000,
            1_000_000_000,
            0,
            Err("needs 3.0 GB, but its file system has 1.0 GB free; make room for 2.0 GB more, \
                 or choose another place"),
        );
        check(
            3_000_000_000,
            1_000_000_000,
            500_000_000,
            Err("needs 3.0 GB, but its file system has 1.0 GB free beside the 500.0 MB that are \
                 written; make room for 1.5 GB more, or choose another place"),
        );
    }

    #[test]
    #[cfg(unix)]
    fn holes_take_nothing() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let empty = taken(dir.path()).expect("counts");
        let file = File::create(dir.path().join("hole")).expect("creates");
        file.set_len(1 << 40).expect("makes a hole");
        assert!(taken(dir.path()).expect("counts") < empty + (1 << 20));
        std::fs::create_dir(dir.path().join("state")).expect("creates");
        std::fs::write(dir.path().join("state/bytes"), vec![1; 3 << 20]).expect("writes");
        let written = File::open(dir.path().join("state/bytes")).expect("opens");
        written.sync_all().expect("syncs"); // blocks may be counted late
        assert!(taken(dir.path()).expect("counts") >= empty + (3 << 20));
    }

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
