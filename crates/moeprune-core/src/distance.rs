//! How far apart the experts of one layer are.

use crate::Error;

/// Symmetric distances between the `n` experts of a layer: finite, zero on the diagonal.
///
/// Entries may be negative: a distance built from co-activation is minus a count. Only their order
/// matters to a clustering.
#[derive(Debug, Clone, PartialEq)]
pub struct DistanceMatrix {
    n: usize,
    values: Vec<f64>,
}

impl DistanceMatrix {
    /// Fills the matrix from `distance(i, j)`, called once for each pair `i < j`.
    ///
    /// # Errors
    /// [`Error::DistanceNotFinite`] if a value is NaN or infinite.
    pub fn from_fn(n: usize, mut distance: impl FnMut(usize, usize) -> f64) -> Result<Self, Error> {
        let mut values = vec![0.0; n * n];
        for i in 0..n {
            for j in i + 1..n {
                let value = distance(i, j);
                if !value.is_finite() {
                    return Err(Error::DistanceNotFinite { i, j, value });
                }
                values[i * n + j] = value;
                values[j * n + i] = value;
            }
        }
        Ok(Self { n, values })
    }

    /// Takes a full row-major `n × n` matrix; the diagonal is ignored.
    ///
    /// # Errors
    /// If the length is not `n²`, an entry is not finite, or the matrix is not symmetric.
    pub fn from_rows(n: usize, values: &[f64]) -> Result<Self, Error> {
        let expected = n * n;
        if values.len() != expected {
            return Err(Error::Length { what: "distance matrix", expected, got: values.len() });
        }
        for i in 0..n {
            for j in i + 1..n {
                let (a, b) = (values[i * n + j], values[j * n + i]);
                if a.is_finite() && b.is_finite() && a != b {
                    return Err(Error::DistanceAsymmetric { i, j, a, b });
                }
                if !b.is_finite() {
                    return Err(Error::DistanceNotFinite { i: j, j: i, value: b });
                }
            }
        }
        Self::from_fn(n, |i, j| values[i * n + j])
    }

    /// Number of experts.
    #[must_use]
    pub fn len(&self) -> usize {
        self.n
    }

    /// Whether there are no experts.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.n == 0
    }

    /// Distance between experts `i` and `j`.
    ///
    /// # Panics
    /// If either is not below [`len`](Self::len).
    #[must_use]
    pub fn at(&self, i: usize, j: usize) -> f64 {
        assert!(i < self.n && j < self.n, "expert ({i}, {j}) of {}", self.n);
        self.values[i * self.n + j]
    }

    /// The upper triangle, row by row: `n(n-1)/2` values, pairs `(i, j)` with `i < j`.
    pub fn pairs(&self) -> impl Iterator<Item = (usize, usize, f64)> + '_ {
        (0..self.n).flat_map(move |i| (i + 1..self.n).map(move |j| (i, j, self.at(i, j))))
    }
}
