//! What is refused of weights that are stored in codes: they can go or become zero, and have no room for
//! other values.

use moeprune_core::{
    ExpertSelector, LayerPlan, LinearId, MlpProjection, ModelSpec, Partition, TensorId,
};

use crate::{Error, Model, Pipeline, Remedy};

/// Refuses a pipeline that gives weights new values, if those of a layer's experts are in codes.
///
/// # Errors
/// [`Error::Refused`] with the weight and how it is stored, and what can be done all the same.
pub fn check_reconstructs(model: &dyn Model, pipeline: &Pipeline) -> Result<(), Error> {
    if pipeline.weights.method().is_none() {
        return Ok(());
    }
    let layers = (0..model.spec().layers.len()).find_map(|layer| of_layer(model, layer));
    match layers {
        None => Ok(()),
        Some(stored) => Err(Error::refused(
            format!(
                "{stored}, and the weights that stay get new values, which codes have no room for"
            ),
            Remedy::MaskOnly,
        )),
    }
}

/// Refuses averages of experts that are in codes.
pub(crate) fn check_averages(model: &dyn Model, plan: &LayerPlan) -> Result<(), Error> {
    let mut averages = plan.survivors.iter().filter(|survivor| !survivor.average_of.is_empty());
    let Some(average) = averages.next() else { return Ok(()) };
    let stored = average.average_of.iter().find_map(|&e| of_expert(model, plan.layer, e));
    match stored {
        None => Ok(()),
        Some(stored) => Err(Error::refused(
            format!(
                "layer {}: expert {} is to be the average of {:?}, but {stored}, and codes have no room \
                 for averages",
                plan.layer, average.source, average.average_of
            ),
            Remedy::SelectOne,
        )),
    }
}

/// What selects one expert of each group in place of `selector`, which would average some that are in codes, and
/// not because that was asked for.
pub(crate) fn selecting(
    model: &dyn Model,
    layer: usize,
    clusters: &Partition,
    selector: &dyn ExpertSelector,
) -> Option<Box<dyn ExpertSelector>> {
    let grouped = clusters.clusters().iter().filter(|cluster| cluster.len() > 1);
    let in_codes = || grouped.flatten().any(|&expert| of_expert(model, layer, expert).is_some());
    if selector.averages(clusters) && in_codes() { selector.selecting() } else { None }
}

/// How the first weight of a layer's first expert is stored that is in codes.
fn of_layer(model: &dyn Model, layer: usize) -> Option<String> {
    let spec: &ModelSpec = model.spec();
    spec.moe_of(layer)?;
    of_expert(model, layer, 0)
}

fn of_expert(model: &dyn Model, layer: usize, expert: usize) -> Option<String> {
    let parts = MlpProjection::ALL.map(|p| TensorId::linear(layer, LinearId::Expert(expert, p)));
    parts.into_iter().filter(|id| model.spec().part(*id).is_some()).find_map(|id| {
        let weight = model.weight(id).ok()?;
        let encoding = weight.encoding();
        let name = || model.name_of(id).unwrap_or_else(|_| id.to_string());
        encoding.float().is_none().then(|| format!("`{}` is stored as {}", name(), encoding.name()))
    })
}
