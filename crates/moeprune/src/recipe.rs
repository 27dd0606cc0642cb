//! Recipes: every choice of a pruning run as data.

use std::path::Path;

use moeprune_capture::SamplingOptions;
use moeprune_core::Sparsity;
use serde::{Deserialize, Serialize};

use crate::Error;

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
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(clippy::exhaustive_structs, reason = "a file format; a missing key is an error")]
pub struct Recipe {
    /// Total share of the original decoder Linears' weights that is removed or zero.
    pub sparsity: Sparsity,
    /// The expert stage.
    pub experts: ExpertRecipe,
    /// The unstructured stage.
    pub weights: WeightRecipe,
    /// Which part of the calibration text is used.
    pub calibration: CalibrationRecipe,
}

/// Choices of the expert stage.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(clippy::exhaustive_structs, reason = "a file format; a missing key is an error")]
pub struct ExpertRecipe {
    /// Share of the routed experts that is removed, rounded to whole experts: per layer for a
    /// uniform budget, over all layers for a global one.
    pub sparsity: Sparsity,
    /// How the removed experts are spread over the layers.
    pub budget: Budget,
    /// What makes two experts alike.
    pub similarity: Similarity,
    /// Weight λ₂ of the co-activation in [`Similarity::Mixed`].
    pub coactivation_weight: f64,
    /// How experts are clustered.
    pub linkage: Linkage,
    /// κ: survivors are averaged in a layer with this many clusters or fewer.
    pub average_at_most: usize,
    /// Seed of [`Linkage::Kmeans`].
    pub seed: u64,
}

/// Choices of the unstructured stage.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(clippy::exhaustive_structs, reason = "a file format; a missing key is an error")]
pub struct WeightRecipe {
    /// How weights are scored.
    pub scorer: Scorer,
    /// How the ratio is split over the layers.
    pub allocation: Allocation,
    /// M: a score above M times the layer's mean is an outlier.
    pub owl_multiplier: f64,
    /// λ: half of the spread between the layers' ratios.
    pub owl_lambda: f64,
    /// Which mean of the layers' ratios is kept.
    pub owl_mean: OwlMean,
    /// How a row's share is rounded to whole weights.
    pub rounding: RowRounding,
    /// What an expert gets that no calibration token reached.
    pub idle_experts: IdleExperts,
    /// Whether routers are pruned like any Linear.
    pub prune_router: bool,
    /// Where input statistics come from.
    pub statistics: Statistics,
    /// Ratio of what is left to zero, instead of one solved for from the total.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ratio: Option<Sparsity>,
}

/// Which part of the calibration text is used.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
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

macro_rules! choice {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
        #[serde(rename_all = "lowercase")]
        #[value(rename_all = "lower")]
        #[non_exhaustive]
        pub enum $name { $($(#[$variant_doc])* $variant),+ }
    };
}

choice! {
    /// How removed experts are spread over the layers.
    Budget {
        /// Every layer keeps the same number: what serving engines can load
        Uniform,
        /// One threshold over all layers, as in the published code
        Global,
    }
}
choice! {
    /// What makes two experts alike.
    Similarity {
        /// Their router rows are close
        Router,
        /// Tokens choose them together
        Coactivation,
        /// Both, weighted
        Mixed,
    }
}
choice! {
    /// How experts are clustered.
    Linkage {
        /// Agglomerative, by the farthest pair
        Complete,
        /// Agglomerative, by the mean pair
        Average,
        /// The published code's greedy partial linkage
        Reference,
        /// k-means on an embedding of the distances
        Kmeans,
    }
}
choice! {
    /// How weights are scored.
    Scorer {
        /// Magnitude times the norm of the input
        Wanda,
        /// Magnitude
        Magnitude,
    }
}
choice! {
    /// How the ratio is split over the layers.
    Allocation {
        /// Layers with more outliers keep more
        Owl,
        /// The same ratio everywhere
        Uniform,
    }
}
choice! {
    /// Which mean of the layers' ratios equals the ratio asked for.
    OwlMean {
        /// Weighted by parameters
        Exact,
        /// Unweighted, as in the published code
        Reference,
    }
}
choice! {
    /// How a row's share is rounded to whole weights.
    RowRounding {
        /// Rows round so that the matrix meets its ratio
        Exact,
        /// Every row rounds down, as in the published code
        Floor,
    }
}
choice! {
    /// What an expert gets that no calibration token reached.
    IdleExperts {
        /// Pruned by magnitude at the same ratio
        Magnitude,
        /// Left as it is, so the total is missed
        Dense,
    }
}
choice! {
    /// Where input statistics come from.
    Statistics {
        /// Inputs that went through the pruned layers before
        Sequential,
        /// An observation of the unpruned model
        Stored,
    }
}

impl Recipe {
    /// The default: STUN for Arctic at 40 % total, 20 % of the experts first.
    ///
    /// # Panics
    /// Never: the embedded recipe is checked by a test.
    #[must_use]
    pub fn arctic() -> Self {
        Self::from_toml(include_str!("../recipes/arctic.toml"))
            .expect("the embedded recipe is checked by a test")
    }

    /// What the published Wanda and OWL code does, quirks included.
    ///
    /// # Panics
    /// Never: the embedded recipe is checked by a test.
    #[must_use]
    pub fn reference() -> Self {
        Self::from_toml(include_str!("../recipes/reference.toml"))
            .expect("the embedded recipe is checked by a test")
    }

    /// Parses a recipe. A key that is missing takes the default of [`arctic`](Self::arctic); a key
    /// that is unknown is an error.
    ///
    /// # Errors
    /// [`Error::Recipe`] with the place and what was expected.
    pub fn from_toml(text: &str) -> Result<Self, Error> {
        let bad = |e: toml::de::Error| Error::Recipe(e.to_string());
        let mut table: toml::Table =
            toml::from_str(include_str!("../recipes/arctic.toml")).map_err(bad)?;
        let given: toml::Table = toml::from_str(text).map_err(bad)?;
        override_table(&mut table, given);
        Self::deserialize(table).map_err(bad)
    }

    /// Reads a recipe file; see [`from_toml`](Self::from_toml).
    ///
    /// # Errors
    /// If the file cannot be read or parsed; the message names it.
    pub fn read(path: &Path) -> Result<Self, Error> {
        let text = std::fs::read_to_string(path).map_err(|e| Error::io(path, "read", e))?;
        Self::from_toml(&text).map_err(|e| Error::Recipe(format!("{}: {e}", path.display())))
    }

    /// Whether the unstructured stage is asked for: not when the total is the expert stage's own
    /// share. The total is then whatever removing whole experts gives.
    #[must_use]
    pub fn prunes_weights(&self) -> bool {
        match self.weights.ratio {
            Some(ratio) => ratio.value() > 0.0,
            None => self.sparsity != self.experts.sparsity,
        }
    }

    /// Refuses values that no run can use. Whether a total can be reached depends on the model:
    /// [`check_request`](crate::check_request).
    ///
    /// # Errors
    /// [`Error::Recipe`] with the key and what it may be.
    pub fn check(&self) -> Result<(), Error> {
        let bad = |what: &str| Err(Error::Recipe(what.to_owned()));
        let WeightRecipe { owl_multiplier, owl_lambda, .. } = self.weights;
        if !self.experts.coactivation_weight.is_finite() {
            return bad("experts.coactivation_weight must be a finite number");
        }
        if !(owl_multiplier.is_finite() && owl_multiplier > 0.0) {
            return bad("weights.owl_multiplier must be a finite number above 0");
        }
        if !(0.0..1.0).contains(&owl_lambda) {
            return bad("weights.owl_lambda must be at least 0 and below 1");
        }
        if self.calibration.samples == 0 || self.calibration.sequence_len < 2 {
            return bad("calibration needs at least 1 sample of at least 2 tokens");
        }
        Ok(())
    }
}

fn override_table(table: &mut toml::Table, given: toml::Table) {
    for (key, value) in given {
        match (table.get_mut(&key), value) {
            (Some(toml::Value::Table(inner)), toml::Value::Table(value)) => {
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
        Recipe::arctic().check().unwrap();
        Recipe::reference().check().unwrap();
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
        assert!(error.to_string().contains("linkages"), "{error}");
    }

    #[test]
    fn values_that_no_run_can_use_are_refused() {
        let check = |text: &str, key: &str| {
            let error = Recipe::from_toml(text).unwrap().check().unwrap_err().to_string();
            assert!(error.contains(key), "{error}");
        };
        check("[weights]\nowl_multiplier = inf", "owl_multiplier");
        check("[weights]\nowl_multiplier = 0.0", "owl_multiplier");
        check("[weights]\nowl_lambda = 1.0", "owl_lambda");
        check("[experts]\ncoactivation_weight = nan", "coactivation_weight");
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
