//! What will be done to a model, decided before anything is written.

use serde::{Deserialize, Serialize};

use crate::{CorpusTag, ExtraPolicy, FeedForward, ModelSpec, Partition, Promises};

/// Which experts go, which stay, and how sparse the rest becomes.
///
/// A plan is a JSON file that can be read, edited by hand, diffed and applied later.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(clippy::exhaustive_structs, reason = "a file format; a new field is a new version")]
pub struct Plan {
    /// Version of this format: 1.
    pub format: u32,
    /// Version of the tool that wrote it.
    pub tool: String,
    /// Model the plan is for; any other is refused.
    pub model_fingerprint: String,
    /// SHA-256 of the observation it was made from, if one was.
    pub observation_sha256: Option<String>,
    /// The texts of that observation.
    #[serde(default)]
    pub corpora: Vec<CorpusTag>,
    /// The resolved recipe: every stage's name and parameters, and the seeds.
    pub recipe: serde_json::Value,
    /// The request to the unstructured stage; `None` when only experts go.
    pub unstructured: Option<UnstructuredPlan>,
    /// Whether the experts that stay are changed to make up for those that go: their down projections, and
    /// the biases of these, in layers that lose experts.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub repairs: bool,
    /// One entry per layer with experts, ascending. Numbers above the decoder's last are those of the
    /// layers behind it, which have an entry only where they lose experts.
    pub layers: Vec<LayerPlan>,
    /// What becomes of the layers behind the decoder's. Missing for models without such layers, and in
    /// plans of before this was decided, where the absence of entries means that they stay.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub extra: Option<ExtraPolicy>,
}

/// The unstructured part of a plan.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(clippy::exhaustive_structs, reason = "a file format; a new field is a new version")]
pub struct UnstructuredPlan {
    /// Total sparsity over the original decoder Linears, removed experts included.
    pub total_sparsity: f64,
    /// Ratio `s` over the Linears that are left which reaches that total.
    pub ratio: f64,
    /// Ratio of each decoder layer, when decided already. Empty: the allocation decides from
    /// statistics taken while the plan is applied.
    pub layer_ratios: Vec<f64>,
    /// Whether the weights that stay are changed to make up for those that go.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub reconstructs: bool,
    /// Ratios of single experts that override their layer's, edited in by hand or set by an
    /// allocation.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub expert_ratios: Vec<ExpertRatio>,
    /// What else was asked for. Missing in plans of version 0.1.0, which say it in their recipe
    /// ([`Plan::promises`] reads both).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub promises: Option<Promises>,
}

impl Plan {
    /// What the unstructured stage promises; `None` if neither that stage nor the recipe says it.
    #[must_use]
    pub fn promises(&self) -> Option<Promises> {
        let said = self.unstructured.as_ref().and_then(|asked| asked.promises);
        said.or_else(|| Promises::of_recipe(&self.recipe))
    }
}

/// The ratio of one expert's three Linears.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(clippy::exhaustive_structs, reason = "a file format; a new field is a new version")]
pub struct ExpertRatio {
    /// Decoder layer.
    pub layer: usize,
    /// Expert of the source model that survives, as in [`Survivor::source`].
    pub expert: usize,
    /// Share of its weights that is zeroed, at least 0 and below 1.
    pub ratio: f64,
}

/// The expert stage of one layer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(clippy::exhaustive_structs, reason = "a file format; a new field is a new version")]
pub struct LayerPlan {
    /// Which layer: a decoder layer, or one behind them, whose numbers go on.
    pub layer: usize,
    /// Experts it has now.
    pub experts_before: usize,
    /// Experts grouped by behaviour, as indices in the source model.
    pub clusters: Partition,
    /// One entry per cluster that is not dropped, ascending by [`Survivor::source`]: the order of the
    /// experts in the pruned model. Empty: they are chosen when the plan is applied, because that takes reading
    /// experts.
    pub survivors: Vec<Survivor>,
    /// Experts that go without another standing in for them, ascending; each is alone in
    /// `clusters`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dropped: Vec<usize>,
    /// Calibration tokens routed to each expert, for a choice that is yet to be made; empty if
    /// they were not counted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tokens: Vec<u64>,
}

impl LayerPlan {
    /// Experts that are left.
    #[must_use]
    pub fn experts_after(&self) -> usize {
        self.clusters.len().saturating_sub(self.dropped.len())
    }

    /// Whether a cluster goes without another expert standing in for it.
    #[must_use]
    pub fn is_dropped(&self, cluster: &[usize]) -> bool {
        matches!(cluster, [alone] if self.dropped.contains(alone))
    }

    /// Whether the survivors are yet to be chosen.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.survivors.is_empty()
    }
}

/// An expert of the pruned model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(clippy::exhaustive_structs, reason = "a file format; a new field is a new version")]
pub struct Survivor {
    /// Expert of the source model it comes from; of an average, the lowest index averaged.
    pub source: usize,
    /// Why this one.
    pub reason: SurvivorReason,
    /// Experts averaged into it, weights and router rows alike; empty when `source` is kept bit
    /// for bit.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub average_of: Vec<usize>,
    /// How much each of them counts in the average, not all zero; empty when they count the same.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub average_weights: Vec<u64>,
}

/// What decided that an expert survives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum SurvivorReason {
    /// Alone in its cluster.
    Alone,
    /// Nearest to the cluster's mean: in weights, or, behind the decoder's layers, in router rows.
    NearestToMean,
    /// Among the most salient of its layer, or of all layers.
    Salient,
    /// A super expert, which is never dropped.
    Protected,
    /// In the set of experts that reproduces the layer's output best.
    Searched,
    /// Named by a keep-list.
    Listed,
    /// Tied for nearest; more calibration tokens were routed to it.
    MoreTokens,
    /// Tied for nearest and in tokens, or tokens unknown; lowest index.
    LowestIndex,
    /// The average of the cluster.
    Averaged,
}

impl Survivor {
    /// An expert that is kept bit for bit.
    #[must_use]
    pub fn kept(source: usize, reason: SurvivorReason) -> Self {
        Self { source, reason, average_of: Vec::new(), average_weights: Vec::new() }
    }

    /// The average of these experts, of which there is at least one.
    ///
    /// # Panics
    /// If there is none.
    #[must_use]
    pub fn average(members: Vec<usize>, weights: Vec<u64>) -> Self {
        Self {
            source: members[0],
            reason: SurvivorReason::Averaged,
            average_of: members,
            average_weights: weights,
        }
    }
}

impl ModelSpec {
    /// The model after the expert stage: each planned layer, of the decoder's or behind them, has as
    /// many experts as its plan leaves. Plans of layers that the model lacks change nothing.
    #[must_use]
    pub fn without_experts(&self, plans: &[LayerPlan]) -> Self {
        let mut pruned = self.clone();
        for plan in plans {
            let layer = pruned.layer_mut(plan.layer).map(|layer| &mut layer.feed_forward);
            if let Some(FeedForward::Moe(moe)) = layer {
                moe.experts = plan.experts_after();
            }
        }
        pruned
    }

    /// The model that a plan leaves: [without experts](Self::without_experts), and without the layers
    /// behind the decoder's if they are dropped.
    #[must_use]
    pub fn after(&self, plan: &Plan) -> Self {
        let mut pruned = self.without_experts(&plan.layers);
        if self.policy_of(plan) == ExtraPolicy::Drop {
            pruned.extra = None;
        }
        pruned
    }

    /// What a plan does with the layers behind the decoder's. Where it does not say: they are pruned
    /// if it names one of them, dropped if the family never keeps them, and kept otherwise.
    #[must_use]
    pub fn policy_of(&self, plan: &Plan) -> ExtraPolicy {
        let names_one = || plan.layers.iter().any(|layer| layer.layer >= self.layers.len());
        match (plan.extra, self.extra.as_ref().map(|extra| extra.policy)) {
            (Some(policy), _) => policy,
            (None, _) if names_one() => ExtraPolicy::Prune,
            (None, Some(ExtraPolicy::Drop)) => ExtraPolicy::Drop,
            (None, _) => ExtraPolicy::Keep,
        }
    }
}
