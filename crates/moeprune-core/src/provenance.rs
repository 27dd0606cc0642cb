//! What the report beside a pruned model says about where it comes from.

use serde::{Deserialize, de::IgnoredAny};
use serde_json::Value;

use crate::{Promises, Survivor};

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
    repair: Option<IgnoredAny>,
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
