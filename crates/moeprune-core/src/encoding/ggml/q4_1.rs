//! Q4_1: a scale and a least value in F16, and 32 codes of four bits: `n · scale + least`.

use multiversion::multiversion;

use super::blocks::{each, f16_at};

/// Decodes whole blocks.
#[multiversion(targets("x86_64+avx2+avx512f+avx512bw+avx512dq+avx512vl", "x86_64+avx2"))]
pub(super) fn decode(bytes: &[u8], out: &mut [f32]) {
    each::<20, 32>(bytes, out, block);
}

#[inline(always)]
fn block(bytes: &[u8; 20], out: &mut [f32; 32]) {
    let (scale, least) = (f16_at(bytes, 0), f16_at(bytes, 2));
    let (low, high) = out.split_at_mut(16);
    for ((low, high), byte) in low.iter_mut().zip(high).zip(&bytes[4..]) {
        *low = f32::from(byte & 0xf) * scale + least;
        *high = f32::from(byte >> 4) * scale + least;
    }
}
