//! Kernels of AVX2 with fused multiply-adds: half a row of a tile is two vectors.

use std::arch::x86_64::*;

use super::{Square, Tile, WIDTH, Weights, portable};

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

/// As [`Level::turn`](super::Level::turn).
///
/// # Safety
/// As there, and the processor must have AVX2.
#[target_feature(enable = "avx2")]
pub(super) unsafe fn turn(square: &Square) {
    /// Words of a cache line: rows that are powers of two apart push each other's lines out, so all of a line is used at once.
    const LINE: usize = 2 * LANES;
    let whole = square.words / LINE * LINE;
    for first in (0..whole).step_by(LINE) {
        for row in (0..square.rows).step_by(LANES) {
            for half in [first, first + LANES] {
                // SAFETY: each row has `words` words, of which these are whole vectors.
                unsafe { turn_vectors(square, row, half) };
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

/// Turns one vector of words from `first` on, of up to as many rows from `row` on.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn turn_vectors(square: &Square, row: usize, first: usize) {
    let count = LANES.min(square.rows - row);
    let mut rows = [_mm256_setzero_si256(); LANES];
    // SAFETY: the caller has so many words in each of `count` rows, and the place of each on the other side.
    unsafe {
        for (r, words) in rows.iter_mut().take(count).enumerate() {
            let from = square.from.add((row + r) * square.row_bytes + 4 * first);
            *words = _mm256_loadu_si256(from.cast());
        }
        for (c, column) in transposed(rows).into_iter().enumerate() {
            let to = square.to.add((first + c) * square.stride + row);
            if count == LANES {
                _mm256_storeu_si256(to.cast(), column);
            } else {
                _mm256_maskstore_epi32(to.cast(), first_lanes(count), column);
            }
        }
    }
}

/// A mask of the first lanes.
#[inline]
#[target_feature(enable = "avx2")]
fn first_lanes(count: usize) -> __m256i {
    let places = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    _mm256_cmpgt_epi32(_mm256_set1_epi32(count as i32), places)
}

/// Rows and columns of a square of words swapped.
#[inline]
#[target_feature(enable = "avx2")]
fn transposed(rows: [__m256i; LANES]) -> [__m256i; LANES] {
    let zero = _mm256_setzero_si256();
    // Within halves: words of pairs of rows, then pairs of words of four rows.
    let mut pairs = [zero; LANES];
    for i in 0..LANES / 2 {
        pairs[2 * i] = _mm256_unpacklo_epi32(rows[2 * i], rows[2 * i + 1]);
        pairs[2 * i + 1] = _mm256_unpackhi_epi32(rows[2 * i], rows[2 * i + 1]);
    }
    let mut fours = [zero; LANES];
    for i in 0..LANES / 4 {
        let of = &pairs[4 * i..4 * i + 4];
        fours[4 * i] = _mm256_unpacklo_epi64(of[0], of[2]);
        fours[4 * i + 1] = _mm256_unpackhi_epi64(of[0], of[2]);
        fours[4 * i + 2] = _mm256_unpacklo_epi64(of[1], of[3]);
        fours[4 * i + 3] = _mm256_unpackhi_epi64(of[1], of[3]);
    }
    // `fours[4 i + c]` has of rows 4 i to 4 i + 3 column c and 4 + c in its halves.
    let mut columns = [zero; LANES];
    for c in 0..4 {
        columns[c] = _mm256_permute2x128_si256::<0x20>(fours[c], fours[4 + c]);
        columns[4 + c] = _mm256_permute2x128_si256::<0x31>(fours[c], fours[4 + c]);
    }
    columns
}
