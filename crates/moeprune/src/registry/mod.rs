//! Stages by name: what a recipe's words stand for.

mod built_in;
mod criteria;
mod from_recipe;
mod repairs;
mod schema;
mod stages;

pub use from_recipe::FromRecipe;
pub use schema::schema;
pub use stages::{NoParameters, StageInfo};

use moeprune_core::{
    ExpertClustering, ExpertRepair, ExpertSaliency, ExpertSelector, ExpertSimilarity,
    SparsityAllocator, StageError, WeightReconstructor, WeightScorer,
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::json;

use self::{
    criteria::{CRITERIA, Criterion},
    stages::Stages,
};
use crate::{
    Error, ExpertStage, Grouped, LayerStage, Pipeline, Recipe, Scored, Stage, WeightStage,
    recipe::{
        CLUSTERS, ExpertRecipe, ExpertStatistics, RowRounding, StageChoice, Statistics,
        WeightRecipe,
    },
};
pub(crate) use built_in::STAND_IN;
use moeprune_score::Rounding;

/// The implementations of every stage, under the names that recipes and the command line use.
///
/// # Adding one
///
/// Give the stage a name and say how it is made from its parameters. Those are a struct of plain
/// values with serde's two traits; its `Default` says which keys there are and what they are when
/// they are left out. [`NoParameters`] is for stages without any. A name that is there already is
/// replaced.
///
/// ```
/// use moeprune::{
///     Recipe, Registry,
///     core::{DistanceMatrix, ExpertSimilarity, LayerBehaviour, StageError},
///     registry::NoParameters,
/// };
///
/// /// Experts that are used equally often are alike.
/// #[derive(Debug)]
/// struct EqualLoad;
///
/// impl ExpertSimilarity for EqualLoad {
///     fn distances(&self, layer: &LayerBehaviour<'_>) -> Result<DistanceMatrix, StageError> {
///         let counts = &layer.routing.ok_or("equal-load needs an observation")?.counts;
///         let load = |e: usize| counts[e] as f64;
///         Ok(DistanceMatrix::from_fn(layer.experts(), |i, j| (load(i) - load(j)).abs())?)
///     }
/// }
///
/// let mut registry = Registry::built_in();
/// registry.add_similarity("equal-load", "experts used equally often", |_: NoParameters| {
///     Ok(Box::new(EqualLoad))
/// });
/// let recipe = Recipe::from_toml("[experts]\nsimilarity = \"equal-load\"")?;
/// let pipeline = registry.pipeline(&recipe)?;
/// let grouped = pipeline.experts.grouped().expect("alike experts are grouped by default");
/// assert_eq!(format!("{:?}", grouped.similarity), "EqualLoad");
/// # Ok::<(), moeprune::Error>(())
/// ```
///
/// `moeprune_cli::main_with` is the whole command line over a custom registry.
#[derive(Debug, Default)]
pub struct Registry {
    saliencies: Stages<dyn ExpertSaliency>,
    similarities: Stages<dyn ExpertSimilarity>,
    clusterings: Stages<dyn ExpertClustering>,
    selectors: Stages<dyn ExpertSelector>,
    repairs: Stages<dyn ExpertRepair>,
    scorers: Stages<dyn WeightScorer>,
    reconstructors: Stages<dyn WeightReconstructor>,
    allocators: Stages<dyn SparsityAllocator>,
}

macro_rules! add {
    ($(#[$doc:meta])* $name:ident, $field:ident, $stage:ident) => {
        $(#[$doc])*
        pub fn $name<P: DeserializeOwned + Serialize + Default>(
            &mut self,
            name: &str,
            about: &str,
            make: impl Fn(P) -> Result<Box<dyn $stage>, StageError> + Send + Sync + 'static,
        ) {
            self.$field.add(name, about, make);
        }
    };
}

impl Registry {
    add! {
        /// Adds a saliency under a name for `experts.criterion`. `about` says what it is in a line.
        add_saliency, saliencies, ExpertSaliency
    }
    add! {
        /// Adds a similarity under a name for `experts.similarity`.
        add_similarity, similarities, ExpertSimilarity
    }
    add! {
        /// Adds a clustering under a name for `experts.clustering`.
        add_clustering, clusterings, ExpertClustering
    }
    add! {
        /// Adds a selector under a name for `experts.survivor`.
        add_selector, selectors, ExpertSelector
    }
    add! {
        /// Adds a repair of the experts that stay under a name for `repair`.
        /// [`NO_REPAIR`](crate::recipe::NO_REPAIR) cannot be replaced.
        add_repair, repairs, ExpertRepair
    }
    add! {
        /// Adds a scorer under a name for `weights.scorer`.
        add_scorer, scorers, WeightScorer
    }
    add! {
        /// Adds a reconstruction under a name for `weights.scorer`. Wanda's scores stand in for it
        /// where too few tokens came, and measure outliers.
        add_reconstructor, reconstructors, WeightReconstructor
    }
    add! {
        /// Adds an allocation under a name for `weights.allocation`.
        add_allocator, allocators, SparsityAllocator
    }

    /// Writes the parameters that a recipe leaves to their defaults into it, so that it says
    /// everything.
    ///
    /// # Errors
    /// [`Error::Recipe`] if a name or a parameter is unknown, with what was probably meant.
    pub fn resolve(&self, recipe: &mut Recipe) -> Result<(), Error> {
        self.resolve_repairs(recipe)?;
        let Recipe { experts, weights, .. } = recipe;
        match Criterion::of(&experts.criterion) {
            Some(criterion) => criterion.check(&experts.criterion)?,
            None => {
                let others = CRITERIA.each_ref().map(|criterion| criterion.name);
                self.saliencies.resolve("experts.criterion", &mut experts.criterion, &others)?;
            }
        }
        self.similarities.resolve("experts.similarity", &mut experts.similarity, &[])?;
        self.clusterings.resolve("experts.clustering", &mut experts.clustering, &[])?;
        self.selectors.resolve("experts.survivor", &mut experts.survivor, &[])?;
        let scorers: Vec<&str> = self.scorers.names().collect();
        if self.reconstructors.has(&weights.scorer.name) || !self.scorers.has(&weights.scorer.name)
        {
            self.reconstructors.resolve("weights.scorer", &mut weights.scorer, &scorers)?;
            if weights.statistics == Statistics::Stored {
                return Err(Error::Recipe(format!(
                    "weights.scorer = `{}` needs to know which inputs come together, which no \
                     observation holds: use statistics = \"sequential\", which takes --calibration",
                    weights.scorer.name
                )));
            }
        } else {
            self.scorers.resolve("weights.scorer", &mut weights.scorer, &[])?;
        }
        self.allocators.resolve("weights.allocation", &mut weights.allocation, &[])
    }

    /// The stages that a recipe names.
    ///
    /// # Errors
    /// [`Error::Recipe`] if a name or a parameter is unknown, with what was probably meant, or a
    /// parameter is out of range.
    pub fn pipeline(&self, recipe: &Recipe) -> Result<Pipeline, Error> {
        let mut recipe = recipe.clone();
        self.resolve(&mut recipe)?;
        let weights = &recipe.weights;
        Ok(Pipeline {
            experts: self.expert_stage(&recipe)?,
            repair: self.repair(&recipe)?,
            weights: match self.reconstructors.has(&weights.scorer.name) {
                false => WeightStage::Scored(self.scored(&recipe)?),
                true => WeightStage::Reconstructed {
                    method: self.reconstructors.make("weights.scorer", &weights.scorer)?,
                    fallback: self.scored(&recipe)?,
                },
            },
            refit: self.refit(&recipe)?,
            allocator: self.allocators.make("weights.allocation", &weights.allocation)?,
        })
    }

    /// How a resolved recipe chooses experts.
    fn expert_stage(&self, recipe: &Recipe) -> Result<ExpertStage, Error> {
        let experts = &recipe.experts;
        let stage = match Criterion::of(&experts.criterion) {
            Some(criterion) => criterion.stage(self, recipe)?,
            None => {
                ExpertStage::Ranked(self.saliencies.make("experts.criterion", &experts.criterion)?)
            }
        };
        match (experts.statistics, stage) {
            (ExpertStatistics::Independent, stage) => Ok(stage),
            (ExpertStatistics::Sequential, ExpertStage::Ranked(saliency)) => {
                Ok(ExpertStage::InTurn(LayerStage::Ranked(saliency)))
            }
            (ExpertStatistics::Sequential, ExpertStage::Grouped(grouped)) => {
                Ok(ExpertStage::InTurn(LayerStage::Grouped(grouped)))
            }
            (ExpertStatistics::Sequential, _) => Err(Error::Recipe(format!(
                "experts.statistics = \"sequential\" (--expert-statistics) is for `{CLUSTERS}` and for rankings, which choose by \
                 sums of a layer; experts.criterion = `{}` chooses otherwise: use one of these, or \"independent\"",
                experts.criterion.name
            ))),
        }
    }

    /// The grouping that a recipe names, with any criterion.
    ///
    /// # Errors
    /// As [`pipeline`](Self::pipeline).
    pub fn grouped(&self, recipe: &Recipe) -> Result<Grouped, Error> {
        let mut recipe = recipe.clone();
        self.resolve(&mut recipe)?;
        let ExpertRecipe { similarity, clustering, survivor, .. } = &recipe.experts;
        Ok(Grouped {
            similarity: self.similarities.make("experts.similarity", similarity)?,
            clustering: self.clusterings.make("experts.clustering", clustering)?,
            selector: self.selectors.make("experts.survivor", survivor)?,
        })
    }

    /// The scoring that a recipe names. Of a reconstruction, what stands in for it: Wanda.
    ///
    /// # Errors
    /// As [`pipeline`](Self::pipeline).
    pub fn scored(&self, recipe: &Recipe) -> Result<Scored, Error> {
        let mut recipe = recipe.clone();
        self.resolve(&mut recipe)?;
        let WeightRecipe { scorer, pattern, rounding, .. } = &recipe.weights;
        Ok(Scored {
            scorer: match self.reconstructors.has(&scorer.name) {
                true => Stage::identified(
                    Box::new(moeprune_score::Wanda::default()),
                    json!({ "stands in for": scorer }),
                ),
                false => self.scorers.make("weights.scorer", scorer)?,
            },
            pattern: Stage::identified(pattern.stage(), json!(pattern)),
            rounding: match rounding {
                RowRounding::Exact => Rounding::Exact,
                RowRounding::Floor => Rounding::ReferenceFloor,
            },
        })
    }

    /// The names that `experts.criterion` may have.
    #[must_use]
    pub fn criteria(&self) -> Vec<String> {
        let others = CRITERIA.iter().map(|criterion| criterion.name);
        others.chain(self.saliencies.names()).map(str::to_owned).collect()
    }

    /// Has a recipe choose experts as `text` says: by a criterion with its parameters, or, where no
    /// criterion has that name, as the built-in recipe of that name does.
    ///
    /// # Errors
    /// [`Error::Recipe`] if the text is no name with parameters. Whether there is a criterion of this
    /// name, [`resolve`](Self::resolve) tells.
    pub fn choose_experts_by(&self, recipe: &mut Recipe, text: &str) -> Result<(), Error> {
        let choice: StageChoice = text.parse().map_err(Error::Recipe)?;
        let experts = &mut recipe.experts;
        let is_criterion = Criterion::of(&choice).is_some() || self.saliencies.has(&choice.name);
        match Recipe::built_in(text).filter(|_| !is_criterion) {
            None => experts.criterion = choice,
            Some(Recipe { experts: built_in, .. }) => {
                experts.criterion = built_in.criterion;
                experts.similarity = built_in.similarity;
                experts.clustering = built_in.clustering;
                experts.survivor = built_in.survivor;
            }
        }
        Ok(())
    }

    /// What is known of every stage: the part of a recipe it stands in, its key, and what may
    /// stand there.
    #[must_use]
    pub fn stages(&self) -> [(&'static str, &'static str, Vec<StageInfo>); 8] {
        let mut criteria: Vec<StageInfo> = CRITERIA.iter().map(Criterion::info).collect();
        criteria.extend(self.saliencies.infos());
        let mut scorers = self.scorers.infos();
        scorers.extend(self.reconstructors.infos());
        [
            ("ExpertRecipe", "criterion", criteria),
            ("ExpertRecipe", "similarity", self.similarities.infos()),
            ("ExpertRecipe", "clustering", self.clusterings.infos()),
            ("ExpertRecipe", "survivor", self.selectors.infos()),
            ("Recipe", "repair", self.repair_infos()),
            ("WeightRecipe", "refit", self.repair_infos()),
            ("WeightRecipe", "scorer", scorers),
            ("WeightRecipe", "allocation", self.allocators.infos()),
        ]
    }
}
