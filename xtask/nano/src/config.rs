//! The shapes of the models.

use crate::kernel::attention::Heads;
use serde_json::{Value, json};

/// How a layer is put together.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Design {
    /// Snowflake Arctic's: experts on the layer's input, beside attention and a residual MLP that is
    /// as wide inside as the stream; a softmax router, balanced by a loss.
    Arctic,
    /// GLM-4.5's, with DeepSeek-V3's routing: experts after attention, with a shared expert of their
    /// size; a sigmoid router, balanced by correction biases without gradients.
    SharedExpert {
        /// What the shares of a token's experts sum to.
        scale: f64,
        /// How far a bias moves per step.
        bias_step: f32,
    },
}

impl Design {
    /// Whether there is a residual MLP with its own normalisation.
    pub fn has_residual(self) -> bool {
        self == Self::Arctic
    }
}

/// What the released models call these numbers is in [`Config::json`].
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// How a layer is put together.
    pub design: Design,
    /// Tokens of the vocabulary.
    pub vocabulary: usize,
    /// Width of the residual stream.
    pub hidden: usize,
    /// Inner width of an expert.
    pub inner: usize,
    /// Decoder layers, each with a mixture of experts.
    pub layers: usize,
    /// Sizes of the attention heads.
    pub heads: Heads,
    /// Experts per layer.
    pub experts: usize,
    /// Experts per token.
    pub chosen: usize,
    /// Positions the rotary tables cover.
    pub positions: usize,
    /// Base of the rotary frequencies.
    pub rope_theta: f64,
    /// Added to the mean square in normalisations.
    pub norm_eps: f64,
    /// Weight of the load-balancing loss, where there is one.
    pub balance: f64,
}

impl Config {
    /// The shape of the committed model.
    pub fn nano() -> Self {
        Self {
            design: Design::Arctic,
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

    /// Four experts per token, narrower than [`Config::nano`]'s, and a shared one.
    pub fn sigmoid_shared() -> Self {
        Self {
            design: Design::SharedExpert { scale: 2.5, bias_step: 1e-3 },
            inner: 64,
            chosen: 4,
            ..Self::nano()
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

    /// Inner width of the MLP besides the experts.
    pub fn beside(&self) -> usize {
        match self.design {
            Design::Arctic => self.hidden,
            Design::SharedExpert { .. } => self.inner,
        }
    }

    /// The `config.json` of a Hugging Face directory, with the keys of the released models.
    pub fn json(&self, bos: u32, eos: u32) -> Value {
        match self.design {
            Design::Arctic => self.arctic_json(bos, eos),
            Design::SharedExpert { scale, .. } => self.glm_json(scale, bos, eos),
        }
    }

    fn glm_json(&self, scale: f64, bos: u32, eos: u32) -> Value {
        json!({
            "architectures": ["Glm4MoeForCausalLM"],
            "model_type": "glm4_moe",
            "vocab_size": self.vocabulary,
            "hidden_size": self.hidden,
            "intermediate_size": 4 * self.inner,
            "moe_intermediate_size": self.inner,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads.queries,
            "num_key_value_heads": self.heads.keys,
            "head_dim": self.heads.size,
            "partial_rotary_factor": 1.0,
            "max_position_embeddings": self.positions,
            "rope_theta": self.rope_theta,
            "rms_norm_eps": self.norm_eps,
            "n_routed_experts": self.experts,
            "num_experts_per_tok": self.chosen,
            "n_shared_experts": 1,
            "n_group": 1,
            "topk_group": 1,
            "norm_topk_prob": true,
            "routed_scaling_factor": scale,
            "first_k_dense_replace": 0,
            "use_qk_norm": false,
            "attention_bias": false,
            "attention_dropout": 0.0,
            "bos_token_id": bos,
            "eos_token_id": eos,
            "tie_word_embeddings": false,
            "hidden_act": "silu",
            "initializer_range": 0.02,
            "torch_dtype": "bfloat16",
            "use_cache": true,
        })
    }

    fn arctic_json(&self, bos: u32, eos: u32) -> Value {
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
