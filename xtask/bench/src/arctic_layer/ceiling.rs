//! The best rate of something that is done again and again.

use std::time::Instant;

use moeprune::Error;
use serde::Serialize;

/// A measurement is repeated for so long, and at least three times.
const SECONDS: f64 = 0.5;

/// The best that was seen of something.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Ceiling {
    pub(super) name: String,
    /// What was done, as text.
    pub(super) how: String,
    /// `B` or `FLOP`.
    pub(super) unit: &'static str,
    /// Work of one go.
    pub(super) work: u64,
    pub(super) seconds: f64,
    /// Work per second.
    pub(super) rate: f64,
}

impl Ceiling {
    pub(super) fn bytes(name: &str, how: &str, work: u64, seconds: f64) -> Self {
        Self::new(name, how, "B", work, seconds)
    }

    pub(super) fn new(name: &str, how: &str, unit: &'static str, work: u64, seconds: f64) -> Self {
        let rate = work as f64 / seconds.max(f64::MIN_POSITIVE);
        Self { name: name.into(), how: how.into(), unit, work, seconds, rate }
    }
}

/// The fewest seconds of several goes.
pub(super) fn best(go: &mut dyn FnMut() -> Result<(), Error>) -> Result<f64, Error> {
    go()?;
    let (began, mut best, mut goes) = (Instant::now(), f64::INFINITY, 0);
    while goes < 3 || began.elapsed().as_secs_f64() < SECONDS {
        let one = Instant::now();
        go()?;
        best = best.min(one.elapsed().as_secs_f64());
        goes += 1;
    }
    Ok(best)
}
