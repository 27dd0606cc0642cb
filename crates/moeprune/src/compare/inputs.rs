//! What a comparison refuses before the unpruned model is measured.

use moeprune_checkpoint::Checkpoint;
use moeprune_core::Sparsity;
use moeprune_engine::{Error as EngineError, Remedy, check_repair_folder};

use crate::{Error, Recipe, Registry, check_repair, recipe::ExpertStatistics};

/// Refuses a recipe that cannot be followed without a checkpoint being written, or without text. `text`:
/// whether there is calibration text.
pub(super) fn check(
    checkpoint: &Checkpoint,
    registry: &Registry,
    recipe: &Recipe,
    text: bool,
) -> Result<(), Error> {
    if recipe.refits() {
        return Err(Error::Recipe(
            "a comparison writes no checkpoint, and weights that are left after others were zeroed are \
             refitted (--refit, weights.refit) in one that is written; leave it out, or use `prune`"
                .into(),
        ));
    }
    let pipeline = registry.pipeline(recipe)?;
    if recipe.prunes_weights() && pipeline.weights.needs().hessians {
        let problem = format!(
            "scorer = `{}` changes the weights that stay by which inputs come together, which is not held of a \
             model that is written nowhere",
            recipe.weights.scorer
        );
        return Err(EngineError::refused(problem, Remedy::ScoreOrWrite).into());
    }
    if recipe.experts.sparsity == Sparsity::ZERO {
        return Ok(());
    }
    if !text && pipeline.experts.needs().calibration {
        let problem = match recipe.experts.statistics {
            ExpertStatistics::Sequential => {
                "sequential statistics of experts run each layer again without those that it loses, which takes calibration text"
                    .to_owned()
            }
            ExpertStatistics::Independent => format!(
                "criterion = `{}` runs layers without some of their experts, which takes calibration text",
                recipe.experts.criterion
            ),
        };
        return Err(EngineError::refused(problem, Remedy::Calibration).into());
    }
    check_repair(checkpoint, recipe, text)?;
    if recipe.repairs() { Ok(check_repair_folder()?) } else { Ok(()) }
}
