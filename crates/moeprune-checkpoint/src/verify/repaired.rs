//! Which parts may have new weights because experts that stay make up for those that went.

use moeprune_core::{LayerTensor, LinearId, MlpProjection::Down, Plan, Provenance, TensorId};

use crate::Checkpoint;

/// Whether a plan or a report says that experts that stay were changed. Nothing is without either.
#[derive(Debug, Clone, Copy)]
pub(super) struct Repairs(bool);

impl Repairs {
    /// As a plan says, or else a report.
    pub(super) fn of(plan: Option<&Plan>, hint: Option<&Provenance>) -> Self {
        Self(match plan {
            Some(plan) => plan.repairs,
            None => hint.is_some_and(Provenance::repairs),
        })
    }

    /// Whether a part may have any weights: the down projection, and its bias, of an expert in a layer of
    /// the decoder that lost experts.
    pub(super) fn may_change(
        self,
        source: &Checkpoint,
        pruned: &Checkpoint,
        part: TensorId,
    ) -> bool {
        let TensorId::Layer(layer, LayerTensor::Linear(of) | LayerTensor::Bias(of)) = part else {
            return false;
        };
        let experts = |of: &Checkpoint| of.spec().moe_of(layer).map_or(0, |moe| moe.experts);
        self.0
            && matches!(of, LinearId::Expert(_, Down))
            && layer < source.spec().layers.len()
            && experts(pruned) < experts(source)
    }
}
