//! How fast the disk is, without the system's cache where it lets itself be left out.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::{FileExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    time::Instant,
};

use rayon::prelude::*;
use rustix::fs::{Advice, OFlags, fadvise, statvfs};

use super::ceiling::Ceiling;
use moeprune::Error;

/// Bytes of one request.
const REQUEST: usize = 8 << 20;
/// What the system asks memory and places to be multiples of.
const PAGE: usize = 4096;
/// Bytes that are written at most.
const WRITTEN: u64 = 4 << 30;

/// Bytes that are free for this user.
pub(super) fn free(dir: &Path) -> Result<u64, Error> {
    let disk = statvfs(dir).map_err(|e| Error::io(dir, "inspect", e.into()))?;
    Ok(disk.f_bavail.saturating_mul(disk.f_frsize))
}

/// Drops files from the system's cache. What is still to be written stays.
pub(super) fn drop_cached(files: &[PathBuf]) -> Result<(), Error> {
    for path in files {
        let drop = || -> io::Result<()> {
            let file = File::open(path)?;
            file.sync_all()?;
            Ok(fadvise(&file, 0, None, Advice::DontNeed)?)
        };
        drop().map_err(|e| Error::io(path, "drop from the cache", e))?;
    }
    Ok(())
}

/// Reads files front to back, several requests at a time.
pub(super) fn read(files: &[PathBuf]) -> Result<Ceiling, Error> {
    drop_cached(files)?;
    let (mut bytes, mut seconds, mut direct) = (0, 0.0, true);
    for path in files {
        let began = Instant::now();
        let (length, past_cache) = read_file(path).map_err(|e| Error::io(path, "read", e))?;
        seconds += began.elapsed().as_secs_f64();
        bytes += length;
        direct &= past_cache;
    }
    let how = match direct {
        true => "the layer's files, 8 MiB requests on all threads, O_DIRECT",
        false => "the layer's files, 8 MiB requests on all threads, dropped from the cache before",
    };
    Ok(Ceiling::bytes("disk read", how, bytes, seconds))
}

fn read_file(path: &Path) -> io::Result<(u64, bool)> {
    match read_by(path, OFlags::DIRECT) {
        Err(e) if e.kind() == io::ErrorKind::InvalidInput => {
            Ok((read_by(path, OFlags::empty())?, false))
        }
        read => Ok((read?, true)),
    }
}

fn read_by(path: &Path, flags: OFlags) -> io::Result<u64> {
    let file = OpenOptions::new().read(true).custom_flags(flags.bits() as i32).open(path)?;
    let length = file.metadata()?.len();
    let requests: Vec<u64> = (0..length).step_by(REQUEST).collect();
    requests.into_par_iter().try_for_each_init(
        || Aligned::new(0),
        |buffer, at| {
            let wanted = (length - at).min(REQUEST as u64) as usize;
            let mut got = 0;
            while got < wanted {
                // A whole request also at the end: places and lengths are multiples of a page.
                match file.read_at(&mut buffer.bytes()[got..], at + got as u64)? {
                    0 => return Err(io::Error::from(io::ErrorKind::UnexpectedEof)),
                    n => got += n,
                }
            }
            Ok::<(), io::Error>(())
        },
    )?;
    Ok(length)
}

/// Writes a file in `dir` until it is durable, and removes it.
pub(super) fn write(dir: &Path, bytes: u64) -> Result<Ceiling, Error> {
    let bytes = bytes.clamp(REQUEST as u64, WRITTEN).next_multiple_of(REQUEST as u64);
    let path = dir.join(format!(".written.{}", std::process::id()));
    let written = match write_by(&path, bytes, OFlags::DIRECT) {
        Err(e) if e.kind() == io::ErrorKind::InvalidInput => {
            write_by(&path, bytes, OFlags::empty()).map(|seconds| (seconds, false))
        }
        written => written.map(|seconds| (seconds, true)),
    };
    // Whether it is there or not, it is of no use any more.
    let _ = fs::remove_file(&path);
    let (seconds, direct) = written.map_err(|e| Error::io(&path, "write", e))?;
    let how = match direct {
        true => "8 MiB requests on all threads, O_DIRECT, until durable",
        false => "8 MiB requests on all threads, through the cache, until durable",
    };
    Ok(Ceiling::bytes("disk write", how, bytes, seconds))
}

fn write_by(path: &Path, bytes: u64, flags: OFlags) -> io::Result<f64> {
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .custom_flags(flags.bits() as i32)
        .open(path)?;
    file.set_len(bytes)?;
    let began = Instant::now();
    let requests: Vec<u64> = (0..bytes).step_by(REQUEST).collect();
    requests.into_par_iter().try_for_each_init(
        // Not zeros, which some disks do not store.
        || Aligned::new(0x5a),
        |buffer, at| file.write_all_at(buffer.bytes(), at),
    )?;
    file.sync_all()?;
    Ok(began.elapsed().as_secs_f64())
}

/// Memory for a request, where the system wants it.
struct Aligned(Vec<u8>);

impl Aligned {
    fn new(value: u8) -> Self {
        Self(vec![value; REQUEST + PAGE])
    }

    fn bytes(&mut self) -> &mut [u8] {
        let begin = self.0.as_ptr().align_offset(PAGE).min(PAGE);
        &mut self.0[begin..][..REQUEST]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_bytes_are_read_and_what_is_written_is_gone() {
        // The second has no disk below it.
        for folder in [std::env::temp_dir().as_path(), Path::new("/dev/shm")] {
            let Ok(dir) = tempfile::tempdir_in(folder) else { continue };
            let path = dir.path().join("file");
            fs::write(&path, vec![1; REQUEST + 12_345]).unwrap();
            let read = read(&[path]).unwrap();
            assert_eq!(read.work, REQUEST as u64 + 12_345);
            let written = write(dir.path(), 1).unwrap();
            assert_eq!(written.work, REQUEST as u64);
            assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        }
    }
}
