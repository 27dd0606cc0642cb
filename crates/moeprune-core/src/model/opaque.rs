//! Tensors of which nothing is known but that they are there.

use serde::{Serialize, Serializer};

use super::Part;
use crate::{LayerTensor, TensorId};

/// A tensor of a kind that cannot be run, as it is stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[expect(clippy::exhaustive_structs, reason = "plain data")]
pub struct OpaqueTensor {
    /// What it is called here. A [`LayerTensor::Linear`] counts as a decoder Linear.
    #[serde(serialize_with = "shown")]
    pub id: LayerTensor,
    /// Its dimensions, outermost first; two of a Linear.
    pub shape: Vec<usize>,
    /// As [`Part::expert_axis`].
    pub expert_axis: Option<usize>,
    /// What the config calls the form that it is stored in, where that is not decoded: `mxfp4`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub form: Option<String>,
}

fn shown<S: Serializer>(id: &LayerTensor, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(id)
}

impl OpaqueTensor {
    pub(super) fn part(&self, layer: usize) -> Part {
        let linear = match self.id {
            LayerTensor::Linear(linear) => Some(linear),
            _ => None,
        };
        Part {
            id: TensorId::Layer(layer, self.id),
            shape: self.shape.clone(),
            reads: linear,
            expert_axis: self.expert_axis,
            prunable: linear.is_some() && self.expert_axis.is_none(),
        }
    }
}
