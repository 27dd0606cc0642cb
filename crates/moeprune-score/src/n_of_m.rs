//! Fixed counts in small groups, as sparse matrix units want them.

use moeprune_core::Sparsity;

use crate::{
    Error, KnownPattern, MaskPattern,
    simd::{Level, dispatched},
    smallest::mark_smallest,
};

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

    /// Weights zeroed in a group of `width` columns, `m` or fewer.
    pub(crate) fn of(self, width: usize) -> usize {
        (width as u128 * self.n as u128 / self.m as u128) as usize
    }
}

impl MaskPattern for NOfM {
    fn mask_row(&self, scores: &[f32], _quota: usize, mask: &mut [bool]) {
        let level = Level::detected();
        match self.m {
            2 => mark_of_2(level, scores, self.n, mask),
            4 => mark_of_4(level, scores, self.n, mask),
            8 => mark_of_8(level, scores, self.n, mask),
            m => {
                for (scores, mask) in scores.chunks_exact(m).zip(mask.chunks_exact_mut(m)) {
                    mark_smallest(scores, self.n, mask);
                }
            }
        }
        let width = scores.len() % self.m;
        let start = scores.len() - width;
        mark_smallest(&scores[start..], self.of(width), &mut mask[start..]);
    }

    fn fixed_ratio(&self) -> Option<Sparsity> {
        Sparsity::new(self.n as f64 / self.m as f64).ok()
    }

    fn known(&self) -> Option<KnownPattern> {
        Some(KnownPattern::NOfM { n: self.n, m: self.m })
    }
}

dispatched! {
    fn mark_of_2(scores: &[f32], n: usize, mask: &mut [bool]) {
        mark_groups::<2>(scores, n, mask);
    }
}

dispatched! {
    fn mark_of_4(scores: &[f32], n: usize, mask: &mut [bool]) {
        mark_groups::<4>(scores, n, mask);
    }
}

dispatched! {
    fn mark_of_8(scores: &[f32], n: usize, mask: &mut [bool]) {
        mark_groups::<8>(scores, n, mask);
    }
}

/// Marks the `n` lowest of each whole group of `M` by comparing all pairs.
#[inline(always)]
fn mark_groups<const M: usize>(scores: &[f32], n: usize, mask: &mut [bool]) {
    let (scores, _) = scores.as_chunks::<M>();
    let (mask, _) = mask.as_chunks_mut::<M>();
    for (scores, mask) in scores.iter().zip(mask) {
        let mut lower = [0u32; M];
        for right in 1..M {
            for left in 0..right {
                // An equal score on the left counts as lower.
                let left_is_lower = u32::from(scores[left] <= scores[right]);
                lower[right] += left_is_lower;
                lower[left] += 1 - left_is_lower;
            }
        }
        *mask = lower.map(|lower| lower < n as u32);
    }
}

#[cfg(test)]
mod tests {
    use super::{mark_of_2, mark_of_4, mark_of_8};
    use crate::{
        simd::{Level, same_at_all_levels},
        smallest::mark_smallest,
    };

    /// Few values, so that groups are full of ties, minus zero and denormals among them.
    #[test]
    fn all_levels_mark_alike_and_as_a_sort_does() {
        let values = [0.0, -0.0, 1e-45, 1.0, 1.5, f32::MAX];
        let scores: Vec<f32> = (0..8 * 601).map(|j: usize| values[j * j / 5 % 6]).collect();
        type Mark = fn(Level, &[f32], usize, &mut [bool]);
        for (m, mark) in [(2, mark_of_2 as Mark), (4, mark_of_4), (8, mark_of_8)] {
            for n in 0..m {
                let mask = same_at_all_levels(|level| {
                    let mut mask = vec![false; scores.len()];
                    mark(level, &scores, n, &mut mask);
                    mask
                });
                let mut expected = vec![false; scores.len()];
                for (scores, mask) in scores.chunks(m).zip(expected.chunks_mut(m)) {
                    mark_smallest(scores, n, mask);
                }
                assert!(mask == expected, "{n} of {m}");
            }
        }
    }
}
