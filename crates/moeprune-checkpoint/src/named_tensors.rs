//! What the tensors' names say about a model before its config is believed.

use std::collections::BTreeMap;

use moeprune_core::{Dtype, LayerTensor, OpaqueTensor, PartName, TensorId};

/// What the tensors' names say, against which the config is held before anything is sized by it.
#[derive(Debug, Clone)]
pub(crate) struct NamedTensors {
    /// Highest decoder layer named, plus one.
    pub(crate) layers: usize,
    /// If no layer is named, a tensor that is stored, and the name that was expected which is most like
    /// it.
    pub(crate) stranger: Option<(String, String)>,
    /// Layers behind the decoder's; `None` if none is stored and the config counts none.
    pub(crate) extra: Option<StoredExtra>,
    /// Shapes as they are stored, by part; of a quantised weight its own and not that of its codes.
    pub(crate) shapes: BTreeMap<TensorId, Vec<usize>>,
    /// What tensors that hold all experts of a layer hold of each in a form that is not decoded: shapes,
    /// by layer and name.
    pub(crate) opaque: BTreeMap<(usize, PartName), Vec<usize>>,
    /// The type of what is stored so, if that is codes.
    pub(crate) fused_codes: Option<Dtype>,
    /// Whether anything is stored in codes.
    pub(crate) quantised: bool,
}

/// What is stored of layers behind the decoder's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StoredExtra {
    /// So many layers whose tensors have parts.
    Layers(usize),
    /// Tensors of which nothing is known.
    Unknown,
    /// Nothing, though the config counts some.
    Nothing,
}

impl NamedTensors {
    /// What is stored of each expert of a layer in codes, but what `known` has already.
    pub(crate) fn other_codes(&self, layer: usize, known: &[OpaqueTensor]) -> Vec<OpaqueTensor> {
        let of_layer = self.opaque.iter().filter(|((of, _), _)| *of == layer);
        let tensor = |((_, part), shape): (&(usize, PartName), &Vec<usize>)| OpaqueTensor {
            id: LayerTensor::OfExpert(0, *part),
            shape: shape.clone(),
            expert_axis: None,
            form: self.fused_codes.map(|dtype| dtype.to_string()),
        };
        let is_new = |tensor: &OpaqueTensor| known.iter().all(|other| other.id != tensor.id);
        of_layer.map(tensor).filter(is_new).collect()
    }
}
