//! Kernels of AVX-512: a row of a tile is two vectors.

use std::arch::x86_64::*;

use super::{ROWS, Square, Tile, WIDTH, Weights, portable};

/// Numbers of a vector.
const LANES: usize = 16;
/// Inputs from one that is read to one that is prefetched.
const AHEAD: usize = 16;

/// As [`Level::multiply`](super::Level::multiply).
///
/// # Safety
/// As there, and the processor must have AVX-512.
#[target_feature(enable = "avx512f")]
pub(super) unsafe fn multiply(tile: &Tile) {
    // SAFETY: the caller's promise.
    unsafe {
        match tile.rows {
            1 => tile_of::<1>(tile),
            2 => tile_of::<2>(tile),
            3 => tile_of::<3>(tile),
            4 => tile_of::<4>(tile),
            5 => tile_of::<5>(tile),
            6 => tile_of::<6>(tile),
            7 => tile_of::<7>(tile),
            8 => tile_of::<8>(tile),
            9 => tile_of::<9>(tile),
            10 => tile_of::<10>(tile),
            11 => tile_of::<11>(tile),
            _ => tile_of::<ROWS>(tile),
        }
    }
}

#[target_feature(enable = "avx512f")]
unsafe fn tile_of<const M: usize>(tile: &Tile) {
    let mut sums = [[_mm512_setzero_ps(); 2]; M];
    let x = tile.x;
    // SAFETY: there are `depth · M` inputs and the weights of `depth` inputs.
    unsafe {
        match tile.weights {
            Weights::F32(weights) => {
                for k in 0..tile.depth {
                    let at = weights.add(k * WIDTH);
                    prefetch(at.wrapping_add(AHEAD * WIDTH).cast());
                    prefetch(at.wrapping_add(AHEAD * WIDTH + LANES).cast());
                    prefetch(x.wrapping_add((k + AHEAD) * M).cast());
                    let both = [_mm512_loadu_ps(at), _mm512_loadu_ps(at.add(LANES))];
                    add_products(&mut sums, x.add(k * M), both);
                }
            }
            Weights::Bf16(words) => {
                for p in 0..tile.depth / 2 {
                    let both = words_at(words.add(p * WIDTH));
                    add_products(&mut sums, x.add(2 * p * M), both.map(|w| lower(w)));
                    add_products(&mut sums, x.add((2 * p + 1) * M), both.map(|w| upper(w)));
                }
                if tile.depth % 2 == 1 {
                    let both = words_at(words.add(tile.depth / 2 * WIDTH));
                    add_products(&mut sums, x.add((tile.depth - 1) * M), both.map(|w| lower(w)));
                }
            }
        }
        for (r, sums) in sums.into_iter().enumerate() {
            for (half, sum) in sums.into_iter().enumerate() {
                let out = tile.out.add(r * tile.out_stride + half * LANES);
                let sum = if tile.adds { _mm512_add_ps(_mm512_loadu_ps(out), sum) } else { sum };
                _mm512_storeu_ps(out, sum);
            }
        }
    }
}

/// Brings what is read soon from the second cache to the first.
#[inline]
fn prefetch(at: *const i8) {
    // SAFETY: a prefetch of any address is none that can fail.
    unsafe { _mm_prefetch::<_MM_HINT_T0>(at) };
}

/// Adds the products of one input.
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn add_products<const M: usize>(
    sums: &mut [[__m512; 2]; M],
    x: *const f32,
    weights: [__m512; 2],
) {
    for (r, sums) in sums.iter_mut().enumerate() {
        // SAFETY: the caller has an input for each row.
        let x = _mm512_set1_ps(unsafe { *x.add(r) });
        sums[0] = _mm512_fmadd_ps(x, weights[0], sums[0]);
        sums[1] = _mm512_fmadd_ps(x, weights[1], sums[1]);
    }
}

#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn words_at(at: *const u32) -> [__m512i; 2] {
    // SAFETY: the caller has `WIDTH` words there.
    unsafe { [_mm512_loadu_si512(at.cast()), _mm512_loadu_si512(at.add(LANES).cast())] }
}

#[inline]
#[target_feature(enable = "avx512f")]
fn lower(words: __m512i) -> __m512 {
    _mm512_castsi512_ps(_mm512_slli_epi32::<16>(words))
}

#[inline]
#[target_feature(enable = "avx512f")]
fn upper(words: __m512i) -> __m512 {
    _mm512_castsi512_ps(_mm512_and_si512(words, _mm512_set1_epi32(0xffff_0000_u32 as i32)))
}

/// As [`Level::widen`](super::Level::widen).
///
/// # Safety
/// As there, and the processor must have AVX-512.
#[target_feature(enable = "avx512f")]
pub(super) unsafe fn widen(count: usize, from: *const u32, to: *mut f32) {
    for p in 0..count {
        // SAFETY: there are `count · WIDTH` words, and room for twice as many numbers.
        unsafe {
            let both = words_at(from.add(p * WIDTH));
            for (half, words) in both.into_iter().enumerate() {
                let to = to.add(2 * p * WIDTH + half * LANES);
                _mm512_storeu_ps(to, lower(words));
                _mm512_storeu_ps(to.add(WIDTH), upper(words));
            }
        }
    }
}

/// As [`Level::turn`](super::Level::turn).
///
/// # Safety
/// As there, and the processor must have AVX-512.
#[target_feature(enable = "avx512f")]
pub(super) unsafe fn turn(square: &Square) {
    let whole = square.words / LANES * LANES;
    let mask = ((1_u32 << square.rows) - 1) as __mmask16;
    for first in (0..whole).step_by(LANES) {
        let mut rows = [_mm512_setzero_si512(); LANES];
        // SAFETY: each row has `words` words, of which these are whole vectors.
        unsafe {
            for (r, row) in rows.iter_mut().take(square.rows).enumerate() {
                let from = square.from.add(r * square.row_bytes + 4 * first);
                *row = _mm512_loadu_si512(from.cast());
            }
            for (c, column) in transposed(rows).into_iter().enumerate() {
                let to = square.to.add((first + c) * square.stride);
                _mm512_mask_storeu_epi32(to.cast(), mask, column);
            }
        }
    }
    // SAFETY: the caller's promise, for what is left of each row.
    unsafe {
        portable::turn(&Square {
            from: square.from.add(4 * whole),
            words: square.words - whole,
            to: square.to.wrapping_add(whole * square.stride),
            ..*square
        });
    }
}

/// Rows and columns of a square of words swapped.
#[inline]
#[target_feature(enable = "avx512f")]
fn transposed(rows: [__m512i; LANES]) -> [__m512i; LANES] {
    let zero = _mm512_setzero_si512();
    // Within quarters: words of pairs of rows, then pairs of words of four rows.
    let mut pairs = [zero; LANES];
    for i in 0..LANES / 2 {
        pairs[2 * i] = _mm512_unpacklo_epi32(rows[2 * i], rows[2 * i + 1]);
        pairs[2 * i + 1] = _mm512_unpackhi_epi32(rows[2 * i], rows[2 * i + 1]);
    }
    let mut fours = [zero; LANES];
    for i in 0..LANES / 4 {
        let of = &pairs[4 * i..4 * i + 4];
        fours[4 * i] = _mm512_unpacklo_epi64(of[0], of[2]);
        fours[4 * i + 1] = _mm512_unpackhi_epi64(of[0], of[2]);
        fours[4 * i + 2] = _mm512_unpacklo_epi64(of[1], of[3]);
        fours[4 * i + 3] = _mm512_unpackhi_epi64(of[1], of[3]);
    }
    // `fours[4 i + c]` has of rows 4 i to 4 i + 3 column c, 4 + c, 8 + c, 12 + c in its quarters.
    let mut columns = [zero; LANES];
    for c in 0..4 {
        let [a, b, d, e] = [fours[c], fours[4 + c], fours[8 + c], fours[12 + c]];
        let (even_low, odd_low) =
            (_mm512_shuffle_i32x4::<0x88>(a, b), _mm512_shuffle_i32x4::<0xdd>(a, b));
        let (even_high, odd_high) =
            (_mm512_shuffle_i32x4::<0x88>(d, e), _mm512_shuffle_i32x4::<0xdd>(d, e));
        columns[c] = _mm512_shuffle_i32x4::<0x88>(even_low, even_high);
        columns[8 + c] = _mm512_shuffle_i32x4::<0xdd>(even_low, even_high);
        columns[4 + c] = _mm512_shuffle_i32x4::<0x88>(odd_low, odd_high);
        columns[12 + c] = _mm512_shuffle_i32x4::<0xdd>(odd_low, odd_high);
    }
    columns
}
