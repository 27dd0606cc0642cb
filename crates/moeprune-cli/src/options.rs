//! Options that several commands share.

use std::path::{Path, PathBuf};

use clap::{
    Args,
    builder::{PossibleValue, PossibleValuesParser, TypedValueParser},
};
use moeprune_checkpoint::{Access, Checkpoint, Family};
use moeprune_core::Sparsity;
use moeprune_files::{Links, Reading, RunFiles};

use crate::memory_size::memory_size;
use moeprune::{
    ComputeType, DeviceChoice, Error, Execution, Recipe, Registry, Resume,
    recipe::{
        BUILT_IN, Budget, Choice, Domains, ExpertStatistics, Mtp, Pattern, StageChoice, Statistics,
    },
    search::Search,
};

pub(crate) fn sparsity(text: &str) -> Result<Sparsity, String> {
    let share: f64 = text.parse().map_err(|_| format!("`{text}` is not a number"))?;
    Sparsity::new(share).map_err(|e| format!("{e}; write 40 % as 0.4"))
}

/// A share of the experts, or `auto`.
#[derive(Debug, Clone, Copy, PartialEq)]
#[expect(clippy::exhaustive_enums, reason = "a share or a search for one")]
pub enum ExpertShare {
    /// This share.
    Share(Sparsity),
    /// The share that a search finds.
    Auto,
}

impl std::str::FromStr for ExpertShare {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "auto" { Ok(Self::Auto) } else { sparsity(text).map(Self::Share) }
    }
}

/// The allocation that stands for a search.
const AUTO: &str = "auto";

/// A positive whole number, for `value_parser`.
///
/// # Errors
/// If the text is not one.
pub fn positive(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) | Err(_) => Err(format!("`{text}` is not a positive whole number")),
        Ok(n) => Ok(n),
    }
}

/// One of a recipe's choices, listed with what each means.
fn choice<T: Choice + Send + Sync>() -> impl TypedValueParser<Value = T> {
    let values = T::ALL.iter().map(|(_, name, about)| PossibleValue::new(*name).help(*about));
    PossibleValuesParser::new(values)
        .try_map(|name| T::named(&name).ok_or("is none of the possible values"))
}

fn compute_types() -> impl TypedValueParser<Value = ComputeType> {
    PossibleValuesParser::new([
        PossibleValue::new("bf16").help(
            "Products in bf16; norms, softmax, routing and statistics in f32. The default on a GPU",
        ),
        PossibleValue::new("f32").help("All in f32, as on the CPU: to compare the two"),
        PossibleValue::new("f32-tiles").help(
            "On a CPU that has AMX: f32, products of bf16 weights by its tiles. Faster, as exact, and with other \
             last bits",
        ),
    ])
    .map(|name| match &name[..] {
        "f32" => ComputeType::F32,
        "f32-tiles" => ComputeType::F32ByTiles,
        _ => ComputeType::Bf16,
    })
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
    /// Recipe file (TOML), or one that is built in: arctic, reap, hc-smoe, reference; what it leaves
    /// out is as in arctic, and repairs nothing unless it says so [default: arctic, with a repair where
    /// prune repairs by default]
    #[arg(long, value_name = "FILE|NAME")]
    pub recipe: Option<PathBuf>,
    /// Share of the decoder Linears' weights to remove or zero, in all [default: 0.4]
    #[arg(long, value_name = "SHARE", value_parser = sparsity, allow_negative_numbers = true)]
    pub sparsity: Option<Sparsity>,
    /// Share of the experts to remove first; auto searches for it and for the criterion [default: 0.2, or half
    /// of --sparsity if --sparsity is not above 0.2; where prune repairs by default 0.125, or half of a
    /// --sparsity below 0.25]
    #[arg(long, value_name = "SHARE|auto", allow_negative_numbers = true)]
    pub expert_sparsity: Option<ExpertShare>,
    /// How removed experts are spread over the layers [default: uniform]
    #[arg(long, value_name = "BUDGET", value_parser = choice::<Budget>())]
    pub budget: Option<Budget>,
    /// How it is decided which experts go: stun groups alike ones; frequency, gate, ean, reap, peak
    /// and random rank them; reconstruction drops what a layer misses least, one after the other;
    /// exhaustive tries all subsets [default: stun; reap where prune repairs by default]
    #[arg(long, value_name = "CRITERION", value_parser = str::parse::<StageChoice>)]
    pub criterion: Option<StageChoice>,
    /// What makes two experts alike: router, coactivation, mixed, outputs [default: router]
    #[arg(long, value_name = "SIMILARITY", value_parser = str::parse::<StageChoice>)]
    pub similarity: Option<StageChoice>,
    /// How experts are grouped: complete, average, single, reference, kmeans [default: complete]
    #[arg(long, value_name = "CLUSTERING", value_parser = str::parse::<StageChoice>)]
    pub clustering: Option<StageChoice>,
    /// Which one of a group stays: nearest, busiest; or how all are merged: average,
    /// weighted-average [default: nearest]
    #[arg(long, value_name = "SURVIVOR", value_parser = str::parse::<StageChoice>)]
    pub survivor: Option<StageChoice>,
    /// What sums experts are chosen by; sequential is for stun and rankings with the budget uniform, and takes
    /// --calibration [default: independent]
    #[arg(long, value_name = "SOURCE", value_parser = choice::<ExpertStatistics>())]
    pub expert_statistics: Option<ExpertStatistics>,
    /// Keep experts whose outputs peak far above all others'
    #[arg(long)]
    pub protect_super_experts: bool,
    /// How several observations are weighed [default: blend]
    #[arg(long, value_name = "HOW", value_parser = choice::<Domains>())]
    pub domains: Option<Domains>,
    /// What becomes of layers for multi-token prediction (MTP) [default: prune, where they have experts]
    #[arg(long, value_name = "WHAT", value_parser = choice::<Mtp>())]
    pub mtp: Option<Mtp>,
    /// How the experts that stay make up for those that go: refit fits their down projections to what
    /// is missing; or none [default: none; in prune refit for models of the kinds for which it was measured
    /// to help, unless --recipe is given]
    #[arg(long, value_name = "REPAIR", value_parser = str::parse::<StageChoice>)]
    pub repair: Option<StageChoice>,
    /// Have the repair of a quantised model write new weights in the encoding that they are stored in, with new
    /// scales: FP8, symmetric INT4, MXFP4 and NVFP4
    #[arg(long)]
    pub requantise: bool,
    /// How down projections make up for zeroed weights with those that are left, in a pass after all
    /// others: refit:keep_zeros=true (on the embedded model it helped only after sparsegpt, at 70 %, and
    /// made things worse after wanda); or none [default: none]
    #[arg(long, value_name = "REPAIR", value_parser = str::parse::<StageChoice>)]
    pub refit: Option<StageChoice>,
    /// How weights are scored: wanda, magnitude, sparsegpt [default: wanda]
    #[arg(long, value_name = "SCORER", value_parser = str::parse::<StageChoice>)]
    pub scorer: Option<StageChoice>,
    /// How the ratio is split over the layers: owl, uniform, depth; or auto, which
    /// searches [default: owl]
    #[arg(long, value_name = "ALLOCATION|auto", value_parser = str::parse::<StageChoice>)]
    pub allocation: Option<StageChoice>,
    /// Among which weights the lowest scores go: row, or N:M as in 2:4, which fixes the ratio
    /// [default: row]
    #[arg(long, value_name = "PATTERN")]
    pub pattern: Option<Pattern>,
    /// Where input statistics come from [default: sequential]
    #[arg(long, value_name = "SOURCE", value_parser = choice::<Statistics>())]
    pub statistics: Option<Statistics>,
}

impl RecipeArgs {
    /// What is to be searched for instead of taken from the recipe.
    #[must_use]
    pub fn search(&self) -> Search {
        Search {
            experts: self.expert_sparsity == Some(ExpertShare::Auto),
            allocation: self.allocation.as_ref().is_some_and(|given| given.name == AUTO),
        }
    }

    /// Refuses `auto` where nothing is searched for.
    ///
    /// # Errors
    /// If [`search`](Self::search) asks for something.
    pub fn check_no_search(&self) -> Result<(), Error> {
        if self.search().is_on() {
            return Err(Error::Recipe(
                "auto is for `prune`, which has the calibration text to search on".into(),
            ));
        }
        Ok(())
    }

    /// The recipe they describe.
    ///
    /// A total given alone splits as the default does: the recipe's share of the experts first, or
    /// half of the total where that is less, and weights for the rest. An expert share given alone
    /// that is more than the recipe's total is the total.
    ///
    /// # Errors
    /// If the recipe file cannot be read, a stage or a parameter of one is unknown, or the choices
    /// contradict each other.
    pub fn resolve(
        &self,
        registry: &Registry,
        calibration: &CalibrationArgs,
    ) -> Result<Recipe, Error> {
        let mut recipe = match &self.recipe {
            Some(path) => read_recipe(path)?,
            None => Recipe::arctic(),
        };
        self.set_shares(&mut recipe)?;
        self.set_stages(&mut recipe)?;
        calibration.apply(&mut recipe);
        recipe.check()?;
        registry.resolve(&mut recipe)?;
        Ok(recipe)
    }

    /// How much goes, and how much of it as whole experts.
    fn set_shares(&self, recipe: &mut Recipe) -> Result<(), Error> {
        let experts = match self.expert_sparsity {
            Some(ExpertShare::Share(share)) => Some(share),
            Some(ExpertShare::Auto) | None => None,
        };
        match (self.sparsity, experts) {
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
        Ok(())
    }

    /// Whether it was said how alike experts are found, which only clusters of them need.
    pub(crate) fn grouping_is_said(&self) -> bool {
        self.similarity.is_some() || self.clustering.is_some() || self.survivor.is_some()
    }

    /// What experts and weights are chosen by, and which of them there are to choose from.
    fn set_stages(&self, recipe: &mut Recipe) -> Result<(), Error> {
        let Recipe { experts, repair, requantise, weights, .. } = recipe;
        experts.budget = self.budget.unwrap_or(experts.budget);
        experts.domains = self.domains.unwrap_or(experts.domains);
        experts.mtp = self.mtp.or(experts.mtp);
        experts.statistics = self.expert_statistics.unwrap_or(experts.statistics);
        experts.protect_super_experts |= self.protect_super_experts;
        for (stage, given) in [
            (repair, &self.repair),
            (&mut experts.criterion, &self.criterion),
            (&mut experts.similarity, &self.similarity),
            (&mut experts.clustering, &self.clustering),
            (&mut experts.survivor, &self.survivor),
            (&mut weights.scorer, &self.scorer),
            (&mut weights.allocation, &self.allocation),
        ] {
            if let Some(given) = given.as_ref().filter(|given| given.name != AUTO) {
                stage.clone_from(given);
            }
        }
        *requantise |= self.requantise;
        weights.pattern = self.pattern.unwrap_or(weights.pattern);
        if let (Pattern::NOfM(_), Some(total)) = (weights.pattern, self.sparsity) {
            return Err(Error::Recipe(format!(
                "the pattern {} says how much of what is left goes, and --sparsity {total} asks for \
                 another total; leave one of them out",
                weights.pattern
            )));
        }
        weights.statistics = self.statistics.unwrap_or(weights.statistics);
        weights.refit = self.refit.clone().or_else(|| weights.refit.take());
        if matches!(weights.pattern, Pattern::NOfM(_)) && self.allocation.is_none() {
            // Every layer's ratio is fixed, so there is nothing to split, nor to measure for it.
            weights.allocation = "uniform".into();
        }
        Ok(())
    }
}

/// A recipe from a file, or one that is built in.
pub(crate) fn read_recipe(path: &Path) -> Result<Recipe, Error> {
    if !path.exists()
        && let Some(recipe) = path.to_str().and_then(Recipe::built_in)
    {
        return Ok(recipe);
    }
    Recipe::read(path).map_err(|error| match error {
        Error::Io { source, .. } if source.kind() == std::io::ErrorKind::NotFound => {
            let names: Vec<&str> = BUILT_IN.iter().map(|(name, _)| *name).collect();
            Error::Recipe(format!(
                "there is no file {}, and the recipes that are built in are {}",
                path.display(),
                names.join(", ")
            ))
        }
        error => error,
    })
}

/// Where the model runs.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Device")]
#[non_exhaustive]
pub struct DeviceArgs {
    /// auto, cpu, cuda or cuda:N; CUDA needs a build with `--features cuda` [env: MOEPRUNE_DEVICE]
    #[arg(long, value_name = "DEVICE", default_value_t, value_parser = str::parse::<DeviceChoice>)]
    pub device: DeviceChoice,
    /// What is computed in [default: bf16 on a GPU, f32 on the CPU]
    #[arg(long, value_name = "TYPE", value_parser = compute_types())]
    pub dtype: Option<ComputeType>,
    /// Calibration blocks that go through a layer together [default: as many as fit on a device, 16
    /// at most; 1 on the CPU]
    #[arg(long, value_name = "N", value_parser = positive)]
    pub micro_batch: Option<usize>,
    /// Refuse a run of the model that needs more memory than this, for example 24G or 500M (powers of 1024; GB and MB
    /// are powers of 1000); limits of control groups and of the process are seen without [env: MOEPRUNE_MAX_MEMORY]
    #[arg(long, value_name = "SIZE", value_parser = memory_size)]
    pub max_memory: Option<u64>,
}

impl DeviceArgs {
    /// Opens the device.
    ///
    /// # Errors
    /// As [`Execution::open`].
    pub fn open(&self) -> Result<Execution, Error> {
        let execution = Execution::open(self.device, self.dtype, self.micro_batch)?;
        Ok(execution.with_max_memory(self.max_memory))
    }
}

/// Whether work that was interrupted is gone on with.
#[derive(Debug, Clone, Copy, Default, Args)]
#[non_exhaustive]
pub struct ResumeArgs {
    /// Resume an interrupted run of the same command, if there is one
    #[arg(long)]
    pub resume: bool,
    /// Know the model again by all bytes of its files, which are all read for it; without, by their headers and
    /// some blocks of each. Counts if the run was begun with it too, or the model is small (64 MiB)
    #[arg(long)]
    pub rehash: bool,
}

impl From<ResumeArgs> for Resume {
    fn from(args: ResumeArgs) -> Self {
        if args.resume { Self::Yes } else { Self::No }
    }
}

/// How a model directory is read.
#[derive(Debug, Clone, Args)]
pub struct FamilyArgs {
    /// Descriptor (TOML) of a model family that is not built in
    #[arg(long, value_name = "FILE", help_heading = "Model")]
    pub family: Option<PathBuf>,
    /// Read files of the model also where links lead out of its directory. Without, only into the blobs of the
    /// Hugging Face cache: a downloaded model must not bring other files of this machine into a result
    #[arg(long, help_heading = "Model")]
    pub follow_links: bool,
}

impl FamilyArgs {
    /// Opens a checkpoint.
    ///
    /// # Errors
    /// If it, or the descriptor, cannot be read.
    pub fn open(&self, model: &Path) -> Result<Checkpoint, Error> {
        self.open_by(model, Access::MemoryMap)
    }

    /// Opens a checkpoint whose tensors are read one at a time into memory of their own: mapped
    /// pages of a large model would fill what a run is promised to need.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn open_to_stream(&self, model: &Path) -> Result<Checkpoint, Error> {
        self.open_by(model, Access::Read)
    }

    /// The files of a run that reads this model.
    #[must_use]
    pub fn files(&self, model: &Path) -> RunFiles {
        let mut files = RunFiles::new();
        files.reads_model(model);
        files.reads_all(&self.family);
        files
    }

    fn open_by(&self, model: &Path, access: Access) -> Result<Checkpoint, Error> {
        let family = match &self.family {
            None => None,
            Some(path) => {
                let text = std::fs::read_to_string(path).map_err(|e| Error::io(path, "read", e))?;
                Some(Family::from_toml(&text)?)
            }
        };
        let links = if self.follow_links { Links::Follow } else { Links::Within };
        let checkpoint = Checkpoint::open_by(model, family, Reading { access, links })?;
        checkpoint.notes().for_each(|note| crate::log::say(&format!("note: {note}")));
        Ok(checkpoint)
    }
}

/// Declares what a run makes: a folder, or a file and the reports beside it.
pub(crate) fn makes_model(files: &mut RunFiles, out: &Path) {
    files.makes(out);
    for ending in [".report.json", ".report.md"] {
        let mut beside = out.as_os_str().to_owned();
        beside.push(ending);
        files.makes(beside);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(args: &RecipeArgs, expected: (f64, f64)) {
        let recipe = args.resolve(&Registry::built_in(), &CalibrationArgs::default()).unwrap();
        assert_eq!((recipe.sparsity.value(), recipe.experts.sparsity.value()), expected);
    }

    fn shares(total: Option<f64>, experts: Option<f64>) -> RecipeArgs {
        let share = |s: Option<f64>| s.map(|s| Sparsity::new(s).unwrap());
        RecipeArgs {
            sparsity: share(total),
            expert_sparsity: share(experts).map(ExpertShare::Share),
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
