//! The exponential and what is made of it.

/// `e^x` to about two units in the last place, for `x` in `[-87.3, 88.3]` and at the nearer end
/// outside; NaN stays NaN.
///
/// `x = n·ln 2 + r` with integer `n` and `|r| ≤ ln 2 / 2`; a polynomial in `r`, then `n` is put
/// into the exponent. Plain arithmetic, so loops over it become vector code and every machine
/// gives the same bits.
#[inline(always)]
pub(crate) fn exp(x: f32) -> f32 {
    // Adding and taking away 1.5 · 2^23 rounds to an integer, which stays in the low bits.
    const ROUND: f32 = 12_582_912.0;
    // ln 2 in two parts: products of the first with small integers are exact.
    const LN_2_HIGH: f32 = 0.693_359_4;
    const LN_2_LOW: f32 = -2.121_944_4e-4;
    let x = x.clamp(-87.3, 88.3);
    let shifted = x * std::f32::consts::LOG2_E + ROUND;
    let n = shifted - ROUND;
    let r = x - n * LN_2_HIGH - n * LN_2_LOW;
    let mut p = 1.987_569_1e-4;
    p = p * r + 1.398_199_9e-3;
    p = p * r + 8.333_452e-3;
    p = p * r + 4.166_579_6e-2;
    p = p * r + 1.666_666_6e-1;
    p = p * r + 0.5;
    let power = f32::from_bits((shifted.to_bits() << 23).wrapping_add(0x3F80_0000));
    (p * r * r + r + 1.0) * power
}

/// `x · sigmoid(x)`
#[inline(always)]
pub(crate) fn silu(x: f32) -> f32 {
    x / (1.0 + exp(-x))
}

/// `x / 2 · (1 + tanh(u))` with `u = sqrt(2 / π) · (x + 0.044715 x³)`, which is `x · sigmoid(2 u)`.
pub(crate) fn gelu_tanh(x: f32) -> f32 {
    const TWICE: f32 = 1.595_769; // 2 · sqrt(2 / π)
    x / (1.0 + exp(-TWICE * (x + 0.044_715 * x * x * x)))
}

/// Replaces each `x` by `e^(scale · (x − max))` and returns their sum: a softmax without the
/// division. `scale` is positive.
pub(crate) fn exponentiate(values: &mut [f32], scale: f32) -> f32 {
    let max = maximum(values);
    for v in values.iter_mut() {
        *v = exp((*v - max) * scale);
    }
    sum(values)
}

/// As [`exponentiate`]; `sink`, if there is one, is another number of which the sum has the exponential
/// too. It is not scaled.
pub(crate) fn exponentiate_beside(values: &mut [f32], scale: f32, sink: Option<f32>) -> f32 {
    match sink {
        None => exponentiate(values, scale),
        Some(sink) => {
            let max = maximum(values).max(sink / scale);
            for v in values.iter_mut() {
                *v = exp((*v - max) * scale);
            }
            sum(values) + exp(sink - max * scale)
        }
    }
}

/// Logarithm of the sum of exponentials.
pub(crate) fn log_sum_exp(values: &[f32]) -> f64 {
    let max = maximum(values);
    let mut total = 0.0;
    let mut scratch = [0.0_f32; 256];
    for chunk in values.chunks(scratch.len()) {
        let scratch = &mut scratch[..chunk.len()];
        for (s, v) in scratch.iter_mut().zip(chunk) {
            *s = exp(v - max);
        }
        total += f64::from(sum(scratch));
    }
    f64::from(max) + total.ln()
}

const LANES: usize = 16;

fn maximum(values: &[f32]) -> f32 {
    let mut lanes = [f32::NEG_INFINITY; LANES];
    for chunk in values.chunks(LANES) {
        for (lane, v) in lanes.iter_mut().zip(chunk) {
            *lane = if *v > *lane { *v } else { *lane };
        }
    }
    lanes.into_iter().fold(f32::NEG_INFINITY, f32::max)
}

/// Sum in lanes of [`LANES`], then over the lanes: an order fixed by the length alone.
pub(crate) fn sum(values: &[f32]) -> f32 {
    let mut lanes = [0.0; LANES];
    for chunk in values.chunks(LANES) {
        for (lane, v) in lanes.iter_mut().zip(chunk) {
            *lane += v;
        }
    }
    lanes.into_iter().sum()
}

/// Sum of squares, in the order of [`sum`].
pub(crate) fn sum_squares(values: &[f32]) -> f32 {
    let mut lanes = [0.0; LANES];
    for chunk in values.chunks(LANES) {
        for (lane, v) in lanes.iter_mut().zip(chunk) {
            *lane += v * v;
        }
    }
    lanes.into_iter().sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_is_close_everywhere() {
        let mut worst = 0.0_f64;
        for i in -872_000..882_000 {
            let x = i as f32 * 1e-4;
            let want = f64::from(x).exp();
            worst = worst.max((f64::from(exp(x)) - want).abs() / want);
        }
        assert!(worst < 2.5e-7, "{worst}");
        assert_eq!(exp(0.0), 1.0);
        assert!(exp(f32::NAN).is_nan());
        assert!(exp(f32::NEG_INFINITY) < 1e-37);
        assert!(exp(f32::INFINITY).is_finite());
    }

    #[test]
    fn silu_is_close_and_has_its_limits() {
        for x in [-100.0_f32, -20.0, -1.0, -1e-3, 0.0, 0.5, 3.0, 50.0, 1e6] {
            let wide = f64::from(x);
            let want = wide / (1.0 + (-wide).exp());
            assert!((f64::from(silu(x)) - want).abs() <= 1e-6 * want.abs().max(1e-3), "{x}");
        }
    }

    #[test]
    fn gelu_is_close_and_has_its_limits() {
        for x in [-1e6_f32, -100.0, -5.0, -1.0, -1e-3, 0.0, 0.5, 3.0, 50.0, 1e6] {
            let wide = f64::from(x);
            let inner = (2.0 / std::f64::consts::PI).sqrt() * (wide + 0.044_715 * wide.powi(3));
            let want = wide / 2.0 * (1.0 + inner.tanh());
            assert!((f64::from(gelu_tanh(x)) - want).abs() <= 1e-6 * want.abs().max(1e-1), "{x}");
        }
    }

    #[test]
    fn log_sum_exp_of_known_values() {
        let check = |values: &[f32], want: f64| {
            assert!((log_sum_exp(values) - want).abs() < 1e-6, "{values:?}");
        };
        check(&[3.0], 3.0);
        check(&[0.0; 1000], 1000.0_f64.ln());
        check(&[1000.0, 0.0], 1000.0);
        check(&[-5.0, -5.0], -5.0 + 2.0_f64.ln());
    }
}
