//! How fast a machine is.

use serde::Serialize;

/// How fast a machine is, for estimates of time and for what is cheaper to read again than to compute again.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[expect(clippy::exhaustive_structs, reason = "plain data")]
pub struct Rates {
    /// Bytes per second that the disk reads, and writes.
    pub disk: f64,
    /// Floating-point operations per second in matrix products.
    pub compute: f64,
}

/// What two cores of an AMD EPYC with AVX-512 and their disk did (`docs/performance.md`): 1.4 GB/s, and
/// 200 GFLOP/s in f32.
impl Default for Rates {
    fn default() -> Self {
        Self { disk: 1.4e9, compute: 200e9 }
    }
}

impl Rates {
    /// What a GPU and the disk beside it are taken to do: 200 TFLOP/s, and the disk as by default.
    pub(crate) fn of_gpu() -> Self {
        Self { compute: 200e12, ..Self::default() }
    }
}
