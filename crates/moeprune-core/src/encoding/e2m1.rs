//! E2M1: a sign, two bits of exponent, one of mantissa, in the lower half of a byte.

/// What a code stands for: 0, 0.5, 1, 1.5, 2, 3, 4 or 6, negative from code 8 on; code 8 is −0.
#[inline(always)]
pub(super) fn value(code: u8) -> f32 {
    wide(u32::from(code))
}

/// In operations that all vector units have, and on no subnormal numbers, which some are slow with.
#[inline(always)]
pub(super) fn wide(code: u32) -> f32 {
    /// Twice the magnitudes, four bits each.
    const DOUBLES: u32 = 0xc864_3210;
    let double = DOUBLES >> ((code & 7) * 4) & 0xf;
    let magnitude = double as i32 as f32 * 0.5;
    f32::from_bits(magnitude.to_bits() | (code & 8) << 28)
}

/// The code of the nearest number, ties to even; of what is beyond the largest, 6 of its sign.
#[inline(always)]
pub(super) fn nearest(value: f32) -> u8 {
    let (sign, x) = ((value.to_bits() >> 28 & 8) as u8, value.abs());
    let above = [x > 0.25, x >= 0.75, x > 1.25, x >= 1.75, x > 2.5, x >= 3.5, x > 5.0];
    sign | above.into_iter().map(u8::from).sum::<u8>()
}

#[cfg(test)]
mod tests {
    use super::{nearest, value};

    #[test]
    fn every_code() {
        let magnitudes = [0.0f32, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0];
        for (code, magnitude) in (0..8).zip(magnitudes) {
            assert_eq!(value(code).to_bits(), magnitude.to_bits(), "{code}");
            assert_eq!(value(code + 8).to_bits(), (-magnitude).to_bits(), "{code}");
        }
    }

    #[test]
    fn the_nearest_code() {
        for code in 0..16 {
            assert_eq!(nearest(value(code)), code);
        }
        for code in 0..7 {
            let middle = f32::midpoint(value(code), value(code + 1));
            assert_eq!(nearest(middle), if code % 2 == 0 { code } else { code + 1 }, "{middle}");
            assert_eq!(nearest(-middle.next_up()), code + 9);
        }
        assert_eq!(nearest(1e9), 7);
    }
}
