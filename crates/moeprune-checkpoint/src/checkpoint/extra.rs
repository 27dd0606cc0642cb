//! Layers behind the decoder's, as they are stored.

use std::collections::{BTreeMap, BTreeSet};

use super::{Checkpoint, StoredTensor};

impl Checkpoint {
    /// Tensors of experts that the family gives no part, by their names: they are carried over with as
    /// many experts as they have (`mtp.layers.0.mlp.experts.0.up_proj.weight`, say).
    pub fn carried_experts(&self) -> impl Iterator<Item = &StoredTensor> {
        let is_carried = |tensor: &&StoredTensor| {
            tensor.part.is_none() && tensor.experts.is_none() && tensor.name.contains(".experts.")
        };
        self.tensors().filter(is_carried)
    }

    /// Whether a tensor belongs to a layer behind the decoder's, whether it plays a part there or is
    /// carried over.
    #[must_use]
    pub fn is_extra(&self, tensor: &StoredTensor) -> bool {
        let layer = self.family.layer_of(&tensor.name);
        self.spec.extra.is_some() && layer.is_some_and(|layer| layer >= self.spec.layers.len())
    }

    /// The files that hold tensors of layers behind the decoder's and nothing else, by tensor.
    pub(crate) fn files_of_extra(&self) -> BTreeMap<String, String> {
        if self.spec.extra.is_none() {
            return BTreeMap::new();
        }
        let others = self.tensors().filter(|tensor| !self.is_extra(tensor));
        let shared: BTreeSet<&str> = others.map(|tensor| tensor.file.as_str()).collect();
        let extension = format!(".{}", self.layout.container.extension());
        let is_own = |file: &str| {
            let numbered = file.starts_with("model-") && file.contains("-of-");
            !numbered && !shared.contains(file) && file.ends_with(&extension)
        };
        self.tensors()
            .filter(|tensor| is_own(&tensor.file))
            .map(|tensor| (tensor.name.clone(), tensor.file.clone()))
            .collect()
    }
}
