//! Ctrl-C, SIGTERM and SIGHUP: the first asks a run to stop, the second ends it.

use std::{
    io::{self, Write},
    sync::{
        Once,
        atomic::{AtomicBool, AtomicI32, Ordering},
        mpsc,
    },
    time::Duration,
};

use moeprune_files::Destination;

/// Whether a signal has come.
static CAME: AtomicBool = AtomicBool::new(false);
/// The signal that asked first; 0 if none did.
static ASKED: AtomicI32 = AtomicI32::new(0);
static RESUMABLE: AtomicBool = AtomicBool::new(false);
/// Whether the work is done and its result is being delivered.
static DELIVERING: AtomicBool = AtomicBool::new(false);

/// A line about a signal must not keep the next signal waiting, also where standard error is not read.
const PATIENCE: Duration = Duration::from_millis(200);

/// What shells add to a signal's number where a process ended by it.
const BY_SIGNAL: i32 = 128;

/// SIGINT, which Ctrl-C sends.
const INTERRUPT: i32 = 2;

/// From now on the first Ctrl-C, SIGTERM or SIGHUP asks the run to stop and the second ends the
/// process. A signal that the process was started to ignore stays ignored (`nohup`).
pub fn listen() {
    static LISTENING: Once = Once::new();
    LISTENING.call_once(|| {
        // Where no handler can be installed, the signals end the process as they always did.
        let _ = install();
    });
}

/// As `listen`, for a run that can be gone on with: the second signal says so.
pub fn listen_resumable() {
    RESUMABLE.store(true, Ordering::Relaxed);
    listen();
}

/// The exit code of a run that was asked to stop: 130 by Ctrl-C, 143 by SIGTERM, 129 by SIGHUP.
#[must_use]
pub fn stopped_code() -> u8 {
    let signal = match ASKED.load(Ordering::Relaxed) {
        0 => INTERRUPT,
        signal => signal,
    };
    u8::try_from(BY_SIGNAL + signal).unwrap_or(u8::MAX)
}

/// Writes a result. There are no safe points any more, so the first signal ends the process: opening a
/// FIFO waits for a reader, for ever if none comes.
pub(crate) fn deliver(
    to: &Destination,
    write: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> Result<(), moeprune_files::Error> {
    DELIVERING.store(true, Ordering::Relaxed);
    let written = to.write(write);
    DELIVERING.store(false, Ordering::Relaxed);
    written
}

pub(crate) fn asked() -> bool {
    ASKED.load(Ordering::Relaxed) != 0
}

/// A signal has come.
fn on(signal: i32) {
    let first = !CAME.swap(true, Ordering::Relaxed);
    if first && !DELIVERING.load(Ordering::Relaxed) {
        let again = if signal == INTERRUPT { "Ctrl-C again" } else { "a second signal" };
        tell(format!("stopping at the next safe point; {again} stops at once"));
        // Only now, so that the run does not end before it is said why.
        ASKED.store(signal, Ordering::Relaxed);
        return;
    }
    let how = match RESUMABLE.load(Ordering::Relaxed) {
        true => "; if a layer was finished, the same command with --resume continues after it",
        false => "",
    };
    tell(format!("stopped at once{how}"));
    std::process::exit(BY_SIGNAL + signal);
}

/// Writes a line to standard error, or gives up after a moment.
fn tell(line: String) {
    let (told, heard) = mpsc::channel();
    std::thread::spawn(move || {
        crate::log::say(&line);
        let _ = told.send(());
    });
    let _ = heard.recv_timeout(PATIENCE);
}

#[cfg(unix)]
fn install() -> io::Result<()> {
    use signal_hook::{
        consts::{SIGHUP, SIGINT, SIGTERM},
        iterator::Signals,
    };
    let ignored = ignored_signals();
    let listened =
        [SIGINT, SIGTERM, SIGHUP].into_iter().filter(|signal| ignored >> (signal - 1) & 1 == 0);
    let mut signals = Signals::new(listened)?;
    std::thread::Builder::new()
        .name("signals".to_owned())
        .spawn(move || signals.forever().for_each(on))
        .map(drop)
}

#[cfg(not(unix))]
fn install() -> Result<(), ctrlc::Error> {
    ctrlc::set_handler(|| on(INTERRUPT))
}

/// The signals that this process was started to ignore, the lowest bit for signal 1. None where
/// the system has no file that says so.
#[cfg(unix)]
fn ignored_signals() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    ignored_in(&status)
}

#[cfg(unix)]
fn ignored_in(status: &str) -> u64 {
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0)
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[test]
    fn ignored_signals_are_found() {
        assert_eq!(ignored_in("Name:\tx\nSigIgn:\t0000000000001001\nSigCgt:\t02\n"), 0x1001);
        for nothing in ["", "SigIgn:", "SigIgn:\tzz\n"] {
            assert_eq!(ignored_in(nothing), 0);
        }
    }
}
