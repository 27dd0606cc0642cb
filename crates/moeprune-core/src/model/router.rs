//! From a token to its experts.

use serde::Serialize;

use super::{OpaqueTensor, Part};
use crate::{LayerTensor, LinearId, PartName};

/// How the experts of a token are chosen. Its weight is `[experts, hidden]` in every kind.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
#[expect(clippy::exhaustive_enums, reason = "a new kind must be answered for everywhere")]
pub enum RouterSpec {
    /// Score, select, weight.
    Scored(ScoredRouter),
    /// One expert after the other, each against the rivals that come near it (PhiMoE).
    SparseMixer(SparseMixer),
    /// A router of which only the tensors are known: it can be cut, not run.
    Opaque(OpaqueRouter),
}

impl RouterSpec {
    /// Whether the weights of a token's experts have the same sum for any choice of experts.
    #[must_use]
    pub fn keeps_mass(&self) -> bool {
        match self {
            Self::Scored(router) => router.renormalize && !router.expert_scale,
            Self::SparseMixer(_) | Self::Opaque(_) => false,
        }
    }
}

/// A router in four steps: score all experts; add the correction bias, for the selection only;
/// select the `top_k` highest, among the best groups if there are groups; weight them by their scores.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[expect(clippy::exhaustive_structs, reason = "plain data")]
pub struct ScoredRouter {
    /// What it reads.
    #[serde(skip_serializing_if = "RouterInput::is_experts")]
    pub input: RouterInput,
    /// From logits to scores.
    pub score: Score,
    /// Whether a bias is added to the logits.
    pub bias: bool,
    /// What is added to the scores before experts are selected.
    pub correction_bias: CorrectionBias,
    /// Groups of experts of which the best are selected first.
    pub groups: Option<ExpertGroups>,
    /// Whether the scores of the selected are divided by their sum.
    pub renormalize: bool,
    /// What is added to that sum first.
    pub epsilon: f64,
    /// What is divided by at least.
    pub least_sum: f64,
    /// What the weights are multiplied by.
    pub scale: f64,
    /// Whether the weight of each expert is multiplied by a stored number.
    pub expert_scale: bool,
    /// Whether experts are selected by their logits, and not by their scores: what rounding makes equal
    /// of large logits stays apart.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub selects_logits: bool,
    /// What the weights multiply.
    #[serde(skip_serializing_if = "GateSide::is_output")]
    pub gates: GateSide,
}

/// What a router reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "snake_case")]
#[expect(clippy::exhaustive_enums, reason = "a new kind must be answered for everywhere")]
pub enum RouterInput {
    /// What the experts read, through their norm.
    #[default]
    Experts,
    /// The same before that norm, through one of the router's own: RMS without a weight, then times
    /// [`SCALE`](Self::SCALE) and `1 / sqrt(hidden)` (Gemma 4).
    ScaledStream,
}

impl RouterInput {
    /// What the router's input is multiplied by, `[hidden]`.
    pub const SCALE: LayerTensor = LayerTensor::Named(PartName::constant("router.input_scale"));

    /// Whether router and experts read the same, as in most families.
    fn is_experts(&self) -> bool {
        *self == Self::Experts
    }
}

/// What of an expert `f` its weight `w` multiplies, for a token `x`.
///
/// It decides what the expert's Linears read, and what the norm of an output is worth: an expert whose
/// input is multiplied gives `f(w · x)`, and that counts in full.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "snake_case")]
#[expect(clippy::exhaustive_enums, reason = "a new kind must be answered for everywhere")]
pub enum GateSide {
    /// Its output: `w · f(x)`.
    #[default]
    Output,
    /// Its input: `f(w · x)` (Llama 4).
    Input,
}

impl GateSide {
    /// Whether outputs are multiplied, as most routers do.
    fn is_output(&self) -> bool {
        *self == Self::Output
    }
}

/// A bias of the scores of experts, for the selection only, as it is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "snake_case")]
#[expect(clippy::exhaustive_enums, reason = "a new kind must be answered for everywhere")]
pub enum CorrectionBias {
    /// There is none.
    #[default]
    None,
    /// `[experts]`
    Vector,
    /// `[1, experts]`
    Row,
}

/// SparseMixer (Liu et al. 2023, arXiv 2310.00811) as it runs outside of training, on the logits `z`.
///
/// The largest logit `m` wins; rivals are those with `(m − z) / max(|z|, m) ≤ 2 · jitter`; its weight is
/// its share in a softmax over itself and its rivals. For the next expert the same is done without
/// those that have won. Weights do not sum to 1.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[expect(clippy::exhaustive_structs, reason = "plain data")]
pub struct SparseMixer {
    /// Half of how far below the largest a rival may be, relative to it.
    pub jitter: f64,
}

/// From logits to scores.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[expect(clippy::exhaustive_enums, reason = "a new kind must be answered for everywhere")]
pub enum Score {
    /// Softmax over all experts, in f32.
    Softmax,
    /// The logistic function of each logit.
    Sigmoid,
    /// `sqrt(ln(1 + exp(logit)))`
    SqrtSoftplus,
}

/// Groups of neighbouring experts, equally large.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[expect(clippy::exhaustive_structs, reason = "plain data")]
pub struct ExpertGroups {
    /// How many there are.
    pub count: usize,
    /// How many of them a token's experts may come from.
    pub selected: usize,
    /// How groups are compared.
    pub score: GroupScore,
}

/// What the score of a group of experts is, and what the scores of groups that are not selected become.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[expect(clippy::exhaustive_enums, reason = "a new kind must be answered for everywhere")]
pub enum GroupScore {
    /// The sum of its two largest, the correction bias included; minus infinity (DeepSeek-V3).
    TopTwo,
    /// Its largest; zero (DeepSeek-V2).
    Max,
}

/// The tensors of a router that cannot be run, beside its weight.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
#[expect(clippy::exhaustive_structs, reason = "plain data")]
pub struct OpaqueRouter {
    /// Groups of experts, if tokens are routed by them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub groups: Option<ExpertGroups>,
    /// They say which of them shrink with the experts. The dimension of
    /// [`expert_axis`](OpaqueTensor::expert_axis) is 0 here: it is the number of experts.
    pub tensors: Vec<OpaqueTensor>,
}

impl RouterSpec {
    /// Softmax over all experts, then the `top_k` largest.
    #[must_use]
    pub fn softmax(renormalize: bool) -> Self {
        Self::Scored(ScoredRouter::softmax(renormalize))
    }

    /// The kind as descriptors name it.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Scored(ScoredRouter { score: Score::Softmax, .. }) => "softmax",
            Self::Scored(ScoredRouter { score: Score::Sigmoid, .. }) => "sigmoid",
            Self::Scored(ScoredRouter { score: Score::SqrtSoftplus, .. }) => "sqrt_softplus",
            Self::SparseMixer(_) => "sparse_mixer",
            Self::Opaque(_) => "opaque",
        }
    }

    /// What it reads.
    #[must_use]
    pub fn input(&self) -> RouterInput {
        match self {
            Self::Scored(router) => router.input,
            Self::SparseMixer(_) | Self::Opaque(_) => RouterInput::Experts,
        }
    }

    /// What of an expert its weight multiplies.
    #[must_use]
    pub fn gate_side(&self) -> GateSide {
        match self {
            Self::Scored(router) => router.gates,
            Self::SparseMixer(_) | Self::Opaque(_) => GateSide::Output,
        }
    }

    /// Groups of experts, if tokens are routed by them.
    #[must_use]
    pub fn groups(&self) -> Option<ExpertGroups> {
        match self {
            Self::Scored(ScoredRouter { groups, .. })
            | Self::Opaque(OpaqueRouter { groups, .. }) => groups.filter(|groups| groups.count > 1),
            Self::SparseMixer(_) => None,
        }
    }

    /// The tensors of the router of layer `layer` with so many experts.
    #[must_use]
    pub fn parts(&self, layer: usize, hidden: usize, experts: usize) -> Vec<Part> {
        let weight = Part::linear(layer, LinearId::Router, experts, hidden).spared().by_expert(0);
        let mut parts = vec![weight];
        match self {
            Self::Scored(router) => {
                let vector = |tensor| Part::of_layer(layer, tensor, vec![experts]).by_expert(0);
                parts.extend(router.bias.then(|| vector(LayerTensor::Bias(LinearId::Router))));
                let correction = LayerTensor::CorrectionBias;
                parts.extend(match router.correction_bias {
                    CorrectionBias::None => None,
                    CorrectionBias::Vector => Some(vector(correction)),
                    CorrectionBias::Row => {
                        Some(Part::of_layer(layer, correction, vec![1, experts]).by_expert(1))
                    }
                });
                parts.extend(router.expert_scale.then(|| vector(LayerTensor::ExpertScale)));
                if router.input == RouterInput::ScaledStream {
                    parts.push(Part::of_layer(layer, RouterInput::SCALE, vec![hidden]));
                }
            }
            Self::SparseMixer(_) => {}
            Self::Opaque(router) => {
                parts.extend(router.tensors.iter().map(|tensor| {
                    let part = tensor.part(layer);
                    Part { shape: part.shape_with(experts), ..part }.spared()
                }));
            }
        }
        parts
    }
}

impl ScoredRouter {
    /// Softmax over all experts, then the `top_k` largest.
    #[must_use]
    pub fn softmax(renormalize: bool) -> Self {
        Self {
            input: RouterInput::Experts,
            score: Score::Softmax,
            bias: false,
            correction_bias: CorrectionBias::None,
            groups: None,
            renormalize,
            epsilon: 0.0,
            least_sum: 0.0,
            scale: 1.0,
            expert_scale: false,
            selects_logits: false,
            gates: GateSide::Output,
        }
    }
}
