//! MXFP4: an exponent, and 32 codes in E2M1, `E2M1[n] · 2^(exponent − 127)`. The lower halves of the
//! bytes are the first 16, unlike in safetensors files, where they are the even columns.

use multiversion::multiversion;

use super::{
    super::{e2m1, scales},
    blocks::each,
};

/// Decodes whole blocks.
#[multiversion(targets("x86_64+avx2+avx512f+avx512bw+avx512dq+avx512vl", "x86_64+avx2"))]
pub(super) fn decode(bytes: &[u8], out: &mut [f32]) {
    each::<17, 32>(bytes, out, block);
}

#[inline(always)]
fn block(bytes: &[u8; 17], out: &mut [f32; 32]) {
    let scale = scales::power(bytes[0]);
    let (low, high) = out.split_at_mut(16);
    for ((low, high), byte) in low.iter_mut().zip(high).zip(&bytes[1..]) {
        *low = e2m1::value(byte & 0xf) * scale;
        *high = e2m1::value(byte >> 4) * scale;
    }
}
