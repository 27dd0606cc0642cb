//! Stages by name: what a recipe's words stand for.

mod built_in;
mod from_recipe;
mod schema;
mod stages;

pub use from_recipe::FromRecipe;
pub use schema::schema;
pub use stages::{NoParameters, StageInfo};

use moeprune_core::{
    ExpertClustering, ExpertSaliency, ExpertSelector, ExpertSimilarity, SparsityAllocator,
    StageError, WeightReconstructor, WeightScorer,
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::json;

use self::stages::Stages;
use crate::{
    Error, ExpertStage, Grouped, Pipeline, Recipe, Scored, Stage, WeightStage,
    recipe::{
        CLUSTERS, EXHAUSTIVE, ExpertRecipe, MOST_SUBSETS, Parameter, RowRounding, Statistics,
        WeightRecipe, keys::unknown,
    },
};
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
        let Recipe { experts, weights, .. } = recipe;
        if experts.criterion.name != CLUSTERS && experts.criterion.name != EXHAUSTIVE {
            let others = [CLUSTERS, EXHAUSTIVE];
            self.saliencies.resolve("experts.criterion", &mut experts.criterion, &others)?;
        } else {
            let known = match experts.criterion.name.as_str() {
                EXHAUSTIVE => &["most_subsets"][..],
                _ => &[],
            };
            let parameters = &experts.criterion.parameters;
            if let Some(key) = parameters.keys().find(|key| !known.contains(&key.as_str())) {
                let of = format!("experts.criterion, parameters of `{}`", experts.criterion.name);
                return Err(Error::Recipe(unknown(&of, key, known.iter().copied())));
            }
            match parameters.get("most_subsets") {
                None | Some(Parameter::Integer(1..)) => {}
                Some(other) => {
                    return Err(Error::Recipe(format!(
                        "experts.criterion: most_subsets is {other}; it must be a positive whole \
                         number"
                    )));
                }
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
        let Recipe { experts, weights, .. } = &recipe;
        Ok(Pipeline {
            experts: match experts.criterion.name.as_str() {
                CLUSTERS => ExpertStage::Grouped(self.grouped(&recipe)?),
                EXHAUSTIVE => ExpertStage::Searched { most_subsets: most_subsets(experts) },
                _ => ExpertStage::Ranked(
                    self.saliencies.make("experts.criterion", &experts.criterion)?,
                ),
            },
            weights: match self.reconstructors.has(&weights.scorer.name) {
                false => WeightStage::Scored(self.scored(&recipe)?),
                true => WeightStage::Reconstructed {
                    method: self.reconstructors.make("weights.scorer", &weights.scorer)?,
                    fallback: self.scored(&recipe)?,
                },
            },
            allocator: self.allocators.make("weights.allocation", &weights.allocation)?,
        })
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
        let others = [CLUSTERS, EXHAUSTIVE].into_iter();
        others.chain(self.saliencies.names()).map(str::to_owned).collect()
    }

    /// What is known of every stage: the part of a recipe it stands in, its key, and what may
    /// stand there.
    #[must_use]
    pub fn stages(&self) -> [(&'static str, &'static str, Vec<StageInfo>); 6] {
        let info = |name: &str, about: &str, defaults: &[(&str, i64)]| StageInfo {
            name: name.to_owned(),
            about: about.to_owned(),
            defaults: defaults
                .iter()
                .map(|&(key, value)| (key.to_owned(), Parameter::Integer(value)))
                .collect(),
        };
        let subsets = [("most_subsets", MOST_SUBSETS)];
        let exhaustive = "tries every subset of a layer's experts on its output";
        let mut criteria = vec![
            info(CLUSTERS, "groups alike experts and keeps one of each group", &[]),
            info(EXHAUSTIVE, exhaustive, &subsets),
        ];
        criteria.extend(self.saliencies.infos());
        let mut scorers = self.scorers.infos();
        scorers.extend(self.reconstructors.infos());
        [
            ("ExpertRecipe", "criterion", criteria),
            ("ExpertRecipe", "similarity", self.similarities.infos()),
            ("ExpertRecipe", "clustering", self.clusterings.infos()),
            ("ExpertRecipe", "survivor", self.selectors.infos()),
            ("WeightRecipe", "scorer", scorers),
            ("WeightRecipe", "allocation", self.allocators.infos()),
        ]
    }
}

/// How many subsets of a layer's experts may be tried.
fn most_subsets(experts: &ExpertRecipe) -> u64 {
    let most = match experts.criterion.parameters.get("most_subsets") {
        Some(&Parameter::Integer(most)) => most,
        _ => MOST_SUBSETS,
    };
    u64::try_from(most).unwrap_or(0)
}
