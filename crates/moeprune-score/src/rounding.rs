//! A share of a matrix as a count of weights in each row.

use moeprune_core::Sparsity;

/// How `ratio · cols` becomes a whole number of weights in each row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Rounding {
    /// The whole matrix loses `ratio · rows · cols` weights rounded to nearest, and its rows differ
    /// by at most one: the first of them take what does not divide evenly. A larger ratio
    /// never asks a row for fewer.
    #[default]
    Exact,
    /// Every row loses `⌊cols · ratio⌋`, as the reference does: up to one weight per row too few.
    ReferenceFloor,
}

impl Rounding {
    /// A stable name: what recipes, plans and journals call it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Exact => "exact",
            Self::ReferenceFloor => "floor",
        }
    }

    /// Weights that row `row` of a `rows × cols` matrix loses.
    ///
    /// A matrix is never asked for all of its weights, and under
    /// [`ReferenceFloor`](Self::ReferenceFloor) neither is a row.
    ///
    /// ```
    /// use moeprune_core::Sparsity;
    /// use moeprune_score::Rounding;
    /// let s = Sparsity::new(0.45)?;
    /// let quotas = |r: Rounding| [0, 1, 2, 3].map(|row| r.row_quota(row, 4, 5, s));
    /// assert_eq!(quotas(Rounding::Exact), [3, 2, 2, 2]);
    /// assert_eq!(quotas(Rounding::ReferenceFloor), [2, 2, 2, 2]);
    /// # Ok::<(), moeprune_core::Error>(())
    /// ```
    #[must_use]
    pub fn row_quota(self, row: usize, rows: usize, cols: usize, ratio: Sparsity) -> usize {
        self.quotas(rows, cols, ratio).of(row)
    }

    /// Weights that the whole matrix loses.
    #[must_use]
    pub fn total(self, rows: usize, cols: usize, ratio: Sparsity) -> u64 {
        let quotas = self.quotas(rows, cols, ratio);
        rows as u64 * quotas.each as u64 + quotas.one_more as u64
    }

    pub(crate) fn quotas(self, rows: usize, cols: usize, ratio: Sparsity) -> Quotas {
        if rows == 0 || cols == 0 {
            return Quotas { each: 0, one_more: 0 };
        }
        match self {
            Self::Exact => {
                let weights = rows as u64 * cols as u64;
                let total = (weights as f64 * ratio.value()).round() as u64;
                let total = total.min(weights - 1);
                Quotas {
                    each: (total / rows as u64) as usize,
                    one_more: (total % rows as u64) as usize,
                }
            }
            // The product can round up to `cols` when the ratio is within an ulp of 1.
            Self::ReferenceFloor => {
                Quotas { each: ((cols as f64 * ratio.value()) as usize).min(cols - 1), one_more: 0 }
            }
        }
    }
}

/// Every row loses `each` weights, the first `one_more` rows one more.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Quotas {
    pub(crate) each: usize,
    pub(crate) one_more: usize,
}

impl Quotas {
    pub(crate) fn of(self, row: usize) -> usize {
        self.each + usize::from(row < self.one_more)
    }
}
