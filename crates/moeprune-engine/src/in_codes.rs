//! What is refused of weights that are stored in codes: they can go or become zero, and have no room for
//! other values.

use std::collections::BTreeSet;

use moeprune_core::{
    ExpertSelector, LayerPlan, LinearId, MlpProjection, Partition, TensorId, repair::RepairablePart,
};

use crate::{Error, Model, Pipeline, Remedy};

/// Refuses a pipeline that gives weights new values, if some of those that it changes are in codes.
///
/// # Errors
/// [`Error::Refused`] with the weight and how it is stored, and what can be done all the same.
pub fn check_reconstructs(model: &dyn Model, pipeline: &Pipeline) -> Result<(), Error> {
    if pipeline.weights.method().is_none() {
        return Ok(());
    }
    let changed = model.spec().parts().into_iter().filter(|part| part.prunable);
    match changed.map(|part| part.id).find_map(|id| stored(model, id)) {
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

/// How weights are stored that a repair changes and that are no numbers by themselves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct StoredCodes {
    /// What the encoding is called.
    pub name: &'static str,
    /// Bits of a code, if new values can be written in it.
    pub bits: Option<u32>,
}

/// What a repair would change and is stored in codes: the first such weight of an expert.
#[must_use]
pub fn codes_of_repaired(model: &dyn Model) -> Option<StoredCodes> {
    let layers = model.spec().layers.iter().enumerate();
    let experts = layers.filter_map(|(layer, of)| Some((layer, of.moe()?.experts)));
    let parts = experts.flat_map(|(layer, experts)| {
        let parts = (0..experts).flat_map(RepairablePart::of_expert);
        parts.map(move |part| TensorId::Layer(layer, part.tensor()))
    });
    let mut parts = parts.filter(|&id| model.spec().part(id).is_some());
    let id = parts
        .find(|&id| model.elements(id, 0..0).is_ok_and(|elements| !elements.dtype().is_weight()))?;
    let weight = model.weight(id).ok()?;
    let bits = weight.encoding().requantising(weight.shape()).map(|how| how.bits);
    Some(StoredCodes { name: weight.encoding().name(), bits })
}

/// How the first weight of an expert is stored that is in codes.
fn of_expert(model: &dyn Model, layer: usize, expert: usize) -> Option<String> {
    let parts = MlpProjection::ALL.map(|p| TensorId::linear(layer, LinearId::Expert(expert, p)));
    parts.into_iter().filter(|id| model.spec().part(*id).is_some()).find_map(|id| stored(model, id))
}

/// How a weight is stored, if it is in codes.
fn stored(model: &dyn Model, id: TensorId) -> Option<String> {
    if !model.is_in_codes(id) {
        return None;
    }
    let name = model.name_of(id).unwrap_or_else(|_| id.to_string());
    let weight = model.weight(id).ok();
    let encoding = weight.map_or("codes that are not decoded", |weight| weight.encoding().name());
    Some(format!("`{name}` is stored as {encoding}"))
}

/// What the weights of experts are stored as, by names of encodings: of the first expert of each layer.
pub(crate) fn stored_as(model: &dyn Model) -> String {
    let layers = 0..model.spec().layers.len();
    let parts = layers.flat_map(|layer| {
        MlpProjection::ALL.map(|p| TensorId::linear(layer, LinearId::Expert(0, p)))
    });
    let parts = parts.filter(|id| model.spec().part(*id).is_some());
    let names: BTreeSet<&str> =
        parts.filter_map(|id| Some(model.weight(id).ok()?.encoding().name())).collect();
    names.into_iter().collect::<Vec<_>>().join(" and ")
}
