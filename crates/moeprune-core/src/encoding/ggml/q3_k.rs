//! Q3_K: 16 groups of 16 codes of three bits from −4 on, `(scale · (s − 32)) · (n − 4)`.
//!
//! | bytes | |
//! |---|---|
//! | 32 | the third bits: bit k of byte c is that of code 32 k + c |
//! | 64 | the lower two bits, as in Q2_K |
//! | 12 | `s` of each group in six bits: lower four of the first 8 and of the last 8, then the upper two |
//! | 2 | scale, F16 |

use multiversion::multiversion;

use super::blocks::{each, f16_at};

/// Decodes whole blocks.
#[multiversion(targets("x86_64+avx2+avx512f+avx512bw+avx512dq+avx512vl", "x86_64+avx2"))]
pub(super) fn decode(bytes: &[u8], out: &mut [f32]) {
    each::<110, 256>(bytes, out, block);
}

#[inline(always)]
fn block(bytes: &[u8; 110], out: &mut [f32; 256]) {
    let scale = f16_at(bytes, 108);
    for (group, out) in out.as_chunks_mut::<16>().0.iter_mut().enumerate() {
        let scale = scale * (f32::from(six_bits(&bytes[96..108], group)) - 32.0);
        let (half, shift, from) = (group / 8, group % 8 / 2 * 2, group % 2 * 16);
        let codes = &bytes[32 + half * 32 + from..][..16];
        let thirds = &bytes[from..][..16];
        for ((out, code), third) in out.iter_mut().zip(codes).zip(thirds) {
            let code = code >> shift & 3 | (third >> (group / 2) & 1) << 2;
            *out = scale * (f32::from(code) - 4.0);
        }
    }
}

/// The factor of a group.
#[inline(always)]
fn six_bits(bytes: &[u8], group: usize) -> u8 {
    let lower = bytes[group % 8] >> (group / 8 * 4) & 0xf;
    lower | (bytes[8 + group % 4] >> (group / 4 * 2) & 3) << 4
}
