//! What a pruning shall achieve, with any stages.

use moeprune_core::{ExtraPolicy, Promises, Sparsity};
use serde_json::Value;

/// What a pruning shall achieve.
#[derive(Debug, Clone, PartialEq)]
#[expect(clippy::exhaustive_structs, reason = "plain data")]
pub struct PruneRequest {
    /// Total share of the original decoder Linears' weights that is removed or zero.
    pub total: Sparsity,
    /// The expert stage.
    pub experts: ExpertRequest,
    /// What becomes of layers behind the decoder's. `None`: what their family says, and where they have
    /// no experts to prune, they are kept.
    pub extra: Option<ExtraPolicy>,
    /// The unstructured stage.
    pub weights: WeightTarget,
    /// What the unstructured stage promises; goes into the plan.
    pub promises: Promises,
    /// Where all of this comes from, as JSON. Goes into the plan as it is and is not read.
    pub recipe: Value,
}

/// What the expert stage shall achieve.
#[derive(Debug, Clone, Copy, PartialEq)]
#[expect(clippy::exhaustive_structs, reason = "plain data")]
pub struct ExpertRequest {
    /// Share of the routed experts that is removed, rounded to whole experts.
    pub share: Sparsity,
    /// How the removed experts are spread over the layers.
    pub spread: BudgetSpread,
    /// Whether experts whose outputs peak far above all others' stay in any case.
    pub protect_super_experts: bool,
}

/// How removed experts are spread over the layers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "plain data")]
pub enum BudgetSpread {
    /// Every layer keeps the same number: what serving engines can load.
    Uniform,
    /// One threshold over all layers.
    Global,
}

/// How many weights of what is left are zeroed. A pattern that fixes its own ratio zeroes that many,
/// unless nothing is zeroed at all.
#[derive(Debug, Clone, Copy, PartialEq)]
#[expect(clippy::exhaustive_enums, reason = "plain data")]
pub enum WeightTarget {
    /// None.
    Nothing,
    /// As many as reach the total.
    Total,
    /// This share of what is left.
    Ratio(Sparsity),
}
