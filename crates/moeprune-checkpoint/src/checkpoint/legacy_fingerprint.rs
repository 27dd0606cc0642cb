//! The fingerprint of version 0.1.0: one hash over names, element types, shapes and routers.
//!
//! Observations and plans that it wrote hold this hash and nothing else of their model. Hours of a
//! machine's time may have gone into them, so they are accepted for as long as their format is
//! read.

use moeprune_core::{LayerTensor, LinearId, TensorId};

use super::{fingerprint::Fields, layout::Layout};
use crate::Error;

/// Hashes names, types and shapes in the order of the names, then routers in the order of layers.
pub(super) fn compute(layout: &Layout) -> Result<String, Error> {
    let mut hash = Fields::new("moeprune fingerprint 1");
    for tensor in layout.by_name() {
        hash.push(tensor.name.as_bytes());
        hash.push(tensor.dtype.to_string().as_bytes());
        hash.push_shape(&tensor.shape);
    }
    let mut routers: Vec<(usize, usize)> = layout
        .tensors
        .iter()
        .enumerate()
        .filter_map(|(i, tensor)| match tensor.part? {
            TensorId::Layer(layer, LayerTensor::Linear(LinearId::Router)) => Some((layer, i)),
            _ => None,
        })
        .collect();
    routers.sort_unstable();
    for (_, router) in routers {
        hash.push(layout.read(router)?.bytes());
    }
    Ok(hash.finish())
}
