//! Pipelines and their parts with the stages that come with the program.

use crate::{Error, Grouped, Pipeline, Recipe, Registry, Scored};

/// What can be made of a recipe with the built-in stages. For custom stages, [`Registry::pipeline`].
///
/// # Making a custom stage
///
/// Implement the stage's trait from [`moeprune_core`] and override one field:
///
/// ```
/// use moeprune::{
///     ExpertStage, FromRecipe, Grouped, Pipeline, Stage,
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
/// let pipeline = Pipeline {
///     experts: ExpertStage::Grouped(Grouped {
///         similarity: Stage::new(Box::new(Angle)),
///         ..Grouped::arctic()
///     }),
///     ..Pipeline::arctic()
/// };
/// # let _ = pipeline;
/// ```
pub trait FromRecipe: Sized {
    /// What a recipe names.
    ///
    /// # Errors
    /// As [`Registry::pipeline`].
    fn from_recipe(recipe: &Recipe) -> Result<Self, Error>;

    /// What [`Recipe::arctic`] names.
    ///
    /// # Panics
    /// Never: the embedded recipe is checked by a test.
    #[must_use]
    fn arctic() -> Self {
        Self::from_recipe(&Recipe::arctic()).expect("the embedded recipe is checked by a test")
    }
}

impl FromRecipe for Pipeline {
    fn from_recipe(recipe: &Recipe) -> Result<Self, Error> {
        Registry::built_in().pipeline(recipe)
    }
}

/// The grouping that a recipe names, with any criterion.
impl FromRecipe for Grouped {
    fn from_recipe(recipe: &Recipe) -> Result<Self, Error> {
        Registry::built_in().grouped(recipe)
    }
}

/// The scoring that a recipe names; of a reconstruction, what stands in for it.
impl FromRecipe for Scored {
    fn from_recipe(recipe: &Recipe) -> Result<Self, Error> {
        Registry::built_in().scored(recipe)
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
    fn repairs_by_name() {
        let check = |text: &str, expected: Option<&str>| {
            let pipeline = Pipeline::from_recipe(&Recipe::from_toml(text).unwrap()).unwrap();
            let repair = pipeline.repair.map(|repair| format!("{repair:?}"));
            assert_eq!(
                repair.as_deref().map(|repair| repair.contains("Refit")),
                expected.map(|_| true)
            );
            for part in expected.into_iter().flat_map(|parts| parts.split(' ')) {
                assert!(repair.as_deref().unwrap().contains(part), "{repair:?}");
            }
        };
        check("", None);
        check("repair = \"none\"", None);
        check("repair = \"refit\"", Some("Automatic"));
        check("[repair]\nname = \"refit\"\nridge = \"floor\"", Some("Floor"));
        check("repair = { name = \"refit\", ridge = 0.001 }", Some("Share(0.001)"));
        check("repair = { name = \"refit\", ridge = 1 }", Some("Share(1.0)"));
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
        check("repair = \"refti\"", "repair: there is no `refti`; did you mean `refit`?");
        check("repair = \"nine\"", "did you mean `none`?");
        check("repair = { name = \"none\", sweeps = 1 }", "as it takes none");
        let refit = |rest: &str| format!("[repair]\nname = \"refit\"\n{rest}");
        check(&refit("sweep = 2"), "did you mean `sweeps`?");
        check(&refit("sweeps = 0"), "sweeps is 0; it must be 1 or more");
        check(&refit("least_gain = 1"), "least_gain is 1; it must be at least 0 and below 1");
        check(&refit("ridge = \"flor\""), "expected auto, floor, or a number");
        check(&refit("ridge = -1.0"), "ridge is -1");
        check("[experts]\nsimilarity = { name = \"outputs\", seed = 1 }", "as it takes none");
    }
}
