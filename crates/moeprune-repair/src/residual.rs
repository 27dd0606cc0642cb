//! What changes of weights do to what is missing.

use std::mem;

use moeprune_linalg::{Matrix, Real, Update, multiply};
use rayon::prelude::*;

use crate::{Error, expert::Expert, layer::square};

/// Tokens that one thread works on at a time.
const TOKENS: usize = 512;

/// Takes what `change` (`[width, features]`) adds to the expert's output from the residual, at all of its
/// tokens.
pub(crate) fn subtract<T: Real>(
    residual: &mut [T],
    expert: &Expert<'_, T>,
    change: &[T],
) -> Result<(), Error> {
    subtract_from(residual, 0, expert, change)
}

/// The same of a residual that begins with token `start`.
pub(crate) fn subtract_from<T: Real>(
    residual: &mut [T],
    start: usize,
    expert: &Expert<'_, T>,
    change: &[T],
) -> Result<(), Error> {
    if change.iter().all(|&x| x == T::ZERO) {
        return Ok(());
    }
    let (width, features) = (expert.width, expert.features);
    let first = expert.tokens.partition_point(|&token| (token as usize) < start);
    expert.for_each_piece(first..expert.tokens.len(), |rows, values| {
        // Tokens ascend, so what a thread changes is one stretch of the residual.
        let (mut rest, mut passed) = (&mut *residual, start);
        let mut work = Vec::new();
        for (tokens, values) in
            expert.tokens[rows].chunks(TOKENS).zip(values.chunks(TOKENS * features))
        {
            let (first, last) = (tokens[0] as usize, tokens[tokens.len() - 1] as usize);
            let (_, after) = mem::take(&mut rest).split_at_mut((first - passed) * width);
            let (own, after) = after.split_at_mut((last + 1 - first) * width);
            (rest, passed) = (after, last + 1);
            work.push((own, tokens, values));
        }
        work.into_par_iter().with_max_len(1).for_each(|(residual, tokens, values)| {
            let outputs = outputs(values, change, [width, features]);
            for (output, &token) in outputs.chunks_exact(width).zip(tokens) {
                let row = &mut residual[(token - tokens[0]) as usize * width..][..width];
                row.iter_mut().zip(output).for_each(|(r, &x)| *r -= x);
            }
        });
    })
}

/// The weighted square of what is missing at the expert's held-out tokens: as it is, and as it would be
/// if `change` were taken back.
pub(crate) fn held_out_errors<T: Real>(
    residual: &[T],
    token_weights: &[T],
    expert: &Expert<'_, T>,
    change: &[T],
) -> Result<[f64; 2], Error> {
    let (width, features) = (expert.width, expert.features);
    let mut errors = [0.0; 2];
    expert.for_each_piece(expert.fitted..expert.tokens.len(), |rows, values| {
        let pieces: Vec<[f64; 2]> = expert.tokens[rows]
            .par_chunks(TOKENS)
            .zip(values.par_chunks(TOKENS * features))
            .map(|(tokens, values)| {
                let mut outputs = outputs(values, change, [width, features]);
                let mut errors = [0.0; 2];
                for (output, &token) in outputs.chunks_exact_mut(width).zip(tokens) {
                    let row = &residual[token as usize * width..][..width];
                    let weight = token_weights[token as usize].to_f64();
                    errors[0] += weight * square(row);
                    output.iter_mut().zip(row).for_each(|(x, &r)| *x += r);
                    errors[1] += weight * square(output);
                }
                errors
            })
            .collect();
        for piece in pieces {
            errors = [errors[0] + piece[0], errors[1] + piece[1]];
        }
    })?;
    Ok(errors)
}

/// What weights (`[width, features]`) write for rows of activations: `[rows, width]`.
fn outputs<T: Real>(values: &[T], weights: &[T], [width, features]: [usize; 2]) -> Vec<T> {
    let values = Matrix::dense(values, features);
    let mut outputs = vec![T::ZERO; values.row_count() * width];
    let weights = Matrix::dense(weights, features).transposed();
    multiply(&mut outputs, width, Update::Set, values, weights);
    outputs
}
