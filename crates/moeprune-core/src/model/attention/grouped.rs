//! Grouped-query attention.

use serde::Serialize;

use crate::{
    AttentionProjection, LayerTensor, LinearId, PartName,
    model::{Part, RotarySpec},
};

/// Grouped-query attention (Ainslie et al. 2023): query heads share key and value heads in equal
/// groups. Scores are `query · key · scale`.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[expect(clippy::exhaustive_structs, reason = "plain data")]
pub struct GroupedAttention {
    /// Query heads.
    pub heads: usize,
    /// Key and value heads; divides `heads`.
    pub kv_heads: usize,
    /// Width of one head.
    pub head_dim: usize,
    /// What scores are multiplied by; `None`: `1 / sqrt(head_dim)`.
    pub scale: Option<f64>,
    /// How queries and keys turn with the position; `None`: not at all.
    pub rotary: Option<RotarySpec>,
    /// How far back a query looks.
    pub reach: Reach,
    /// How queries grow with the position; `None`: not at all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub temperature: Option<QueryTemperature>,
    /// Which projections have a bias.
    pub biases: AttentionBiases,
    /// RMS norms of queries and keys.
    pub norm: Option<QueryKeyNorm>,
    /// What values are made from.
    #[serde(skip_serializing_if = "ValueSource::is_own")]
    pub values: ValueSource,
    /// Whether each head of the values goes through an RMS norm without a weight (Gemma 4).
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub value_norm: bool,
    /// Queries, keys and values are limited to `-clip..=clip`, after the norm and before they turn.
    pub clip: Option<f64>,
    /// Whether each query head has a sink: one more score of the softmax, `[heads]`, whose share no value
    /// gets (gpt-oss).
    pub sinks: bool,
    /// Whether the query matrix also makes a gate of each head, as wide as the head and after it: the
    /// heads' outputs are multiplied by its logistic function.
    pub output_gate: bool,
}

/// How far back a query looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "snake_case")]
#[expect(clippy::exhaustive_enums, reason = "a new kind must be answered for everywhere")]
pub enum Reach {
    /// To the first position.
    #[default]
    Everything,
    /// Over this many positions, its own the last of them.
    Window(usize),
    /// To the first position of its chunk, if positions are cut into chunks of this many (Llama 4).
    Chunk(usize),
}

/// Queries are multiplied by `1 + scale · ln(1 + floor((position + 1) / floor))` (Nakanishi 2025, arXiv
/// 2501.19399; Llama 4 in layers without rotary positions).
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[expect(clippy::exhaustive_structs, reason = "plain data")]
pub struct QueryTemperature {
    /// What the logarithm is multiplied by.
    pub scale: f64,
    /// Positions up to which queries stay as they are.
    pub floor: f64,
}

impl QueryTemperature {
    /// What the query at a position is multiplied by.
    #[must_use]
    pub fn at(&self, position: usize) -> f64 {
        1.0 + self.scale * ((position as f64 + 1.0) / self.floor).floor().ln_1p()
    }
}

/// What the values of grouped-query attention are made from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "snake_case")]
#[expect(clippy::exhaustive_enums, reason = "a new kind must be answered for everywhere")]
pub enum ValueSource {
    /// The layer's input, by a matrix of their own.
    #[default]
    Own,
    /// They are what the keys are before their norm and before they turn (Gemma 4 in full layers).
    Keys,
}

impl ValueSource {
    fn is_own(&self) -> bool {
        *self == Self::Own
    }
}

/// Which projections of grouped-query attention have a bias.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[expect(clippy::exhaustive_structs, reason = "plain data")]
pub struct AttentionBiases {
    /// Query, key and value.
    pub query_key_value: bool,
    /// Output.
    pub output: bool,
}

/// What a norm of queries and keys is taken over, and when.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[expect(clippy::exhaustive_enums, reason = "a new kind must be answered for everywhere")]
pub enum QueryKeyNorm {
    /// Each head on its own, before it turns; all of them share one weight, `[head_dim]`.
    PerHead,
    /// The same after it turned.
    PerHeadAfterRotary,
    /// The same with no weight (Llama 4).
    UnweightedAfterRotary,
    /// All heads of a token together, before they turn, `[heads · head_dim]`.
    FullWidth,
}

impl GroupedAttention {
    /// The weight of the norm of queries.
    pub const QUERY_NORM: LayerTensor =
        LayerTensor::Named(PartName::constant("attention.query_norm"));
    /// The weight of the norm of keys.
    pub const KEY_NORM: LayerTensor = LayerTensor::Named(PartName::constant("attention.key_norm"));

    /// The scores of the sinks.
    pub const SINKS: LayerTensor = LayerTensor::Named(PartName::constant("attention.sinks"));

    /// With plain rotary positions over whole heads of base `theta`, and nothing else.
    #[must_use]
    pub fn new(heads: usize, kv_heads: usize, head_dim: usize, theta: f64) -> Self {
        Self {
            heads,
            kv_heads,
            head_dim,
            scale: None,
            rotary: Some(RotarySpec::plain(theta, head_dim)),
            reach: Reach::Everything,
            temperature: None,
            biases: AttentionBiases::default(),
            norm: None,
            values: ValueSource::Own,
            value_norm: false,
            clip: None,
            sinks: false,
            output_gate: false,
        }
    }

    /// Width of all queries of a token.
    #[must_use]
    pub fn query_width(&self) -> usize {
        self.heads * self.head_dim
    }

    /// Rows of the query matrix: queries, and gates if there are some.
    #[must_use]
    pub fn query_rows(&self) -> usize {
        if self.output_gate { 2 * self.query_width() } else { self.query_width() }
    }

    /// Width of all keys of a token, and of all values.
    #[must_use]
    pub fn kv_width(&self) -> usize {
        self.kv_heads * self.head_dim
    }

    pub(super) fn parts(&self, layer: usize, hidden: usize) -> Vec<Part> {
        use AttentionProjection::{Key, Output, Query, Value};
        let (query, kv) = (self.query_width(), self.kv_width());
        let part = |p, rows, cols| Part::linear(layer, LinearId::Attention(p), rows, cols);
        let vector = |tensor, width| Part::of_layer(layer, tensor, vec![width]);
        let mut parts = vec![
            part(Query, self.query_rows(), hidden),
            part(Key, kv, hidden).reading_with(LinearId::Attention(Query)),
        ];
        let has_values = self.values == ValueSource::Own;
        if has_values {
            parts.push(part(Value, kv, hidden).reading_with(LinearId::Attention(Query)));
        }
        parts.push(part(Output, hidden, query));
        let bias = |p, width| vector(LayerTensor::Bias(LinearId::Attention(p)), width);
        if self.biases.query_key_value {
            parts.extend([bias(Query, self.query_rows()), bias(Key, kv)]);
            parts.extend(has_values.then(|| bias(Value, kv)));
        }
        if self.biases.output {
            parts.push(bias(Output, hidden));
        }
        let norms = match self.norm {
            None | Some(QueryKeyNorm::UnweightedAfterRotary) => None,
            Some(QueryKeyNorm::PerHead | QueryKeyNorm::PerHeadAfterRotary) => {
                Some((self.head_dim, self.head_dim))
            }
            Some(QueryKeyNorm::FullWidth) => Some((query, kv)),
        };
        if let Some((of_queries, of_keys)) = norms {
            parts.push(vector(Self::QUERY_NORM, of_queries));
            parts.push(vector(Self::KEY_NORM, of_keys));
        }
        if self.sinks {
            parts.push(vector(Self::SINKS, self.heads));
        }
        parts
    }
}
