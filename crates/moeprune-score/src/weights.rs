//! Whether weights are numbers.

use moeprune_core::LinearView;
use rayon::prelude::*;

use crate::Error;

/// Refuses weights, `[rows, cols]`, of which one is NaN or infinite; names the first.
pub(crate) fn check_finite(weights: &[f32], linear: &LinearView<'_>) -> Result<(), Error> {
    let cols = linear.cols.max(1);
    let bad = |row: &[f32]| {
        // Looking at every one vectorises; few rows have a bad one.
        let fine = row.iter().fold(true, |fine, weight| fine & weight.is_finite());
        if fine { None } else { row.iter().position(|weight| !weight.is_finite()) }
    };
    let rows = weights.par_chunks(cols).enumerate();
    match rows.find_map_first(|(row, weights)| bad(weights).map(|col| (row, col))) {
        None => Ok(()),
        Some((row, col)) => Err(Error::Weight {
            layer: linear.layer,
            linear: linear.id,
            row,
            col,
            weight: weights[row * cols + col],
        }),
    }
}
