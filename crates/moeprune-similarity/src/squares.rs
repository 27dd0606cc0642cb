//! Squared distances of all pairs of rows.

use std::borrow::Cow;

use multiversion::multiversion;

/// A sum is of so many sums, which a wide instruction adds to at once.
const LANES: usize = 8;
/// So many rows are compared with [`OTHERS`] at a time: each is then read from a cache that many times
/// less often, and no sum waits for its own additions.
const ROWS: usize = 4;
const OTHERS: usize = 2;

/// `Σ (a_k − b_k)²` of each pair of rows `a` before `b`, in f64, at the place of the pair in a square
/// matrix; the rest of it is zero or the same.
pub(crate) fn squared_distances(rows: &[Cow<'_, [f32]>]) -> Vec<f64> {
    let n = rows.len();
    let mut squares = vec![0.0; n * n];
    // What is beyond the last row is the last row again.
    let row = |at: usize| &*rows[at.min(n - 1)];
    for first in (0..n).step_by(ROWS) {
        let some = std::array::from_fn(|i| row(first + i));
        for other in (first..n).step_by(OTHERS) {
            let others = std::array::from_fn(|j| row(other + j));
            for (i, sums) in tile(some, others).into_iter().enumerate() {
                for (j, sum) in sums.into_iter().enumerate() {
                    if let Some(square) = squares.get_mut((first + i) * n + other + j)
                        && other + j < n
                    {
                        *square = sum;
                    }
                }
            }
        }
    }
    squares
}

/// Each sum is taken in eight lanes that are added up at the end: the same bits with each instruction
/// set.
#[multiversion(targets("x86_64+avx2+avx512f+avx512vl+avx512dq", "x86_64+avx2"))]
fn tile(rows: [&[f32]; ROWS], others: [&[f32]; OTHERS]) -> [[f64; OTHERS]; ROWS] {
    let square = |a: f64, b: f64| (a - b) * (a - b);
    let (width, whole) = (rows[0].len(), rows[0].len() / LANES);
    let row_chunks = rows.map(|row| &row.as_chunks::<LANES>().0[..whole]);
    let other_chunks = others.map(|row| &row.as_chunks::<LANES>().0[..whole]);
    let mut lanes = [[[0.0; LANES]; OTHERS]; ROWS];
    for at in 0..whole {
        let b = other_chunks.map(|chunks| chunks[at].map(f64::from));
        for (lanes, chunks) in lanes.iter_mut().zip(row_chunks) {
            let a = chunks[at].map(f64::from);
            for (lanes, b) in lanes.iter_mut().zip(b) {
                for ((lane, a), b) in lanes.iter_mut().zip(a).zip(b) {
                    *lane += square(a, b);
                }
            }
        }
    }
    let mut sums = [[0.0; OTHERS]; ROWS];
    for ((sums, lanes), a) in sums.iter_mut().zip(lanes).zip(rows) {
        for ((sum, lanes), b) in sums.iter_mut().zip(lanes).zip(others) {
            let rest = a[whole * LANES..width].iter().zip(&b[whole * LANES..width]);
            let rest: f64 = rest.map(|(&a, &b)| square(f64::from(a), f64::from(b))).sum();
            *sum = lanes.iter().sum::<f64>() + rest;
        }
    }
    sums
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each pair is where it belongs, also where rows do not fill a tile, or numbers the lanes.
    #[test]
    fn all_pairs() {
        for (n, width) in [(0, 3), (1, 3), (2, 8), (5, 1), (7, 19), (9, 0), (12, 16)] {
            let rows: Vec<Vec<f32>> = (0..n)
                .map(|row| (0..width).map(|k| ((row * 37 + k * 11) % 23) as f32).collect())
                .collect();
            let borrowed: Vec<Cow<'_, [f32]>> = rows.iter().map(|row| row.into()).collect();
            let got = squared_distances(&borrowed);
            for i in 0..n {
                for j in i + 1..n {
                    let pairs = rows[i].iter().zip(&rows[j]);
                    let expected: f64 = pairs.map(|(a, b)| f64::from(a - b).powi(2)).sum();
                    assert_eq!(got[i * n + j], expected, "{n} rows of {width}: {i}, {j}");
                }
            }
        }
    }
}
