//! What of a model the forward pass can run.

use moeprune_core::{
    Activation, AttentionSpec, FeedForward, LayerNorms, LayerSpec, MlpSpec, ModelSpec, RouterSpec,
    Undecoded,
};

use crate::Error;

/// Checks, before any work, that a model has no kind of part that the forward pass lacks.
///
/// # Errors
/// [`Error::Kind`] names the first one and its layer.
pub fn check_runnable(spec: &ModelSpec) -> Result<(), Error> {
    if let Some(undecoded) = &spec.undecoded {
        let (what, form) = (undecoded.what(), undecoded.to_string());
        return Err(Error::Undecoded { what, form });
    }
    spec.layers.iter().enumerate().try_for_each(|(layer, parts)| check_layer(parts, layer))
}

/// As [`check_runnable`] for one layer.
pub(crate) fn check_layer(parts: &LayerSpec, layer: usize) -> Result<(), Error> {
    match &parts.attention {
        AttentionSpec::Grouped(_)
        | AttentionSpec::Latent(_)
        | AttentionSpec::GatedDelta(_)
        | AttentionSpec::KimiDelta(_)
        | AttentionSpec::ShortConvolution(_)
        | AttentionSpec::Mamba2(_)
        | AttentionSpec::None => {}
        AttentionSpec::Opaque(_) => return Err(opaque_attention(layer)),
    }
    match &parts.feed_forward {
        FeedForward::Dense(mlp) => check_mlp(mlp, "dense MLP", layer)?,
        FeedForward::Moe(moe) => {
            match &moe.router {
                RouterSpec::Scored(_) | RouterSpec::SparseMixer(_) => {}
                RouterSpec::Opaque(_) => return Err(opaque_router(layer)),
            }
            if let Some(stored) = moe.opaque.first() {
                let form = stored.form.as_deref().map(str::to_uppercase);
                let form = form.unwrap_or_else(|| stored.id.to_string());
                let form = Undecoded::form(form).to_string();
                return Err(Error::Undecoded {
                    what: format!("experts of layer {layer} are"),
                    form,
                });
            }
            check_mlp(&moe.expert, "expert", layer)?;
            if let Some(mlp) = &moe.residual {
                check_mlp(mlp, "residual MLP", layer)?;
            }
            moe.shared
                .iter()
                .try_for_each(|shared| check_mlp(&shared.mlp, "shared expert", layer))?;
        }
        FeedForward::None => {}
        other => return Err(Error::Spec(format!("layer {layer}: no feed-forward {other:?}"))),
    }
    if parts.norms == LayerNorms::Named {
        return Err(unknown_norms(layer));
    }
    match parts.other.first() {
        None => Ok(()),
        Some(tensor) => Err(Error::Kind { layer, part: "tensor", kind: tensor.id.to_string() }),
    }
}

/// What is said of attention of which only the tensors are known.
pub(crate) fn opaque_attention(layer: usize) -> Error {
    Error::Kind { layer, part: "attention", kind: "opaque".to_owned() }
}

/// What is said of such a router.
pub(crate) fn opaque_router(layer: usize) -> Error {
    Error::Kind { layer, part: "router", kind: "opaque".to_owned() }
}

/// What is said of a layer with such norms.
pub(crate) fn unknown_norms(layer: usize) -> Error {
    Error::Kind { layer, part: "norms", kind: "named".to_owned() }
}

/// Checks that an MLP has a known activation, and a gate if that needs one and none if not.
pub(crate) fn check_mlp(mlp: &MlpSpec, part: &'static str, layer: usize) -> Result<(), Error> {
    let kind = match (mlp.activation, mlp.gated) {
        (Activation::Silu | Activation::GeluTanh | Activation::ClampedSwiglu(_), true)
        | (Activation::ReluSquared, false) => return Ok(()),
        (Activation::Opaque, _) => mlp.activation.kind().to_owned(),
        (activation, true) => format!("gated {}", activation.kind()),
        (activation, false) => format!("ungated {}", activation.kind()),
    };
    Err(Error::Kind { layer, part, kind })
}
