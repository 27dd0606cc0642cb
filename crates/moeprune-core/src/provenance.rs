//! What the report beside a pruned model says about where it comes from.

mod repair;

use serde::Deserialize;
use serde_json::Value;

pub use self::repair::RepairClaim;
use self::repair::RepairProvenance;
use crate::{Promises, Survivor, TensorId};

/// Name of the report that lies beside a pruned model's weights.
pub const REPORT_FILE: &str = "moeprune-report.json";

/// Name of the same report for people.
pub const REPORT_TEXT_FILE: &str = "moeprune-report.md";

/// The part of a report that says what its model was made of.
///
/// Fields that are missing say nothing; others are ignored. It is a hint: a check of the model must
/// not believe what the tensors do not confirm.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct Provenance {
    /// The model that was pruned.
    pub model: SourceModel,
    /// One entry per decoder layer.
    pub layers: Vec<LayerProvenance>,
    /// What became of the layers behind the decoder's.
    pub extra: ExtraProvenance,
    /// Whether weights that stayed were changed to make up for those that went.
    pub weights_changed: bool,
    /// What the repair of the experts that stay did, if there was one.
    repair: Option<RepairProvenance>,
    /// What changing the rest of down projections did, after weights were zeroed.
    refit: Option<RepairProvenance>,
    /// What the unstructured stage promised; missing in reports of version 0.1.0.
    promises: Option<Promises>,
    sparsity: RequestedSparsity,
    recipe: Value,
}

/// What was asked for in shares of weights.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
struct RequestedSparsity {
    /// Of the decoder Linears, removed experts included.
    requested: Option<f64>,
    /// What was written.
    achieved: Option<AchievedShares>,
}

/// Shares of removed and zero weights that a report names.
#[derive(Debug, Clone, Copy, Default, PartialEq, Deserialize)]
#[non_exhaustive]
pub struct AchievedShares {
    /// Of the routed experts.
    pub experts: f64,
    /// Of the decoder Linears.
    pub linears: f64,
    /// Of all parameters.
    pub all: f64,
}

/// Which model was pruned.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct SourceModel {
    /// Hash over names, shapes and routers of the source.
    pub fingerprint: Option<String>,
}

/// What became of the layers behind the decoder's.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct ExtraProvenance {
    /// One entry per layer that is left.
    pub layers: Vec<LayerProvenance>,
}

/// What became of one layer. Experts are indices of the source.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct LayerProvenance {
    /// Which layer.
    pub index: Option<usize>,
    /// Experts that were kept.
    pub kept: Option<Vec<usize>>,
    /// The clusters that they stand for.
    pub clusters: Vec<Vec<usize>>,
    /// Those that are averages.
    pub merged: Vec<Survivor>,
    /// The unstructured ratio, if weights were zeroed.
    pub ratio: Option<f64>,
}

impl Provenance {
    /// Whether weights were zeroed, as far as the report says: no layer with a ratio means that
    /// only experts went.
    #[must_use]
    pub fn may_zero(&self) -> bool {
        self.layers.is_empty() || self.layers.iter().any(|layer| layer.ratio.is_some())
    }

    /// Whether experts that stay were changed to make up for those that went, as far as the report says.
    #[must_use]
    pub fn repairs(&self) -> bool {
        self.repair.is_some()
    }

    /// Whether the report says what the repair of a layer's experts did.
    #[must_use]
    pub fn has_repair_of_layer(&self, layer: usize) -> bool {
        self.repair.as_ref().is_some_and(|repair| repair.entry(layer).is_some())
    }

    /// What the report says that a repair made of a part; of what was refitted after weights were zeroed,
    /// only what that made of it.
    #[must_use]
    pub fn repair_of(&self, part: TensorId) -> RepairClaim<'_> {
        let refit = self.refit.as_ref().map_or(RepairClaim::Unknown, |refit| refit.claim(part));
        match (refit, &self.repair) {
            (RepairClaim::Made { sha256, companions, .. }, _) => {
                RepairClaim::Made { sha256, companions, last: true }
            }
            (_, Some(repair)) => repair.claim(part),
            (_, None) => RepairClaim::Unknown,
        }
    }

    /// Whether what is left of down projections was changed after weights were zeroed.
    #[must_use]
    pub fn refits(&self) -> bool {
        self.refit.is_some()
    }

    /// Removed and zero weights, as far as the report says.
    #[must_use]
    pub fn achieved(&self) -> Option<AchievedShares> {
        self.sparsity.achieved
    }

    /// What the unstructured stage promised, as far as the report says.
    #[must_use]
    pub fn promises(&self) -> Option<Promises> {
        self.promises.or_else(|| Promises::of_recipe(&self.recipe))
    }

    /// The share of the decoder Linears that was asked for, removed experts included; `None` unless
    /// the report says that weights were zeroed.
    #[must_use]
    pub fn total_sparsity(&self) -> Option<f64> {
        self.sparsity.requested.filter(|_| self.layers.iter().any(|layer| layer.ratio.is_some()))
    }

    /// How the expert that comes from `source` was averaged, if the report says that it was.
    #[must_use]
    pub fn merged(&self, layer: usize, source: usize) -> Option<&Survivor> {
        let found = self.entry(layer)?;
        found.merged.iter().find(|survivor| survivor.source == source)
    }

    /// The layer's kept experts and its clusters.
    #[must_use]
    pub fn layer(&self, layer: usize) -> Option<(&[usize], &[Vec<usize>])> {
        let found = self.entry(layer)?;
        Some((found.kept.as_deref()?, &found.clusters))
    }

    fn entry(&self, layer: usize) -> Option<&LayerProvenance> {
        self.layers.iter().chain(&self.extra.layers).find(|entry| entry.index == Some(layer))
    }
}
