//! What a process takes while it lives.

use std::{
    fs,
    process::{Child, ExitStatus},
    thread,
    time::Duration,
};

use anyhow::{Result, ensure};

const POLL: Duration = Duration::from_millis(5);

/// The most memory that a process had, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Peak {
    /// That no file lies behind.
    pub(super) anonymous: u64,
    /// All of it, pages of mapped files among it.
    pub(super) resident: u64,
}

/// Looks at a process until it ends.
pub(super) fn watch(mut child: Child) -> Result<(Peak, ExitStatus)> {
    let path = format!("/proc/{}/status", child.id());
    let mut peak = Peak::default();
    let status = loop {
        if let Ok(text) = fs::read_to_string(&path) {
            let now = parse(&text);
            peak.anonymous = peak.anonymous.max(now.anonymous);
            peak.resident = peak.resident.max(now.resident);
        }
        if let Some(status) = child.try_wait()? {
            break status;
        }
        thread::sleep(POLL);
    };
    ensure!(peak.resident > 0 || !status.success(), "{path} told nothing about its memory");
    Ok((peak, status))
}

/// Anonymous memory at the moment, and the most that was resident so far.
fn parse(status: &str) -> Peak {
    let field = |name: &str| -> u64 {
        let value = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        let kib = value.and_then(|v| v.trim().strip_suffix(" kB")).and_then(|v| v.parse().ok());
        1024 * kib.unwrap_or(0)
    };
    Peak { anonymous: field("RssAnon"), resident: field("VmHWM").max(field("VmRSS")) }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn status_files_are_read() {
        fn check(status: &str, anonymous: u64, resident: u64) {
            assert_eq!(parse(status), Peak { anonymous, resident }, "{status}");
        }
        check("VmHWM:\t  20 kB\nVmRSS:\t  12 kB\nRssAnon:\t   7 kB\n", 7 * 1024, 20 * 1024);
        check("VmRSS:\t  12 kB\nRssFile:\t   7 kB\n", 0, 12 * 1024);
        check("Name:\tmoeprune\nState:\tZ (zombie)\n", 0, 0);
        check("", 0, 0);
    }

    #[test]
    fn a_process_is_watched_to_its_end() {
        let sleep = Command::new("sleep").arg("0.05").spawn().unwrap();
        let (peak, status) = watch(sleep).unwrap();
        assert!(peak.resident >= peak.anonymous && status.success(), "{peak:?}");
        let (_, status) =
            watch(Command::new("sh").args(["-c", "sleep 0.05; exit 3"]).spawn().unwrap()).unwrap();
        assert_eq!(status.code(), Some(3));
    }
}
