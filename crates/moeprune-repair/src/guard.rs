//! Taking back what makes tokens worse that nothing was fitted to.

use moeprune_core::{
    LayerRepair,
    repair::{ExpertOutcome, HeldOutError, RepairedExpert},
};
use moeprune_linalg::Real;
use rayon::prelude::*;

use crate::{Error, Layer, expert::Expert, residual};

/// Gives the whole layer its old weights back if its error on held-out tokens is larger than `before`, and
/// otherwise, by ascending index, each expert whose change makes it larger, given those of the others.
pub(crate) fn guard<T: Real>(
    layer: &mut Layer<'_, T>,
    before: f64,
    mut repair: LayerRepair,
) -> Result<LayerRepair, Error> {
    let held_out = layer.fitted..layer.tokens();
    let worse = layer.error(held_out.clone());
    // Also if it is no number.
    repair.reverted = worse > before || worse.is_nan();
    for expert in &mut repair.experts {
        if expert.outcome == ExpertOutcome::Refitted {
            let index = expert.expert;
            if repair.reverted || makes_worse(layer, index)? {
                revert(layer, index)?;
                *expert = RepairedExpert::unchanged(index, ExpertOutcome::Reverted);
            }
        }
    }
    let after = if repair.reverted { before } else { layer.error(held_out) };
    repair.held_out = Some(HeldOutError { before, after });
    Ok(repair)
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
