//! The layer and its calibration tokens, made or found.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::bail;
use moeprune_checkpoint::{Access, Checkpoint};
use moeprune_files::RunFiles;
use moeprune_synthetic::{
    Options, Published, Reduction, Shape, disk_bytes, write_calibration, write_checkpoint,
};
use tempfile::TempDir;

use super::{ArcticLayerArgs, disk};
use moeprune::{Calibration, Error, FromRecipe, Pipeline, Recipe, check_request};
use moeprune_cli::Terminal;

const MODEL: &str = "layer";
const SEED: u64 = 0;

/// A model of one layer, and a place beside it for what is made of it.
#[derive(Debug)]
pub(super) struct Layer {
    pub(super) checkpoint: Checkpoint,
    pub(super) calibration: Calibration,
    pub(super) tokens: PathBuf,
    dir: PathBuf,
    /// Removes all of it.
    _temporary: Option<TempDir>,
}

impl Layer {
    /// Makes what is not there yet.
    pub(super) fn make(
        args: &ArcticLayerArgs,
        recipe: &Recipe,
        terminal: &mut Terminal,
    ) -> anyhow::Result<Self> {
        let shape = shape(args)?;
        check_request(shape.spec(), recipe, &Pipeline::from_recipe(recipe)?)?;
        let (dir, temporary) = place(args)?;
        let model = dir.join(MODEL);
        let there = model.exists();
        let options = Options { seed: SEED, ..Options::default() };
        // What is written beside it is smaller than the layer.
        let made = if there { 0 } else { disk_bytes(&shape, &options) };
        let needed = made + shape.weight_bytes();
        check_room(&dir, needed)?;
        if !there {
            write_checkpoint(&model, &shape, &options, &mut |step| {
                crate::synthesis::show(step, terminal)
            })?;
        }
        let checkpoint = Checkpoint::open_by(&model, None, Access::Read)?;
        if checkpoint.spec() != shape.spec() {
            bail!(
                "{} holds a layer of another size; remove it, choose another --dir, or ask for \
                 the same --experts and --scale",
                model.display()
            );
        }
        let tokens = dir.join(tokens_name(args));
        if !tokens.exists() {
            let vocab = checkpoint.spec().vocab;
            write_calibration(&tokens, args.samples, args.seq_len, vocab, SEED)?;
        }
        let calibration = Calibration::read(&tokens, &checkpoint, recipe)?;
        Ok(Self { checkpoint, calibration, tokens, dir, _temporary: temporary })
    }

    /// Names the files that a folder given by `--dir` is read for, or that are made in it.
    pub(super) fn name_files(args: &ArcticLayerArgs, dir: &Path, files: &mut RunFiles) {
        files.makes(dir.join(MODEL));
        files.reads_model(dir.join(MODEL));
        files.makes(dir.join(tokens_name(args)));
        files.reads(dir.join(tokens_name(args)));
    }

    /// Where the layer and what is made of it are.
    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    /// The layer's own folder.
    pub(super) fn model(&self) -> PathBuf {
        self.dir.join(MODEL)
    }

    /// Files with weights.
    pub(super) fn files(&self) -> Vec<PathBuf> {
        let model = self.model();
        self.checkpoint.shard_files().map(|file| model.join(file)).collect()
    }

    /// Bytes of the layer: without embedding, head and final norm.
    pub(super) fn bytes(&self) -> u64 {
        use moeprune_core::TensorId::Layer;
        let tensors = self.checkpoint.tensors();
        tensors.filter(|t| matches!(t.part, Some(Layer(..)))).map(|t| t.bytes).sum()
    }
}

fn tokens_name(args: &ArcticLayerArgs) -> String {
    format!("tokens-{}x{}.jsonl", args.samples, args.seq_len)
}

fn shape(args: &ArcticLayerArgs) -> Result<Shape, moeprune_synthetic::Error> {
    let reduction =
        Reduction { layers: Some(1), experts: Some(args.experts), vocab: None, scale: args.scale };
    Shape::new(Published::Arctic, &reduction)
}

fn place(args: &ArcticLayerArgs) -> Result<(PathBuf, Option<TempDir>), Error> {
    match &args.dir {
        Some(dir) => {
            fs::create_dir_all(dir).map_err(|e| Error::io(dir, "create", e))?;
            Ok((dir.clone(), None))
        }
        None => {
            let system = std::env::temp_dir();
            let temporary = tempfile::Builder::new()
                .prefix("moeprune-bench-")
                .tempdir()
                .map_err(|e| Error::io(&system, "create a folder in", e))?;
            Ok((temporary.path().to_owned(), Some(temporary)))
        }
    }
}

/// Refuses a disk that is too small before minutes are spent on filling it.
fn check_room(dir: &Path, needed: u64) -> Result<(), Error> {
    let free = disk::free(dir)?;
    if needed <= free {
        return Ok(());
    }
    Err(Error::Request(format!(
        "{} has {} free, but the layer and what is made of it take {}; name a larger disk with \
         --dir, or use fewer --experts",
        dir.display(),
        moeprune_cli::bytes(free),
        moeprune_cli::bytes(needed)
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn too_little_room_names_what_helps() {
        let dir = tempfile::tempdir().unwrap();
        check_room(dir.path(), 1).unwrap();
        let error = check_room(dir.path(), u64::MAX).unwrap_err().to_string();
        assert!(error.contains("--dir") && error.contains("--experts"), "{error}");
    }
}
