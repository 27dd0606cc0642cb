//! Options that several commands share.

use std::path::PathBuf;

use clap::Args;
use moeprune_core::Sparsity;

use crate::{
    ComputeType, DeviceChoice, Error, Execution, Recipe, Resume,
    recipe::{Allocation, Budget, Linkage, Scorer, Similarity, Statistics},
};

fn sparsity(text: &str) -> Result<Sparsity, String> {
    let share: f64 = text.parse().map_err(|_| format!("`{text}` is not a number"))?;
    Sparsity::new(share).map_err(|e| format!("{e}; write 40 % as 0.4"))
}

pub(super) fn positive(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) | Err(_) => Err(format!("`{text}` is not a positive whole number")),
        Ok(n) => Ok(n),
    }
}

/// Which part of the calibration text is used.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Calibration")]
#[non_exhaustive]
pub struct CalibrationArgs {
    /// Number of blocks [default: 128]
    #[arg(long, value_name = "N", value_parser = positive)]
    pub samples: Option<usize>,
    /// Tokens in a block [default: 2048, or the model's maximum if that is less]
    #[arg(long, value_name = "T", value_parser = positive)]
    pub seq_len: Option<usize>,
    /// Seed the blocks are drawn with [default: 0]
    #[arg(long, value_name = "S")]
    pub seed: Option<u64>,
}

impl CalibrationArgs {
    /// Overrides the recipe's choices.
    pub fn apply(&self, recipe: &mut Recipe) {
        let Self { samples, seq_len, seed } = *self;
        let calibration = &mut recipe.calibration;
        calibration.samples = samples.unwrap_or(calibration.samples);
        calibration.sequence_len = seq_len.unwrap_or(calibration.sequence_len);
        calibration.seed = seed.unwrap_or(calibration.seed);
    }
}

/// Choices of a recipe; each overrides the recipe file's.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Pruning")]
#[non_exhaustive]
pub struct RecipeArgs {
    /// Recipe file (TOML); what it leaves out is as in the default recipe
    #[arg(long, value_name = "FILE")]
    pub recipe: Option<PathBuf>,
    /// Share of the decoder Linears' weights to remove or zero, in all [default: 0.4]
    #[arg(long, value_name = "SHARE", value_parser = sparsity, allow_negative_numbers = true)]
    pub sparsity: Option<Sparsity>,
    /// Share of the experts to remove first [default: 0.2, or half of --sparsity if --sparsity is not above 0.2]
    #[arg(long, value_name = "SHARE", value_parser = sparsity, allow_negative_numbers = true)]
    pub expert_sparsity: Option<Sparsity>,
    /// How removed experts are spread over the layers [default: uniform]
    #[arg(long, value_enum, value_name = "BUDGET")]
    pub budget: Option<Budget>,
    /// What makes two experts alike [default: router]
    #[arg(long, value_enum, value_name = "SIMILARITY")]
    pub similarity: Option<Similarity>,
    /// How experts are clustered [default: complete]
    #[arg(long, value_enum, value_name = "LINKAGE")]
    pub linkage: Option<Linkage>,
    /// How weights are scored [default: wanda]
    #[arg(long, value_enum, value_name = "SCORER")]
    pub scorer: Option<Scorer>,
    /// How the ratio is split over the layers [default: owl]
    #[arg(long, value_enum, value_name = "ALLOCATION")]
    pub allocation: Option<Allocation>,
    /// Where input statistics come from [default: sequential]
    #[arg(long, value_enum, value_name = "SOURCE")]
    pub statistics: Option<Statistics>,
}

impl RecipeArgs {
    /// The recipe they describe.
    ///
    /// A total given alone splits as the default does: the recipe's share of the experts first, or
    /// half of the total where that is less, and weights for the rest. An expert share given alone
    /// that is more than the recipe's total is the total.
    ///
    /// # Errors
    /// If the recipe file cannot be read, or the choices contradict each other.
    pub fn resolve(&self, calibration: &CalibrationArgs) -> Result<Recipe, Error> {
        let mut recipe = match &self.recipe {
            Some(path) => Recipe::read(path)?,
            None => Recipe::arctic(),
        };
        match (self.sparsity, self.expert_sparsity) {
            (None, None) => {}
            (Some(total), Some(experts)) => {
                recipe.sparsity = total;
                recipe.experts.sparsity = experts;
            }
            (Some(total), None) => {
                recipe.sparsity = total;
                if total <= recipe.experts.sparsity {
                    recipe.experts.sparsity = Sparsity::new(total.value() / 2.0)?;
                }
            }
            (None, Some(experts)) => {
                recipe.experts.sparsity = experts;
                if recipe.sparsity < experts {
                    recipe.sparsity = experts;
                }
            }
        }
        if self.sparsity.is_some() {
            recipe.weights.ratio = None;
        }
        let (experts, weights) = (&mut recipe.experts, &mut recipe.weights);
        experts.budget = self.budget.unwrap_or(experts.budget);
        experts.similarity = self.similarity.unwrap_or(experts.similarity);
        experts.linkage = self.linkage.unwrap_or(experts.linkage);
        weights.scorer = self.scorer.unwrap_or(weights.scorer);
        weights.allocation = self.allocation.unwrap_or(weights.allocation);
        weights.statistics = self.statistics.unwrap_or(weights.statistics);
        calibration.apply(&mut recipe);
        recipe.check()?;
        Ok(recipe)
    }
}

/// Where the model runs.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Device")]
#[non_exhaustive]
pub struct DeviceArgs {
    /// auto, cpu, cuda or cuda:N; CUDA needs a build with `--features cuda`
    #[arg(long, value_name = "DEVICE", default_value_t, value_parser = str::parse::<DeviceChoice>)]
    pub device: DeviceChoice,
    /// What a GPU computes in [default: bf16]; f32 is for comparing with the CPU
    #[arg(long, value_enum, value_name = "TYPE")]
    pub dtype: Option<ComputeType>,
    /// Calibration blocks that go through a layer together [default: as many as fit on a device, 16
    /// at most; 1 on the CPU]
    #[arg(long, value_name = "N", value_parser = positive)]
    pub micro_batch: Option<usize>,
}

impl DeviceArgs {
    /// Opens the device.
    ///
    /// # Errors
    /// As [`Execution::open`].
    pub fn open(&self) -> Result<Execution, Error> {
        Execution::open(self.device, self.dtype, self.micro_batch)
    }
}

/// Whether work that was interrupted is gone on with.
#[derive(Debug, Clone, Copy, Default, Args)]
#[non_exhaustive]
pub struct ResumeArgs {
    /// Go on where an interrupted run of the same command stopped, if there is one
    #[arg(long)]
    pub resume: bool,
}

impl From<ResumeArgs> for Resume {
    fn from(args: ResumeArgs) -> Self {
        if args.resume { Self::Yes } else { Self::No }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(args: &RecipeArgs, expected: (f64, f64)) {
        let recipe = args.resolve(&CalibrationArgs::default()).unwrap();
        assert_eq!((recipe.sparsity.value(), recipe.experts.sparsity.value()), expected);
    }

    fn shares(total: Option<f64>, experts: Option<f64>) -> RecipeArgs {
        let share = |s: Option<f64>| s.map(|s| Sparsity::new(s).unwrap());
        RecipeArgs {
            sparsity: share(total),
            expert_sparsity: share(experts),
            ..RecipeArgs::default()
        }
    }

    #[test]
    fn shares_left_out_follow_the_default_split() {
        check(&shares(None, None), (0.4, 0.2));
        check(&shares(Some(0.6), None), (0.6, 0.2));
        check(&shares(Some(0.2), None), (0.2, 0.1));
        check(&shares(Some(0.1), None), (0.1, 0.05));
        check(&shares(None, Some(0.25)), (0.4, 0.25));
        check(&shares(None, Some(0.5)), (0.5, 0.5));
        check(&shares(Some(0.6), Some(0.0)), (0.6, 0.0));
    }
}
