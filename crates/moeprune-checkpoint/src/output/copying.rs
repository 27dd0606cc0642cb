//! Bytes from file to file.

use std::{fs::File, io};

use crate::positioned::{read_at, write_at};

/// Bytes between two reports of progress, and asked of the system at a time.
const STEP: u64 = 64 << 20;

/// Bytes read and written at a time where the system cannot copy between files.
const BUFFER: usize = 4 << 20;

/// A stored tensor, and where it goes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Piece {
    /// Shard and position of the tensor in it.
    pub(super) place: (usize, usize),
    /// Where it begins in that file.
    pub(super) to: u64,
    /// Shard of the source, and where the tensor begins in that file.
    pub(super) from: (usize, u64),
    pub(super) bytes: u64,
}

impl Piece {
    /// Whether `next` follows in both files.
    pub(super) fn runs_on_in(&self, next: &Self) -> bool {
        self.place.0 == next.place.0
            && self.to + self.bytes == next.to
            && self.from.0 == next.from.0
            && self.from.1 + self.bytes == next.from.1
    }
}

/// Copies bytes between places of two files; `copied` is told the length of each step. Within the system where that can be done: nothing passes through the
/// memory of this process then, and file systems that share blocks may share them.
pub(super) fn copy_bytes(
    (from, from_at): (&File, u64),
    (to, to_at): (&File, u64),
    bytes: u64,
    copied: &mut dyn FnMut(u64),
) -> io::Result<()> {
    let mut done = 0;
    let mut within_system = true;
    let mut buffer = Vec::new();
    while done < bytes {
        let step = STEP.min(bytes - done);
        if within_system {
            match copy_within_system((from, from_at + done), (to, to_at + done), step)? {
                Some(step) => {
                    copied(step);
                    done += step;
                    continue;
                }
                None => {
                    within_system = false;
                    buffer.resize(BUFFER, 0);
                }
            }
        }
        let step = step.min(BUFFER as u64);
        let part = &mut buffer[..step as usize];
        read_at(from, part, from_at + done)?;
        write_at(to, part, to_at + done)?;
        copied(step);
        done += step;
    }
    Ok(())
}

/// How many bytes were copied, at least one; `None` if these files must be read and written, or
/// the first has ended.
#[cfg(target_os = "linux")]
fn copy_within_system(
    (from, mut from_at): (&File, u64),
    (to, mut to_at): (&File, u64),
    bytes: u64,
) -> io::Result<Option<u64>> {
    use rustix::io::Errno;
    let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
    let copied = rustix::io::retry_on_intr(|| {
        rustix::fs::copy_file_range(from, Some(&mut from_at), to, Some(&mut to_at), bytes)
    });
    match copied {
        Ok(0) => Ok(None),
        Ok(copied) => Ok(Some(copied as u64)),
        Err(
            Errno::XDEV
            | Errno::NOSYS
            | Errno::INVAL
            | Errno::OPNOTSUPP
            | Errno::BADF
            | Errno::PERM
            | Errno::OVERFLOW,
        ) => Ok(None),
        Err(e) => Err(e.into()),
    }
}

#[cfg(not(target_os = "linux"))]
fn copy_within_system(
    _from: (&File, u64),
    _to: (&File, u64),
    _bytes: u64,
) -> io::Result<Option<u64>> {
    Ok(None)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// Copies all but the first 3 of `bytes` bytes behind 2 others; a file opened for appending is
    /// one that Linux does not copy to by itself.
    #[track_caller]
    fn check(bytes: usize, append: bool) {
        let dir = tempfile::tempdir().expect("temporary directory");
        let (from, to) = (dir.path().join("from"), dir.path().join("to"));
        let content: Vec<u8> = (0..bytes).map(|i| (i / 3) as u8).collect();
        fs::write(&from, &content).expect("writes");
        fs::write(&to, b"ab").expect("writes");
        let from = File::open(from).expect("opens");
        let target = File::options().append(append).write(true).open(&to).expect("opens");
        let (mut steps, mut end) = (0, 2);
        let mut copied = |step| {
            end += step;
            steps += 1;
        };
        let length = bytes as u64 - 3;
        copy_bytes((&from, 3), (&target, 2), length, &mut copied).expect("copies");
        assert_eq!((end, steps > 0), (2 + length, length > 0));
        assert!(fs::read(to).expect("reads") == [b"ab", &content[3..]].concat());
    }

    #[test]
    fn within_the_system_and_through_a_buffer() {
        for bytes in [3, 4, 10_000, BUFFER + 3, 2 * BUFFER + 8] {
            check(bytes, false);
            check(bytes, true);
        }
    }

    #[test]
    fn a_file_that_ends_early() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let path = dir.path().join("a");
        fs::write(&path, [0; 10]).expect("writes");
        let from = File::open(&path).expect("opens");
        let to = File::create(dir.path().join("b")).expect("creates");
        let copied = copy_bytes((&from, 5), (&to, 0), 6, &mut |_| ());
        assert_eq!(copied.expect_err("too short").kind(), io::ErrorKind::UnexpectedEof);
    }
}
