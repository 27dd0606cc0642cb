//! What is refused of weights that are stored in codes: they can go or become zero, and have no room for
//! other values.

use moeprune_core::{
    LayerPlan, LinearId, MlpProjection, ModelSpec, TensorId, repair::RepairablePart,
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
