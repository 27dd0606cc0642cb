//! What a descriptor says of the arithmetic without a config key for it.

use moeprune_core::Activation;

use super::{Descriptor, descriptor::NormWeightsForm};

/// A fact that configs of other families have a key for. Where a descriptor reads none of the keys, a
/// config that has one of them must say what the family does anyway.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fact {
    /// Of MLPs.
    Activation,
    /// How experts are scored.
    Score,
    /// How experts are chosen by their scores.
    Choice,
    /// Whether the weights of chosen experts are divided by their sum.
    Renormalized,
    Norm,
}

/// Keys under which configs state the facts.
pub(crate) const KEYS: [(Fact, &[&str]); 5] = [
    (
        Fact::Activation,
        &[
            "hidden_act",
            "hidden_activation",
            "mlp_hidden_act",
            "ffn_hidden_act",
            "moe_hidden_act",
            "activation",
            "activation_function",
            "activation_fn",
            "activation_type",
            "act_fn",
            "mlp_activation",
            "ffn_activation",
            "moe_activation",
            "expert_activation",
        ],
    ),
    (
        Fact::Score,
        &[
            "scoring_func",
            "scoring_function",
            "score_func",
            "score_function",
            "router_scoring_func",
            "router_score_function",
            "router_activation",
            "router_activation_func",
            "moe_scoring_func",
            "moe_score_func",
            "moe_router_score_function",
            "moe_router_activation_func",
            "moe_gate_act",
            "moe_gate_activation",
            "gate_activation",
        ],
    ),
    (Fact::Choice, &["topk_method", "top_k_method", "moe_topk_method"]),
    (Fact::Renormalized, &["norm_topk_prob", "norm_topk_probs", "moe_renormalize"]),
    (
        Fact::Norm,
        &["norm_type", "norm_class", "normalization", "normalization_type", "layer_norm_type"],
    ),
];

impl Fact {
    /// What a refusal says.
    pub(crate) fn because(self) -> &'static str {
        match self {
            Self::Activation => "another activation is not implemented for this family",
            Self::Score => "another score of experts is not implemented for this family",
            Self::Choice => "another choice of experts is not implemented for this family",
            Self::Renormalized => {
                "whether weights of experts are divided by their sum is the same in all models of \
                 this family"
            }
            Self::Norm => "other norms are not implemented for this family",
        }
    }
}

impl Descriptor {
    /// The words by which configs name what this family does, lower-case and without `_` and `-`; `None`
    /// where the family does not say.
    pub(crate) fn words_for(&self, fact: Fact) -> Option<Vec<&'static str>> {
        let of_bool = |is: bool| vec![if is { "true" } else { "false" }];
        match fact {
            Fact::Activation => None, // read as the family's own is
            Fact::Score => self.router.score_words(),
            Fact::Choice => self.router.choice_words(),
            Fact::Renormalized => self.router.renormalizes().map(of_bool),
            Fact::Norm => Some(match self.model.norm_weights {
                NormWeightsForm::Factor | NormWeightsForm::MinusOne => vec!["rms", "rmsnorm"],
                NormWeightsForm::WithBias => vec!["layernorm"],
            }),
        }
    }

    /// The activation of this name, if MLPs of this family may have it.
    pub(crate) fn activation_named(&self, name: &str) -> Option<Activation> {
        match name {
            "silu" | "swish" => Some(Activation::Silu),
            "gelu_pytorch_tanh" if self.experts.is_gated() => Some(Activation::GeluTanh),
            "relu2" if !self.experts.is_gated() => Some(Activation::ReluSquared),
            _ => None,
        }
    }
}
