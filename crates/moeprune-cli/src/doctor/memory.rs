//! Memory, and what limits it.

use std::fs;

use moeprune::engine::AvailableMemory;
use serde::Serialize;

use crate::table::bytes;

#[derive(Debug, Serialize)]
pub(super) struct Memory {
    /// What the machine has.
    total: Option<u64>,
    /// What a run may still take.
    left: Option<u64>,
    /// What leaves no more.
    limit: Option<String>,
}

impl Memory {
    pub(super) fn of_this_machine() -> Self {
        let left = AvailableMemory::now(None);
        Self {
            total: total(&fs::read_to_string("/proc/meminfo").unwrap_or_default()),
            left: left.as_ref().map(|left| left.bytes),
            limit: left.map(|left| left.limit.to_string()),
        }
    }

    pub(super) fn lines(&self) -> Vec<String> {
        let total = match self.total {
            Some(total) => bytes(total).to_string(),
            None => "an unknown amount".to_owned(),
        };
        let left = match (self.left, &self.limit) {
            (Some(left), Some(limit)) => format!("{limit} has {} left", bytes(left)),
            _ => "what is left is not known".to_owned(),
        };
        vec![format!("{total}; {left} (--max-memory sets a lower limit)")]
    }
}

fn total(about: &str) -> Option<u64> {
    let value = about.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    value.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    #[test]
    fn totals() {
        let check = |text: &str, expected: Option<u64>| {
            assert_eq!(super::total(text), expected, "{text}");
        };
        check("MemTotal:  5 kB\nMemFree: 1 kB\n", Some(5120));
        for none in ["", "MemTotal:", "MemTotal: x kB", "MemTotal: 18446744073709551615 kB"] {
            check(none, None);
        }
    }
}
