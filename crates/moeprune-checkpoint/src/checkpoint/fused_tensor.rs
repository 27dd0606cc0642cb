//! A tensor that holds all experts of a layer.

use moeprune_core::TensorId;

use crate::{
    Error,
    family::Slab,
    place::{FusedExperts, Place, TensorForm},
};

/// What a tensor holds that has all experts of a layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FusedTensor {
    pub(super) layer: usize,
    pub(super) slab: Slab,
    /// Whether experts have a gate matrix.
    pub(super) gated: bool,
    pub(super) experts: FusedExperts,
}

impl FusedTensor {
    /// The layer whose experts these are.
    #[must_use]
    pub fn layer(&self) -> usize {
        self.layer
    }

    /// How they lie in the tensor.
    #[must_use]
    pub fn experts(&self) -> FusedExperts {
        self.experts
    }

    /// The same in a model with so many experts.
    #[must_use]
    pub(crate) fn with_experts(&self, experts: usize) -> Self {
        Self { experts: FusedExperts { experts, ..self.experts }, ..self.clone() }
    }

    /// Whether what it holds is not decoded.
    pub(crate) fn is_opaque(&self) -> bool {
        matches!(self.slab, Slab::Opaque(_))
    }

    /// Whether it holds biases.
    pub(crate) fn is_bias(&self) -> bool {
        matches!(self.slab, Slab::GateUpBias | Slab::DownBias)
    }

    /// The parts of an expert that are in the tensor, in their order there.
    #[must_use]
    pub fn parts(&self, expert: usize) -> Vec<TensorId> {
        let tensors = self.slab.tensors(expert, self.gated);
        tensors.into_iter().map(|tensor| TensorId::Layer(self.layer, tensor)).collect()
    }

    /// Where every part is in a tensor of this form.
    pub(crate) fn places(&self, form: TensorForm<'_>) -> Result<Vec<(TensorId, Place)>, Error> {
        let mut places = Vec::new();
        for expert in 0..self.experts.experts {
            for (matrix, part) in self.parts(expert).into_iter().enumerate() {
                let place = match self.slab {
                    Slab::Opaque(_) => self.experts.slab_place(form, expert)?,
                    _ => self.experts.place(form, expert, matrix)?,
                };
                places.push((part, place));
            }
        }
        Ok(places)
    }
}
