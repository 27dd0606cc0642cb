//! The statistics of a model that is pruned layer after layer, without writing it.

use moeprune_core::{LayerObservation, Sparsity};

use super::{layer_job::LayerJob, statistics::Statistics, work::work_of};
use crate::{Error, walk::Walker};

/// What reaches the Linears of each layer while weights are zeroed by these ratios, expert indices those of
/// the pruned model: the sums by which a run that writes the model scores weights, to the last bit. Nothing
/// where no block is run.
pub(super) fn sequential_statistics(
    layer_job: LayerJob<'_>,
    statistics: &Statistics<'_>,
    ratios: &[Sparsity],
    walker: &mut Walker<'_>,
) -> Result<Vec<LayerObservation>, Error> {
    let blocks = statistics.blocks();
    if blocks.is_none() {
        return Ok(Vec::new());
    }
    let passes = |layer| 2 * statistics.passes(layer_job.kept, layer);
    let work: Vec<u64> = (0..ratios.len()).map(passes).collect();
    let work_on_layer = work_of(layer_job);
    let route = layer_job.route("taking statistics", blocks, &work);
    let mut layers = Vec::with_capacity(ratios.len());
    walker.walk(&route, None, |mut at| {
        let ratio = ratios[at.layer];
        layers.push(work_on_layer.observe(layer_job, &mut at, ratio)?);
        Ok(None)
    })?;
    Ok(layers)
}
