//! What a repair of a layer's experts did.

use serde::{Deserialize, Serialize};

use crate::{CorpusTag, LayerTensor, LinearId, MlpProjection};

/// A part that a repair may change: the down projection of a routed expert, or the bias of that.
///
/// An expert's output is linear in these and in nothing else of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(clippy::exhaustive_structs, reason = "plain data")]
pub struct RepairablePart {
    /// Index of the expert in its layer.
    pub expert: usize,
    /// Whether it is the bias.
    pub bias: bool,
}

impl RepairablePart {
    /// Those of an expert, in the order of their columns; a model may have no bias.
    #[must_use]
    pub fn of_expert(expert: usize) -> [Self; 2] {
        [false, true].map(|bias| Self { expert, bias })
    }

    /// Which of them a tensor of a layer is; `None` of one that no repair may change.
    ///
    /// ```
    /// use moeprune_core::{LayerTensor, LinearId, MlpProjection, repair::RepairablePart};
    ///
    /// let check = |projection, expected| {
    ///     let tensor = LayerTensor::Bias(LinearId::Expert(3, projection));
    ///     assert_eq!(RepairablePart::of(tensor), expected);
    /// };
    /// check(MlpProjection::Down, Some(RepairablePart { expert: 3, bias: true }));
    /// check(MlpProjection::Up, None);
    /// ```
    #[must_use]
    pub fn of(tensor: LayerTensor) -> Option<Self> {
        let (LayerTensor::Linear(linear) | LayerTensor::Bias(linear)) = tensor else { return None };
        let parts = Self::of_expert(linear.expert()?);
        parts.into_iter().find(|part| part.tensor() == tensor)
    }

    /// The tensor of the layer that it is.
    #[must_use]
    pub fn tensor(self) -> LayerTensor {
        let down = LinearId::Expert(self.expert, MlpProjection::Down);
        if self.bias { LayerTensor::Bias(down) } else { LayerTensor::Linear(down) }
    }
}

/// What a repair did to one layer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(clippy::exhaustive_structs, reason = "plain data of a report")]
pub struct LayerRepair {
    /// Decoder layer.
    pub layer: usize,
    /// The weighted square of what is missing, summed over fitted tokens: before the repair and after
    /// each sweep over the experts.
    pub errors: Vec<f64>,
    /// The same over held-out tokens, before and after; `None` if none were held out.
    pub held_out: Option<HeldOutError>,
    /// Whether the whole layer would have got worse on held-out tokens, and kept its weights.
    pub reverted: bool,
    /// What rounding to codes costs, where new weights are stored so: the error over held-out tokens, or fitted
    /// ones if none were held out, with the weights of the last sweep before they were rounded and after, before
    /// any expert got its old ones back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rounding: Option<HeldOutError>,
    /// One entry per surviving expert.
    pub experts: Vec<RepairedExpert>,
}

/// An error before a repair and after it: on tokens that nothing was fitted to, unless it is said otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(clippy::exhaustive_structs, reason = "plain data of a report")]
pub struct HeldOutError {
    /// With the weights as they were.
    pub before: f64,
    /// With those that the layer has now.
    pub after: f64,
}

/// What became of one surviving expert.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(clippy::exhaustive_structs, reason = "plain data of a report")]
pub struct RepairedExpert {
    /// Its index in the pruned layer.
    pub expert: usize,
    /// What was done to it.
    pub outcome: ExpertOutcome,
    /// The ridge it was refitted with; 0 if it was not.
    pub ridge: f64,
    /// The largest weight now over the largest before.
    pub growth: f64,
}

/// What was done to a surviving expert.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ExpertOutcome {
    /// Its weights are new.
    Refitted,
    /// No fitted token reaches it, so it is as it was.
    NoTokens,
    /// Its new weights made held-out tokens worse, so it has its old ones.
    Reverted,
}

impl RepairedExpert {
    /// An expert with new weights.
    #[must_use]
    pub fn refitted(expert: usize, ridge: f64, growth: f64) -> Self {
        Self { expert, outcome: ExpertOutcome::Refitted, ridge, growth }
    }

    /// An expert with its old weights.
    #[must_use]
    pub fn unchanged(expert: usize, outcome: ExpertOutcome) -> Self {
        Self { expert, outcome, ridge: 0.0, growth: 1.0 }
    }
}

impl LayerRepair {
    /// Of a layer without held-out tokens, or whose error on these was not taken.
    #[must_use]
    pub fn new(layer: usize, errors: Vec<f64>, experts: Vec<RepairedExpert>) -> Self {
        Self { layer, errors, held_out: None, reverted: false, rounding: None, experts }
    }
}

/// What a repair did to a model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(clippy::exhaustive_structs, reason = "plain data of a report")]
pub struct ModelRepair {
    /// The texts that it was fitted to, or measured on.
    pub texts: Vec<RepairText>,
    /// One entry per layer that lost experts.
    pub layers: Vec<RepairedLayer>,
}

/// A text that a repair was fitted to, or measured on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(clippy::exhaustive_structs, reason = "plain data of a report")]
pub struct RepairText {
    /// The file, and how blocks were drawn from it: those that are fitted and those that are held out.
    pub corpus: CorpusTag,
    /// Blocks that weights were fitted to; none of a text on which the repair was only measured.
    pub fitted: usize,
    /// Blocks that were kept apart.
    pub held_out: usize,
}

/// What a repair did to one layer, and what that means for each text.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(clippy::exhaustive_structs, reason = "plain data of a report")]
pub struct RepairedLayer {
    /// What was done.
    pub repair: LayerRepair,
    /// The weighted square of what the layer's experts wrote before some were dropped, summed over
    /// fitted tokens: what [`LayerRepair::errors`] are shares of.
    pub output: f64,
    /// What is missing at fitted tokens as a share of that, before, and with the weights that the layer has
    /// now: those of experts that were given back their old ones among them.
    pub fitted: HeldOutError,
    /// Fitted tokens that surviving experts receive, per column of their down projections.
    pub tokens_per_column: f64,
    /// Fitted tokens that each surviving expert receives.
    pub tokens: Vec<u64>,
    /// The error on held-out tokens of each text, as a share of what the experts wrote there before; `None`
    /// of a text without any.
    pub held_out: Vec<Option<HeldOutError>>,
    /// The parts that have new weights; `None` in reports that do not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parts: Option<Vec<RepairedPart>>,
}

/// A [`RepairablePart`] of a surviving expert, with new weights.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[expect(clippy::exhaustive_structs, reason = "plain data of a report")]
pub struct RepairedPart {
    /// Index of the expert in the pruned layer.
    pub expert: usize,
    /// Whether it is the bias.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub bias: bool,
    /// SHA-256 of its bytes as the repair left them, in the type that they are stored in; of a part in codes,
    /// of these.
    pub sha256: String,
    /// The same of what its codes are read with, in the order in which its encoding names them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub companions: Vec<String>,
}

impl RepairedPart {
    /// The same without its weights.
    #[must_use]
    pub fn part(&self) -> RepairablePart {
        RepairablePart { expert: self.expert, bias: self.bias }
    }
}
