//! Hashes that tell models apart without reading their experts.

use moeprune_core::{Fingerprint, LinearId, ModelSpec, TensorBytes, TensorId};
use sha2::{Digest, Sha256};

use super::layout::Layout;
use crate::Error;

/// What is hashed: every field is preceded by its length, so no two inputs run together.
pub(super) struct Fields(Sha256);

impl Fields {
    pub(super) fn new(what: &str) -> Self {
        let mut fields = Self(Sha256::new());
        fields.push(what.as_bytes());
        fields
    }

    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.0.update((bytes.len() as u64).to_le_bytes());
        self.0.update(bytes);
    }

    pub(super) fn push_shape(&mut self, shape: &[usize]) {
        self.0.update((shape.len() as u64).to_le_bytes());
        for &dim in shape {
            self.0.update((dim as u64).to_le_bytes());
        }
    }

    pub(super) fn finish(self) -> String {
        let hex: String = self.0.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        format!("sha256:{hex}")
    }
}

/// The model part: every part's name and shape, and the values of the routers as f32, in the order
/// of the layers. The storage part: names and element types in the order of the names, and the
/// routers as they are stored.
pub(super) fn compute<'a>(
    layout: &Layout,
    spec: &ModelSpec,
    read: &dyn Fn(TensorId) -> Result<TensorBytes<'a>, Error>,
) -> Result<Fingerprint, Error> {
    let mut model = Fields::new("moeprune model 1");
    for part in spec.parts() {
        model.push(part.id.to_string().as_bytes());
        model.push_shape(&part.shape);
    }
    let mut storage = Fields::new("moeprune storage 1");
    for tensor in layout.by_name() {
        storage.push(tensor.name.as_bytes());
        storage.push(tensor.dtype.to_string().as_bytes());
    }
    for (layer, _) in spec.layers.iter().enumerate().filter(|(_, layer)| layer.moe().is_some()) {
        let router = read(TensorId::linear(layer, LinearId::Router))?;
        let mut values = Vec::with_capacity(4 * router.elements());
        values.extend(router.to_f32()?.iter().flat_map(|value| value.to_le_bytes()));
        model.push(&values);
        storage.push(router.bytes());
    }
    Ok(Fingerprint { model: model.finish(), storage: storage.finish() })
}
