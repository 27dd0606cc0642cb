//! Time and memory of the steps of a run.

use std::time::Instant;

use serde::{Deserialize, Serialize};

/// Time and memory of one step.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[expect(clippy::exhaustive_structs, reason = "a file format")]
pub struct StageReport {
    /// Which step.
    pub name: String,
    /// Wall time.
    pub seconds: f64,
    /// Largest resident set of the process up to the end of the step, where the system tells.
    pub peak_rss_bytes: Option<u64>,
}

/// Measures the steps of a run.
#[derive(Debug, Clone)]
pub struct StageClock {
    last: Instant,
    stages: Vec<StageReport>,
}

impl Default for StageClock {
    fn default() -> Self {
        Self::since(Instant::now())
    }
}

impl StageClock {
    /// One whose first step began earlier.
    pub(crate) fn since(began: Instant) -> Self {
        Self { last: began, stages: Vec::new() }
    }

    /// The steps of work that several processes shared: seconds of all of them together, and the largest memory.
    pub(crate) fn of_all<'a>(processes: impl Iterator<Item = &'a [StageReport]>) -> Self {
        let mut clock = Self::default();
        for step in processes.flatten() {
            match clock.stages.iter_mut().find(|stage| stage.name == step.name) {
                None => clock.stages.push(step.clone()),
                Some(stage) => {
                    stage.seconds += step.seconds;
                    stage.peak_rss_bytes = stage.peak_rss_bytes.max(step.peak_rss_bytes);
                }
            }
        }
        clock
    }

    /// The steps that ended, in order.
    #[must_use]
    pub fn stages(&self) -> &[StageReport] {
        &self.stages
    }

    /// Ends a step that began when the last one ended.
    pub fn end_step(&mut self, name: &str) {
        let now = Instant::now();
        self.stages.push(StageReport {
            name: name.to_owned(),
            seconds: (now - self.last).as_secs_f64(),
            peak_rss_bytes: peak_rss_bytes(),
        });
        self.last = now;
    }
}

/// Largest resident set so far, from `/proc`; `None` where there is none.
fn peak_rss_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kilobytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kilobytes * 1024)
}
