//! Q2_K: 16 groups of 16 codes of two bits, `(scale · s) · n − least · m`.
//!
//! | bytes | |
//! |---|---|
//! | 16 | `s` (lower half) and `m` of each group |
//! | 64 | codes; four groups of 32 in the same bytes, from the lowest bits on, twice |
//! | 2, 2 | scale and least value, F16 |

use multiversion::multiversion;

use super::blocks::{each, f16_at};

/// Decodes whole blocks.
#[multiversion(targets("x86_64+avx2+avx512f+avx512bw+avx512dq+avx512vl", "x86_64+avx2"))]
pub(super) fn decode(bytes: &[u8], out: &mut [f32]) {
    each::<84, 256>(bytes, out, block);
}

#[inline(always)]
fn block(bytes: &[u8; 84], out: &mut [f32; 256]) {
    let (scale, least) = (f16_at(bytes, 80), f16_at(bytes, 82));
    for (group, out) in out.as_chunks_mut::<16>().0.iter_mut().enumerate() {
        let factors = bytes[group];
        let scale = scale * f32::from(factors & 0xf);
        let least = least * f32::from(factors >> 4);
        let (half, shift, from) = (group / 8, group % 8 / 2 * 2, group % 2 * 16);
        let codes = &bytes[16 + half * 32 + from..][..16];
        for (out, code) in out.iter_mut().zip(codes) {
            *out = scale * f32::from(code >> shift & 3) - least;
        }
    }
}
