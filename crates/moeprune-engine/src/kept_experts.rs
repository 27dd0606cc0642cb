//! The model after the expert stage, as a view of the source.

pub(crate) mod repaired_parts;
pub(crate) mod requantise;
mod scratch;
mod temporary_folder;

pub(crate) use scratch::Scratch;
pub(crate) use temporary_folder::TemporaryFolder;

use std::collections::BTreeMap;

use moeprune_checkpoint::{
    Error as CheckpointError, average_of, join_along, select_along, weighted_average_of,
};
use moeprune_core::{
    Dtype, LayerPlan, ModelSpec, Plan, StageError, StoredRows, StoredWeight, Survivor, TensorBytes,
    TensorId, TensorSource,
};

use self::repaired_parts::RepairedParts;
use crate::{Model, finite::Finite};

/// A model with experts dropped, averaged and renumbered, read lazily. Expert indices are
/// those of the pruned model.
#[derive(Debug)]
pub struct KeptExperts<'a> {
    source: &'a dyn Model,
    /// The same, for reading.
    weights: Finite<'a>,
    spec: ModelSpec,
    layers: BTreeMap<usize, &'a LayerPlan>,
    repaired: RepairedParts,
}

impl<'a> KeptExperts<'a> {
    /// The model after the expert stage of a plan that leaves nothing open, without the layers behind the
    /// decoder's if the plan drops them.
    #[must_use]
    pub fn new(source: &'a dyn Model, plan: &'a Plan) -> Self {
        Self {
            source,
            weights: Finite(source),
            spec: source.spec().after(plan),
            layers: plan.layers.iter().map(|layer| (layer.layer, layer)).collect(),
            repaired: RepairedParts::default(),
        }
    }

    /// The same with parts that were repaired.
    #[must_use]
    pub(crate) fn with_repaired(self, repaired: RepairedParts) -> Self {
        Self { repaired, ..self }
    }

    /// The parts that were repaired.
    pub(crate) fn repaired_parts(&self) -> impl Iterator<Item = TensorId> + '_ {
        self.repaired.parts()
    }

    /// The model that is pruned.
    #[must_use]
    pub fn source(&self) -> &'a dyn Model {
        self.source
    }

    /// The pruned model.
    #[must_use]
    pub fn spec(&self) -> &ModelSpec {
        &self.spec
    }

    /// Whether a layer loses experts.
    pub(crate) fn loses_experts(&self, layer: usize) -> bool {
        self.layers.get(&layer).is_some_and(|plan| plan.survivors.len() < plan.experts_before)
    }

    /// The expert `index` of the pruned model; `None` in a layer whose experts all stay.
    pub(crate) fn survivor(&self, layer: usize, index: usize) -> Option<&'a Survivor> {
        self.layers.get(&layer).and_then(|plan| plan.survivors.get(index))
    }

    /// Index in the pruned model of the survivor that comes from `source`, if it survives.
    pub(crate) fn index_of(&self, layer: usize, source: usize) -> Option<usize> {
        match self.layers.get(&layer) {
            None => Some(source),
            Some(plan) => plan.survivors.iter().position(|s| s.source == source),
        }
    }

    /// Whether an expert of the pruned model is an average of several.
    pub(crate) fn is_average(&self, layer: usize, index: usize) -> bool {
        self.survivor(layer, index).is_some_and(|survivor| !survivor.average_of.is_empty())
    }

    /// The part of the source that a part is, of an average that of its first member.
    pub(crate) fn first_source(&self, id: TensorId) -> TensorId {
        match (id, id.expert()) {
            (TensorId::Layer(layer, _), Some(index)) => {
                let first = self.sources(layer, index).first().copied();
                id.with_expert(first.unwrap_or(index))
            }
            _ => id,
        }
    }

    /// The type in which a part is stored, of an average that of its members; of one in codes that of these.
    pub(crate) fn dtype_of(&self, id: TensorId) -> Result<Dtype, StageError> {
        Ok(self.source.elements(self.first_source(id), 0..0)?.dtype())
    }

    /// Experts of the source that make up expert `index` of the pruned model.
    pub(crate) fn sources(&self, layer: usize, index: usize) -> Vec<usize> {
        match self.survivor(layer, index) {
            None => vec![index],
            Some(s) if s.average_of.is_empty() => vec![s.source],
            Some(s) => s.average_of.clone(),
        }
    }

    /// The part of the source whose bytes a part of the pruned model has; `None` if it is made of
    /// several.
    pub(crate) fn stored_as(&self, id: TensorId) -> Option<TensorId> {
        if self.repaired.has(id) {
            return None;
        }
        let TensorId::Layer(layer, _) = id else { return Some(id) };
        let Some(plan) = self.layers.get(&layer) else { return Some(id) };
        match id.expert() {
            Some(index) => {
                let survivor = plan.survivors.get(index)?;
                survivor.average_of.is_empty().then(|| id.with_expert(survivor.source))
            }
            None => self.expert_axis(id).is_none().then_some(id),
        }
    }

    /// Whether a part was repaired.
    pub(crate) fn is_repaired(&self, id: TensorId) -> bool {
        self.repaired.has(id)
    }

    /// The axis along which a tensor has one entry per expert.
    fn expert_axis(&self, id: TensorId) -> Option<usize> {
        self.spec.part(id)?.expert_axis
    }

    /// The entries of the experts that stay, along `axis` of a tensor that all of a layer share.
    fn cut(
        &self,
        id: TensorId,
        axis: usize,
        plan: &LayerPlan,
    ) -> Result<TensorBytes<'_>, StageError> {
        let shared = self.weights.tensor(id)?;
        if plan.survivors.iter().all(|s| s.average_of.is_empty()) {
            let kept: Vec<usize> = plan.survivors.iter().map(|s| s.source).collect();
            return Ok(select_along(&shared, axis, &kept)?);
        }
        let entry = |survivor: &Survivor| {
            if survivor.average_of.is_empty() {
                select_along(&shared, axis, &[survivor.source])
            } else {
                mean(survivor, |expert| select_along(&shared, axis, &[expert]))
            }
        };
        let entries = plan.survivors.iter().map(entry).collect::<Result<Vec<_>, _>>()?;
        Ok(join_along(axis, &entries)?)
    }
}

impl TensorSource for KeptExperts<'_> {
    fn weight(&self, id: TensorId) -> Result<StoredWeight<'_>, StageError> {
        if let Some(weight) = self.repaired.weight(id)? {
            return Ok(weight);
        }
        let TensorId::Layer(layer, _) = id else { return self.weights.weight(id) };
        let Some(plan) = self.layers.get(&layer) else { return self.weights.weight(id) };
        let Some(index) = id.expert() else {
            return match self.expert_axis(id) {
                Some(axis) => Ok(StoredWeight::alone(self.cut(id, axis, plan)?)?),
                None => self.weights.weight(id),
            };
        };
        let survivor = plan.survivors.get(index).ok_or_else(|| {
            format!("layer {layer} keeps {} experts, not {index}", plan.survivors.len())
        })?;
        if survivor.average_of.is_empty() {
            return self.weights.weight(id.with_expert(survivor.source));
        }
        let mean = mean(survivor, |source| self.weights.tensor(id.with_expert(source)))?;
        Ok(StoredWeight::alone(mean)?)
    }

    /// Of what is as the source has it.
    fn stored_rows(&self, id: TensorId) -> Result<Option<StoredRows<'_>>, StageError> {
        if self.repaired.has(id) {
            return Ok(None);
        }
        let TensorId::Layer(layer, _) = id else { return self.weights.stored_rows(id) };
        let Some(plan) = self.layers.get(&layer) else { return self.weights.stored_rows(id) };
        let Some(index) = id.expert() else {
            return match self.expert_axis(id) {
                Some(_) => Ok(None),
                None => self.weights.stored_rows(id),
            };
        };
        match plan.survivors.get(index) {
            Some(survivor) if survivor.average_of.is_empty() => {
                self.weights.stored_rows(id.with_expert(survivor.source))
            }
            _ => Ok(None),
        }
    }
}

/// The average that a survivor is, of what `read` gives for each of its experts.
fn mean<'a, E: From<CheckpointError>>(
    survivor: &Survivor,
    mut read: impl FnMut(usize) -> Result<TensorBytes<'a>, E>,
) -> Result<TensorBytes<'static>, E> {
    let member = |index: usize| read(survivor.average_of[index]);
    match survivor.average_weights.as_slice() {
        [] => average_of(survivor.average_of.len(), member),
        weights => weighted_average_of(weights, member),
    }
}
