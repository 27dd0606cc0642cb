//! The linear system of one expert, and what is kept of it from sweep to sweep.
//!
//! A row `d` of changes solves `(H + λ) dᵀ = cᵀ`, with the same matrix for all rows. Kept is the upper
//! triangle of `H` as long as λ may change, of the inverse's factor from then on, each after a number that
//! says which it is: λ itself, or [`GRAM`].

use moeprune_linalg::{Inverse, Real};

use crate::{Error, expert::Expert, ridge::Ridges};

/// In place of the ridge where what is kept is the Gram matrix, without any.
const GRAM: f64 = -1.0;
/// How often the ridge is raised, ten times each, before an expert is given up.
const RAISES: u32 = 8;

/// Sums up the Gram matrix, keeps it and returns its trace.
pub(crate) fn keep_gram<T: Real>(
    expert: &Expert<'_, T>,
    token_weights: &[T],
) -> Result<f64, Error> {
    let features = expert.features;
    let matrix = expert.gram(token_weights)?.matrix();
    let trace: f64 = matrix.iter().step_by(features + 1).sum();
    if !trace.is_finite() {
        return Err(expert.not_finite_sums(trace));
    }
    let mut kept = Vec::with_capacity(1 + features * (features + 1) / 2);
    kept.push(GRAM);
    for (i, row) in matrix.chunks_exact(features).enumerate() {
        kept.extend_from_slice(&row[i..]);
    }
    drop(matrix);
    expert.keep(&kept)?;
    Ok(trace)
}

/// The Gram matrix, of which only the diagonal and what is above it counts. Summed up again, to the same
/// bits, if it was forgotten.
pub(crate) fn gram<T: Real>(
    expert: &Expert<'_, T>,
    token_weights: &[T],
) -> Result<Vec<f64>, Error> {
    let features = expert.features;
    if let Some(kept) = expert.kept()?
        && let Some((&GRAM, triangle)) = kept.split_first()
        && triangle.len() == features * (features + 1) / 2
    {
        let mut matrix = vec![0.0; features * features];
        let mut rest = triangle;
        for (i, row) in matrix.chunks_exact_mut(features).enumerate() {
            let (values, after) = rest.split_at(features - i);
            row[i..].copy_from_slice(values);
            rest = after;
        }
        return Ok(matrix);
    }
    Ok(expert.gram(token_weights)?.matrix())
}

/// The inverse of `H + λ`, λ being raised until there is one. With `keep`, it serves later sweeps.
pub(crate) fn inverse<T: Real>(
    expert: &Expert<'_, T>,
    token_weights: &[T],
    ridges: &mut Ridges,
    keep: bool,
) -> Result<Inverse<f64>, Error> {
    let (index, features) = (expert.index, expert.features);
    if let Some(kept) = expert.kept()?
        && let Some((&ridge, packed)) = kept.split_first()
        && ridge == ridges.now[index]
        && let Ok(inverse) = Inverse::from_packed(packed, features)
    {
        return Ok(inverse);
    }
    let inverse = with_ridge(expert, ridges, |ridge| {
        let mut matrix = gram(expert, token_weights)?;
        matrix.iter_mut().step_by(features + 1).for_each(|x| *x += ridge);
        Ok(Inverse::new(matrix, features).ok())
    })?;
    if keep {
        let mut kept = inverse.packed();
        kept.insert(0, ridges.now[index]);
        expert.keep(&kept)?;
    }
    Ok(inverse)
}

/// Calls `solve` with the expert's ridge, and with ten times as much each time that it finds the matrix
/// not positive definite.
pub(crate) fn with_ridge<T: Real, R>(
    expert: &Expert<'_, T>,
    ridges: &mut Ridges,
    mut solve: impl FnMut(f64) -> Result<Option<R>, Error>,
) -> Result<R, Error> {
    for _ in 0..=RAISES {
        let ridge = ridges.now[expert.index];
        if let Some(solved) = solve(ridge)? {
            return Ok(solved);
        }
        ridges.now[expert.index] = ridges.raised(ridge);
    }
    Err(expert.not_positive_definite(ridges.now[expert.index] / 10.0))
}
