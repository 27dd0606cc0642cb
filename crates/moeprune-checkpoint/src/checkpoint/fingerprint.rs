//! A hash that tells models apart without reading their experts.

use moeprune_core::{LayerTensor, LinearId, TensorId};
use sha2::{Digest, Sha256};

use super::layout::Layout;
use crate::Error;

/// Hashes names, types and shapes in the order of the names, then routers in the order of layers.
/// Every field is preceded by its length, so no two inputs run together.
pub(super) fn compute(layout: &Layout) -> Result<String, Error> {
    let mut tensors: Vec<_> = layout.tensors.iter().enumerate().collect();
    tensors.sort_by(|(_, a), (_, b)| a.name.cmp(&b.name));
    let mut hash = Sha256::new();
    field(&mut hash, b"moeprune fingerprint 1");
    for (_, tensor) in &tensors {
        field(&mut hash, tensor.name.as_bytes());
        field(&mut hash, tensor.dtype.to_string().as_bytes());
        hash.update((tensor.shape.len() as u64).to_le_bytes());
        for &dim in &tensor.shape {
            hash.update((dim as u64).to_le_bytes());
        }
    }
    let mut routers: Vec<(usize, usize)> = tensors
        .iter()
        .filter_map(|(i, tensor)| match tensor.part? {
            TensorId::Layer(layer, LayerTensor::Linear(LinearId::Router)) => Some((layer, *i)),
            _ => None,
        })
        .collect();
    routers.sort_unstable();
    for (_, router) in routers {
        field(&mut hash, layout.read(router)?.bytes());
    }
    let hex: String = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(format!("sha256:{hex}"))
}

fn field(hash: &mut Sha256, bytes: &[u8]) {
    hash.update((bytes.len() as u64).to_le_bytes());
    hash.update(bytes);
}
