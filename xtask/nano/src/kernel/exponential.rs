//! The exponential function, written so that the compiler vectorises loops of it.

use std::f32::consts::LOG2_E;

/// Adding and subtracting this rounds a small number to the nearest whole one: the fraction falls
/// off the end of the significand.
const ROUND: f32 = 12_582_912.0;

/// ln 2 in two parts, the first with trailing zeros so that its small multiples are exact.
const LN_2_HIGH: f32 = 0.693_359_4;
const LN_2_LOW: f32 = -2.121_944_4e-4;

/// `e^x`, right to about one part in ten million between -87 and 87 and clamped outside.
#[inline]
pub(super) fn exp(x: f32) -> f32 {
    let x = x.clamp(-87.0, 87.0);
    let shifted = x * LOG2_E + ROUND;
    let whole = shifted - ROUND;
    let rest = (x - whole * LN_2_HIGH) - whole * LN_2_LOW;
    // Taylor's polynomial: |rest| <= ln(2) / 2.
    let mut sum = 1.0 / 720.0;
    for coefficient in [1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0] {
        sum = sum * rest + coefficient;
    }
    // The whole number now sits in the low bits; move it to the exponent.
    let exponent = shifted.to_bits().wrapping_sub(ROUND.to_bits()) << 23;
    sum * f32::from_bits(exponent.wrapping_add(1.0f32.to_bits()))
}

/// `1 / (1 + e^-x)`.
#[inline]
pub(super) fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

#[cfg(test)]
mod tests {
    use super::exp;

    #[test]
    fn agrees_with_the_standard_library() {
        for step in -8000..8000 {
            let x = step as f32 * 0.01;
            let (ours, theirs) = (exp(x), x.exp());
            assert!((ours - theirs).abs() <= 4e-7 * theirs, "{x}: {ours} and {theirs}");
        }
    }
}
