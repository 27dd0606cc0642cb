//! The work on one layer, each step timed by itself.
//!
//! It is the loop of `prune_layer` that runs, with the worker that fits the device,
//! wrapped in `Timed`. That one lets nothing overlap: an expert is read when the one
//! before it is written, and written on the thread that worked on it. What a step takes is then its
//! own. A run of the pipeline overlaps the steps: it cannot take less than the longest of them, nor,
//! if all is well, much more.

mod capture;
mod meter;
mod worker;

use moeprune_capture::{ObserverOptions, expert_rows, passes};
use moeprune_core::{Promises, Sparsity};

pub use super::in_place::MaskRequest;
pub use meter::{Spent, synchronize};

use self::worker::{Sizes, Timed};
use super::{
    KeptExperts,
    layer::PruneTask,
    layer_job::LayerJob,
    work::{LayerWork, Wrap, wrapped_work_of},
    worker::Worker,
    writing::Output,
};
use crate::{Calibration, Error, Job, Run, plan::keeping_all, walk::walk};
use meter::{Meter, TimedSource};

/// The layer that is timed.
const LAYER: usize = 0;
/// What is summed of its inputs.
const INPUTS: ObserverOptions = ObserverOptions { routing: false, inputs: true, hessians: false };

/// What each step took.
#[derive(Debug, Clone, Default)]
pub struct PartTimes {
    /// Stored bytes from the files to host memory, checked to be finite.
    pub read: Spent,
    /// Stored bytes to the device, or widened to f32 on the CPU, as often as a pass does it.
    pub load: Spent,
    /// FLOP of the trunk's Linears.
    pub trunk: Spent,
    /// FLOP of the experts' Linears.
    pub experts: Spent,
    /// FLOP of all of them, sums of squared inputs taken on the way.
    pub watched: Spent,
    /// Bytes of the activations that are squared and summed.
    pub capture: Spent,
    /// Stored bytes, each read and written once.
    pub mask: Spent,
    /// Stored bytes back from the device.
    pub fetch: Spent,
    /// Stored bytes into files until they are durable, zeros counted; with the trunk's go its small
    /// tensors.
    pub write: Spent,
    /// Tokens that each expert got.
    pub expert_tokens: Vec<u64>,
    /// Blocks that went through the trunk together.
    pub micro_batch: usize,
    /// Tokens that an expert takes together at most.
    pub expert_rows: usize,
}

/// Takes the blocks through the first layer twice, as it is and with weights zeroed, and writes it to
/// the place that `run` has claimed, which is removed. The other layers are passed over.
///
/// # Errors
/// As those of pruning.
pub fn time_parts(
    job: &mut Job<'_>,
    run: Run<'_>,
    calibration: &Calibration,
    ratio: Sparsity,
) -> Result<PartTimes, Error> {
    let execution = &job.for_blocks(calibration, true)?;
    let Job { model, pipeline, .. } = *job;
    let progress = &mut *job.progress;
    let plan = keeping_all(model)?;
    let kept = &KeptExperts::new(model, &plan);
    let promises = Promises::default();
    let layer_job =
        LayerJob { kept, promises, pipeline, execution, expert_ratios: &[], observed: None };
    let mut output = Output::open(&run, kept, progress)?;
    let device = execution.compute().device();
    let meter = &Meter::new(device);
    meter.note(|times| {
        times.micro_batch = execution.micro_batch();
        times.expert_rows = expert_rows(device);
    });
    let source = &TimedSource { source: kept, meter };
    let sizes = &Sizes::of(model, LAYER);
    let timed = wrapped_work_of(layer_job.supply(source), Timing { meter, sizes });
    let task = PruneTask { stored: None, ratio };
    let layer_work = 2 * passes(kept.spec(), LAYER, calibration.tag.tokens());
    let work = vec![layer_work; kept.spec().layers.len()];
    let route = layer_job.route("each step by itself", Some(&calibration.blocks), &work);
    walk(&route, progress, |mut at| {
        if at.layer != LAYER {
            return Ok(());
        }
        timed.prune(layer_job, &mut at, &mut output, task)?;
        meter.time(|times| &mut times.write, 0, || output.sync())
    })?;
    capture::time(layer_job, calibration, meter)?;
    Ok(meter.times())
}

/// Wraps the worker of a run in a [`Timed`] one.
struct Timing<'a> {
    meter: &'a Meter<'a>,
    sizes: &'a Sizes,
}

impl<'a> Wrap<'a> for Timing<'a> {
    fn wrap<W: Worker<'a> + 'a>(self, worker: W) -> Box<dyn LayerWork<'a> + 'a> {
        let Self { meter, sizes } = self;
        Box::new(Timed { worker, meter, sizes })
    }
}
