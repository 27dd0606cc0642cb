//! One tensor of a model.

use crate::{LayerTensor, LinearId, TensorId};

/// A tensor that a model has, and what pruning may do with it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "plain data")]
pub struct Part {
    /// Which tensor.
    pub id: TensorId,
    /// Its dimensions, outermost first.
    pub shape: Vec<usize>,
    /// The input site: the Linear under which the statistics of its input are kept. Linears that
    /// read the same vector share one. `None` of what multiplies no input.
    pub reads: Option<LinearId>,
    /// The axis along which there is one entry per expert, for a tensor that all experts of a layer
    /// share. It shrinks when experts are dropped.
    pub expert_axis: Option<usize>,
    /// Whether it counts as a decoder Linear, whose weights the unstructured stage may zero.
    pub prunable: bool,
}

/// A Linear of a layer and the shape of its weight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "plain data")]
pub struct LinearShape {
    /// Which Linear.
    pub id: LinearId,
    /// Outputs.
    pub rows: usize,
    /// Inputs.
    pub cols: usize,
    /// As [`Part::reads`]: where the statistics of its input are kept.
    pub reads: LinearId,
    /// As [`Part::prunable`]: false of routers.
    pub prunable: bool,
}

impl LinearShape {
    /// Number of weights.
    #[must_use]
    pub fn parameters(&self) -> u64 {
        self.rows as u64 * self.cols as u64
    }
}

impl Part {
    /// A tensor that stays as it is.
    pub(super) fn whole(id: TensorId, shape: Vec<usize>) -> Self {
        Self { id, shape, reads: None, expert_axis: None, prunable: false }
    }

    /// A tensor of a layer that stays as it is.
    pub(super) fn of_layer(layer: usize, tensor: LayerTensor, shape: Vec<usize>) -> Self {
        Self::whole(TensorId::Layer(layer, tensor), shape)
    }

    /// The weight of a Linear whose weights may be zeroed and whose input no other Linear reads.
    pub(super) fn linear(layer: usize, id: LinearId, rows: usize, cols: usize) -> Self {
        Self {
            id: TensorId::linear(layer, id),
            shape: vec![rows, cols],
            reads: Some(id),
            expert_axis: None,
            prunable: true,
        }
    }

    /// The same, reading what `first` reads.
    pub(super) fn reading_with(self, first: LinearId) -> Self {
        Self { reads: Some(first), ..self }
    }

    /// The same with one entry per expert along `axis`.
    pub(super) fn by_expert(self, axis: usize) -> Self {
        Self { expert_axis: Some(axis), ..self }
    }

    /// The same, and the unstructured stage leaves it alone.
    pub(super) fn spared(self) -> Self {
        Self { prunable: false, ..self }
    }

    /// Number of elements.
    #[must_use]
    pub fn parameters(&self) -> u64 {
        self.shape.iter().map(|&dim| dim as u64).product()
    }

    /// Its shape in a model that keeps so many experts in this layer.
    #[must_use]
    pub fn shape_with(&self, experts: usize) -> Vec<usize> {
        let mut shape = self.shape.clone();
        if let Some(dim) = self.expert_axis.and_then(|axis| shape.get_mut(axis)) {
            *dim = experts;
        }
        shape
    }

    /// The Linear whose weight it is.
    #[must_use]
    pub fn linear_shape(&self) -> Option<LinearShape> {
        match (self.id, self.shape.as_slice(), self.reads) {
            (TensorId::Layer(_, LayerTensor::Linear(id)), &[rows, cols], Some(reads)) => {
                Some(LinearShape { id, rows, cols, reads, prunable: self.prunable })
            }
            _ => None,
        }
    }
}
