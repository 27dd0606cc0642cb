//! `--keep`: experts that a file names.

use std::path::PathBuf;

use clap::Args;
use moeprune::{Error, Pipeline, Recipe, Registry, checkpoint::Checkpoint, read_keep_list};

use crate::options::RecipeArgs;

/// Which experts stay, instead of a way of choosing them.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Pruning")]
#[non_exhaustive]
pub struct KeepArgs {
    /// Experts to keep (JSON): {"3": [0, 2], ...} by layer, as numbered in tensor names from 0, one list
    /// for all layers, or a plan. No weight is zeroed unless --sparsity is given too. A layer for
    /// multi-token prediction is its number, or mtp.0, and does as --mtp says when left out
    #[arg(long, value_name = "FILE", conflicts_with_all = [
        "expert_sparsity", "budget", "criterion", "similarity", "clustering", "survivor",
        "expert_statistics", "protect_super_experts", "domains"
    ])]
    pub keep: Option<PathBuf>,
}

impl KeepArgs {
    /// The stages of a recipe, with the experts of the list if one is given; the recipe then says so.
    ///
    /// # Errors
    /// If the list cannot be read or does not fit the model, or a stage is unknown.
    pub fn pipeline(
        &self,
        registry: &Registry,
        checkpoint: &Checkpoint,
        recipe: &mut Recipe,
        asked: &RecipeArgs,
    ) -> Result<Pipeline, Error> {
        match &self.keep {
            None => registry.pipeline(recipe),
            Some(path) => {
                let list = read_keep_list(path, checkpoint.spec())?;
                registry.keeping(list, checkpoint.spec(), recipe, asked.sparsity)
            }
        }
    }
}
