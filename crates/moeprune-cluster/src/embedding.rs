//! Coordinates for experts of which only distances are known.

use moeprune_core::DistanceMatrix;
use nalgebra::{DMatrix, SymmetricEigen};
use ndarray::Array2;

use crate::Error;

/// Eigenvalues below this share of the largest are taken for rounding.
const NEGLIGIBLE: f64 = 1e-10;

/// Classical multidimensional scaling: one row per expert, the widest coordinate first.
///
/// With `J = I − 11ᵀ/n`, the eigenvectors of `−½ J D∘D J` scaled by the roots of their eigenvalues
/// are coordinates whose Euclidean distances are `D`, if any are; of distances that no points
/// have, negative eigenvalues are dropped. Distances are first divided by the largest magnitude
/// and, if any is negative, shifted so that the smallest is 0, which keeps their order.
///
/// There is at least one column; without any spread it is zero.
pub(crate) fn embed(distances: &DistanceMatrix) -> Result<Array2<f64>, Error> {
    let n = distances.len();
    let largest = distances.pairs().fold(0.0f64, |m, (_, _, d)| m.max(d.abs()));
    if largest == 0.0 {
        return Ok(Array2::zeros((n, 1)));
    }
    let shift = distances.pairs().fold(0.0f64, |m, (_, _, d)| m.min(d / largest));
    let squared = DMatrix::from_fn(n, n, |i, j| {
        if i == j { 0.0 } else { (distances.at(i, j) / largest - shift).powi(2) }
    });
    let means: Vec<f64> = squared.column_iter().map(|column| column.mean()).collect();
    let mean = means.iter().sum::<f64>() / n as f64;
    let gram =
        DMatrix::from_fn(n, n, |i, j| -0.5 * (squared[(i, j)] - (means[i] + means[j]) + mean));
    let eigen = SymmetricEigen::try_new(gram, f64::EPSILON, 100 * n)
        .ok_or(Error::Embedding { experts: n })?;
    let mut axes: Vec<usize> = (0..n).collect();
    axes.sort_by(|&a, &b| eigen.eigenvalues[b].total_cmp(&eigen.eigenvalues[a]));
    let floor = eigen.eigenvalues[axes[0]] * NEGLIGIBLE;
    axes.retain(|&axis| eigen.eigenvalues[axis] > floor.max(0.0));
    if axes.is_empty() {
        return Ok(Array2::zeros((n, 1)));
    }
    Ok(Array2::from_shape_fn((n, axes.len()), |(expert, axis)| {
        let axis = axes[axis];
        eigen.eigenvectors[(expert, axis)] * eigen.eigenvalues[axis].sqrt()
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(
        n: usize,
        distance: impl Fn(usize, usize) -> f64,
        expected: impl Fn(usize, usize) -> f64,
    ) {
        let points = embed(&DistanceMatrix::from_fn(n, distance).unwrap()).unwrap();
        for i in 0..n {
            for j in 0..n {
                let got = (&points.row(i) - &points.row(j)).mapv(|x| x * x).sum().sqrt();
                assert!((got - expected(i, j)).abs() < 1e-9, "({i}, {j}): {got}");
            }
        }
    }

    #[test]
    fn points_keep_their_distances() {
        let at = [[0.0f64, 0.0], [3.0, 4.0], [0.0, 8.0], [-2.0, 1.0]];
        let d = |i: usize, j: usize| (at[i][0] - at[j][0]).hypot(at[i][1] - at[j][1]);
        check(4, d, |i, j| d(i, j) / 8.0);
    }

    #[test]
    fn equal_distances_are_a_simplex() {
        check(5, |_, _| 7.0, |i, j| if i == j { 0.0 } else { 1.0 });
    }

    #[test]
    fn negative_distances_are_shifted() {
        let pair = |i: usize, j: usize, near: f64, far: f64| if i + j == 1 { near } else { far };
        let expected = |i, j| if i == j { 0.0 } else { pair(i, j, 0.0, 1.0 / 3.0) };
        check(3, |i, j| pair(i, j, -3.0, -2.0), expected);
    }

    #[test]
    fn degenerate_layers() {
        check(3, |_, _| 0.0, |_, _| 0.0);
        check(3, |_, _| -1.0, |_, _| 0.0);
        check(1, |_, _| 0.0, |_, _| 0.0);
        check(2, |_, _| f64::MAX, |i, j| if i == j { 0.0 } else { 1.0 });
    }
}
