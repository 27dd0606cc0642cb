//! Recipes: every choice of a pruning run as data.

mod choice;
pub(crate) mod keys;
mod pattern;
mod stage_choice;

pub use choice::{
    Budget, Choice, Domains, ExpertStatistics, IdleExperts, Mtp, RowRounding, Statistics,
};
pub use pattern::Pattern;
pub use stage_choice::{Parameter, StageChoice};

use std::path::Path;

use moeprune_capture::SamplingOptions;
use moeprune_core::{
    OpenTotal, Promises, Sparsity, SparsityAllocator, StatisticsSource, TotalPromise,
};
use moeprune_engine::{
    BudgetSpread, ExpertRequest, Pipeline, PruneRequest, Sampling, WeightTarget,
};
use moeprune_files::StandIn;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::Error;

const ARCTIC: &str = include_str!("../../recipes/arctic.toml");

/// The recipes that come with the program, by name, as they are written.
pub const BUILT_IN: [(&str, &str); 4] = [
    ("arctic", ARCTIC),
    ("reap", include_str!("../../recipes/reap.toml")),
    ("hc-smoe", include_str!("../../recipes/hc-smoe.toml")),
    ("reference", include_str!("../../recipes/reference.toml")),
];

/// Every choice of a pruning run. Written into plans and reports, read from TOML.
///
/// ```
/// use moeprune::Recipe;
/// let mut recipe = Recipe::arctic();
/// assert_eq!(recipe.sparsity.value(), 0.4);
/// recipe.experts.sparsity = moeprune::core::Sparsity::new(0.4)?;
/// // Nothing is left for the unstructured stage.
/// assert!(!recipe.prunes_weights());
/// # Ok::<(), moeprune::core::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[expect(clippy::exhaustive_structs, reason = "a file format; a missing key is an error")]
pub struct Recipe {
    /// Total share of the original decoder Linears' weights that is removed or zero.
    #[schemars(with = "f64", range(min = 0.0, max = 0.999_999))]
    pub sparsity: Sparsity,
    /// How the experts that stay make up for those that go; [`NO_REPAIR`]: they keep their weights.
    #[serde(default = "no_repair")]
    pub repair: StageChoice,
    /// Whether a repair of weights that are stored in codes writes new ones in the same encoding, with new
    /// scales. Without it, such weights are not repaired.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub requantise: bool,
    /// The expert stage.
    pub experts: ExpertRecipe,
    /// The unstructured stage.
    pub weights: WeightRecipe,
    /// Which part of the calibration text is used.
    pub calibration: CalibrationRecipe,
}

/// Choices of the expert stage.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[expect(clippy::exhaustive_structs, reason = "a file format; a missing key is an error")]
pub struct ExpertRecipe {
    /// Share of the routed experts that is removed, rounded to whole experts: per layer for a
    /// uniform budget, over all layers for a global one.
    #[schemars(with = "f64", range(min = 0.0, max = 0.999_999))]
    pub sparsity: Sparsity,
    /// How the removed experts are spread over the layers.
    pub budget: Budget,
    /// How it is decided which experts go: [`CLUSTERS`] groups alike experts and keeps one of each
    /// group; [`EXHAUSTIVE`] tries all subsets; [`RECONSTRUCTION`] drops those that a layer misses least, one
    /// after the other; [`KEEP_LIST`] says that a list names those that stay; any other name is that of a
    /// saliency, by which experts are ranked.
    pub criterion: StageChoice,
    /// What makes two experts alike, for `stun`.
    pub similarity: StageChoice,
    /// How experts are grouped, for `stun`.
    pub clustering: StageChoice,
    /// Which expert of a group survives, or how the group is merged, for `stun`.
    pub survivor: StageChoice,
    /// What sums experts are chosen by, for `stun` and rankings.
    #[serde(
        default = "ExpertStatistics::default_choice",
        skip_serializing_if = "ExpertStatistics::is_default"
    )]
    pub statistics: ExpertStatistics,
    /// Whether experts whose outputs peak far above all others' stay in any case.
    pub protect_super_experts: bool,
    /// How several observations are weighed.
    pub domains: Domains,
    /// What becomes of layers behind the decoder's. Left out: what their family says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtp: Option<Mtp>,
}

/// The criterion that clusters experts by behaviour, as STUN does.
pub const CLUSTERS: &str = "stun";

/// The criterion that runs a layer without each subset of its experts.
pub const EXHAUSTIVE: &str = "exhaustive";

/// The criterion that drops one expert after the other, each time the one that the layer misses least.
pub const RECONSTRUCTION: &str = "reconstruction";

/// The criterion that keeps the experts which a list names.
pub const KEEP_LIST: &str = "keep-list";

/// Calibration tokens per layer that [`RECONSTRUCTION`] looks at at most, unless the recipe says otherwise.
pub(crate) const LOOKED_AT: i64 = 2048;

/// The repair that leaves the experts that stay as they are.
pub const NO_REPAIR: &str = "none";

/// The repair that fits down projections to what is missing.
pub const REFIT: &str = "refit";

/// Of plans and reports from before there were repairs.
fn no_repair() -> StageChoice {
    NO_REPAIR.into()
}

/// Subsets of a layer's experts that [`EXHAUSTIVE`] tries at most, unless the recipe says otherwise.
pub(crate) const MOST_SUBSETS: i64 = 1000;

/// Choices of the unstructured stage.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[expect(clippy::exhaustive_structs, reason = "a file format; a missing key is an error")]
pub struct WeightRecipe {
    /// How weights are scored, or pruned and made up for.
    pub scorer: StageChoice,
    /// How the ratio is split over the layers.
    pub allocation: StageChoice,
    /// Among which weights the lowest scores go.
    pub pattern: Pattern,
    /// How a row's share is rounded to whole weights.
    pub rounding: RowRounding,
    /// What an expert gets that no calibration token reached.
    pub idle_experts: IdleExperts,
    /// Whether routers are pruned like any Linear.
    pub prune_router: bool,
    /// Where input statistics come from.
    pub statistics: Statistics,
    /// How down projections of experts make up for their zeroed weights with those that are left, in a pass after
    /// all others. Left out: they stay as they are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refit: Option<StageChoice>,
    /// Ratio of what is left to zero, instead of one solved for from the total.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<f64>", range(min = 0.0, max = 0.999_999))]
    pub ratio: Option<Sparsity>,
}

/// Which part of the calibration text is used.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[expect(clippy::exhaustive_structs, reason = "a file format; a missing key is an error")]
pub struct CalibrationRecipe {
    /// Number of blocks.
    pub samples: usize,
    /// Tokens in a block, capped by what the model allows.
    pub sequence_len: usize,
    /// Seed the blocks are drawn with.
    pub seed: u64,
}

impl ExpertRecipe {
    /// The request to the engine's expert stage.
    pub(crate) fn request(&self) -> ExpertRequest {
        ExpertRequest {
            share: self.sparsity,
            spread: match self.budget {
                Budget::Uniform => BudgetSpread::Uniform,
                Budget::Global => BudgetSpread::Global,
            },
            protect_super_experts: self.protect_super_experts,
        }
    }
}

impl Sampling for Recipe {
    fn options(&self, max_positions: usize) -> SamplingOptions {
        self.calibration.sampling(max_positions)
    }
}

impl CalibrationRecipe {
    /// The options for a model that takes at most `max_positions` tokens.
    #[must_use]
    pub fn sampling(&self, max_positions: usize) -> SamplingOptions {
        SamplingOptions {
            samples: self.samples,
            sequence_len: self.sequence_len.min(max_positions),
            seed: self.seed,
        }
    }
}

impl From<StatisticsSource> for Statistics {
    fn from(source: StatisticsSource) -> Self {
        match source {
            StatisticsSource::Sequential => Self::Sequential,
            StatisticsSource::Stored => Self::Stored,
        }
    }
}

impl Recipe {
    /// The text of a recipe that comes with the program.
    ///
    /// # Errors
    /// If none has this name, with those that there are.
    pub fn built_in_text(name: &str) -> Result<&'static str, Error> {
        let found = BUILT_IN.iter().find(|(built_in, _)| *built_in == name);
        found.map(|(_, text)| *text).ok_or_else(|| {
            Error::Recipe(keys::unknown("show", name, BUILT_IN.iter().map(|(name, _)| *name)))
        })
    }

    /// The default: STUN for Arctic at 40 % total, 20 % of the experts first.
    ///
    /// # Panics
    /// Never: the embedded recipe is checked by a test.
    #[must_use]
    pub fn arctic() -> Self {
        Self::from_toml(ARCTIC).expect("the embedded recipe is checked by a test")
    }

    /// What the published Wanda and OWL code does, quirks included.
    ///
    /// # Panics
    /// Never: the embedded recipe is checked by a test.
    #[must_use]
    pub fn reference() -> Self {
        Self::built_in("reference").expect("the embedded recipe is checked by a test")
    }

    /// A recipe that comes with the program: one of [`BUILT_IN`].
    #[must_use]
    pub fn built_in(name: &str) -> Option<Self> {
        let (_, text) = BUILT_IN.iter().find(|(built_in, _)| *built_in == name)?;
        Self::from_toml(text).ok()
    }

    /// Parses a recipe. A key that is missing takes the default of [`arctic`](Self::arctic); a key
    /// that is unknown is an error that says what was probably meant. Names of stages are looked up
    /// when a [`Registry`](crate::Registry) makes the [`Pipeline`].
    ///
    /// # Errors
    /// [`Error::Recipe`] with the place and what was expected.
    pub fn from_toml(text: &str) -> Result<Self, Error> {
        let bad = |e: toml::de::Error| Error::Recipe(e.to_string());
        let mut table: toml::Table = toml::from_str(ARCTIC).map_err(bad)?;
        let given: toml::Table = toml::from_str(text).map_err(bad)?;
        let mut known = table.clone();
        // The keys that have no default.
        for (table, key, value) in [
            ("weights", "ratio", 0.5.into()),
            ("weights", "refit", "".into()),
            ("experts", "mtp", "".into()),
        ] {
            if let Some(toml::Value::Table(table)) = known.get_mut(table) {
                table.insert(key.into(), value);
            }
        }
        keys::check(&given, &known, "").map_err(Error::Recipe)?;
        override_table(&mut table, given);
        Self::deserialize(table).map_err(bad)
    }

    /// Reads a recipe file; see [`from_toml`](Self::from_toml).
    ///
    /// # Errors
    /// If the file cannot be read or parsed; the message names it.
    pub fn read(path: &Path) -> Result<Self, Error> {
        let text = std::fs::read_to_string(path).map_err(|e| Error::io(path, "read", e))?;
        let beginning = &text.as_bytes()[..text.len().min(StandIn::BYTES)];
        if let Some(stand_in) = StandIn::pointer(beginning) {
            return Err(Error::Recipe(format!("{} {stand_in}", path.display())));
        }
        Self::from_toml(&text).map_err(|e| Error::Recipe(format!("{}: {e}", path.display())))
    }

    /// Has the recipe remove the experts that a list does not name, and nothing else unless a total is
    /// given.
    pub(crate) fn keep_listed(&mut self, share: Sparsity, total: Option<Sparsity>) {
        self.experts.criterion = StageChoice::new(KEEP_LIST);
        self.experts.statistics = ExpertStatistics::Independent;
        self.experts.sparsity = share;
        self.sparsity = total.unwrap_or(share);
        self.weights.ratio = None;
    }

    /// Whether the experts that stay are changed to make up for those that go.
    #[must_use]
    pub fn repairs(&self) -> bool {
        self.repair.name != NO_REPAIR
    }

    /// Whether experts are repaired before the statistics for zeroing weights are taken, which are then of the
    /// repaired model.
    pub(crate) fn repairs_before_statistics(&self) -> bool {
        self.repairs() && self.weights.statistics == Statistics::Sequential
    }

    /// Whether what is left of down projections is changed after weights were zeroed.
    #[must_use]
    pub fn refits(&self) -> bool {
        self.weights.refit.as_ref().is_some_and(|refit| refit.name != NO_REPAIR)
    }

    /// Whether a list names the experts that stay. The share of experts is then what the list removes,
    /// and not what was asked for.
    #[must_use]
    pub fn keeps_listed(&self) -> bool {
        self.experts.criterion.name == KEEP_LIST
    }

    /// Whether the unstructured stage runs: not when the total is the expert stage's own
    /// share. The total is then what removing whole experts gives. A pattern that fixes the ratio
    /// always asks for it.
    #[must_use]
    pub fn prunes_weights(&self) -> bool {
        if matches!(self.weights.pattern, Pattern::NOfM(_)) {
            return true;
        }
        match self.weights.ratio {
            Some(ratio) => ratio.value() > 0.0,
            None => self.sparsity != self.experts.sparsity,
        }
    }

    /// The request to the engine, with these stages.
    ///
    /// # Errors
    /// [`Error::Recipe`] as [`check`](Self::check).
    pub fn request(&self, pipeline: &Pipeline) -> Result<PruneRequest, Error> {
        self.check()?;
        Ok(PruneRequest {
            total: self.sparsity,
            experts: self.experts.request(),
            extra: self.experts.mtp.map(Into::into),
            weights: match self.weights.ratio {
                _ if !self.prunes_weights() => WeightTarget::Nothing,
                Some(ratio) => WeightTarget::Ratio(ratio),
                None => WeightTarget::Total,
            },
            promises: self.promises(&*pipeline.allocator),
            recipe: serde_json::to_value(self)
                .map_err(|e| Error::Recipe(format!("cannot be written as JSON: {e}")))?,
        })
    }

    /// What the unstructured stage promises when the layers' ratios come from `allocator`.
    fn promises(&self, allocator: &dyn SparsityAllocator) -> Promises {
        let WeightRecipe { idle_experts, prune_router, rounding, statistics, ratio, .. } =
            &self.weights;
        let open = if ratio.is_some() {
            Some(OpenTotal::GivenRatio)
        } else if !allocator.keeps_mean() {
            Some(OpenTotal::UnweightedMean)
        } else if *idle_experts == IdleExperts::Dense {
            Some(OpenTotal::DenseIdleExperts)
        } else {
            None
        };
        Promises {
            total: open.map_or(TotalPromise::SOLVED, TotalPromise::Open),
            zero_routers: *prune_router,
            idle_experts: match idle_experts {
                IdleExperts::Magnitude => moeprune_core::IdleExperts::Magnitude,
                IdleExperts::Dense => moeprune_core::IdleExperts::Dense,
            },
            rounding: match rounding {
                RowRounding::Exact => moeprune_core::RowRounding::Exact,
                RowRounding::Floor => moeprune_core::RowRounding::Floor,
            },
            statistics: match statistics {
                Statistics::Sequential => StatisticsSource::Sequential,
                Statistics::Stored => StatisticsSource::Stored,
            },
        }
    }

    /// Refuses values that no run can use. Whether a total can be reached depends on the model:
    /// [`check_request`](crate::check_request).
    ///
    /// # Errors
    /// [`Error::Recipe`] with the key and what it may be.
    pub fn check(&self) -> Result<(), Error> {
        let bad = |what: &str| Err(Error::Recipe(what.to_owned()));
        if self.calibration.samples == 0 || self.calibration.sequence_len < 2 {
            return bad("calibration needs at least 1 sample of at least 2 tokens");
        }
        Ok(())
    }
}

fn override_table(table: &mut toml::Table, given: toml::Table) {
    for (key, value) in given {
        match (table.get_mut(&key), value) {
            (Some(toml::Value::Table(inner)), toml::Value::Table(value))
                if !inner.contains_key("name") =>
            {
                override_table(inner, value);
            }
            (_, value) => {
                table.insert(key, value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn embedded_recipes_parse_and_are_consistent() {
        for (name, _) in BUILT_IN {
            Recipe::built_in(name).unwrap().check().unwrap();
        }
    }

    #[test]
    fn recipes_survive_toml() {
        let text = toml::to_string(&Recipe::reference()).unwrap();
        assert_eq!(Recipe::from_toml(&text).unwrap(), Recipe::reference());
    }

    #[test]
    fn missing_keys_take_the_default_and_unknown_ones_are_refused() {
        let recipe = Recipe::from_toml("sparsity = 0.6\n[experts]\nsparsity = 0.5").unwrap();
        assert_eq!(recipe.weights, Recipe::arctic().weights);
        assert_eq!(recipe.experts.sparsity.value(), 0.5);
        let error = Recipe::from_toml("[experts]\nlinkages = \"complete\"").unwrap_err();
        let expected = "recipe: experts: there is no `linkages`. There are: ";
        assert!(error.to_string().starts_with(expected), "{error}");
        let error = Recipe::from_toml("sparsty = 0.2").unwrap_err();
        assert!(error.to_string().contains("did you mean `sparsity`?"), "{error}");
    }

    #[test]
    fn values_that_no_run_can_use_are_refused() {
        let check = |text: &str, key: &str| {
            let error = Recipe::from_toml(text).unwrap().check().unwrap_err().to_string();
            assert!(error.contains(key), "{error}");
        };
        check("[calibration]\nsamples = 0", "calibration");
    }

    #[test]
    fn totals_decide_whether_weights_are_pruned() {
        let prunes = |text: &str| Recipe::from_toml(text).unwrap().prunes_weights();
        assert!(prunes(""));
        assert!(!prunes("sparsity = 0.2"));
        assert!(prunes("sparsity = 0.2\n[experts]\nsparsity = 0.0"));
        assert!(!prunes("sparsity = 0.0\n[experts]\nsparsity = 0.0"));
    }
}
