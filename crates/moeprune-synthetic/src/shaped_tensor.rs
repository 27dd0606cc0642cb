//! One tensor of a shape.

use moeprune_checkpoint::FusedTensor;
use moeprune_core::{Dtype, LayerTensor, LinearId, TensorId};

/// A tensor that a published model has, by name.
#[derive(Debug, Clone)]
pub(crate) struct NamedTensor {
    pub(crate) name: String,
    pub(crate) dtype: Dtype,
    pub(crate) shape: Vec<usize>,
}

impl NamedTensor {
    pub(crate) fn bytes(&self) -> u64 {
        self.dtype.bytes_of_shape(&self.shape).unwrap_or_default() as u64
    }
}

/// A tensor that a shape asks for.
#[derive(Debug, Clone)]
pub(crate) struct ShapedTensor {
    pub(crate) named: NamedTensor,
    pub(crate) role: Role,
}

/// What a tensor is of a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Role {
    /// A part of it.
    Part(TensorId),
    /// All experts of a layer.
    Experts(FusedTensor),
    /// Nothing that pruning knows: a vision tower.
    Carried,
}

impl ShapedTensor {
    pub(crate) fn is_vector(&self) -> bool {
        self.named.shape.len() == 1
    }

    pub(crate) fn is_router(&self) -> bool {
        let router = LayerTensor::Linear(LinearId::Router);
        matches!(self.role, Role::Part(TensorId::Layer(_, tensor)) if tensor == router)
    }
}
