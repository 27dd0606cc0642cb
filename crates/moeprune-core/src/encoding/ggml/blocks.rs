//! What kinds of blocks have in common.

use half::f16;

/// Calls `block` for each block and what it is decoded to.
#[inline(always)]
pub(super) fn each<const BYTES: usize, const ELEMENTS: usize>(
    bytes: &[u8],
    out: &mut [f32],
    block: impl Fn(&[u8; BYTES], &mut [f32; ELEMENTS]),
) {
    let out = out.as_chunks_mut::<ELEMENTS>().0;
    for (bytes, out) in bytes.as_chunks::<BYTES>().0.iter().zip(out) {
        block(bytes, out);
    }
}

/// An F16 from byte `at` on.
#[inline(always)]
pub(super) fn f16_at(bytes: &[u8], at: usize) -> f32 {
    f16::from_le_bytes([bytes[at], bytes[at + 1]]).to_f32()
}

/// The fifth bits of 32 codes, from byte `at` on.
#[inline(always)]
pub(super) fn fifth_bits(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

/// Codes `at` and `at + 16` of five bits, whose lower four are in one byte.
#[inline(always)]
pub(super) fn five_bits(byte: u8, fifth: u32, at: usize) -> [f32; 2] {
    let fifth = |at: usize| ((fifth >> at & 1) << 4) as u8;
    [f32::from(byte & 0xf | fifth(at)), f32::from(byte >> 4 | fifth(at + 16))]
}

/// The factors of a group's scale and least value, of Q4_K and Q5_K: of the first four groups the lower
/// six bits of bytes 0 to 3 and 4 to 7; of the others the halves of bytes 8 to 11, and the upper two bits
/// of the former.
#[inline(always)]
pub(super) fn factors(bytes: &[u8], group: usize) -> [f32; 2] {
    let (s, m) = match group {
        0..4 => (bytes[group] & 63, bytes[group + 4] & 63),
        _ => {
            let both = bytes[group + 4];
            (both & 0xf | bytes[group - 4] >> 6 << 4, both >> 4 | bytes[group] >> 6 << 4)
        }
    };
    [f32::from(s), f32::from(m)]
}
