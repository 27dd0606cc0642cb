//! What a journal can say.

use std::fmt;

use moeprune_core::{LayerPlan, RoutedMass, repair::RepairedLayer};
use serde::{Deserialize, Serialize};

use super::{RunIdentity, WithoutZero};

/// A walk of the calibration blocks through all layers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Pass {
    /// Through the unpruned model.
    Observe,
    /// Through the model without the dropped experts, for OWL's outliers.
    Measure,
    /// Through the layers without the dropped experts, as the others are repaired.
    Repair,
    /// Through the layers as they are pruned.
    Prune,
    /// Through the pruned layers, as what is left of their weights is refitted.
    Refit,
}

impl fmt::Display for Pass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Observe => "observe",
            Self::Measure => "measure",
            Self::Repair => "repair",
            Self::Prune => "prune",
            Self::Refit => "refit",
        })
    }
}

/// Something that is done and durable.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Record {
    /// The first line: what was begun.
    Begun(Box<RunIdentity>),
    /// The model is observed in so many parts, each of which has a journal of its own.
    Parts { of: usize },
    /// A layer of the unpruned model was observed.
    Observed { layer: usize },
    /// Survivors of a layer that the plan left open were chosen.
    Chosen(LayerPlan),
    /// The experts of a layer were repaired: what that did, and which of them have new weights. `None` if
    /// the layer lost none.
    Repaired {
        layer: usize,
        /// Whether that was after weights were zeroed.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        masked: bool,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        done: Option<Box<LayerRepaired>>,
    },
    /// A layer's outliers were counted.
    Measured { layer: usize, outlier_percent: f64 },
    /// Parts of the model were found whole, and are put together.
    Joining,
    /// Embeddings, head and what else belongs to no layer were written.
    OutsideWritten,
    /// A layer was written.
    Written {
        layer: usize,
        zeros: LayerZeros,
        /// Experts of the pruned model that no calibration token reached.
        idle: Vec<usize>,
        /// Linears that were scored, as too few tokens reached them for a reconstruction.
        #[serde(default)]
        scored: u64,
        /// Weights that have no code that is zero and stay, if there are such.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        without_zero: Option<WithoutZero>,
        /// What a token's experts weigh together, where that changes with the experts.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        mass: Option<RoutedMass>,
    },
}

/// The repair of a layer that is done.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct LayerRepaired {
    /// What it did.
    pub(crate) report: RepairedLayer,
    /// The experts that have new weights.
    pub(crate) replaced: Vec<usize>,
}

/// Exact zeros in the bytes written for a layer whose weights were zeroed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct LayerZeros {
    /// Of the experts.
    pub experts: u64,
    /// Experts included, router not.
    pub linears: u64,
    /// Of the router.
    pub router: u64,
    /// Of the Linears without the router that weights were chosen in, those that were zero before; `None` if
    /// none was counted, as by kernels on a device.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<u64>,
}
