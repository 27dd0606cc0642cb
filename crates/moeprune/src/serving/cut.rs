//! A model after a cut, in the numbers that matter when it is served.

use std::collections::BTreeSet;

use moeprune_checkpoint::Checkpoint;
use moeprune_core::{ExpertBudget, ExtraPolicy, FeedForward, ModelSpec, Sparsity, TensorId};
use moeprune_engine::{BudgetSpread, ExpertRequest, expert_budget};
use serde::Serialize;

use super::{Declared, Parallel, Verdict, WeightForm, engine::Engine, experts::experts_of};

/// Shares of the experts that people usually remove.
const USUAL: [f64; 2] = [0.25, 0.5];

/// What a model is for serving, as it is or after experts were removed.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Cut {
    /// Share of the experts that is removed; 0 of the model as it is.
    pub removed: f64,
    /// Experts of each layer that has any; one number if all have the same.
    pub experts: Vec<usize>,
    /// About so many bytes of weights, on disk and in memory.
    pub weight_bytes: u64,
    /// Over how many devices it divides evenly.
    pub parallel: Parallel,
    /// What the engines make of it.
    pub engines: Vec<Verdict>,
}

/// A usual cut that cannot be made.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Impossible {
    /// Share of the experts that would be removed.
    pub removed: f64,
    /// Why it is refused.
    pub because: String,
}

impl Cut {
    /// Of a model that becomes what `after` says: the same, with fewer experts, with or without layers
    /// behind the decoder's.
    #[must_use]
    pub fn of(checkpoint: &Checkpoint, after: &ModelSpec) -> Self {
        Self::stored_as(checkpoint, after, &Stored::of(checkpoint))
    }

    fn stored_as(checkpoint: &Checkpoint, after: &ModelSpec, stored: &Stored) -> Self {
        let all = |spec: &ModelSpec| experts_of(spec).iter().sum::<usize>();
        let before = all(checkpoint.spec());
        let mut experts = experts_of(after);
        if experts.iter().all(|count| Some(count) == experts.first()) {
            experts.truncate(1);
        }
        let removed = (before - all(after).min(before)) as f64 / before.max(1) as f64;
        let Stored { declared, forms } = stored;
        let verdict = |engine| Verdict::of(engine, after, declared).stored_in(engine, forms);
        let verdicts = Engine::built_in().iter().map(verdict).collect();
        Self {
            removed,
            experts,
            weight_bytes: weight_bytes_after(checkpoint, after),
            parallel: Parallel::of(after),
            engines: verdicts,
        }
    }

    /// A model as it is, and its usual cuts, with as many experts in each layer.
    pub(super) fn usual(checkpoint: &Checkpoint) -> (Vec<Self>, Vec<Impossible>) {
        let stored = Stored::of(checkpoint);
        let mut cuts = vec![Self::stored_as(checkpoint, checkpoint.spec(), &stored)];
        let mut impossible = Vec::new();
        for share in USUAL {
            match keeping(checkpoint.spec(), share) {
                Ok(Some(after)) => {
                    let cut = Self::stored_as(checkpoint, &after, &stored);
                    // Few groups leave few numbers of experts: two shares may come to the same.
                    if cuts.last() != Some(&cut) {
                        cuts.push(cut);
                    }
                }
                Ok(None) => {}
                Err(because) => impossible.push(Impossible { removed: share, because }),
            }
        }
        (cuts, impossible)
    }
}

/// What does not change with a cut.
struct Stored {
    declared: Declared,
    forms: BTreeSet<WeightForm>,
}

impl Stored {
    fn of(checkpoint: &Checkpoint) -> Self {
        Self { declared: Declared::of(checkpoint), forms: WeightForm::of(checkpoint) }
    }
}

/// The model without this share of its experts, the same number in each layer, and layers behind the
/// decoder's as their family says.
fn keeping(spec: &ModelSpec, share: f64) -> Result<Option<ModelSpec>, String> {
    let request = ExpertRequest {
        share: Sparsity::new(share).map_err(|e| e.to_string())?,
        spread: BudgetSpread::Uniform,
        protect_super_experts: false,
    };
    let budget = expert_budget(spec, &request).map_err(|e| e.to_string())?;
    let Some(ExpertBudget::Uniform { keep }) = budget else { return Ok(None) };
    let mut after = spec.clone();
    let cut = |layer: &mut moeprune_core::LayerSpec| {
        if let FeedForward::Moe(moe) = &mut layer.feed_forward {
            moe.experts = moe.experts.min(keep);
        }
    };
    after.layers.iter_mut().for_each(cut);
    match after.extra.as_mut().map(|extra| (extra.policy, extra)) {
        Some((ExtraPolicy::Prune, extra)) => extra.layers.iter_mut().for_each(cut),
        Some((ExtraPolicy::Drop, _)) => after.extra = None,
        Some((ExtraPolicy::Keep, _)) | None => {}
    }
    Ok(Some(after))
}

/// Bytes of the weights that are left, from sizes of stored parts.
fn weight_bytes_after(checkpoint: &Checkpoint, after: &ModelSpec) -> u64 {
    let spec = checkpoint.spec();
    let mut gone = 0;
    if spec.extra.is_some() && after.extra.is_none() {
        let extra = checkpoint.tensors().filter(|tensor| checkpoint.is_extra(tensor));
        gone += extra.map(|tensor| tensor.bytes).sum::<u64>();
    }
    let extra = if after.extra.is_some() { spec.extra_parts() } else { Vec::new() };
    for part in spec.parts().into_iter().chain(extra) {
        let TensorId::Layer(layer, tensor) = part.id else { continue };
        let experts = |spec: &ModelSpec| spec.moe_of(layer).map_or(0, |moe| moe.experts);
        let (before, left) = (experts(spec), experts(after));
        if left >= before {
            continue;
        }
        let bytes = checkpoint.stored_bytes(part.id);
        gone += match (tensor.expert(), part.expert_axis) {
            (Some(expert), _) if expert >= left => bytes,
            (None, Some(_)) => bytes / before as u64 * (before - left) as u64,
            _ => 0,
        };
    }
    checkpoint.weight_bytes().saturating_sub(gone)
}
