//! Q8_K: a scale in F32, 256 integers of 8 bits, and sums of these, which decoding does not need:
//! `scale · n`.

use multiversion::multiversion;

use super::blocks::each;

/// Decodes whole blocks.
#[multiversion(targets("x86_64+avx2+avx512f+avx512bw+avx512dq+avx512vl", "x86_64+avx2"))]
pub(super) fn decode(bytes: &[u8], out: &mut [f32]) {
    each::<292, 256>(bytes, out, block);
}

#[inline(always)]
fn block(bytes: &[u8; 292], out: &mut [f32; 256]) {
    let scale = f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
    for (out, byte) in out.iter_mut().zip(&bytes[4..260]) {
        *out = scale * f32::from(*byte as i8);
    }
}
