//! Q4_0: a scale in F16, and 32 codes of four bits from −8 on: `(n − 8) · scale`.

use multiversion::multiversion;

use super::blocks::{each, f16_at};

/// Decodes whole blocks.
#[multiversion(targets("x86_64+avx2+avx512f+avx512bw+avx512dq+avx512vl", "x86_64+avx2"))]
pub(super) fn decode(bytes: &[u8], out: &mut [f32]) {
    each::<18, 32>(bytes, out, block);
}

#[inline(always)]
fn block(bytes: &[u8; 18], out: &mut [f32; 32]) {
    let scale = f16_at(bytes, 0);
    let (low, high) = out.split_at_mut(16);
    for ((low, high), byte) in low.iter_mut().zip(high).zip(&bytes[2..]) {
        *low = (f32::from(byte & 0xf) - 8.0) * scale;
        *high = (f32::from(byte >> 4) - 8.0) * scale;
    }
}
