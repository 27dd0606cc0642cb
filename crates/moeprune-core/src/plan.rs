//! What will be done to a model, decided before anything is written.

use serde::{Deserialize, Serialize};

use crate::{CorpusTag, Partition};

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
    /// What is asked of the unstructured stage; `None` when only experts go.
    pub unstructured: Option<UnstructuredPlan>,
    /// One entry a layer with experts, ascending.
    pub layers: Vec<LayerPlan>,
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
}

/// The expert stage of one layer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(clippy::exhaustive_structs, reason = "a file format; a new field is a new version")]
pub struct LayerPlan {
    /// Decoder layer.
    pub layer: usize,
    /// Experts it has now.
    pub experts_before: usize,
    /// Experts grouped by behaviour, as indices in the source model.
    pub clusters: Partition,
    /// One entry a cluster, ascending by [`Survivor::source`]: the order of the experts in the
    /// pruned model. Empty: they are chosen when the plan is applied, because that takes reading
    /// experts.
    pub survivors: Vec<Survivor>,
    /// Calibration tokens routed to each expert, for a choice that is yet to be made; empty if
    /// they were not counted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tokens: Vec<u64>,
}

impl LayerPlan {
    /// Experts that are left.
    #[must_use]
    pub fn experts_after(&self) -> usize {
        self.clusters.len()
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
}

/// What decided that an expert survives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum SurvivorReason {
    /// Alone in its cluster.
    Alone,
    /// Nearest to the cluster's mean.
    NearestToMean,
    /// Tied for nearest; more calibration tokens were routed to it.
    MoreTokens,
    /// Tied for nearest and in tokens, or tokens unknown; lowest index.
    LowestIndex,
    /// The average of the cluster.
    Averaged,
}
