//! F8_E4M3, the variant without infinities: a sign, four bits of exponent, three of mantissa.

use multiversion::multiversion;

/// A code's bits, moved to where an f32 has them, stand for the value divided by this: the exponents
/// differ in their bias, by 120. It holds for subnormal codes too.
const REBIAS: f32 = f32::from_bits((127 + 120) << 23);

/// What a code stands for; exact.
#[inline(always)]
pub(super) fn value(code: u8) -> f32 {
    match code & 0x7f {
        0x7f => f32::NAN.copysign(moved(code)),
        _ => moved(code) * REBIAS,
    }
}

#[inline(always)]
fn moved(code: u8) -> f32 {
    // The code as a signed number, so that its sign arrives at the top.
    f32::from_bits(((i32::from(code as i8) << 20) as u32) & 0x87f0_0000)
}

/// The code of the nearest number, ties to even; of what is beyond the largest, 448 of its sign.
#[inline(always)]
pub(super) fn nearest(value: f32) -> u8 {
    /// Below this, codes are multiples of 2⁻⁹.
    const NORMAL: f32 = f32::from_bits((127 - 6) << 23);
    let (sign, magnitude) = ((value.to_bits() >> 24 & 0x80) as u8, value.abs().min(448.0));
    let code = if magnitude < NORMAL {
        (magnitude * 512.0).round_ties_even() as u32
    } else {
        let bits = magnitude.to_bits();
        // To three bits of mantissa; a carry goes into the exponent.
        ((bits + 0x7_ffff + (bits >> 20 & 1)) >> 20) - (120 << 3)
    };
    sign | code as u8
}

/// Codes times a scale, each product rounded once.
#[multiversion(targets("x86_64+avx2+avx512f+avx512bw+avx512dq+avx512vl", "x86_64+avx2"))]
pub(super) fn scaled(codes: &[u8], scale: f32, out: &mut [f32]) {
    let largest = codes.iter().fold(0, |largest, code| (code & 0x7f).max(largest));
    if largest == 0x7f || scale.abs() >= 256.0 {
        for (out, &code) in out.iter_mut().zip(codes) {
            *out = value(code) * scale;
        }
        return;
    }
    // Exact, since powers of two are and nothing overflows; so the product is rounded as that of
    // the value and the scale.
    let scale = scale * REBIAS;
    for (out, &code) in out.iter_mut().zip(codes) {
        *out = moved(code) * scale;
    }
}

#[cfg(test)]
mod tests {
    use super::{nearest, scaled, value};

    fn check(code: u8, expected: f32) {
        assert_eq!(value(code).to_bits(), expected.to_bits(), "{code:#04x}");
    }

    #[test]
    fn values() {
        check(0x38, 1.0);
        check(0x7e, 448.0);
        check(0x01, 2f32.powi(-9));
        check(0x08, 2f32.powi(-6));
        check(0xc4, -3.0);
        check(0x00, 0.0);
        check(0x80, -0.0);
        assert!(value(0x7f).is_nan() && value(0xff).is_nan());
    }

    #[test]
    fn every_code_by_its_definition() {
        for code in (0..=u8::MAX).filter(|code| code & 0x7f != 0x7f) {
            let (exponent, mantissa) = (i32::from(code >> 3 & 0xf), f32::from(code & 7));
            let magnitude = match exponent {
                0 => mantissa * 2f32.powi(-9),
                _ => (8.0 + mantissa) * 2f32.powi(exponent - 10),
            };
            check(code, if code & 0x80 == 0 { magnitude } else { -magnitude });
        }
    }

    #[test]
    fn the_nearest_code() {
        for code in (0..=u8::MAX).filter(|code| code & 0x7f != 0x7f) {
            assert_eq!(nearest(value(code)), code, "{code:#04x}");
        }
        let check = |value: f32, code: u8| assert_eq!(nearest(value), code, "{value}");
        for code in 0..0x7e {
            let (low, high) = (value(code), value(code + 1));
            let middle = f32::midpoint(low, high);
            check(middle, if code % 2 == 0 { code } else { code + 1 });
            check(middle.next_down(), code);
            check(-middle.next_up(), (code + 1) | 0x80);
        }
        check(1e9, 0x7e);
        check(-449.0, 0xfe);
    }

    #[test]
    fn a_product_is_rounded_once() {
        let codes: Vec<u8> = (0..=u8::MAX).cycle().take(515).collect();
        let numbers: Vec<u8> = codes.iter().copied().filter(|code| code & 0x7f != 0x7f).collect();
        for scale in [1.0, 0.1, -3.7e-5, 255.9, 256.0, 1e30, 1e38, 1e-38, 3e-44, -1e-40] {
            for codes in [&codes, &numbers] {
                let mut out = vec![0.0; codes.len()];
                scaled(codes, scale, &mut out);
                for (&code, got) in codes.iter().zip(out) {
                    let expected = value(code) * scale;
                    let same = got.to_bits() == expected.to_bits();
                    assert!(same || got.is_nan() && expected.is_nan(), "{code:#04x} · {scale}");
                }
            }
        }
    }
}
