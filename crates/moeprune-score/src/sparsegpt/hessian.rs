//! A Hessian as `SparseGpt` needs it: checked, scaled, damped and factored.

use moeprune_core::{InputHessian, LinearView};
use moeprune_linalg::inverse_factor;
use rayon::prelude::*;

use crate::Error;

/// How often the damping is raised, ten times each, before the Hessian is given up.
const RAISES: u32 = 3;
/// What a damping of zero is raised from.
const LEAST_RAISED: f64 = 1e-4;

/// What the columns of a Linear are walked by.
pub(super) struct Factored {
    /// Columns whose input was always zero.
    pub(super) dead: Vec<bool>,
    /// The upper triangular `U` with `H⁻¹ = Uᵀ U`; `[cols, cols]`, row-major.
    pub(super) upper: Vec<f32>,
}

/// Factors `(2 / calls) · sums`, after dead columns got a one on the diagonal and then all of them
/// `damping` times the diagonal's mean.
pub(super) fn factor(
    hessian: &InputHessian,
    linear: &LinearView<'_>,
    damping: f64,
) -> Result<Factored, Error> {
    let LinearView { layer, id, cols, .. } = *linear;
    if hessian.features != cols || hessian.sums.len() != cols.saturating_mul(cols) {
        let got = hessian.features;
        return Err(Error::Features { layer, linear: id, expected: cols, got });
    }
    if hessian.calls == 0 {
        return Err(Error::NoCalls { tokens: hessian.tokens });
    }
    let scale = (2.0 / hessian.calls as f64) as f32;
    check(hessian, linear, scale)?;

    let mut diagonal: Vec<f32> = hessian.diagonal().map(|sum| sum * scale).collect();
    let dead: Vec<bool> = diagonal.iter().map(|&x| x == 0.0).collect();
    for (x, &dead) in diagonal.iter_mut().zip(&dead) {
        *x = if dead { 1.0 } else { *x };
    }
    let mean = diagonal.iter().map(|&x| f64::from(x)).sum::<f64>() / cols as f64;

    let mut share = damping;
    for _ in 0..=RAISES {
        let damp = (share * mean) as f32;
        let mut damped: Vec<f32> = hessian.sums.par_iter().map(|&sum| sum * scale).collect();
        if dead.contains(&true) {
            isolate(&mut damped, &dead);
        }
        for (x, &diagonal) in damped.iter_mut().step_by(cols + 1).zip(&diagonal) {
            *x = diagonal + damp;
        }
        if let Ok(upper) = inverse_factor(damped, cols) {
            return Ok(Factored { dead, upper });
        }
        share = share.max(LEAST_RAISED) * 10.0;
    }
    Err(Error::NotPositiveDefinite { layer, linear: id, damping, raised: share / 10.0 })
}

/// Zeroes the products of dead columns with others. They are zero, unless a square so small that it
/// vanished had a product that did not.
fn isolate(damped: &mut [f32], dead: &[bool]) {
    damped.par_chunks_mut(dead.len()).zip(dead).for_each(|(row, &row_dead)| {
        for (x, &dead) in row.iter_mut().zip(dead) {
            *x = if dead | row_dead { 0.0 } else { *x };
        }
    });
}

/// Finds the first sum that is none.
fn check(hessian: &InputHessian, linear: &LinearView<'_>, scale: f32) -> Result<(), Error> {
    let cols = linear.cols;
    let bad = |row: usize, sums: &[f32]| {
        // Looking at every one vectorises; few rows have a bad one.
        let fine = sums.iter().fold(true, |fine, sum| fine & (sum * scale).is_finite());
        if fine && sums[row] >= 0.0 {
            return None;
        }
        let wrong =
            |col: usize| !(sums[col] * scale).is_finite() || (col == row && sums[col] < 0.0);
        (0..cols).find(|&col| wrong(col)).map(|col| (row, col))
    };
    let rows = hessian.sums.par_chunks(cols.max(1)).enumerate();
    match rows.find_map_first(|(row, sums)| bad(row, sums)) {
        None => Ok(()),
        Some((row, col)) => Err(Error::Hessian {
            layer: linear.layer,
            linear: linear.id,
            row,
            col,
            value: hessian.sums[row * cols + col],
        }),
    }
}
