//! What this process has used so far.

use std::{fs, time::Instant};

use anyhow::{Context as _, Result};
use rustix::time::{ClockId, clock_gettime};

/// Wall time, processor time of all threads, and pages that had to be handed out (minor page faults).
#[derive(Debug, Clone, Copy)]
pub(crate) struct Now {
    wall: Instant,
    processor: f64,
    faults: u64,
}

/// The same between two moments, in seconds.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Spent {
    pub(crate) wall: f64,
    pub(crate) processor: f64,
    pub(crate) faults: f64,
}

impl Spent {
    pub(crate) fn now() -> Result<Now> {
        let stat = fs::read_to_string("/proc/self/stat")?;
        // The program's name, in brackets, may have spaces.
        let (_, fields) = stat.rsplit_once(')').context("/proc/self/stat names the program")?;
        let faults = fields.split_ascii_whitespace().nth(7).context("a tenth field")?;
        let time = clock_gettime(ClockId::ProcessCPUTime);
        let processor = time.tv_sec as f64 + time.tv_nsec as f64 / 1e9;
        Ok(Now { wall: Instant::now(), processor, faults: faults.parse()? })
    }

    /// The share of one of `count`.
    pub(crate) fn each(self, count: usize) -> Self {
        let count = count.max(1) as f64;
        Self {
            wall: self.wall / count,
            processor: self.processor / count,
            faults: self.faults / count,
        }
    }
}

impl Now {
    pub(crate) fn since(self, begin: Self) -> Spent {
        Spent {
            wall: (self.wall - begin.wall).as_secs_f64(),
            processor: self.processor - begin.processor,
            faults: (self.faults - begin.faults) as f64,
        }
    }
}
