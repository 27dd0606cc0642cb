//! One tensor of a shape.

use moeprune_core::{LayerTensor, LinearId, TensorId};

/// Bytes of an element: all tensors are bf16.
pub(crate) const ELEMENT: usize = 2;

/// A tensor that a shape asks for.
#[derive(Debug, Clone)]
pub(crate) struct ShapedTensor {
    pub(crate) name: String,
    pub(crate) part: TensorId,
    pub(crate) shape: Vec<usize>,
}

impl ShapedTensor {
    pub(crate) fn elements(&self) -> u64 {
        self.shape.iter().map(|&dim| dim as u64).product()
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.elements() * ELEMENT as u64
    }

    pub(crate) fn is_norm(&self) -> bool {
        self.shape.len() == 1
    }

    pub(crate) fn is_router(&self) -> bool {
        matches!(self.part, TensorId::Layer(_, LayerTensor::Linear(LinearId::Router)))
    }
}
