//! Timing work that a device may do later than it is called for.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use candle_core::Device;
use moeprune_core::{StageError, StoredWeight, TensorId, TensorSource};

use super::PartTimes;
use crate::Error;

/// Time, and the work it was spent on.
#[derive(Debug, Clone, Copy, Default)]
pub struct Spent {
    /// How much work, in the unit of its step.
    pub work: u64,
    /// How long it took.
    pub seconds: f64,
}

impl Spent {
    /// Work per second.
    pub fn rate(&self) -> f64 {
        self.work as f64 / self.seconds.max(f64::MIN_POSITIVE)
    }
}

/// Adds up what each step takes.
pub(super) struct Meter<'a> {
    device: &'a Device,
    times: Mutex<PartTimes>,
}

impl<'a> Meter<'a> {
    pub(super) fn new(device: &'a Device) -> Self {
        Self { device, times: Mutex::default() }
    }

    /// What was spent so far.
    pub(super) fn times(&self) -> PartTimes {
        self.lock().clone()
    }

    /// Notes what is no time.
    pub(super) fn note(&self, note: impl FnOnce(&mut PartTimes)) {
        note(&mut self.lock());
    }

    /// Does some work and adds what it took, queued work of the device included, to a step. What was
    /// read on the way counts as read and not as this step.
    pub(super) fn time<R>(
        &self,
        step: impl FnOnce(&mut PartTimes) -> &mut Spent,
        work: u64,
        run: impl FnOnce() -> Result<R, Error>,
    ) -> Result<R, Error> {
        synchronize(self.device)?;
        let read = self.lock().read.seconds;
        let began = Instant::now();
        let result = run()?;
        synchronize(self.device)?;
        let seconds = began.elapsed().as_secs_f64();
        let mut times = self.lock();
        let read = times.read.seconds - read;
        let spent = step(&mut times);
        spent.seconds += seconds - read;
        spent.work += work;
        Ok(result)
    }

    fn lock(&self) -> MutexGuard<'_, PartTimes> {
        // Numbers are whole at any time.
        self.times.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Weights whose reading is timed.
pub(super) struct TimedSource<'a> {
    pub(super) source: &'a dyn TensorSource,
    pub(super) meter: &'a Meter<'a>,
}

impl TimedSource<'_> {
    fn read<R>(
        &self,
        read: impl FnOnce() -> Result<R, StageError>,
        bytes: impl FnOnce(&R) -> usize,
    ) -> Result<R, StageError> {
        // What the device still does belongs to the step that reads.
        synchronize(self.meter.device)?;
        let began = Instant::now();
        let tensor = read()?;
        let mut times = self.meter.lock();
        times.read.seconds += began.elapsed().as_secs_f64();
        times.read.work += bytes(&tensor) as u64;
        Ok(tensor)
    }
}

impl TensorSource for TimedSource<'_> {
    fn weight(&self, id: TensorId) -> Result<StoredWeight<'_>, StageError> {
        self.read(|| self.source.weight(id), |weight| weight.main().bytes().len())
    }
}

/// Waits until all work that a device has queued is done, on every stream.
pub fn synchronize(device: &Device) -> Result<(), Error> {
    #[cfg(feature = "cuda")]
    if let Ok(device) = device.as_cuda_device() {
        let context = device.cuda_stream().context().clone();
        context.synchronize().map_err(candle_core::Error::wrap)?;
    }
    Ok(device.synchronize()?)
}
