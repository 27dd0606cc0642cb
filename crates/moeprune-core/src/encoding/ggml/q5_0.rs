//! Q5_0: a scale in F16, the fifth bits of 32 codes, and their lower four: `(n − 16) · scale`.

use multiversion::multiversion;

use super::blocks::{each, f16_at, fifth_bits, five_bits};

/// Decodes whole blocks.
#[multiversion(targets("x86_64+avx2+avx512f+avx512bw+avx512dq+avx512vl", "x86_64+avx2"))]
pub(super) fn decode(bytes: &[u8], out: &mut [f32]) {
    each::<22, 32>(bytes, out, block);
}

#[inline(always)]
fn block(bytes: &[u8; 22], out: &mut [f32; 32]) {
    let (scale, fifth) = (f16_at(bytes, 0), fifth_bits(bytes, 2));
    for (at, byte) in bytes[6..].iter().enumerate() {
        let [low, high] = five_bits(*byte, fifth, at);
        out[at] = (low - 16.0) * scale;
        out[at + 16] = (high - 16.0) * scale;
    }
}
