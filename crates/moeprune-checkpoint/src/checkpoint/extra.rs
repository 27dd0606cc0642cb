//! Layers behind the decoder's, as they are stored.

use std::collections::{BTreeMap, BTreeSet};

use super::{Checkpoint, StoredTensor, layout::Layout};
use crate::{family::Names, spec::AnnouncedExtra};

impl Checkpoint {
    /// Tensors of experts outside of all layers that are known, by their names: they are carried over
    /// with as many experts as they have (`mtp.layers.0.mlp.experts.0.up_proj.weight`, say, where the
    /// family has no such layer).
    pub fn carried_experts(&self) -> impl Iterator<Item = &StoredTensor> {
        self.tensors().filter(|tensor| is_unknown_expert(tensor) && tensor.experts.is_none())
    }

    /// Whether a tensor belongs to layers behind the decoder's, whether it plays a part there or is
    /// carried over.
    #[must_use]
    pub fn is_extra(&self, tensor: &StoredTensor) -> bool {
        self.spec.extra.is_some()
            && match (tensor.layer(), tensor.part) {
                (Some(layer), _) => layer >= self.spec.layers.len(),
                (None, Some(_)) => false,
                (None, None) => self.names.is_of_extra(&tensor.name),
            }
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

    /// The name of the same tensor of another expert; of a tensor that is no expert's, its own.
    pub(crate) fn name_with_expert(&self, name: &str, expert: usize) -> String {
        self.names.name_with_expert(name, expert)
    }
}

/// Whether a tensor is of experts, by its name, and plays no part.
fn is_unknown_expert(tensor: &StoredTensor) -> bool {
    tensor.part.is_none() && tensor.name.contains(".experts.")
}

/// Gives tensors of layers behind the decoder's their parts, if the config counts them, and says how
/// many layers have some: 0 if they are stored and nothing is known in them, `None` if there are none.
///
/// Where a family does not know how their experts are stored, they have no parts at all, since a router
/// cannot lose rows without them.
pub(super) fn assign_extra(
    layout: &mut Layout,
    names: &Names,
    announced: AnnouncedExtra<'_>,
) -> Result<Option<usize>, String> {
    if announced.count == Some(0) {
        return Ok(None);
    }
    let (mut stored, mut is_known, mut is_unknown) = (BTreeSet::new(), false, false);
    let mut tensors: Vec<&mut StoredTensor> = Vec::new();
    for tensor in &mut layout.tensors {
        let Some(layer) = names.extra_layer_of(&tensor.name) else { continue };
        stored.insert(layer);
        tensor.part = names.part_of(&tensor.name);
        let is_fused = names.fused_of(&tensor.name).is_some();
        is_known |= tensor.part.is_some() || is_fused;
        is_unknown |= is_unknown_expert(tensor) && !is_fused;
        tensors.push(tensor);
    }
    if stored.is_empty() {
        return Ok(None);
    }
    check_numbers(&stored, names, announced)?;
    if is_unknown {
        tensors.into_iter().for_each(|tensor| tensor.part = None);
    }
    Ok(Some(if is_known && !is_unknown { stored.len() } else { 0 }))
}

/// Checks that the layers that are stored are those that the config counts.
fn check_numbers(
    stored: &BTreeSet<usize>,
    names: &Names,
    announced: AnnouncedExtra<'_>,
) -> Result<(), String> {
    let AnnouncedExtra { first, count, key } = announced;
    let expected = count.unwrap_or(stored.len());
    if stored.iter().copied().eq(first..first + expected) {
        return Ok(());
    }
    let base = names.first_number();
    let numbers: Vec<String> =
        stored.iter().map(|layer| (layer - first + base).to_string()).collect();
    let says = match count {
        Some(count) => {
            format!("`{key}` in config.json says {count} layers behind the decoder's {first}, but ")
        }
        None => String::new(),
    };
    let numbers = numbers.join(", ");
    Err(format!(
        "{says}there are tensors of layers {numbers}; they would be numbered from {base} on"
    ))
}
