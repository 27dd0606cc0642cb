//! What can be done with a model whose weight files describe it, and which is cut and not run.

use moeprune_checkpoint::Checkpoint;

use crate::{Error, Recipe};

/// Has a recipe take nothing but whole experts of a model that [describes
/// itself](Checkpoint::describes_itself), where nothing else was said: its total is then the share of the experts.
/// `total` and `share`: whether these were given. Returns what is to be said about it; other models and recipes
/// stay as they are.
///
/// # Errors
/// If the recipe zeroes weights or repairs experts of such a model, with what works.
pub fn whole_experts_by_default(
    recipe: &mut Recipe,
    checkpoint: &Checkpoint,
    (total, share): (bool, bool),
) -> Result<Option<String>, Error> {
    if !checkpoint.describes_itself() {
        return Ok(None);
    }
    let format = checkpoint.container().name();
    let mut note = None;
    if recipe.prunes_weights() && recipe.weights.ratio.is_none() && !(total && share) {
        let one = if share || !total { recipe.experts.sparsity } else { recipe.sparsity };
        (recipe.sparsity, recipe.experts.sparsity) = (one, one);
        note = Some(format!(
            "note: of a {format} model whole experts go and nothing else, here {one} of them"
        ));
    }
    check_whole_experts(recipe, checkpoint)?;
    Ok(note)
}

/// Refuses a recipe that does more than remove whole experts of a model that [describes
/// itself](Checkpoint::describes_itself).
///
/// # Errors
/// What it does more, and what works.
pub fn check_whole_experts(recipe: &Recipe, checkpoint: &Checkpoint) -> Result<(), Error> {
    if !checkpoint.describes_itself() {
        return Ok(());
    }
    let (model, format) = (checkpoint.dir().display(), checkpoint.container().name());
    let bad = |reason: String| Err(Error::Request(reason));
    if recipe.prunes_weights() && recipe.keeps_listed() {
        return bad(format!(
            "zeroing weights is for safetensors, and {model} is {format}: leave --sparsity out beside --keep"
        ));
    }
    if recipe.prunes_weights() {
        return bad(format!(
            "zeroing weights is for safetensors, and {model} is {format}: give --sparsity and \
             --expert-sparsity the same share to remove whole experts only"
        ));
    }
    if recipe.refits() {
        return bad(format!(
            "refitting weights is for safetensors, and {model} is {format}: leave --refit out"
        ));
    }
    if recipe.repairs() {
        return bad(format!(
            "repairing experts is for safetensors, and {model} is {format}: pass --repair none"
        ));
    }
    Ok(())
}

/// Refuses to run a model that [describes itself](Checkpoint::describes_itself); `verb` says what for.
///
/// # Errors
/// What such a model lacks and which way leads to the same.
pub fn check_is_run(checkpoint: &Checkpoint, verb: &str) -> Result<(), Error> {
    if !checkpoint.describes_itself() {
        return Ok(());
    }
    let way = match verb {
        "eval" => {
            "evaluate it with the engine that it is for, or the safetensors model with the same experts \
             (`moeprune apply` with the same plan)"
        }
        "compare" => {
            "compare prunings of the safetensors model, whose plan then applies to this file"
        }
        _ => {
            "observe the safetensors model, or make an observation of an imatrix of this file: `moeprune \
             observe MODEL --imatrix FILE`"
        }
    };
    Err(Error::Request(format!(
        "{} is {}, which is cut and not run, so {verb} cannot use it; {way}",
        checkpoint.dir().display(),
        checkpoint.container().name()
    )))
}
