//! The stages of a run as one struct of public fields.

use moeprune_core::{
    ExpertClustering, ExpertSaliency, ExpertSelector, ExpertSimilarity, SparsityAllocator,
    WeightReconstructor, WeightScorer,
};
use moeprune_score::{MaskPattern, Rounding};

use crate::{Error, Recipe, Registry};

/// The implementation of every stage.
///
/// # Using the default
///
/// [`Pipeline::arctic`] holds what the default recipe names; [`Pipeline::from_recipe`] what any
/// recipe names.
///
/// # Making a custom stage
///
/// Implement the stage's trait from [`moeprune_core`] and override one field:
///
/// ```
/// use moeprune::{
///     Pipeline,
///     core::{DistanceMatrix, ExpertSimilarity, LayerBehaviour, StageError},
/// };
///
/// /// Distance by the angle between router rows.
/// #[derive(Debug)]
/// struct Angle;
///
/// impl ExpertSimilarity for Angle {
///     fn distances(&self, layer: &LayerBehaviour<'_>) -> Result<DistanceMatrix, StageError> {
///         let dot = |a: &[f32], b: &[f32]| -> f64 {
///             a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
///         };
///         Ok(DistanceMatrix::from_fn(layer.experts(), |i, j| {
///             let (a, b) = (layer.router.row(i), layer.router.row(j));
///             1.0 - dot(a, b) / (dot(a, a) * dot(b, b)).sqrt().max(f64::MIN_POSITIVE)
///         })?)
///     }
/// }
///
/// let pipeline = Pipeline { similarity: Box::new(Angle), ..Pipeline::arctic() };
/// # let _ = pipeline;
/// ```
///
/// # Which elements are required?
///
/// All of them are used when both stages run; those from the reconstructor on only when weights
/// are pruned.
#[derive(Debug)]
#[expect(clippy::exhaustive_structs, reason = "overriding one field with `..` is the point")]
pub struct Pipeline {
    /// How much an expert matters: experts are then ranked, and the next three not asked.
    pub saliency: Option<Box<dyn ExpertSaliency>>,
    /// How alike two experts are.
    pub similarity: Box<dyn ExpertSimilarity>,
    /// Which experts may stand in for each other.
    pub clustering: Box<dyn ExpertClustering>,
    /// Who survives.
    pub selector: Box<dyn ExpertSelector>,
    /// What zeroes weights and changes the others to make up for it. The scorer then measures
    /// outliers and stands in where too few tokens came.
    pub reconstructor: Option<Box<dyn WeightReconstructor>>,
    /// How much a weight matters.
    pub scorer: Box<dyn WeightScorer>,
    /// How the ratio is split over the layers.
    pub allocator: Box<dyn SparsityAllocator>,
    /// Among which weights the lowest scores go.
    pub pattern: Box<dyn MaskPattern>,
    /// How a row's share is rounded to whole weights.
    pub rounding: Rounding,
}

impl Pipeline {
    /// The stages of [`Recipe::arctic`].
    ///
    /// # Panics
    /// Never: the embedded recipe is checked by a test.
    #[must_use]
    pub fn arctic() -> Self {
        Self::from_recipe(&Recipe::arctic()).expect("the embedded recipe is checked by a test")
    }

    /// The built-in stages that a recipe names. For stages of one's own,
    /// [`Registry::pipeline`].
    ///
    /// # Errors
    /// As [`Registry::pipeline`].
    pub fn from_recipe(recipe: &Recipe) -> Result<Self, Error> {
        Registry::built_in().pipeline(recipe)
    }

    /// Whether planning needs an observation.
    #[must_use]
    pub fn needs_observation(&self) -> bool {
        match &self.saliency {
            Some(saliency) => saliency.needs_observation(),
            None => self.similarity.needs_observation() || self.selector.needs_observation(),
        }
    }

    /// Whether zeroing weights needs to know what reaches them.
    #[must_use]
    pub fn needs_inputs(&self) -> bool {
        self.reconstructor.is_some() || self.scorer.needs_inputs()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recipe::BUILT_IN;

    #[test]
    fn built_in_recipes_name_stages_that_there_are() {
        for (name, _) in BUILT_IN {
            Pipeline::from_recipe(&Recipe::built_in(name).unwrap()).unwrap();
        }
    }

    #[test]
    fn what_a_recipe_gets_wrong_is_said_with_what_was_meant() {
        let check = |text: &str, expected: &str| {
            let recipe = Recipe::from_toml(text).unwrap();
            let error = Pipeline::from_recipe(&recipe).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        };
        check("[experts]\nsimilarity = \"ruoter\"", "did you mean `router`?");
        check("[experts]\ncriterion = \"raep\"", "did you mean `reap`?");
        check("[weights]\nscorer = \"sparsgpt\"", "did you mean `sparsegpt`?");
        let owl = |rest: &str| format!("[weights]\nallocation = {{ name = \"owl\", {rest} }}");
        check(&owl("lamda = 0.1"), "did you mean `lambda`?");
        check(&owl("lambda = 1.0"), "lambda is 1; it must be at least 0 and below 1");
        check(&owl("multiplier = inf"), "multiplier = inf; it must be a finite number");
        check(&owl("multiplier = 0"), "multiplier is 0");
        check(&owl("mean = \"exct\""), "unknown variant `exct`");
        check(&owl("lambda = \"much\""), "invalid type");
        let stun = "[experts]\ncriterion = { name = \"stun\", seed = 1 }";
        check(stun, "parameters of `stun`: there is no `seed`, as it takes none");
        check("[experts]\nsimilarity = { name = \"outputs\", seed = 1 }", "as it takes none");
    }
}
