//! Small quantised models, and what is left of them.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use moeprune_checkpoint::{Checkpoint, Error, OutputDirectory, PartWriter, select_along};
use moeprune_core::{FeedForward, ModelSpec, TensorSource};
use safetensors::{Dtype, SafeTensors, tensor::TensorView};
use serde_json::Value;
use tempfile::TempDir;

use crate::quantised_models::folder;

/// Which experts stay, by layer.
pub(crate) type Kept = BTreeMap<usize, Vec<usize>>;

/// A copy of a model, to be damaged.
pub(crate) struct Model {
    pub(crate) root: TempDir,
    pub(crate) dir: PathBuf,
}

/// Tensors of a file: name, type, shape, bytes.
pub(crate) type Tensors = BTreeMap<String, (Dtype, Vec<usize>, Vec<u8>)>;

pub(crate) fn read_json(path: &Path) -> Value {
    serde_json::from_str(&fs::read_to_string(path).expect("reads")).expect("is JSON")
}

impl Model {
    pub(crate) fn copy_of(name: &str) -> Self {
        let root = tempfile::tempdir().expect("temporary directory");
        let dir = root.path().join("model");
        fs::create_dir(&dir).expect("creates");
        for entry in fs::read_dir(folder(name)).expect("lists") {
            let entry = entry.expect("lists");
            if entry.file_name() != "ref.safetensors" && entry.file_name() != "expect.json" {
                fs::copy(entry.path(), dir.join(entry.file_name())).expect("copies");
            }
        }
        Self { root, dir }
    }

    pub(crate) fn open(&self) -> Result<Checkpoint, Error> {
        Checkpoint::open(&self.dir)
    }

    pub(crate) fn edit_config(&self, edit: impl Fn(&mut Value)) {
        let path = self.dir.join("config.json");
        let mut config = read_json(&path);
        edit(&mut config);
        fs::write(path, serde_json::to_string_pretty(&config).expect("writes")).expect("writes");
    }

    /// Changes the tensors of the only weight file.
    pub(crate) fn edit_tensors(&self, edit: impl Fn(&mut Tensors)) {
        let path = self.dir.join("model.safetensors");
        let bytes = fs::read(&path).expect("reads");
        let stored = SafeTensors::deserialize(&bytes).expect("is safetensors");
        let owned = |(name, view): (&str, TensorView<'_>)| {
            (name.to_owned(), (view.dtype(), view.shape().to_vec(), view.data().to_vec()))
        };
        let mut tensors: Tensors = stored.iter().map(owned).collect();
        edit(&mut tensors);
        let views = tensors.iter().map(|(name, (dtype, shape, data))| {
            (name.as_str(), TensorView::new(*dtype, shape.clone(), data).expect("fits"))
        });
        fs::write(path, safetensors::serialize(views, None).expect("writes")).expect("writes");
    }
}

/// The index of an expert among those that stay.
pub(crate) fn index_of(kept: &Kept, layer: usize, expert: usize) -> Option<usize> {
    match kept.get(&layer) {
        Some(kept) => kept.iter().position(|other| *other == expert),
        None => Some(expert),
    }
}

fn pruned(spec: &ModelSpec, kept: &Kept) -> ModelSpec {
    let mut pruned = spec.clone();
    for (layer, kept) in kept {
        let layer = pruned.layer_mut(*layer).expect("there is such a layer");
        let FeedForward::Moe(moe) = &mut layer.feed_forward else { panic!("has no experts") };
        moe.experts = kept.len();
    }
    pruned
}

/// Writes what is left of a model.
pub(crate) fn cut(source: &Checkpoint, kept: &Kept, out: &Path) {
    let pruned = pruned(source.spec(), kept);
    let directory = OutputDirectory::create(out, source).expect("creates");
    directory.copy_auxiliary(source).expect("copies");
    let index_of = |layer, expert| index_of(kept, layer, expert);
    directory.write_configs(source, &pruned, &index_of).expect("writes");
    let layout = source.output_layout(&pruned, &index_of).expect("plans");
    let mut writer =
        PartWriter::resume(directory.path(), source.output_form(), layout).expect("plans");
    writer.copy_outside_layers(source).expect("copies");
    for layer in 0..pruned.extra_layers().end {
        let all = (0..source.spec().moe_of(layer).map_or(0, |moe| moe.experts)).collect();
        let kept = kept.get(&layer).unwrap_or(&all);
        let mut copies = Vec::new();
        for part in pruned.layer_parts(layer) {
            match (part.expert_axis, part.id.expert()) {
                (Some(axis), _) => {
                    let tensor = source.tensor(part.id).expect("reads");
                    let cut = select_along(&tensor, axis, kept).expect("cuts");
                    writer.put(part.id, &cut).expect("puts");
                }
                (None, Some(expert)) => copies.push((part.id, part.id.with_expert(kept[expert]))),
                (None, None) => copies.push((part.id, part.id)),
            }
        }
        writer.copy(&copies, source, &mut |_| ()).expect("copies");
    }
    writer.finish().expect("finishes");
    directory.publish().expect("publishes");
}
