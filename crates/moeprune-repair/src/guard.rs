//! Taking back what makes tokens worse that nothing was fitted to.

use moeprune_core::{
    LayerRepair,
    repair::{ExpertOutcome, HeldOutError, RepairedExpert},
};
use moeprune_linalg::Real;
use rayon::prelude::*;

use crate::{Error, Layer, expert::Expert, residual};

/// Gives by ascending index each expert its old weights back whose change makes the error on held-out tokens
/// larger, given those of the others; and the whole layer, if its error is still larger than `before`.
///
/// Experts come first: a few tokens with errors like none of the fitted ones make a layer worse, and are most
/// often those of few experts. What the others gain is not to be lost with them.
pub(crate) fn guard<T: Real>(
    layer: &mut Layer<'_, T>,
    before: f64,
    mut repair: LayerRepair,
) -> Result<LayerRepair, Error> {
    let held_out = layer.fitted..layer.tokens();
    take_back(layer, &mut repair, makes_worse)?;
    let worse = layer.error(held_out.clone());
    // Also if it is no number.
    if worse > before || worse.is_nan() {
        take_back(layer, &mut repair, |_, _| Ok(true))?;
    }
    let refitted = |expert: &RepairedExpert| expert.outcome == ExpertOutcome::Refitted;
    let taken_back = |expert: &RepairedExpert| expert.outcome == ExpertOutcome::Reverted;
    repair.reverted = repair.experts.iter().any(taken_back) && !repair.experts.iter().any(refitted);
    let after = if repair.reverted { before } else { layer.error(held_out) };
    repair.held_out = Some(HeldOutError { before, after });
    Ok(repair)
}

/// Gives the refitted experts that `is_worse` picks their old weights back.
fn take_back<T: Real>(
    layer: &mut Layer<'_, T>,
    repair: &mut LayerRepair,
    is_worse: impl Fn(&Layer<'_, T>, usize) -> Result<bool, Error>,
) -> Result<(), Error> {
    for expert in &mut repair.experts {
        let index = expert.expert;
        if expert.outcome == ExpertOutcome::Refitted && is_worse(layer, index)? {
            revert(layer, index)?;
            *expert = RepairedExpert::unchanged(index, ExpertOutcome::Reverted);
        }
    }
    Ok(())
}

/// Whether the error on held-out tokens is larger with the expert's change than without.
fn makes_worse<T: Real>(layer: &Layer<'_, T>, index: usize) -> Result<bool, Error> {
    let expert = Expert::new(layer, index);
    if expert.fitted == expert.tokens.len() {
        return Ok(false);
    }
    let change = difference(&expert.weights()?, &expert.original_weights()?);
    let [with, without] =
        residual::held_out_errors(layer.residual, layer.token_weights, &expert, &change)?;
    Ok(with > without)
}

/// Gives an expert its old weights back, and the residual what is missing then.
fn revert<T: Real>(layer: &mut Layer<'_, T>, index: usize) -> Result<(), Error> {
    let expert = Expert::new(layer, index);
    let (weights, original) = (expert.weights()?, expert.original_weights()?);
    let restored = expert.replace(original)?;
    residual::subtract(layer.residual, &expert, &difference(&restored, &weights))
}

fn difference<T: Real>(a: &[T], b: &[T]) -> Vec<T> {
    a.par_iter().zip(b).map(|(&a, &b)| a - b).collect()
}
