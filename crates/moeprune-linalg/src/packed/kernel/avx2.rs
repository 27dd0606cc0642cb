//! Kernels of AVX2 with fused multiply-adds: half a row of a tile is two vectors.

use std::arch::x86_64::*;

use super::{Tile, WIDTH, Weights};

/// Numbers of a vector.
const LANES: usize = 8;
/// Rows at a time: their sums and two vectors of weights fit the registers.
const ROWS: usize = 6;

/// As [`Level::multiply`](super::Level::multiply).
///
/// # Safety
/// As there, and the processor must have AVX2 and FMA.
#[target_feature(enable = "avx2,fma")]
pub(super) unsafe fn multiply(tile: &Tile) {
    for first in (0..tile.rows).step_by(ROWS) {
        for column in [0, WIDTH / 2] {
            // SAFETY: the caller's promise.
            unsafe {
                match ROWS.min(tile.rows - first) {
                    1 => part_of::<1>(tile, first, column),
                    2 => part_of::<2>(tile, first, column),
                    3 => part_of::<3>(tile, first, column),
                    4 => part_of::<4>(tile, first, column),
                    5 => part_of::<5>(tile, first, column),
                    _ => part_of::<ROWS>(tile, first, column),
                }
            }
        }
    }
}

/// `M` rows from `first` on, of the outputs from `column` on two vectors.
#[target_feature(enable = "avx2,fma")]
unsafe fn part_of<const M: usize>(tile: &Tile, first: usize, column: usize) {
    let mut sums = [[_mm256_setzero_ps(); 2]; M];
    // SAFETY: there are `depth · rows` inputs and the weights of `depth` inputs.
    unsafe {
        let x = |k: usize| tile.x.add(k * tile.rows + first);
        match tile.weights {
            Weights::F32(weights) => {
                for k in 0..tile.depth {
                    let at = weights.add(k * WIDTH + column);
                    let both = [_mm256_loadu_ps(at), _mm256_loadu_ps(at.add(LANES))];
                    add_products(&mut sums, x(k), both);
                }
            }
            Weights::Bf16(words) => {
                for p in 0..tile.depth / 2 {
                    let both = words_at(words.add(p * WIDTH + column));
                    add_products(&mut sums, x(2 * p), both.map(|w| lower(w)));
                    add_products(&mut sums, x(2 * p + 1), both.map(|w| upper(w)));
                }
                if tile.depth % 2 == 1 {
                    let both = words_at(words.add(tile.depth / 2 * WIDTH + column));
                    add_products(&mut sums, x(tile.depth - 1), both.map(|w| lower(w)));
                }
            }
        }
        for (r, sums) in sums.into_iter().enumerate() {
            for (half, sum) in sums.into_iter().enumerate() {
                let out = tile.out.add((first + r) * tile.out_stride + column + half * LANES);
                let sum = if tile.adds { _mm256_add_ps(_mm256_loadu_ps(out), sum) } else { sum };
                _mm256_storeu_ps(out, sum);
            }
        }
    }
}

/// Adds the products of one input.
#[inline]
#[target_feature(enable = "avx2,fma")]
unsafe fn add_products<const M: usize>(
    sums: &mut [[__m256; 2]; M],
    x: *const f32,
    weights: [__m256; 2],
) {
    for (r, sums) in sums.iter_mut().enumerate() {
        // SAFETY: the caller has an input for each row.
        let x = _mm256_set1_ps(unsafe { *x.add(r) });
        sums[0] = _mm256_fmadd_ps(x, weights[0], sums[0]);
        sums[1] = _mm256_fmadd_ps(x, weights[1], sums[1]);
    }
}

#[inline]
#[target_feature(enable = "avx2")]
unsafe fn words_at(at: *const u32) -> [__m256i; 2] {
    // SAFETY: the caller has two vectors there.
    unsafe { [_mm256_loadu_si256(at.cast()), _mm256_loadu_si256(at.add(LANES).cast())] }
}

#[inline]
#[target_feature(enable = "avx2")]
fn lower(words: __m256i) -> __m256 {
    _mm256_castsi256_ps(_mm256_slli_epi32::<16>(words))
}

#[inline]
#[target_feature(enable = "avx2")]
fn upper(words: __m256i) -> __m256 {
    _mm256_castsi256_ps(_mm256_and_si256(words, _mm256_set1_epi32(0xffff_0000_u32 as i32)))
}

/// As [`Level::widen`](super::Level::widen).
///
/// # Safety
/// As there, and the processor must have AVX2.
#[target_feature(enable = "avx2")]
pub(super) unsafe fn widen(count: usize, from: *const u32, to: *mut f32) {
    for p in 0..count {
        for column in (0..WIDTH).step_by(2 * LANES) {
            // SAFETY: there are `count · WIDTH` words, and room for twice as many numbers.
            unsafe {
                let both = words_at(from.add(p * WIDTH + column));
                for (half, words) in both.into_iter().enumerate() {
                    let to = to.add(2 * p * WIDTH + column + half * LANES);
                    _mm256_storeu_ps(to, lower(words));
                    _mm256_storeu_ps(to.add(WIDTH), upper(words));
                }
            }
        }
    }
}
