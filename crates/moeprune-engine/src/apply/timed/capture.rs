//! Sums of squares alone.

use std::collections::{BTreeMap, btree_map::Entry};

use candle_core::Tensor;
use moeprune_capture::LayerObserver;
use moeprune_model::ActivationSink;

use super::{INPUTS, LAYER, meter::Meter};
use crate::{Calibration, Error, apply::layer_job::LayerJob};

/// Times the sums of squares of activations of the shapes that a pass has: in the loop they are
/// taken between the products, where a clock would stop both.
pub(super) fn time(
    layer_job: LayerJob<'_>,
    calibration: &Calibration,
    meter: &Meter<'_>,
) -> Result<(), Error> {
    let (spec, compute) = (layer_job.kept.spec(), layer_job.execution.compute());
    let pass = meter.times();
    let together = pass.micro_batch * calibration.blocks.sequence_len();
    let mut observer = LayerObserver::new(spec, LAYER, INPUTS)?;
    observer.begin_block();
    let mut ones: BTreeMap<(usize, usize), Tensor> = BTreeMap::new();
    for shape in spec.linears(LAYER).into_iter().filter(|l| l.reads == l.id) {
        let (most, mut left) = match shape.id.expert() {
            None => (together, calibration.blocks.tokens()),
            Some(e) => (pass.expert_rows, pass.expert_tokens.get(e).copied().unwrap_or(0)),
        };
        let like = |rows| Tensor::ones((rows, shape.cols), compute.dtype(), compute.device());
        let key = (most, shape.cols);
        if let Entry::Vacant(missing) = ones.entry(key) {
            missing.insert(like(most)?);
        }
        while left > 0 {
            let rows = left.min(most as u64) as usize;
            let shown = ones[&key].narrow(0, 0, rows)?;
            let bytes = shown.elem_count() * shown.dtype().size_in_bytes();
            meter.time(
                |times| &mut times.capture,
                bytes as u64,
                || Ok(observer.linear_input(shape.id, &shown)?),
            )?;
            left -= rows as u64;
        }
    }
    Ok(())
}
