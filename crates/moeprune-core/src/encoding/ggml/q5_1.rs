//! Q5_1: a scale and a least value in F16, the fifth bits of 32 codes, and their lower four:
//! `n · scale + least`.

use multiversion::multiversion;

use super::blocks::{each, f16_at, fifth_bits, five_bits};

/// Decodes whole blocks.
#[multiversion(targets("x86_64+avx2+avx512f+avx512bw+avx512dq+avx512vl", "x86_64+avx2"))]
pub(super) fn decode(bytes: &[u8], out: &mut [f32]) {
    each::<24, 32>(bytes, out, block);
}

#[inline(always)]
fn block(bytes: &[u8; 24], out: &mut [f32; 32]) {
    let (scale, least, fifth) = (f16_at(bytes, 0), f16_at(bytes, 2), fifth_bits(bytes, 4));
    for (at, byte) in bytes[8..].iter().enumerate() {
        let [low, high] = five_bits(*byte, fifth, at);
        out[at] = low * scale + least;
        out[at + 16] = high * scale + least;
    }
}
