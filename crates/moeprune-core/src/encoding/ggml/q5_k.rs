//! Q5_K: 8 groups of 32 codes of five bits, `(scale · s) · n − least · m`.
//!
//! | bytes | |
//! |---|---|
//! | 2, 2 | scale and least value, F16 |
//! | 12 | [`s` and `m`](super::blocks::factors) of each group, six bits each |
//! | 32 | the fifth bits: bit k of byte c is that of code c of group k |
//! | 128 | the lower four bits; two groups in the same 32 bytes, the lower halves first |

use multiversion::multiversion;

use super::blocks::{each, f16_at, factors};

/// Decodes whole blocks.
#[multiversion(targets("x86_64+avx2+avx512f+avx512bw+avx512dq+avx512vl", "x86_64+avx2"))]
pub(super) fn decode(bytes: &[u8], out: &mut [f32]) {
    each::<176, 256>(bytes, out, block);
}

#[inline(always)]
fn block(bytes: &[u8; 176], out: &mut [f32; 256]) {
    let (scale, least) = (f16_at(bytes, 0), f16_at(bytes, 2));
    for (group, out) in out.as_chunks_mut::<32>().0.iter_mut().enumerate() {
        let [s, m] = factors(&bytes[4..16], group);
        let (scale, least) = (scale * s, least * m);
        let codes = &bytes[48 + group / 2 * 32..][..32];
        for ((out, code), fifth) in out.iter_mut().zip(codes).zip(&bytes[16..48]) {
            let code = code >> (group % 2 * 4) & 0xf | (fifth >> group & 1) << 4;
            *out = scale * f32::from(code) - least;
        }
    }
}
