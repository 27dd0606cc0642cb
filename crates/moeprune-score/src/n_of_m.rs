//! Fixed counts in small groups, as sparse matrix units want them.

use moeprune_core::Sparsity;

use crate::{Error, MaskPattern, smallest::mark_smallest};

/// In each group of `m` neighbouring columns the `n` lowest scores go: 2 of 4 is what sparse
/// tensor cores read. The asked ratio is ignored; it is always `n / m`.
///
/// When the columns are no multiple of `m`, the last group has `w < m` columns and loses
/// `⌊w·n/m⌋` of them. Of equal scores the lower columns go.
///
/// ```
/// use moeprune_score::{MaskPattern, NOfM};
///
/// let mut mask = [false; 6];
/// NOfM::new(2, 4)?.mask_row(&[4.0, 1.0, 3.0, 2.0, 9.0, 8.0], 0, &mut mask);
/// assert_eq!(mask, [false, true, false, true, false, true]);
/// assert!(NOfM::new(4, 4).is_err());
/// # Ok::<(), moeprune_score::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct NOfM {
    n: usize,
    m: usize,
}

impl NOfM {
    /// Zeroes `n` of every `m` weights.
    ///
    /// # Errors
    /// [`Error::NOfM`] unless `n < m`: a group never goes entirely, nor is it empty.
    pub fn new(n: usize, m: usize) -> Result<Self, Error> {
        if n < m { Ok(Self { n, m }) } else { Err(Error::NOfM { n, m }) }
    }

    /// Weights zeroed in a group.
    #[must_use]
    pub fn n(self) -> usize {
        self.n
    }

    /// Size of a group.
    #[must_use]
    pub fn m(self) -> usize {
        self.m
    }
}

/// Groups up to this size are ranked by comparing all pairs.
const SMALL_GROUP: usize = 16;

impl MaskPattern for NOfM {
    fn mask_row(&self, scores: &[f32], _quota: usize, mask: &mut [bool]) {
        for (scores, mask) in scores.chunks(self.m).zip(mask.chunks_mut(self.m)) {
            let n = if scores.len() == self.m {
                self.n
            } else {
                (scores.len() as u128 * self.n as u128 / self.m as u128) as usize
            };
            if scores.len() > SMALL_GROUP {
                mark_smallest(scores, n, mask);
                continue;
            }
            for (j, (score, marked)) in scores.iter().zip(mask).enumerate() {
                let before = scores[..j].iter().filter(|s| *s <= score).count();
                let after = scores[j + 1..].iter().filter(|s| *s < score).count();
                *marked = before + after < n;
            }
        }
    }

    fn fixed_ratio(&self) -> Option<Sparsity> {
        Sparsity::new(self.n as f64 / self.m as f64).ok()
    }
}
