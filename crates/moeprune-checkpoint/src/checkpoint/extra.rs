//! Layers behind the decoder's, as they are stored.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use moeprune_core::{LayerTensor, LinearId, MlpProjection, TensorId};

use super::{
    Checkpoint, StoredTensor,
    layout::Layout,
    modules::{self, has_codes},
};
use crate::{container, family::Names, named_tensors::StoredExtra, spec::AnnouncedExtra};

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
        let shared: BTreeSet<&str> = others.map(|tensor| &*tensor.file).collect();
        let extension = format!(".{}", self.layout.container.extension());
        let is_own = |file: &str| {
            let numbered = file.starts_with("model-") && file.contains("-of-");
            !numbered && !shared.contains(file) && file.ends_with(&extension)
        };
        self.tensors()
            .filter(|tensor| is_own(&tensor.file))
            .map(|tensor| (tensor.name.clone(), tensor.file.to_string()))
            .collect()
    }

    /// Weight files beside the model's that hold tensors of layers behind the decoder's which no index
    /// names, and how many: a pruned model is without them. Only headers are read, and files that are
    /// not safetensors are passed over.
    #[must_use]
    pub fn unnamed_extra(&self) -> Vec<(String, usize)> {
        let files = self.files();
        let Ok(entries) = files.list(Path::new("")) else { return Vec::new() };
        let is_unnamed = |name: &String| {
            self.by_name(name).is_none() && (self.names.is_of_extra(name) || name.contains("mtp"))
        };
        let mut found = Vec::new();
        for file in entries.into_iter().filter_map(|entry| entry.name.into_string().ok()) {
            let is_weights = file.ends_with(".safetensors") && !file.starts_with('.');
            if !is_weights || self.shard_files().any(|shard| shard == file) {
                continue;
            }
            let Ok(names) = container::names_in(files, &file) else { continue };
            match names.iter().filter(|name| is_unnamed(name)).count() {
                0 => {}
                count => found.push((file, count)),
            }
        }
        found.sort();
        found
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

/// Gives tensors of layers behind the decoder's their parts, and says what is stored of them; `None` if
/// nothing is and the config counts none.
///
/// Where a family does not know how their experts are stored, they have no parts at all, since a router
/// cannot lose rows without them. Nor have they where the config counts none and one of them is no whole
/// layer: these are tensors that some other program left there.
pub(super) fn assign_extra(
    layout: &mut Layout,
    names: &Names,
    announced: AnnouncedExtra<'_>,
) -> Result<Option<StoredExtra>, String> {
    let (mut stored, mut is_known, mut is_unknown) = (BTreeSet::new(), false, false);
    let mut tensors: Vec<&mut StoredTensor> = Vec::new();
    let has_codes = has_codes(layout);
    for tensor in &mut layout.tensors {
        let Some(layer) = names.extra_layer_of(&tensor.name) else { continue };
        stored.insert(layer);
        tensor.part = names.part_of(&tensor.name);
        let is_fused = tensor.slab.is_some();
        if has_codes && tensor.part.is_none() && !is_fused {
            modules::assign(tensor, names, true);
        }
        is_known |= tensor.part.is_some() || is_fused;
        is_unknown |= is_unknown_expert(tensor) && !is_fused;
        tensors.push(tensor);
    }
    if stored.is_empty() {
        let any = layout.tensors.iter().any(|tensor| names.is_of_extra(&tensor.name));
        let what = if any { StoredExtra::Unknown } else { StoredExtra::Nothing };
        return Ok(announced.count.map(|_| what));
    }
    check_numbers(&stored, names, announced)?;
    let is_partial = announced.count.is_none() && names.numbers_extra_on();
    let is_partial = is_partial && stored.iter().any(|&layer| !is_whole(layer, &tensors));
    if !is_known || is_unknown || is_partial {
        tensors.into_iter().for_each(|tensor| (tensor.part, tensor.suffix) = (None, None));
        return Ok(Some(StoredExtra::Unknown));
    }
    Ok(Some(StoredExtra::Layers(stored.len())))
}

/// Whether tensors of a layer have the parts that any layer has: the norm of its input, and a router or
/// a dense MLP.
fn is_whole(layer: usize, tensors: &[&mut StoredTensor]) -> bool {
    let has = |parts: &[LayerTensor]| {
        let is_one = |part: &LayerTensor| {
            tensors.iter().any(|tensor| tensor.part == Some(TensorId::Layer(layer, *part)))
        };
        parts.iter().any(is_one)
    };
    let up = LinearId::Dense(MlpProjection::Up);
    has(&[LayerTensor::InputNorm]) && has(&[LinearId::Router, up].map(LayerTensor::Linear))
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
