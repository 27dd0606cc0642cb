//! Marking the smallest of a row of scores, without sorting it.

/// Rows shorter than this are selected from directly.
const DIRECT: usize = 1024;
/// Scores looked at to guess where the threshold lies.
const SAMPLE: usize = 256;

/// Marks the `count` smallest scores; of equal ones, the first. The same as marking the first
/// `count` of a stable sort.
///
/// Scores are finite and not negative, or minus zero; `mask` is all `false` and as long.
pub(crate) fn mark_smallest(scores: &[f32], count: usize, mask: &mut [bool]) {
    if count == 0 {
        return;
    }
    if count >= scores.len() {
        mask.fill(true);
        return;
    }
    let threshold = threshold(scores, count);
    let mut marked = 0u32;
    for (&score, mark) in scores.iter().zip(mask.iter_mut()) {
        *mark = score <= threshold;
        marked += u32::from(score <= threshold);
    }
    // All that equal the threshold are marked; the last of them may be too many.
    let mut surplus = marked as usize - count;
    if surplus > 0 {
        for (&score, mark) in scores.iter().zip(mask).rev() {
            if score == threshold {
                *mark = false;
                surplus -= 1;
                if surplus == 0 {
                    break;
                }
            }
        }
    }
}

/// The score at place `count - 1` of the ascending order.
fn threshold(scores: &[f32], count: usize) -> f32 {
    let found = if scores.len() < DIRECT { None } else { near_quantile(scores, count) };
    found.unwrap_or_else(|| {
        let mut keys: Vec<u32> = scores.iter().copied().map(key).collect();
        f32::from_bits(*keys.select_nth_unstable(count - 1).1)
    })
}

/// Brackets the threshold with quantiles of a sample and selects among what lies in between;
/// `None` if the sample misled. Whatever the sample, an answer is the right one.
fn near_quantile(scores: &[f32], count: usize) -> Option<f32> {
    let stride = scores.len() / SAMPLE;
    let mut sample: Vec<u32> =
        scores.iter().step_by(stride).take(SAMPLE).copied().map(key).collect();
    let share = count as f64 / scores.len() as f64;
    let rank = share * SAMPLE as f64;
    // Two and a half standard deviations of a binomial count: nearly always enough.
    let margin = 2.5 * (rank * (1.0 - share)).sqrt() + 1.0;
    let low = (rank - margin).floor();
    let high = (rank + margin).ceil() as usize;
    let low = if low < 0.0 { 0 } else { *sample.select_nth_unstable(low as usize).1 };
    let high = if high < SAMPLE { *sample.select_nth_unstable(high).1 } else { u32::MAX >> 1 };

    let mut below = 0;
    let mut inside = 0;
    let mut candidates = vec![0; scores.len()];
    for &score in scores {
        let key = key(score);
        candidates[inside] = key;
        below += usize::from(key < low);
        inside += usize::from(key >= low && key <= high);
    }
    // Place of the threshold among the candidates.
    let place = (count - 1).checked_sub(below).filter(|&place| place < inside)?;
    let candidates = &mut candidates[..inside];
    Some(f32::from_bits(*candidates.select_nth_unstable(place).1))
}

/// Bits that order as the scores do; minus zero becomes zero.
fn key(score: f32) -> u32 {
    score.abs().to_bits()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::mark_smallest;

    fn check(scores: &[f32], count: usize) {
        let mut order: Vec<usize> = (0..scores.len()).collect();
        order.sort_by(|&a, &b| scores[a].partial_cmp(&scores[b]).expect("no NaN"));
        let mut expected = vec![false; scores.len()];
        for &j in &order[..count] {
            expected[j] = true;
        }
        let mut mask = vec![false; scores.len()];
        mark_smallest(scores, count, &mut mask);
        assert_eq!(mask, expected, "{count} of {scores:?}");
    }

    #[test]
    fn short_rows() {
        check(&[], 0);
        check(&[1.0], 0);
        check(&[1.0], 1);
        check(&[2.0, 1.0], 1);
        check(&[1.0, 1.0, 1.0], 2);
        check(&[0.0, -0.0, 0.0, 1.0], 1);
        check(&[1.0, -0.0, 0.0], 1);
        check(&[f32::MAX, 1e-45, 2e-45, 0.0], 2);
        check(&[3.0, 1.0, 3.0, 2.0, 3.0], 3);
    }

    #[test]
    fn a_misleading_sample_changes_nothing() {
        // Every sampled column holds a large score, all others small ones.
        let stride = 5000 / super::SAMPLE;
        let scores: Vec<f32> =
            (0..5000).map(|j| if j % stride == 0 { 1e6 + j as f32 } else { j as f32 }).collect();
        for count in [1, 100, 2500, 4700, 4999] {
            check(&scores, count);
        }
    }

    #[test]
    fn a_constant_row_loses_its_first_columns() {
        check(&[0.5; 3000], 1234);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn long_rows(
            scores in prop::collection::vec(
                prop_oneof![
                    0f32..1.0,
                    (0u32..8).prop_map(|v| v as f32 / 4.0),
                    (0u32..200).prop_map(f32::from_bits),
                    Just(-0.0f32),
                ],
                1..4000,
            ),
            share in 0f64..=1.0,
        ) {
            let count = (share * scores.len() as f64) as usize;
            check(&scores, count);
        }
    }
}
