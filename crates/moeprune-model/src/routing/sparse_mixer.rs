//! SparseMixer's choice of experts.

use moeprune_core::SparseMixer;

use super::real::{Real, first_largest};

/// The experts of a token and their weights, the largest weight first and among equals in the order in
/// which they win. Experts that do not exist
/// have the lowest logit there is; they win for want of others, and then have no weight.
pub(super) fn choose<R: Real>(
    mixer: &SparseMixer,
    logits: &mut [R],
    indices: &mut [u32],
    weights: &mut [R],
) {
    let reach = R::of(2.0 * mixer.jitter);
    for (index, weight) in indices.iter_mut().zip(&mut *weights) {
        let best = first_largest(logits);
        let top = logits[best];
        *index = best as u32;
        *weight = R::of(0.0);
        if top > R::LOWEST {
            let is_rival = |z: R| {
                let size = if z.abs() > top { z.abs() } else { top };
                // Of two zeros the quotient is no number, and above nothing.
                let is_far = (top - z) / size > reach;
                z > R::LOWEST && !is_far
            };
            let mut rivals: Vec<R> = logits.iter().copied().filter(|&z| is_rival(z)).collect();
            let at = first_largest(&rivals);
            let all = R::exponentiate(&mut rivals);
            *weight = rivals[at];
            *weight /= all;
        }
        logits[best] = R::LOWEST;
    }
    let mut pairs: Vec<(u32, R)> = indices.iter().copied().zip(weights.iter().copied()).collect();
    pairs.sort_by(|a, b| b.1.total_cmp(&a.1));
    for ((index, weight), pair) in indices.iter_mut().zip(weights).zip(pairs) {
        (*index, *weight) = pair;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(logits: &[f64], jitter: f64, expected: &[(u32, f64)]) {
        let (mut indices, mut weights) = (vec![0; expected.len()], vec![0.0; expected.len()]);
        choose(&SparseMixer { jitter }, &mut logits.to_vec(), &mut indices, &mut weights);
        for ((&index, &weight), &(expert, share)) in indices.iter().zip(&weights).zip(expected) {
            assert!(index == expert && (weight - share).abs() < 1e-9, "{indices:?} {weights:?}");
        }
    }

    /// The share of the first of some numbers in a softmax.
    fn share(of: &[f64]) -> f64 {
        of[0].exp() / of.iter().map(|z| z.exp()).sum::<f64>()
    }

    #[test]
    fn rivals_are_near_and_winners_are_gone() {
        // 9 is within a tenth of 10, 8 of 9; of 8 and below none counts.
        let logits = [8.0, 10.0, 1.0, 9.0];
        check(&logits, 0.05, &[(3, 1.0), (1, share(&[10.0, 9.0]))]);
        check(&logits, 0.06, &[(1, share(&[10.0, 9.0])), (3, share(&[9.0, 8.0]))]);
        check(&logits, 9.0, &[(3, share(&[9.0, 8.0, 1.0])), (1, share(&[10.0, 9.0, 8.0, 1.0]))]);
    }

    #[test]
    fn below_zero_the_size_of_the_rival_counts() {
        // (−1 + 1.2) / 1.2 is a sixth, (−1 + 2) / 2 a half.
        check(&[-2.0, -1.0, -1.2], 0.1, &[(1, share(&[-1.0, -1.2]))]);
        check(&[-2.0, -1.0, -1.2], 0.26, &[(1, share(&[-1.0, -1.2, -2.0]))]);
        check(&[0.0, 0.0], 0.1, &[(1, 1.0), (0, 0.5)]);
        // Among equals the first that won.
        check(&[1.0, 9.0], 0.1, &[(1, 1.0), (0, 1.0)]);
    }

    #[test]
    fn experts_that_do_not_exist_have_no_weight() {
        let none = f64::NEG_INFINITY;
        check(&[none, 3.0, none], 0.5, &[(1, 1.0), (0, 0.0)]);
    }
}
