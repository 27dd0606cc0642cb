//! Bytes from file to file.

use std::{fs::File, io, sync::mpsc, thread};

use super::uncached::{Block, Uncached};
use crate::positioned::read_at;

/// Bytes between two reports of progress, and asked of the system at a time.
const STEP: u64 = 64 << 20;

/// Bytes read and written at a time where the file system does not copy by itself.
const BLOCK: u64 = 4 << 20;

/// How many of them there are.
const BLOCKS: usize = 4;

/// Copies bytes between places of two files; `copied` is called with the length of each step.
///
/// Where the file system copies by itself, nothing passes through the memory of this process, and
/// blocks may be shared.
///
/// # Errors
/// If reading or writing fails; of the kind [`UnexpectedEof`](io::ErrorKind::UnexpectedEof) if the
/// first file ends before.
pub fn copy_bytes(
    (from, from_at): (&File, u64),
    (to, to_at): (&File, u64),
    bytes: u64,
    copied: &mut dyn FnMut(u64),
) -> io::Result<()> {
    let mut done = 0;
    if file_system_copies(to) {
        while done < bytes {
            let step = STEP.min(bytes - done);
            let Some(step) = copy_within_system((from, from_at + done), (to, to_at + done), step)?
            else {
                break;
            };
            copied(step);
            done += step;
        }
    }
    copy_through_memory((from, from_at + done), (to, to_at + done), bytes - done, copied)
}

/// Reads in one thread and writes in another.
fn copy_through_memory(
    (from, from_at): (&File, u64),
    (to, to_at): (&File, u64),
    bytes: u64,
    copied: &mut dyn FnMut(u64),
) -> io::Result<()> {
    let (empty, to_fill) = mpsc::channel();
    let (full, to_write) = mpsc::sync_channel::<io::Result<(Block, u64, usize)>>(BLOCKS);
    for _ in 0..BLOCKS {
        empty.send(Block::new(BLOCK as usize)).expect("its receiver is held here");
    }
    // Owns its channel ends: the reader stops when the writer fails.
    thread::scope(move |scope| {
        scope.spawn(move || {
            let mut done = 0;
            while done < bytes {
                let at = to_at + done;
                let length = (BLOCK - at % BLOCK).min(bytes - done);
                let Ok(mut block) = to_fill.recv() else { return };
                let read = read_at(from, block.at(at, length as usize), from_at + done);
                if full.send(read.map(|()| (block, at, length as usize))).is_err() {
                    return;
                }
                done += length;
            }
        });
        let mut to = Uncached::new(to);
        for read in to_write {
            let (mut block, at, length) = read?;
            to.write_at(block.at(at, length), at)?;
            copied(length as u64);
            // The reader has ended if it needs no more.
            let _ = empty.send(block);
        }
        Ok(())
    })
}

/// Whether to ask the system for a copy within this file's file system.
///
/// Where the file system has no operation for it, Linux copies page by page into its cache,
/// which is slower than [`copy_through_memory`] (docs/performance.md has measurements: `cp` does
/// that).
#[cfg(target_os = "linux")]
fn file_system_copies(file: &File) -> bool {
    /// ext2, ext3 and ext4; tmpfs.
    const WITHOUT: [u64; 2] = [0xef53, 0x0102_1994];
    rustix::fs::fstatfs(file).is_ok_and(|system| !WITHOUT.contains(&(system.f_type as u64)))
}

#[cfg(not(target_os = "linux"))]
fn file_system_copies(_file: &File) -> bool {
    false
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
            | Errno::ACCESS
            | Errno::TXTBSY
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
    use std::{fs, path::Path};

    use super::*;

    /// Copies all but the first 3 of `bytes` bytes behind 2 others, with either way.
    #[track_caller]
    fn check(bytes: usize) {
        let dir = tempfile::tempdir().expect("temporary directory");
        let (from, to) = (dir.path().join("from"), dir.path().join("to"));
        let content: Vec<u8> = (0..bytes).map(|i| (i / 3) as u8).collect();
        fs::write(&from, &content).expect("writes");
        let from = File::open(from).expect("opens");
        let length = bytes as u64 - 3;
        let copied_is_right = |steps: &[u64]| {
            assert_eq!(steps.iter().sum::<u64>(), length);
            assert!(steps.iter().all(|&step| 0 < step && step <= STEP));
            assert!(fs::read(&to).expect("reads") == [b"ab", &content[3..]].concat());
        };

        fs::write(&to, b"ab").expect("writes");
        let target = File::options().write(true).open(&to).expect("opens");
        let mut steps = Vec::new();
        copy_bytes((&from, 3), (&target, 2), length, &mut |step| steps.push(step)).expect("copies");
        copied_is_right(&steps);

        if cfg!(target_os = "linux") {
            fs::write(&to, b"ab").expect("writes");
            let mut done = 0;
            let mut steps = Vec::new();
            while done < length {
                let step =
                    copy_within_system((&from, 3 + done), (&target, 2 + done), length - done)
                        .expect("copies")
                        .expect("can be done");
                done += step;
                steps.push(step);
            }
            copied_is_right(&steps);
        }
    }

    #[test]
    fn within_the_system_and_through_memory() {
        for bytes in [3, 4, 10_000, BLOCK as usize + 3, 2 * BLOCK as usize + 8, 40 << 20] {
            check(bytes);
        }
    }

    fn failure(from_bytes: usize, to: impl FnOnce(&Path) -> File, bytes: u64) -> io::ErrorKind {
        let dir = tempfile::tempdir().expect("temporary directory");
        let path = dir.path().join("a");
        fs::write(&path, vec![0; from_bytes]).expect("writes");
        let from = File::open(&path).expect("opens");
        let copied = copy_bytes((&from, 5), (&to(dir.path()), 0), bytes, &mut |_| ());
        copied.expect_err("fails").kind()
    }

    #[test]
    fn a_file_that_ends_early() {
        let create = |dir: &Path| File::create(dir.join("b")).expect("creates");
        assert_eq!(failure(10, create, 6), io::ErrorKind::UnexpectedEof);
        let many_blocks = (BLOCKS + 3) * BLOCK as usize;
        assert_eq!(failure(many_blocks, create, many_blocks as u64), io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn a_target_that_cannot_be_written() {
        let many_blocks = (2 * BLOCKS + 3) * BLOCK as usize;
        let kind = failure(
            many_blocks,
            |dir| {
                fs::write(dir.join("b"), "").expect("writes");
                File::open(dir.join("b")).expect("opens")
            },
            many_blocks as u64 - 5,
        );
        assert_ne!(kind, io::ErrorKind::UnexpectedEof);
    }
}
