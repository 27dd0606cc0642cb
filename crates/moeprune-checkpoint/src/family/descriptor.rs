//! The TOML form of a family.

use moeprune_core::MoeInput;
use serde::Deserialize;

use crate::Error;

/// A family as it is written. Unknown keys are errors at every level.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Descriptor {
    pub(crate) name: String,
    pub(crate) model_types: Vec<String>,
    pub(crate) config: ConfigKeys,
    pub(crate) routing: RoutingForm,
    pub(crate) moe: MoeForm,
    pub(crate) dense: Option<DenseForm>,
    pub(crate) residual: Option<ResidualForm>,
    #[serde(default)]
    pub(crate) require: Vec<Requirement>,
    pub(crate) tensors: TensorNames,
}

/// Where a fact stands in `config.json`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Key<T> {
    /// Aliases; a dot descends into an object.
    pub(crate) keys: Vec<String>,
    /// What the public model code takes when none is there.
    pub(crate) default: Option<T>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ConfigKeys {
    pub(crate) hidden: Key<usize>,
    pub(crate) vocab: Key<usize>,
    pub(crate) layers: Key<usize>,
    pub(crate) heads: Key<usize>,
    pub(crate) kv_heads: Key<usize>,
    pub(crate) head_dim: Key<usize>,
    pub(crate) max_positions: Key<usize>,
    pub(crate) rope_theta: Key<f64>,
    pub(crate) norm_eps: Key<f64>,
    pub(crate) sliding_window: Key<usize>,
    pub(crate) tied_embeddings: Key<bool>,
    pub(crate) activation: Key<String>,
    pub(crate) dtype: Key<String>,
    /// One number for all layers, or a list of them.
    pub(crate) experts: Key<usize>,
    pub(crate) top_k: Key<usize>,
    pub(crate) expert_inner: Key<usize>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RoutingForm {
    pub(crate) kind: RoutingKind,
    pub(crate) renormalize: Renormalize,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum RoutingKind {
    SoftmaxTopK,
}

/// Whether the chosen probabilities are divided by their sum.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Renormalize {
    Always,
    Never,
    /// Only if more than one expert is chosen.
    WhenSeveral,
    /// As a config key says.
    Config(Key<bool>),
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct MoeForm {
    pub(crate) input: MoeInputForm,
    /// Layer `l` has experts iff `(l + 1) % every == 0`; absent: every layer has.
    pub(crate) every: Option<Key<usize>>,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum MoeInputForm {
    AfterAttention,
    LayerInput,
}

impl From<MoeInputForm> for MoeInput {
    fn from(form: MoeInputForm) -> Self {
        match form {
            MoeInputForm::AfterAttention => Self::AfterAttention,
            MoeInputForm::LayerInput => Self::LayerInput,
        }
    }
}

/// The MLP of layers without experts.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct DenseForm {
    pub(crate) inner: Key<usize>,
}

/// The dense MLP beside the experts.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ResidualForm {
    pub(crate) when: Key<bool>,
    pub(crate) inner: Key<usize>,
    /// What the experts read in a model that has it.
    pub(crate) moe_input: MoeInputForm,
}

/// A config key with which only some values are implemented.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Requirement {
    pub(crate) key: String,
    /// Values that are, besides absent and null.
    #[serde(default)]
    pub(crate) allowed: Vec<toml::Value>,
    pub(crate) because: String,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct TensorNames {
    pub(crate) embedding: String,
    pub(crate) final_norm: String,
    pub(crate) head: String,
    /// Tensors of a layer that are no weights the forward pass needs.
    #[serde(default)]
    pub(crate) carried: Vec<String>,
    pub(crate) layer: LayerNames,
    pub(crate) attention: AttentionNames,
    pub(crate) expert: MlpNames,
    pub(crate) residual: Option<MlpNames>,
    pub(crate) dense: Option<MlpNames>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct LayerNames {
    pub(crate) input_norm: String,
    pub(crate) post_attention_norm: String,
    pub(crate) residual_norm: Option<String>,
    pub(crate) router: String,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct AttentionNames {
    pub(crate) query: String,
    pub(crate) key: String,
    pub(crate) value: String,
    pub(crate) output: String,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct MlpNames {
    pub(crate) gate: String,
    pub(crate) up: String,
    pub(crate) down: String,
}

impl Descriptor {
    /// Checks what types cannot: parts that need names have them.
    pub(crate) fn check(&self) -> Result<(), Error> {
        let bad = |reason: &str| Err(Error::Descriptor { reason: reason.to_owned() });
        if self.model_types.is_empty() {
            return bad("`model_types` is empty");
        }
        if self.config.experts.keys.is_empty() {
            return bad("`config.experts` has no keys; the expert count must stand somewhere");
        }
        if self.config.experts.default.is_some() {
            return bad("`config.experts` cannot have a default: a pruned count is written there");
        }
        if self.dense.is_some() != self.tensors.dense.is_some() {
            return bad("`[dense]` and `[tensors.dense]` must be given together");
        }
        if self.moe.every.is_some() && self.dense.is_none() {
            return bad("`moe.every` makes layers without experts, so `[dense]` is needed");
        }
        let residual = self.residual.is_some();
        if residual != self.tensors.residual.is_some()
            || residual != self.tensors.layer.residual_norm.is_some()
        {
            return bad(
                "`[residual]`, `[tensors.residual]` and `tensors.layer.residual_norm` must be \
                 given together",
            );
        }
        Ok(())
    }
}
