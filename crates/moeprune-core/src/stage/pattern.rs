//! Which weights of a row go.

use std::fmt;

use crate::Sparsity;

/// Chooses the weights of a row that are zeroed, from their scores.
///
/// Called once per row, from several threads. The caller guarantees that scores are finite and not negative (minus
/// zero counts as zero), that both slices have one entry per column, that `quota` is not above their
/// length, and that `mask` arrives all `false`.
///
/// An implementer sets `mask[j]` where weight `j` is to be zeroed, as a pure function of the
/// scores and the quota. A pattern without a ratio of its own marks `quota` weights, or as many
/// fewer as its shape forces it to, and never more. Among equal scores the lower column should go
/// first, so that results are the same everywhere.
///
/// ```
/// use moeprune_core::MaskPattern;
///
/// /// Pairs of neighbouring columns stay or go together, by the sum of their scores.
/// #[derive(Debug)]
/// struct Pairs;
///
/// impl MaskPattern for Pairs {
///     fn mask_row(&self, scores: &[f32], quota: usize, mask: &mut [bool]) {
///         let mut pairs: Vec<_> = scores.chunks_exact(2).map(|p| p[0] + p[1]).enumerate().collect();
///         pairs.sort_by(|a, b| a.1.total_cmp(&b.1));
///         for (pair, _) in &pairs[..quota / 2] {
///             mask[2 * pair..2 * pair + 2].fill(true);
///         }
///     }
/// }
///
/// let mut mask = [false; 4];
/// Pairs.mask_row(&[1.0, 5.0, 3.0, 0.0], 2, &mut mask);
/// assert_eq!(mask, [false, false, true, true]);
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a mask pattern",
    note = "implement `MaskPattern::mask_row`: set `mask[j]` for the weights of a row that go"
)]
pub trait MaskPattern: fmt::Debug + Send + Sync {
    /// Marks the weights of one row that are zeroed.
    fn mask_row(&self, scores: &[f32], quota: usize, mask: &mut [bool]);

    /// `Some` when the pattern alone decides how many weights go: the share it takes, at any
    /// requested ratio. The quota is then ignored.
    fn fixed_ratio(&self) -> Option<Sparsity> {
        None
    }

    /// `Some` when the pattern marks exactly what this known one does. Devices other than the CPU
    /// know those and leave all others to it, and a [`WeightReconstructor`](crate::WeightReconstructor)
    /// may refuse all others.
    fn known(&self) -> Option<KnownPattern> {
        None
    }
}

/// The patterns that other code may recognise.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "who follows patterns must know all there are")]
pub enum KnownPattern {
    /// The lowest scores of each row.
    PerRow,
    /// The `n` lowest scores of each `m` neighbouring columns; `n` is below `m`.
    NOfM {
        /// Weights that go.
        n: usize,
        /// Columns of a group.
        m: usize,
    },
}
