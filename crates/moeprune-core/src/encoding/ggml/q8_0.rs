//! Q8_0: a scale in F16, and 32 integers of 8 bits: `n · scale`.

use multiversion::multiversion;

use super::blocks::{each, f16_at};

/// Decodes whole blocks.
#[multiversion(targets("x86_64+avx2+avx512f+avx512bw+avx512dq+avx512vl", "x86_64+avx2"))]
pub(super) fn decode(bytes: &[u8], out: &mut [f32]) {
    each::<34, 32>(bytes, out, block);
}

#[inline(always)]
fn block(bytes: &[u8; 34], out: &mut [f32; 32]) {
    let scale = f16_at(bytes, 0);
    for (out, byte) in out.iter_mut().zip(&bytes[2..]) {
        *out = f32::from(*byte as i8) * scale;
    }
}
