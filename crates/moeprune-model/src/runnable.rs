//! What of a model the forward pass can run.

use moeprune_core::{
    Activation, AttentionSpec, FeedForward, GroupedAttention, LayerSpec, MlpSpec, ModelSpec,
    RouterSpec,
};

use crate::Error;

/// Checks, before any work, that a model has no kind of part that the forward pass lacks.
///
/// # Errors
/// [`Error::Kind`] names the first one and its layer.
pub fn check_runnable(spec: &ModelSpec) -> Result<(), Error> {
    spec.layers.iter().enumerate().try_for_each(|(layer, parts)| check_layer(parts, layer))
}

/// As [`check_runnable`] for one layer.
pub(crate) fn check_layer(parts: &LayerSpec, layer: usize) -> Result<(), Error> {
    grouped(&parts.attention, layer)?;
    match &parts.feed_forward {
        FeedForward::Dense(mlp) => check_mlp(mlp, "dense MLP", layer)?,
        FeedForward::Moe(moe) => {
            renormalizes(&moe.router, layer)?;
            check_mlp(&moe.expert, "expert", layer)?;
            if let Some(mlp) = &moe.residual {
                check_mlp(mlp, "residual MLP", layer)?;
            }
            if !moe.shared.is_empty() {
                return Err(Error::Kind { layer, part: "expert", kind: "shared".into() });
            }
        }
        other => return Err(Error::Spec(format!("layer {layer}: no feed-forward {other:?}"))),
    }
    match parts.other.first() {
        None => Ok(()),
        Some(tensor) => Err(Error::Kind { layer, part: "tensor", kind: tensor.id.to_string() }),
    }
}

/// The attention of a layer.
pub(crate) fn grouped(spec: &AttentionSpec, layer: usize) -> Result<&GroupedAttention, Error> {
    match spec {
        AttentionSpec::Grouped(attention) => Ok(attention),
        AttentionSpec::Opaque(_) => {
            Err(Error::Kind { layer, part: "attention", kind: spec.kind().to_owned() })
        }
    }
}

/// Whether the router of a layer divides the chosen probabilities by their sum.
pub(crate) fn renormalizes(spec: &RouterSpec, layer: usize) -> Result<bool, Error> {
    spec.plain_softmax().ok_or_else(|| {
        let with = match spec {
            RouterSpec::Scored(router) => [
                (router.bias, " with a bias"),
                (router.correction_bias, " with a correction bias"),
                (router.groups.is_some(), " by groups"),
                (router.scale != 1.0, " with a scale"),
                (router.expert_scale, " with a scale per expert"),
            ]
            .into_iter()
            .filter_map(|(is_there, text)| is_there.then_some(text))
            .collect(),
            RouterSpec::Opaque(_) => String::new(),
        };
        Error::Kind { layer, part: "router", kind: format!("{}{with}", spec.kind()) }
    })
}

/// Checks that an MLP is SiLU-gated and without biases.
pub(crate) fn check_mlp(mlp: &MlpSpec, part: &'static str, layer: usize) -> Result<(), Error> {
    let kind = match mlp.activation {
        _ if !mlp.gated => "ungated",
        _ if mlp.biases => "biased",
        Activation::Silu => return Ok(()),
        Activation::Opaque => mlp.activation.kind(),
    };
    Err(Error::Kind { layer, part, kind: kind.to_owned() })
}
