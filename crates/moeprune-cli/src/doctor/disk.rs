//! How fast the disk of a folder is.

use std::{
    fs::File,
    io::{self, Read as _, Seek as _, Write as _},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use serde::Serialize;

use crate::table::{bytes, seconds};

/// So much is written at most.
const MOST: u64 = 256 << 20;

/// So much of what is free is written at most.
const SHARE_OF_FREE: u64 = 16;

const BLOCK: usize = 4 << 20;

/// So long is written, and read, at most.
const PATIENCE: Duration = Duration::from_millis(900);

#[derive(Debug, Serialize)]
pub(super) struct Disk {
    dir: PathBuf,
    /// Bytes that are free for this user.
    free: Option<u64>,
    #[serde(flatten)]
    rates: Option<DiskRates>,
    /// Why there are no rates.
    problem: Option<String>,
}

/// What was measured, in bytes and seconds.
#[derive(Debug, Serialize)]
struct DiskRates {
    measured_bytes: u64,
    measured_seconds: f64,
    /// Bytes a second, made durable.
    write_rate: f64,
    /// Bytes a second, of what the system was told to forget.
    read_rate: f64,
}

impl Disk {
    pub(super) fn measure(dir: &Path) -> Self {
        let free = free(dir);
        let most = free.map_or(MOST, |free| MOST.min(free / SHARE_OF_FREE));
        let measured = match most >= BLOCK as u64 {
            true => rates(dir, most).map_err(|error| format!("not measured: {error}")),
            false => Err("not measured: it is nearly full".to_owned()),
        };
        let dir = dir.canonicalize().unwrap_or_else(|_| dir.to_owned());
        match measured {
            Ok(rates) => Self { dir, free, rates: Some(rates), problem: None },
            Err(problem) => Self { dir, free, rates: None, problem: Some(problem) },
        }
    }

    pub(super) fn lines(&self) -> Vec<String> {
        let free = self.free.map_or_else(
            || "free space not known".to_owned(),
            |free| format!("{} free", bytes(free)),
        );
        let rates = match (&self.rates, &self.problem) {
            (Some(rates), _) => format!(
                "writes {:.2} GB/s, reads {:.2} GB/s ({} in {}; --disk-rate takes the lower)",
                rates.write_rate / 1e9,
                rates.read_rate / 1e9,
                bytes(rates.measured_bytes),
                seconds(rates.measured_seconds)
            ),
            (None, problem) => problem.clone().unwrap_or_default(),
        };
        vec![format!("{}: {free}", self.dir.display()), rates]
    }
}

/// Writes at most so many bytes to a file that has no name, and reads them again. The system removes it when the process
/// ends, in any way.
fn rates(dir: &Path, most: u64) -> io::Result<DiskRates> {
    let began = Instant::now();
    let mut file = tempfile::tempfile_in(dir)?;
    let block = noise(BLOCK);
    let (written, write_rate) = write(&mut file, &block, most)?;
    forget(&file, written);
    let read_rate = read(&mut file, block)?;
    let measured_seconds = began.elapsed().as_secs_f64();
    Ok(DiskRates { measured_bytes: written, measured_seconds, write_rate, read_rate })
}

/// Runs of doubling length, each made durable, as long as the next one can be expected to end in time. The rate is of
/// the last, the longest.
fn write(file: &mut File, block: &[u8], most: u64) -> io::Result<(u64, f64)> {
    let began = Instant::now();
    let (mut written, mut run) = (0, 1);
    loop {
        let begun = Instant::now();
        for _ in 0..run {
            file.write_all(block)?;
        }
        file.sync_data()?;
        let (bytes, time) = (run * block.len() as u64, begun.elapsed());
        written += bytes;
        let is_next_late = began.elapsed() + 2 * time > PATIENCE;
        run *= 2;
        if is_next_late || written + run * block.len() as u64 > most {
            return Ok((written, bytes as f64 / time.as_secs_f64().max(1e-9)));
        }
    }
}

fn read(file: &mut File, mut block: Vec<u8>) -> io::Result<f64> {
    file.rewind()?;
    let began = Instant::now();
    let mut all = 0;
    while began.elapsed() < PATIENCE {
        match file.read(&mut block)? {
            0 => break,
            count => all += count,
        }
    }
    Ok(all as f64 / began.elapsed().as_secs_f64().max(1e-9))
}

/// Bytes that no file system makes smaller.
fn noise(len: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut bytes = Vec::with_capacity(len);
    while bytes.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

/// Has the system drop what it keeps of a file in memory, where it can.
#[cfg(target_os = "linux")]
fn forget(file: &File, len: u64) {
    let len = std::num::NonZeroU64::new(len);
    let _ = rustix::fs::fadvise(file, 0, len, rustix::fs::Advice::DontNeed);
}

#[cfg(not(target_os = "linux"))]
fn forget(_file: &File, _len: u64) {}

#[cfg(unix)]
fn free(dir: &Path) -> Option<u64> {
    let system = rustix::fs::statvfs(dir).ok()?;
    // Some network file systems do not count.
    (system.f_blocks > 0).then(|| system.f_bavail.saturating_mul(system.f_frsize))
}

#[cfg(not(unix))]
fn free(_dir: &Path) -> Option<u64> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_measured_and_left_empty() {
        let folder = tempfile::tempdir().unwrap();
        let disk = Disk::measure(folder.path());
        let rates = disk.rates.as_ref().unwrap();
        assert!(rates.write_rate > 0.0 && rates.read_rate > 0.0, "{rates:?}");
        assert!((BLOCK as u64..=MOST).contains(&rates.measured_bytes), "{rates:?}");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn what_is_missing_is_said() {
        let folder = tempfile::tempdir().unwrap();
        let disk = Disk::measure(&folder.path().join("none"));
        assert!(disk.rates.is_none());
        assert!(disk.lines().concat().contains("not measured"), "{disk:?}");
    }
}
