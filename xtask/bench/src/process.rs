//! What a process takes, all of its threads and children together.

use std::{
    fs::{self, File},
    path::Path,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use serde::Serialize;

/// What a process took.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct Taken {
    /// Seconds by the clock on the wall.
    pub(crate) wall: f64,
    /// Seconds of all processors.
    pub(crate) processor: f64,
    /// Bytes that were resident at most.
    pub(crate) peak: u64,
}

const POLL: Duration = Duration::from_millis(5);

/// Runs a command to its end, with what it prints in `log`. Processor time is read while the process is ended and not yet
/// waited for; its memory is read every few milliseconds, and the system keeps the most that it was.
///
/// # Errors
/// If it cannot be started or fails, with the end of what it printed.
pub(crate) fn watch(command: &mut Command, log: &Path) -> Result<Taken> {
    let output = File::create(log).with_context(|| format!("cannot write {}", log.display()))?;
    command.stdout(output.try_clone()?).stderr(output);
    let began = Instant::now();
    let started = command.get_program().to_string_lossy().into_owned();
    let mut child = command.spawn().with_context(|| format!("cannot start {started}"))?;
    let place = format!("/proc/{}", child.id());
    let (mut peak, mut processor) = (0, 0.0);
    loop {
        let stat = fs::read_to_string(format!("{place}/stat")).unwrap_or_default();
        let Some((ended, ticks)) = times(&stat) else { break };
        processor = ticks as f64 / rustix::param::clock_ticks_per_second() as f64;
        if ended {
            break;
        }
        let status = fs::read_to_string(format!("{place}/status")).unwrap_or_default();
        peak = peak.max(most_resident(&status));
        thread::sleep(POLL);
    }
    let wall = began.elapsed().as_secs_f64();
    let ended = child.wait()?;
    if !ended.success() {
        let said = fs::read_to_string(log).unwrap_or_default();
        let lines: Vec<&str> = said.lines().collect();
        let last = lines[lines.len().saturating_sub(12)..].join("\n");
        bail!("{started} failed ({ended}):\n{last}");
    }
    Ok(Taken { wall, processor, peak })
}

/// Whether the process of a `stat` file has ended, and its ticks: its own and of children that it waited for, user and system.
fn times(stat: &str) -> Option<(bool, u64)> {
    // The name, in parentheses, may hold anything.
    let (_, fields) = stat.rsplit_once(')')?;
    let fields: Vec<&str> = fields.split_whitespace().collect();
    let ticks = |field: &&str| field.parse::<u64>().ok();
    let sum = fields.get(11..15)?.iter().filter_map(ticks).sum();
    Some((matches!(*fields.first()?, "Z" | "X"), sum))
}

/// The most that was resident by a `status` file, in bytes; 0 where it says nothing.
fn most_resident(status: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let number = line.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok());
    number.unwrap_or(0) * 1024
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_after_any_name() {
        let check = |name: &str, state: &str, expected| {
            let stat = format!("7 ({name}) {state} 1 7 7 0 -1 4194560 9 9 9 9 100 20 3 4 20 0 2 0");
            assert_eq!(times(&stat), expected);
        };
        check("sleep", "S", Some((false, 127)));
        check("a) Z (b", "R", Some((false, 127)));
        check("python3", "Z", Some((true, 127)));
        assert_eq!(times(""), None);
        assert_eq!(times("7 (x) Z 1"), None);
    }

    #[test]
    fn the_most_that_was_resident() {
        assert_eq!(most_resident("VmPeak:\t 9 kB\nVmHWM:\t  20 kB\nVmRSS:\t 1 kB\n"), 20 * 1024);
        assert_eq!(most_resident("Name:\tx\n"), 0);
    }

    #[test]
    fn a_process_is_measured_and_a_failure_says_what_it_printed() {
        let log = tempfile::NamedTempFile::new().unwrap();
        let shell = |text: &str| {
            let mut command = Command::new("sh");
            watch(command.args(["-c", text]), log.path())
        };
        let taken = shell("sleep 0.05").unwrap();
        assert!(taken.peak > 0 && taken.wall >= 0.05, "{taken:?}");
        let error = shell("echo one; echo two; exit 3").unwrap_err().to_string();
        assert!(error.contains("sh failed") && error.ends_with("one\ntwo"), "{error}");
    }
}
