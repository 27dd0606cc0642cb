//! The innermost loops of products with packed weights, one for each instruction set.
//!
//! All give the same bits: of each element one chain of fused multiply-adds along the inputs, from zero.
#![expect(unsafe_code, reason = "kernels read and write through pointers")]

#[cfg(target_arch = "x86_64")]
pub(super) mod amx;
#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod portable;

use std::sync::OnceLock;

/// Rows of a tile at most: their sums and two vectors of weights fill the registers of AVX-512.
pub(super) const ROWS: usize = 12;
/// Outputs of a panel.
pub(super) const WIDTH: usize = 32;

/// Some rows times some inputs of a panel.
#[derive(Debug, Clone, Copy)]
pub(super) struct Tile {
    /// From 1 to [`ROWS`].
    pub(super) rows: usize,
    /// Inputs.
    pub(super) depth: usize,
    /// Input `k` of row `r` is at `k · rows + r`.
    pub(super) x: *const f32,
    pub(super) weights: Weights,
    /// Element `j` of row `r` is at `r · out_stride + j`, for `j` below [`WIDTH`].
    pub(super) out: *mut f32,
    pub(super) out_stride: usize,
    /// Whether the product is added to what is there.
    pub(super) adds: bool,
}

/// Weights of a panel, from some input on.
#[derive(Debug, Clone, Copy)]
pub(super) enum Weights {
    /// That of input `k` and output `j` is at `k · WIDTH + j`.
    F32(*const f32),
    /// Those of inputs `2 p` and `2 p + 1` are the lower and the upper half of word `p · WIDTH + j`.
    Bf16(*const u32),
}

/// A square of words of which the other side is wanted: word `c` of row `r`, `row_bytes · r + 4 · c` bytes from
/// `from`, goes to `to[c · stride + r]`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Square {
    pub(super) from: *const u8,
    pub(super) row_bytes: usize,
    /// At most 16.
    pub(super) rows: usize,
    pub(super) words: usize,
    pub(super) to: *mut u32,
    pub(super) stride: usize,
}

/// An instruction set that this machine has been seen to have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Level(Set);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Set {
    Portable,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    #[cfg(target_arch = "x86_64")]
    Avx512,
}

impl Level {
    /// The widest that this machine has.
    pub(super) fn detected() -> Self {
        static DETECTED: OnceLock<Level> = OnceLock::new();
        *DETECTED.get_or_init(|| *Self::all().last().unwrap_or(&Self(Set::Portable)))
    }

    /// What this machine has, the narrowest first.
    pub(super) fn all() -> Vec<Self> {
        let mut levels = vec![Self(Set::Portable)];
        #[cfg(target_arch = "x86_64")]
        {
            let avx2 = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
            if avx2 {
                levels.push(Self(Set::Avx2));
            }
            if avx2 && is_x86_feature_detected!("avx512f") {
                levels.push(Self(Set::Avx512));
            }
        }
        levels
    }

    /// What it is called.
    pub(super) fn name(self) -> &'static str {
        match self.0 {
            Set::Portable => "portable",
            #[cfg(target_arch = "x86_64")]
            Set::Avx2 => "AVX2",
            #[cfg(target_arch = "x86_64")]
            Set::Avx512 => "AVX-512",
        }
    }

    /// Computes a tile.
    ///
    /// # Safety
    /// What [`Tile`] says of its pointers must hold, and nothing else use what `out` points to.
    pub(super) unsafe fn multiply(self, tile: &Tile) {
        debug_assert!((1..=ROWS).contains(&tile.rows));
        // SAFETY: the caller's promise; a `Level` is only made where its features were detected.
        unsafe {
            match self.0 {
                Set::Portable => portable::multiply(tile),
                #[cfg(target_arch = "x86_64")]
                Set::Avx2 => avx2::multiply(tile),
                #[cfg(target_arch = "x86_64")]
                Set::Avx512 => avx512::multiply(tile),
            }
        }
    }

    /// Turns a square.
    ///
    /// # Safety
    /// What [`Square`] says of its pointers must hold, and nothing else use what `to` points to.
    pub(super) unsafe fn turn(self, square: &Square) {
        debug_assert!(square.rows <= 16);
        // SAFETY: the caller's promise; a `Level` is only made where its features were detected.
        unsafe {
            match self.0 {
                #[cfg(target_arch = "x86_64")]
                Set::Avx512 => avx512::turn(square),
                #[cfg(target_arch = "x86_64")]
                Set::Avx2 => avx2::turn(square),
                Set::Portable => portable::turn(square),
            }
        }
    }

    /// Writes `count` pairs of bf16 as two f32 each: of word `p · WIDTH + j` the lower half to
    /// `2 p · WIDTH + j`, the upper one to `(2 p + 1) · WIDTH + j`.
    ///
    /// # Safety
    /// `count · WIDTH` words are read at `from`, and twice as many written at `to`.
    pub(super) unsafe fn widen(self, count: usize, from: *const u32, to: *mut f32) {
        // SAFETY: the caller's promise; a `Level` is only made where its features were detected.
        unsafe {
            match self.0 {
                #[cfg(target_arch = "x86_64")]
                Set::Avx512 => avx512::widen(count, from, to),
                #[cfg(target_arch = "x86_64")]
                Set::Avx2 => avx2::widen(count, from, to),
                Set::Portable => portable::widen(count, from, to),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn squares_are_turned() {
        fn check(rows: usize, words: usize, spare: usize) {
            let (width, stride) = (words + spare, rows + spare);
            let from: Vec<u32> = (1..=(rows * width) as u32).collect();
            let mut expected = vec![0; words * stride];
            for (r, c) in (0..rows).flat_map(|r| (0..words).map(move |c| (r, c))) {
                expected[c * stride + r] = from[r * width + c];
            }
            for level in Level::all() {
                let mut to = vec![0; words * stride];
                let square = Square {
                    from: from.as_ptr().cast(),
                    row_bytes: 4 * width,
                    rows,
                    words,
                    to: to.as_mut_ptr(),
                    stride,
                };
                // SAFETY: `rows` rows of `width` words, and `words` of `stride`.
                unsafe { level.turn(&square) };
                assert_eq!(to, expected, "{rows} × {words}, {level:?}");
            }
        }
        for rows in 0..=16 {
            for words in [0, 1, 7, 8, 15, 16, 17, 33, 48] {
                check(rows, words, 0);
                check(rows, words, 3);
            }
        }
    }
}
