//! Timing work that a device may do later than it is asked to.

use std::time::Instant;

use candle_core::Device;

use crate::{Error, Execution};

/// Time, and the work it was spent on.
#[derive(Debug, Clone, Copy, Default)]
pub struct Spent {
    /// How much work, in the unit of its step.
    pub work: u64,
    /// How long it took.
    pub seconds: f64,
}

impl Spent {
    /// Work a second.
    pub fn rate(&self) -> f64 {
        self.work as f64 / self.seconds.max(f64::MIN_POSITIVE)
    }
}

/// Does some work and adds what it took, queued work of the device included.
pub(super) fn timed<R>(
    on: &Execution,
    spent: &mut Spent,
    work: u64,
    run: impl FnOnce() -> Result<R, Error>,
) -> Result<R, Error> {
    timed_bytes(on, spent, || Ok((work as usize, run()?)))
}

/// The same for work that says how much it was.
pub(super) fn timed_bytes<R>(
    on: &Execution,
    spent: &mut Spent,
    run: impl FnOnce() -> Result<(usize, R), Error>,
) -> Result<R, Error> {
    settle(on.compute().device())?;
    let began = Instant::now();
    let (work, result) = run()?;
    settle(on.compute().device())?;
    spent.seconds += began.elapsed().as_secs_f64();
    spent.work += work as u64;
    Ok(result)
}

/// Waits until all that was asked of a device is done, on every stream.
pub fn settle(device: &Device) -> Result<(), Error> {
    #[cfg(feature = "cuda")]
    if let Ok(device) = device.as_cuda_device() {
        let context = device.cuda_stream().context().clone();
        context.synchronize().map_err(candle_core::Error::wrap)?;
    }
    Ok(device.synchronize()?)
}
