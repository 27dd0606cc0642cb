//! The work of a run on one layer, by the worker that fits where it runs.

use moeprune_core::{LayerObservation, Sparsity};

use super::{
    layer::{PruneTask, PrunedLayer, observe_layer, prune_layer},
    layer_job::LayerJob,
    measure::measure_layer,
    worker::{DeviceWorker, Holds, HostWorker, Supply, Worker},
    writing::Output,
};
use crate::{Error, walk::AtLayer};

/// What is done to a layer: the loops over it, with their worker chosen.
pub(super) trait LayerWork<'a> {
    /// Zeroes weights of a layer, writes all of it, and replaces its inputs by its outputs.
    fn prune(
        &self,
        layer_job: LayerJob<'a>,
        at: &mut AtLayer<'_>,
        output: &mut Output<'_>,
        task: PruneTask<'_>,
    ) -> Result<PrunedLayer, Error>;

    /// The percentage of a layer's scores above `multiplier` times their mean; replaces the layer's
    /// inputs by its outputs.
    fn measure(
        &self,
        layer_job: LayerJob<'a>,
        at: &mut AtLayer<'_>,
        stored: Option<&LayerObservation>,
        multiplier: f64,
    ) -> Result<f64, Error>;

    /// What reaches a layer's Linears while weights of it are zeroed; writes nothing, and replaces the layer's
    /// inputs by its outputs.
    fn observe(
        &self,
        layer_job: LayerJob<'a>,
        at: &mut AtLayer<'_>,
        ratio: Sparsity,
    ) -> Result<LayerObservation, Error>;
}

impl<'a, W: Worker<'a>> LayerWork<'a> for W {
    fn prune(
        &self,
        layer_job: LayerJob<'a>,
        at: &mut AtLayer<'_>,
        output: &mut Output<'_>,
        task: PruneTask<'_>,
    ) -> Result<PrunedLayer, Error> {
        prune_layer(self, layer_job, at, output, task)
    }

    fn measure(
        &self,
        layer_job: LayerJob<'a>,
        at: &mut AtLayer<'_>,
        stored: Option<&LayerObservation>,
        multiplier: f64,
    ) -> Result<f64, Error> {
        measure_layer(self, layer_job, at, stored, multiplier)
    }

    fn observe(
        &self,
        layer_job: LayerJob<'a>,
        at: &mut AtLayer<'_>,
        ratio: Sparsity,
    ) -> Result<LayerObservation, Error> {
        observe_layer(self, layer_job, at, ratio)
    }
}

/// The work of a run.
pub(super) fn work_of<'a>(layer_job: LayerJob<'a>) -> Box<dyn LayerWork<'a> + 'a> {
    wrapped_work_of(layer_job.supply(layer_job.kept), AsItIs)
}

/// The work of a worker that `wrap` makes of the one that fits where a run takes place: the one
/// place where a worker is chosen.
pub(super) fn wrapped_work_of<'a>(
    supply: Supply<'a>,
    wrap: impl Wrap<'a>,
) -> Box<dyn LayerWork<'a> + 'a> {
    match supply.holds {
        Holds::Loaded => wrap.wrap(DeviceWorker(supply)),
        Holds::Stored => wrap.wrap(HostWorker(supply)),
    }
}

/// Makes of any worker another one.
pub(super) trait Wrap<'a> {
    fn wrap<W: Worker<'a> + 'a>(self, worker: W) -> Box<dyn LayerWork<'a> + 'a>;
}

/// Leaves a worker as it is.
struct AsItIs;

impl<'a> Wrap<'a> for AsItIs {
    fn wrap<W: Worker<'a> + 'a>(self, worker: W) -> Box<dyn LayerWork<'a> + 'a> {
        Box::new(worker)
    }
}
