//! The shape of the embedded model.

use crate::kernel::attention::Heads;
use serde_json::{Value, json};

/// What the released Arctic calls these numbers is in [`Config::json`].
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// Tokens of the vocabulary.
    pub vocabulary: usize,
    /// Width of the residual stream; the residual MLP is as wide inside.
    pub hidden: usize,
    /// Inner width of an expert.
    pub inner: usize,
    /// Decoder layers, each with a mixture of experts.
    pub layers: usize,
    /// Sizes of the attention heads.
    pub heads: Heads,
    /// Experts a layer.
    pub experts: usize,
    /// Experts a token.
    pub chosen: usize,
    /// Positions the rotary tables cover.
    pub positions: usize,
    /// Base of the rotary frequencies.
    pub rope_theta: f64,
    /// Added to the mean square in normalisations.
    pub norm_eps: f64,
    /// Weight of the load-balancing loss.
    pub balance: f64,
}

impl Config {
    /// The shape of the committed model.
    pub fn nano() -> Self {
        Self {
            vocabulary: 864,
            hidden: 128,
            inner: 96,
            layers: 4,
            heads: Heads { queries: 4, keys: 2, size: 32 },
            experts: 32,
            chosen: 2,
            positions: 512,
            rope_theta: 10_000.0,
            norm_eps: 1e-5,
            balance: 0.01,
        }
    }

    /// A shape for tests: everything small and different.
    pub fn tiny() -> Self {
        Self {
            vocabulary: 320,
            hidden: 16,
            inner: 12,
            layers: 2,
            heads: Heads { queries: 2, keys: 1, size: 8 },
            experts: 4,
            ..Self::nano()
        }
    }

    /// The `config.json` of a Hugging Face directory, with the keys of the released Arctic.
    pub fn json(&self, bos: u32, eos: u32) -> Value {
        json!({
            "architectures": ["ArcticForCausalLM"],
            "model_type": "arctic",
            "vocab_size": self.vocabulary,
            "hidden_size": self.hidden,
            "intermediate_size": self.inner,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads.queries,
            "num_key_value_heads": self.heads.keys,
            "max_position_embeddings": self.positions,
            "rope_theta": self.rope_theta,
            "rms_norm_eps": self.norm_eps,
            "num_experts_per_tok": self.chosen,
            "num_local_experts": self.experts,
            "moe_layer_frequency": 1,
            "parallel_attn_mlp_res": true,
            "bos_token_id": bos,
            "eos_token_id": eos,
            "tie_word_embeddings": false,
            "hidden_act": "silu",
            "use_residual": true,
            "attention_dropout": 0,
            "enable_expert_tensor_parallelism": false,
            "initializer_range": 0.02,
            "moe_eval_capacity_factor": 1,
            "moe_min_capacity": 0,
            "moe_token_dropping": false,
            "moe_train_capacity_factor": 1,
            "router_aux_loss_coef": self.balance,
            "sliding_window": null,
            "torch_dtype": "bfloat16",
            "use_cache": true,
        })
    }
}
