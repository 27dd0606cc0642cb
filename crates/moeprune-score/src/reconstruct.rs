//! One matrix, some of its weights zeroed and the others changed to make up for it.

use moeprune_core::{
    InputHessian, LinearView, Sparsity, StageError, StoredWeight, TensorBytes, WeightReconstructor,
    WeightScorer,
    encoding::{Rows, RowsMut},
};
use rayon::prelude::*;

use crate::{
    Error, MaskPattern, PrunedMatrix, Rounding, prune_matrix, scoring::alone, weights::check_finite,
};

/// Rows that a thread decodes or encodes at a time.
const PIECE: usize = 16;

/// The pattern that a reconstruction follows, and how a matrix is pruned when too little is known of
/// its inputs to reconstruct it.
#[derive(Debug, Clone, Copy)]
#[expect(clippy::exhaustive_structs, reason = "the choices of `prune_matrix`")]
pub struct Fallback<'a> {
    /// How much a weight matters; [`Wanda`](crate::Wanda), as a rule.
    pub scorer: &'a dyn WeightScorer,
    /// Which of the low scores may go together.
    pub pattern: &'a dyn MaskPattern,
    /// How the ratio is turned into counts.
    pub rounding: Rounding,
}

/// Zeroes weights of `tensor` and changes the others to make up for it.
///
/// The weights are decoded to `f32`, reconstructed and rounded to the nearest number of the type
/// they were of. Where there is no Hessian, or one that nothing but zeros went into, or one of fewer
/// tokens than the reconstructor [wants](WeightReconstructor::least_tokens), the matrix is pruned by
/// the `fallback` at the same ratio instead, as [`prune_matrix`] does it, and
/// [`PrunedMatrix::fallback`] says so.
///
/// Runs in rayon's current thread pool.
///
/// ```
/// use moeprune_core::{Dtype, InputHessian, LinearId, LinearView, Sparsity, TensorBytes};
/// use moeprune_score::{Fallback, PerRow, Rounding, SparseGpt, Wanda, reconstruct_matrix};
///
/// let tensor = TensorBytes::encode(Dtype::BF16, [1, 2], &[1.0, 3.0])?;
/// let linear = LinearView { layer: 0, id: LinearId::Router, rows: 1, cols: 2, inputs: None };
/// // Inputs [1, 1], [1, 1] and [2, 1]: the second can nearly stand in for the first.
/// let hessian = InputHessian::new(3, 1, 2, vec![6.0, 4.0, 4.0, 3.0])?;
/// let (half, sparsegpt) = (Sparsity::new(0.5)?, SparseGpt::default());
/// let fallback =
///     Fallback { scorer: &Wanda::default(), pattern: &PerRow, rounding: Rounding::Exact };
/// let pruned =
///     reconstruct_matrix(tensor, &linear, Some(&hessian), half, &sparsegpt, fallback)?;
/// assert_eq!(pruned.tensor.to_f32()?, [0.0, 4.3125]);
/// assert!(!pruned.fallback);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// If the tensor, its type or the Hessian does not fit `linear`; if a weight is NaN or infinite (the
/// first in row order is named), or has become so or too large for its type; if the reconstructor
/// refuses the matrix or has zeroed all of it; if the fallback [fails](prune_matrix).
pub fn reconstruct_matrix(
    tensor: TensorBytes<'_>,
    linear: &LinearView<'_>,
    hessian: Option<&InputHessian>,
    ratio: Sparsity,
    reconstructor: &dyn WeightReconstructor,
    fallback: Fallback<'_>,
) -> Result<PrunedMatrix, Error> {
    let LinearView { layer, id, rows, cols, .. } = *linear;
    let Some(hessian) = enough_inputs(hessian, linear, reconstructor) else {
        let Fallback { scorer, pattern, rounding } = fallback;
        let pruned = prune_matrix(tensor, linear, ratio, scorer, pattern, rounding)?;
        return Ok(PrunedMatrix { fallback: true, ..pruned });
    };
    let weight = alone(tensor, linear)?;
    if hessian.features != cols || hessian.sums.len() != cols.saturating_mul(cols) {
        let got = hessian.features;
        return Err(Error::Features { layer, linear: id, expected: cols, got });
    }

    let mut weights = decode(&weight, cols);
    check_finite(&weights, linear)?;
    let zeroed = reconstructor
        .reconstruct(&mut weights, linear, hessian, ratio, fallback.pattern)
        .map_err(|source| refusal(source, linear, reconstructor))?;
    if zeroed > 0 && zeroed >= rows as u64 * cols as u64 {
        let pattern = format!("{reconstructor:?}");
        return Err(Error::WholeMatrix { layer, linear: id, pattern });
    }
    let tensor = encode(weight, &weights, linear)?;
    Ok(PrunedMatrix { tensor, zeroed, fallback: false, without_zero: 0 })
}

/// The Hessian, if enough came to reconstruct a Linear by: some token, as many as the reconstructor
/// wants, and not zeros alone. Otherwise [`reconstruct_matrix`] scores the Linear.
#[must_use]
pub fn enough_inputs<'h>(
    hessian: Option<&'h InputHessian>,
    linear: &LinearView<'_>,
    reconstructor: &dyn WeightReconstructor,
) -> Option<&'h InputHessian> {
    hessian.filter(|hessian| {
        hessian.tokens > 0
            && hessian.tokens >= reconstructor.least_tokens(linear)
            && hessian.sums.iter().any(|&sum| sum != 0.0)
    })
}

/// Errors of this crate name the Linear already.
fn refusal(
    source: StageError,
    linear: &LinearView<'_>,
    reconstructor: &dyn WeightReconstructor,
) -> Error {
    match source.downcast::<Error>() {
        Ok(error) => *error,
        Err(source) => Error::Reconstructor {
            layer: linear.layer,
            linear: linear.id,
            reconstructor: format!("{reconstructor:?}"),
            source,
        },
    }
}

fn decode(weight: &StoredWeight<'_>, cols: usize) -> Vec<f32> {
    let mut weights = vec![0.0; weight.elements()];
    let length = (PIECE * cols).max(1);
    weights.par_chunks_mut(length).enumerate().for_each(|(piece, weights)| {
        weight.decode(piece * length, weights).expect("it is within the tensor");
    });
    weights
}

/// The weights as `weight` is stored, whose bytes are written over when they are owned.
fn encode(
    weight: StoredWeight<'_>,
    weights: &[f32],
    linear: &LinearView<'_>,
) -> Result<TensorBytes<'static>, Error> {
    let encoding = weight.encoding().clone();
    let (tensor, companions) = weight.into_parts();
    let (dtype, shape) = (tensor.dtype(), tensor.shape().to_vec());
    let mut bytes = tensor.into_bytes();
    let cols = linear.cols;
    let size = dtype.bytes_of(cols).expect("rows of plain numbers are whole bytes").max(1);
    let rows = bytes.par_chunks_mut(size).zip(weights.par_chunks(cols.max(1))).enumerate();
    let rows = rows.with_min_len(PIECE);
    let too_large = rows.map_init(Vec::new, |decoded, (index, (main, weights))| {
        let (first, count, shape, companions) = (index, 1, &shape[..], &companions[..]);
        let row = RowsMut { first, count, shape, main: &mut *main, companions };
        encoding.encode(weights, row, 0..cols).expect("a plain type takes any value");
        decoded.resize(weights.len(), 0.0);
        encoding.decode(Rows { first, count, shape, main, companions }, 0..cols, decoded);
        // Looking at every one vectorises; hardly any row has a bad one.
        let fine = decoded.iter().fold(true, |fine, weight: &f32| fine & weight.is_finite());
        if fine {
            return None;
        }
        let bad = decoded.iter().position(|weight| !weight.is_finite())?;
        Some(index * cols + bad)
    });
    if let Some(at) = too_large.find_map_first(|at| at) {
        let (row, col, weight) = (at / cols, at % cols, weights[at]);
        return Err(Error::TooLarge {
            layer: linear.layer,
            linear: linear.id,
            row,
            col,
            weight,
            dtype,
        });
    }
    Ok(TensorBytes::new(dtype, shape, bytes).expect("neither shape nor size changed"))
}
