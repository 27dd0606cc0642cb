//! Names for the parts of a decoder, free of any family's tensor names.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::{Error, PartName};

/// One of the four projections of grouped-query attention.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[expect(clippy::exhaustive_enums, reason = "attention has these four")]
pub enum AttentionProjection {
    /// `[heads · head_dim, hidden]`
    Query,
    /// `[kv_heads · head_dim, hidden]`
    Key,
    /// `[kv_heads · head_dim, hidden]`
    Value,
    /// `[hidden, heads · head_dim]`
    Output,
}

/// One of the three matrices of a gated MLP, `down(act(gate · x) ∘ (up · x))`; one without a gate,
/// `down(act(up · x))`, has the other two.
///
/// Mixtral and Arctic call them `w1` (gate), `w3` (up) and `w2` (down).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[expect(clippy::exhaustive_enums, reason = "a gated MLP has these three")]
pub enum MlpProjection {
    /// `[inner, hidden]`, goes through the activation.
    Gate,
    /// `[inner, hidden]`, multiplies it; without a gate it goes through the activation itself.
    Up,
    /// `[hidden, inner]`
    Down,
}

impl MlpProjection {
    /// Gate, up, down: the order in which an expert's parameters are flattened is
    /// gate, up, down here; the reference's `w1, w2, w3` differs, which no norm or mean can see.
    pub const ALL: [Self; 3] = [Self::Gate, Self::Up, Self::Down];
}

/// A Linear of one decoder layer. Weights are `[out, in]`.
///
/// The order of the variants is the order in which a layer's Linears are listed and written
/// everywhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
#[non_exhaustive]
pub enum LinearId {
    /// A projection of attention.
    Attention(AttentionProjection),
    /// A matrix that one kind of attention has alone, or one of a kind that cannot be run.
    Named(PartName),
    /// The router: `[experts, hidden]`.
    Router,
    /// The dense MLP beside the experts that Arctic calls residual.
    Residual(MlpProjection),
    /// The MLP of a layer without experts.
    Dense(MlpProjection),
    /// An expert that every token goes through, by its place among them.
    Shared(usize, MlpProjection),
    /// A routed expert.
    Expert(usize, MlpProjection),
}

impl LinearId {
    /// The routed expert this belongs to, if any.
    #[must_use]
    pub fn expert(self) -> Option<usize> {
        match self {
            Self::Expert(e, _) => Some(e),
            _ => None,
        }
    }

    /// The same Linear of another expert; anything else unchanged.
    #[must_use]
    pub fn with_expert(self, expert: usize) -> Self {
        match self {
            Self::Expert(_, p) => Self::Expert(expert, p),
            other => other,
        }
    }
}

impl fmt::Display for LinearId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mlp = |p: MlpProjection| match p {
            MlpProjection::Gate => "gate",
            MlpProjection::Up => "up",
            MlpProjection::Down => "down",
        };
        match *self {
            Self::Attention(AttentionProjection::Query) => f.write_str("attention.query"),
            Self::Attention(AttentionProjection::Key) => f.write_str("attention.key"),
            Self::Attention(AttentionProjection::Value) => f.write_str("attention.value"),
            Self::Attention(AttentionProjection::Output) => f.write_str("attention.output"),
            Self::Router => f.write_str("router"),
            Self::Residual(p) => write!(f, "residual.{}", mlp(p)),
            Self::Dense(p) => write!(f, "dense.{}", mlp(p)),
            Self::Shared(s, p) => write!(f, "shared.{s}.{}", mlp(p)),
            Self::Named(name) => name.fmt(f),
            Self::Expert(e, p) => write!(f, "expert.{e}.{}", mlp(p)),
        }
    }
}

impl FromStr for LinearId {
    type Err = Error;

    fn from_str(s: &str) -> Result<Self, Error> {
        let unknown = || Error::LinearName(s.to_owned());
        let mlp = |p: &str| match p {
            "gate" => Ok(MlpProjection::Gate),
            "up" => Ok(MlpProjection::Up),
            "down" => Ok(MlpProjection::Down),
            _ => Err(unknown()),
        };
        let parts: Vec<&str> = s.split('.').collect();
        Ok(match parts[..] {
            ["attention", "query"] => Self::Attention(AttentionProjection::Query),
            ["attention", "key"] => Self::Attention(AttentionProjection::Key),
            ["attention", "value"] => Self::Attention(AttentionProjection::Value),
            ["attention", "output"] => Self::Attention(AttentionProjection::Output),
            ["router"] => Self::Router,
            ["residual", p] => Self::Residual(mlp(p)?),
            ["dense", p] => Self::Dense(mlp(p)?),
            ["shared", s, p] => Self::Shared(s.parse().map_err(|_| unknown())?, mlp(p)?),
            ["expert", e, p] => Self::Expert(e.parse().map_err(|_| unknown())?, mlp(p)?),
            ["attention" | "router" | "experts" | "other", ..] => {
                Self::Named(PartName::parse(s).map_err(|_| unknown())?)
            }
            _ => return Err(unknown()),
        })
    }
}

impl TryFrom<String> for LinearId {
    type Error = Error;
    fn try_from(s: String) -> Result<Self, Error> {
        s.parse()
    }
}

impl From<LinearId> for String {
    fn from(id: LinearId) -> Self {
        id.to_string()
    }
}

/// A tensor of one decoder layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum LayerTensor {
    /// Norm of the layer's input, before attention or what else is the layer's first block, `[hidden]`.
    InputNorm,
    /// Norm before the MoE block or the dense MLP that follows attention, `[hidden]`.
    PostAttentionNorm,
    /// Norm before Arctic's residual MLP, `[hidden]`.
    ResidualNorm,
    /// What is added after the norm before attention, `[hidden]`.
    InputNormBias,
    /// What is added after the norm before the MoE block or the dense MLP, `[hidden]`.
    PostAttentionNormBias,
    /// The weight of a Linear, `[out, in]`.
    Linear(LinearId),
    /// The bias of a Linear, `[out]`.
    Bias(LinearId),
    /// Added to a router's scores before experts are selected, `[experts]`.
    CorrectionBias,
    /// What the weight of each expert is multiplied by, `[experts]`.
    ExpertScale,
    /// The gate of a shared expert, `[1, hidden]`, by its place among them.
    SharedGate(usize),
    /// A tensor that one kind of part has alone, or one of a kind that cannot be run.
    Named(PartName),
    /// What is stored of a routed expert in a form that is not decoded.
    OfExpert(usize, PartName),
}

impl LayerTensor {
    /// The routed expert this belongs to, if any.
    #[must_use]
    pub fn expert(self) -> Option<usize> {
        match self {
            Self::Linear(linear) | Self::Bias(linear) => linear.expert(),
            Self::OfExpert(expert, _) => Some(expert),
            _ => None,
        }
    }

    /// The same tensor of another expert; anything else unchanged.
    #[must_use]
    pub fn with_expert(self, expert: usize) -> Self {
        match self {
            Self::Linear(linear) => Self::Linear(linear.with_expert(expert)),
            Self::Bias(linear) => Self::Bias(linear.with_expert(expert)),
            Self::OfExpert(_, name) => Self::OfExpert(expert, name),
            other => other,
        }
    }
}

impl fmt::Display for LayerTensor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InputNorm => f.write_str("input norm"),
            Self::PostAttentionNorm => f.write_str("post-attention norm"),
            Self::ResidualNorm => f.write_str("residual norm"),
            Self::InputNormBias => f.write_str("input norm bias"),
            Self::PostAttentionNormBias => f.write_str("post-attention norm bias"),
            Self::Linear(id) => id.fmt(f),
            Self::Bias(id) => write!(f, "{id} bias"),
            Self::CorrectionBias => f.write_str("router correction bias"),
            Self::ExpertScale => f.write_str("scale of the experts"),
            Self::SharedGate(shared) => write!(f, "gate of shared expert {shared}"),
            Self::Named(name) => name.fmt(f),
            Self::OfExpert(expert, name) => write!(f, "{name} of expert {expert}"),
        }
    }
}

/// A tensor of the model by its part, independent of its name on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum TensorId {
    /// Token embeddings, `[vocab, hidden]`.
    Embedding,
    /// A tensor of a decoder layer.
    Layer(usize, LayerTensor),
    /// Norm before the head, `[hidden]`.
    FinalNorm,
    /// What is added after the norm before the head, `[hidden]`.
    FinalNormBias,
    /// Output head, `[vocab, hidden]`. Absent when tied to the embeddings.
    LmHead,
    /// What is added to logits, `[vocab]`.
    LmHeadBias,
}

impl TensorId {
    /// The weight of a Linear of a layer.
    #[must_use]
    pub fn linear(layer: usize, id: LinearId) -> Self {
        Self::Layer(layer, LayerTensor::Linear(id))
    }

    /// The routed expert this belongs to, if any.
    #[must_use]
    pub fn expert(self) -> Option<usize> {
        match self {
            Self::Layer(_, tensor) => tensor.expert(),
            _ => None,
        }
    }

    /// The same tensor of another expert of its layer; anything else unchanged.
    #[must_use]
    pub fn with_expert(self, expert: usize) -> Self {
        match self {
            Self::Layer(layer, tensor) => Self::Layer(layer, tensor.with_expert(expert)),
            other => other,
        }
    }
}

impl fmt::Display for TensorId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Embedding => f.write_str("embedding"),
            Self::FinalNorm => f.write_str("final norm"),
            Self::FinalNormBias => f.write_str("final norm bias"),
            Self::LmHead => f.write_str("head"),
            Self::LmHeadBias => f.write_str("head bias"),
            Self::Layer(l, tensor) => write!(f, "layer {l} {tensor}"),
        }
    }
}
