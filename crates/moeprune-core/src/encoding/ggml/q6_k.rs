//! Q6_K: 16 groups of 16 codes of six bits from −32 on, `scale · s · (n − 32)`.
//!
//! | bytes | |
//! |---|---|
//! | 128 | lower four bits of the codes: of each half, 64 bytes hold codes 0 to 63 below, 64 to 127 above |
//! | 64 | upper two bits: of each half, byte c of 32 holds those of codes c, c + 32, c + 64, c + 96 |
//! | 16 | `s` of each group, I8 |
//! | 2 | scale, F16 |

use multiversion::multiversion;

use super::blocks::{each, f16_at};

/// Decodes whole blocks.
#[multiversion(targets("x86_64+avx2+avx512f+avx512bw+avx512dq+avx512vl", "x86_64+avx2"))]
pub(super) fn decode(bytes: &[u8], out: &mut [f32]) {
    each::<210, 256>(bytes, out, block);
}

#[inline(always)]
fn block(bytes: &[u8; 210], out: &mut [f32; 256]) {
    let scale = f16_at(bytes, 208);
    for (group, out) in out.as_chunks_mut::<16>().0.iter_mut().enumerate() {
        let scale = scale * f32::from(bytes[192 + group] as i8);
        // Of the half's 128 codes, four quarters of 32.
        let (half, quarter, from) = (group / 8, group % 8 / 2, group % 2 * 16);
        let lower = &bytes[half * 64 + quarter % 2 * 32 + from..][..16];
        let upper = &bytes[128 + half * 32 + from..][..16];
        for ((out, lower), upper) in out.iter_mut().zip(lower).zip(upper) {
            let lower = lower >> (quarter / 2 * 4) & 0xf;
            let code = lower | (upper >> (quarter * 2) & 3) << 4;
            *out = scale * (f32::from(code) - 32.0);
        }
    }
}
