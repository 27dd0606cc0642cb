//! Kernels of any processor. They define the bits that the others give.

use super::{Square, Tile, WIDTH, Weights};

/// As [`Level::multiply`](super::Level::multiply).
///
/// # Safety
/// As there.
pub(super) unsafe fn multiply(tile: &Tile) {
    for r in 0..tile.rows {
        let mut sums = [0.0_f32; WIDTH];
        for k in 0..tile.depth {
            // SAFETY: the tile's inputs are `depth · rows` numbers, its weights those of `depth` inputs.
            let (x, weights) =
                unsafe { (*tile.x.add(k * tile.rows + r), weights(tile.weights, k)) };
            for (sum, weight) in sums.iter_mut().zip(weights) {
                *sum = x.mul_add(weight, *sum);
            }
        }
        for (j, sum) in sums.iter().enumerate() {
            // SAFETY: each row of the output is `WIDTH` numbers.
            let out = unsafe { &mut *tile.out.add(r * tile.out_stride + j) };
            *out = if tile.adds { *out + sum } else { *sum };
        }
    }
}

/// The weights of an input.
///
/// # Safety
/// There must be so many.
#[inline(always)]
unsafe fn weights(weights: Weights, k: usize) -> [f32; WIDTH] {
    match weights {
        // SAFETY: the caller's promise.
        Weights::F32(weights) => unsafe { weights.add(k * WIDTH).cast::<[f32; WIDTH]>().read() },
        Weights::Bf16(words) => {
            // SAFETY: the caller's promise.
            let words = unsafe { words.add(k / 2 * WIDTH).cast::<[u32; WIDTH]>().read() };
            words.map(|word| half(word, k % 2))
        }
    }
}

/// The lower half of a word, or the upper one, as a bf16.
#[inline(always)]
fn half(word: u32, upper: usize) -> f32 {
    f32::from_bits(if upper == 0 { word << 16 } else { word & 0xffff_0000 })
}

/// As [`Level::turn`](super::Level::turn).
///
/// # Safety
/// As there.
pub(super) unsafe fn turn(square: &Square) {
    // A cache line of each row at a time.
    for first in (0..square.words).step_by(16) {
        for r in 0..square.rows {
            for c in first..square.words.min(first + 16) {
                // SAFETY: each row has `words` words, each of the other side's `rows`.
                unsafe {
                    let word = square.from.add(r * square.row_bytes + 4 * c).cast::<u32>();
                    *square.to.add(c * square.stride + r) = word.read_unaligned();
                }
            }
        }
    }
}

/// As [`Level::widen`](super::Level::widen).
///
/// # Safety
/// As there.
pub(super) unsafe fn widen(count: usize, from: *const u32, to: *mut f32) {
    for p in 0..count {
        for j in 0..WIDTH {
            // SAFETY: there are `count · WIDTH` words, and room for twice as many numbers.
            unsafe {
                let word = *from.add(p * WIDTH + j);
                *to.add(2 * p * WIDTH + j) = half(word, 0);
                *to.add((2 * p + 1) * WIDTH + j) = half(word, 1);
            }
        }
    }
}
