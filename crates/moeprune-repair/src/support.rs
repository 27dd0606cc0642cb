//! Refitting some weights of each row only.

use moeprune_linalg::{Inverse, Real};
use rayon::prelude::*;

/// Rows of a right-hand side that are solved for some columns each.
pub(crate) struct Rows<'a, T> {
    /// The Gram matrix; what is on and above its diagonal counts.
    pub(crate) gram: &'a [f64],
    pub(crate) features: usize,
    /// Weights before any was changed: those that are zero stay so.
    pub(crate) original: &'a [T],
    /// Weights now.
    pub(crate) weights: &'a [T],
    /// `Σ ω r aᵀ`, `[width, features]`.
    pub(crate) missing: &'a [f64],
}

impl<T: Real> Rows<'_, T> {
    /// The changes of all rows, and the sum of their effective parameters; `None` if a row's matrix is not
    /// positive definite.
    pub(crate) fn solve(&self, ridge: f64) -> Option<(Vec<f64>, f64)> {
        let features = self.features;
        let mut changes = vec![0.0; self.missing.len()];
        let effective: Option<Vec<f64>> = changes
            .par_chunks_mut(features)
            .enumerate()
            .with_max_len(1)
            .map(|(row, change)| self.solve_row(row, ridge, change))
            .collect();
        Some((changes, effective?.into_iter().sum()))
    }

    fn solve_row(&self, row: usize, ridge: f64, change: &mut [f64]) -> Option<f64> {
        let features = self.features;
        let place = row * features..(row + 1) * features;
        let (original, weights) = (&self.original[place.clone()], &self.weights[place.clone()]);
        let missing = &self.missing[place];
        let support: Vec<usize> = (0..features).filter(|&j| original[j] != T::ZERO).collect();
        let mut matrix = Vec::with_capacity(support.len() * support.len());
        for (i, &row) in support.iter().enumerate() {
            matrix.resize(matrix.len() + i, 0.0); // below the diagonal
            matrix.extend(support[i..].iter().map(|&col| self.gram[row * features + col]));
        }
        matrix.iter_mut().step_by(support.len() + 1).for_each(|x| *x += ridge);
        let inverse = Inverse::new(matrix, support.len()).ok()?;
        let pull = |j: usize| ridge * (weights[j].to_f64() - original[j].to_f64());
        let mut solved: Vec<f64> = support.iter().map(|&j| missing[j] - pull(j)).collect();
        inverse.apply(&mut solved);
        for (&j, &x) in support.iter().zip(&solved) {
            change[j] = x;
        }
        Some(support.len() as f64 - ridge * inverse.trace())
    }
}
