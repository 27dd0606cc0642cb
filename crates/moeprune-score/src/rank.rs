//! Whether scores can be ranked.

use crate::simd::dispatched;

/// The least key of a score that cannot be ranked.
pub(crate) const UNRANKABLE: u32 = f32::INFINITY.to_bits();

/// Bits that are below [`UNRANKABLE`] for finite scores that are not negative, and for minus zero,
/// which is made zero. All others have the sign bit set or the largest exponent.
#[inline(always)]
pub(crate) fn rank_key(score: f32) -> u32 {
    (score + 0.0).to_bits()
}

dispatched! {
    /// Whether all scores can be ranked. Does not stop at the first that cannot: looking at every
    /// one vectorises.
    pub(crate) fn all_good(scores: &[f32]) -> bool {
        scores.iter().fold(0, |worst, &score| rank_key(score).max(worst)) < UNRANKABLE
    }
}

#[cfg(test)]
mod tests {
    use super::all_good;
    use crate::simd::same_at_all_levels;

    #[test]
    fn what_can_be_ranked() {
        fn check(score: f32, expected: bool) {
            let mut scores = vec![1.0; 100];
            for place in [0, 50, 99] {
                scores[place] = score;
                assert_eq!(
                    same_at_all_levels(|level| all_good(level, &scores)),
                    expected,
                    "{score}"
                );
                scores[place] = 1.0;
            }
        }
        for good in [0.0, -0.0, 1e-45, f32::MAX] {
            check(good, true);
        }
        let bad = [f32::INFINITY, f32::NEG_INFINITY, f32::NAN, -f32::NAN, -1e-45, -1.0, f32::MIN];
        for bad in bad {
            check(bad, false);
        }
    }
}
