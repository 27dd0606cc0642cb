//! What tensors are for.

use moeprune_core::{LayerTensor, LinearId, PartName, TensorId};

use super::StoredTensor;

/// The role of a tensor of the decoder.
pub(super) fn role_of(tensor: &StoredTensor) -> &'static str {
    if tensor.experts.is_some() {
        return "experts";
    }
    tensor.part.map_or("other", role_of_part)
}

/// The role of a part.
pub(super) fn role_of_part(part: TensorId) -> &'static str {
    match part {
        TensorId::Embedding => "embedding",
        TensorId::LmHead | TensorId::LmHeadBias => "head",
        TensorId::Layer(_, part) => match part {
            LayerTensor::Linear(linear) | LayerTensor::Bias(linear) => match linear {
                LinearId::Attention(_) => "attention",
                LinearId::Router => "router",
                LinearId::Residual(_) => "residual",
                LinearId::Dense(_) => "dense",
                LinearId::Shared(..) => "shared",
                LinearId::Expert(..) => "experts",
                LinearId::Named(name) => role_of_named(name),
                _ => "other",
            },
            LayerTensor::CorrectionBias | LayerTensor::ExpertScale => "router",
            LayerTensor::SharedGate(_) => "shared",
            LayerTensor::Named(name) => role_of_named(name),
            _ => "norms",
        },
        TensorId::FinalNorm | TensorId::FinalNormBias => "norms",
        _ => "other",
    }
}

/// Names that a descriptor gives begin with its table.
fn role_of_named(name: PartName) -> &'static str {
    match name.as_str().split('.').next() {
        Some("attention") => "attention",
        Some("router") => "router",
        Some("experts") => "latent",
        _ => "other",
    }
}
