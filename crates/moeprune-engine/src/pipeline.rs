//! The stages of a run as values.

use std::collections::BTreeMap;

use moeprune_core::{
    ExpertClustering, ExpertRepair, ExpertSaliency, ExpertSelector, ExpertSimilarity, MaskPattern,
    SparsityAllocator, WeightReconstructor, WeightScorer,
};
use moeprune_score::Rounding;
use serde_json::{Value, json};

use crate::{KeepList, Stage};

/// How a model is pruned: which experts go, which weights go, and how a ratio is split over the
/// layers.
///
/// Every field can be replaced by itself:
///
/// ```
/// use moeprune_engine::{ExpertStage, Pipeline, Scored, Stage, WeightStage};
/// use moeprune_score::{Magnitude, PerRow, Rounding, Uniform};
///
/// let magnitude = |experts| Pipeline {
///     experts,
///     repair: None,
///     weights: WeightStage::Scored(Scored {
///         scorer: Stage::new(Box::new(Magnitude)),
///         pattern: Stage::new(Box::new(PerRow)),
///         rounding: Rounding::Exact,
///     }),
///     refit: None,
///     allocator: Stage::new(Box::new(Uniform)),
/// };
/// let pipeline = magnitude(ExpertStage::Searched { most_subsets: 1000 });
/// assert!(pipeline.experts.needs().calibration);
/// assert!(!pipeline.weights.needs().inputs);
/// ```
#[derive(Debug)]
#[expect(clippy::exhaustive_structs, reason = "overriding one field with `..` is the point")]
pub struct Pipeline {
    /// Which experts go.
    pub experts: ExpertStage,
    /// How the experts that stay make up for those that go; `None`: they stay as they are.
    pub repair: Option<Stage<dyn ExpertRepair>>,
    /// Which weights go of what is left.
    pub weights: WeightStage,
    /// How down projections that were zeroed in part make up for that with what is left of them;
    /// `None`: they stay as they are.
    pub refit: Option<Stage<dyn ExpertRepair>>,
    /// How the ratio is split over the layers.
    pub allocator: Stage<dyn SparsityAllocator>,
}

impl Pipeline {
    /// The identity of each stage by its place, `None` of a stage that has none
    /// ([`Stage::new`]). Equal identities, none of them missing, mean equal results.
    #[must_use]
    pub fn identities(&self) -> BTreeMap<String, Option<Value>> {
        let mut found = BTreeMap::new();
        let mut add = |place: &str, identity: Option<Value>| {
            found.insert(place.to_owned(), identity);
        };
        match &self.experts {
            ExpertStage::Ranked(saliency) => add("saliency", saliency.identity().cloned()),
            ExpertStage::Grouped(grouped) => grouped.add_identities(&mut add),
            ExpertStage::Searched { most_subsets } => add("subsets", Some(json!(most_subsets))),
            ExpertStage::Greedy { tokens } => add("greedy", Some(json!(tokens))),
            ExpertStage::Listed(list) => add("keep-list", Some(json!(list))),
            ExpertStage::InTurn(stage) => {
                add("in turn", Some(json!(true)));
                match stage {
                    LayerStage::Ranked(saliency) => add("saliency", saliency.identity().cloned()),
                    LayerStage::Grouped(grouped) => grouped.add_identities(&mut add),
                }
            }
        }
        if let Some(repair) = &self.repair {
            add("repair", repair.identity().cloned());
        }
        if let Some(refit) = &self.refit {
            add("refit", refit.identity().cloned());
        }
        if let WeightStage::Reconstructed { method, .. } = &self.weights {
            add("reconstruction", method.identity().cloned());
        }
        let Scored { scorer, pattern, rounding } = self.weights.scored();
        add("scorer", scorer.identity().cloned());
        add("pattern", pattern.identity().cloned());
        add("rounding", Some(json!(rounding.name())));
        add("allocation", self.allocator.identity().cloned());
        found
    }
}

/// How it is decided which experts go.
#[derive(Debug)]
#[expect(clippy::exhaustive_enums, reason = "a new way must be answered wherever they differ")]
pub enum ExpertStage {
    /// By how much each expert matters: the least salient are dropped.
    Ranked(Stage<dyn ExpertSaliency>),
    /// By grouping alike experts: one of each group survives, or their average (STUN).
    Grouped(Grouped),
    /// By running each layer without every subset of its experts (NAEE).
    Searched {
        /// More subsets of a layer are refused.
        most_subsets: u64,
    },
    /// By dropping one expert after the other, each time the one that the layer misses least.
    Greedy {
        /// Calibration tokens that are looked at per layer, at most.
        tokens: usize,
    },
    /// By a list of those that stay. Without one, no plan can be made, and plans can be applied.
    Listed(Option<KeepList>),
    /// Layer after layer on the model as it loses experts: each is observed on what the layers before it give without
    /// the experts that they have lost, and its own are then chosen by these sums. Calibration text runs through each
    /// layer twice.
    InTurn(LayerStage),
}

/// How the experts of one layer are chosen by sums of that layer alone.
#[derive(Debug)]
#[expect(clippy::exhaustive_enums, reason = "a new way must be answered wherever they differ")]
pub enum LayerStage {
    /// As [`ExpertStage::Ranked`].
    Ranked(Stage<dyn ExpertSaliency>),
    /// As [`ExpertStage::Grouped`].
    Grouped(Grouped),
}

/// The stages by which alike experts are grouped.
#[derive(Debug)]
#[expect(clippy::exhaustive_structs, reason = "overriding one field with `..` is the point")]
pub struct Grouped {
    /// How alike two experts are.
    pub similarity: Stage<dyn ExpertSimilarity>,
    /// Which experts may stand in for each other.
    pub clustering: Stage<dyn ExpertClustering>,
    /// Which expert of a group survives.
    pub selector: Stage<dyn ExpertSelector>,
}

impl Grouped {
    /// Adds the identity of each stage by its place.
    fn add_identities(&self, add: &mut dyn FnMut(&str, Option<Value>)) {
        add("similarity", self.similarity.identity().cloned());
        add("clustering", self.clustering.identity().cloned());
        add("selector", self.selector.identity().cloned());
    }
}

/// What the expert stage must have before it can decide.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct ExpertNeeds {
    /// An observation of the model.
    pub observation: bool,
    /// Calibration text, on which it runs the model itself.
    pub calibration: bool,
}

impl ExpertStage {
    /// What must be there before it can decide.
    #[must_use]
    pub fn needs(&self) -> ExpertNeeds {
        match self {
            Self::Ranked(saliency) => {
                ExpertNeeds { observation: saliency.needs_observation(), calibration: false }
            }
            Self::Grouped(Grouped { similarity, selector, .. }) => ExpertNeeds {
                observation: similarity.needs_observation() || selector.needs_observation(),
                calibration: false,
            },
            Self::Searched { .. } | Self::Greedy { .. } | Self::InTurn(_) => {
                ExpertNeeds { observation: false, calibration: true }
            }
            Self::Listed(_) => ExpertNeeds::default(),
        }
    }

    /// The stages of a grouping, if experts are grouped.
    #[must_use]
    pub fn grouped(&self) -> Option<&Grouped> {
        match self {
            Self::Grouped(grouped) | Self::InTurn(LayerStage::Grouped(grouped)) => Some(grouped),
            Self::Ranked(_)
            | Self::InTurn(LayerStage::Ranked(_))
            | Self::Searched { .. }
            | Self::Greedy { .. }
            | Self::Listed(_) => None,
        }
    }
}

/// How it is decided which weights go.
#[derive(Debug)]
#[expect(clippy::exhaustive_enums, reason = "a new way must be answered wherever they differ")]
pub enum WeightStage {
    /// The lowest scores go; other weights keep their bits.
    Scored(Scored),
    /// Weights go and others are changed to make up for them.
    Reconstructed {
        /// What zeroes and changes weights, among those that the pattern of `fallback` names.
        method: Stage<dyn WeightReconstructor>,
        /// What measures outliers, and stands in where too few tokens came.
        fallback: Scored,
    },
}

/// The stages by which the lowest scores are zeroed.
#[derive(Debug)]
#[expect(clippy::exhaustive_structs, reason = "overriding one field with `..` is the point")]
pub struct Scored {
    /// How much a weight matters.
    pub scorer: Stage<dyn WeightScorer>,
    /// Among which weights the choice is made.
    pub pattern: Stage<dyn MaskPattern>,
    /// How a row's share is rounded to whole weights.
    pub rounding: Rounding,
}

/// What the weight stage must know of a Linear.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct WeightNeeds {
    /// The squares of its inputs, summed over tokens.
    pub inputs: bool,
    /// Which of its inputs came together, which no observation holds.
    pub hessians: bool,
}

impl WeightStage {
    /// What must be known of a Linear.
    #[must_use]
    pub fn needs(&self) -> WeightNeeds {
        match self {
            Self::Scored(scored) => {
                WeightNeeds { inputs: scored.scorer.needs_inputs(), hessians: false }
            }
            Self::Reconstructed { .. } => WeightNeeds { inputs: true, hessians: true },
        }
    }

    /// How weights are scored: of a reconstruction, what stands in for it.
    #[must_use]
    pub fn scored(&self) -> &Scored {
        match self {
            Self::Scored(scored) | Self::Reconstructed { fallback: scored, .. } => scored,
        }
    }

    /// The method by which weights that stay are changed, if they are.
    #[must_use]
    pub fn method(&self) -> Option<&dyn WeightReconstructor> {
        match self {
            Self::Scored(_) => None,
            Self::Reconstructed { method, .. } => Some(&**method),
        }
    }

    /// Among which weights the choice is made.
    #[must_use]
    pub fn pattern(&self) -> &dyn MaskPattern {
        &*self.scored().pattern
    }
}
