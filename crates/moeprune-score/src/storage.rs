//! Rows of weights in the bytes of a tensor.
//!
//! Numbers that stand by themselves have loops per type, compiled per instruction set. Rows in any
//! other encoding go through [`Encoding`](moeprune_core::Encoding), a call per row.

use moeprune_core::{StoredWeight, encoding::Float};

use crate::{
    rank::{UNRANKABLE, rank_key},
    simd::{Level, dispatched, prefetch},
};

/// How the rows of a matrix are stored.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Storage<'a> {
    /// Numbers of one type, one after the other.
    Plain(Float),
    /// Anything else.
    Encoded(&'a StoredWeight<'a>),
}

impl<'a> Storage<'a> {
    pub(crate) fn of(weight: &'a StoredWeight<'_>) -> Self {
        match weight.encoding().float() {
            Some(float) => Self::Plain(float),
            None => Self::Encoded(weight),
        }
    }

    /// Bytes of a row of `cols` numbers; none of a weight that is read through its encoding.
    pub(crate) fn row_bytes(self, cols: usize) -> usize {
        match self {
            Self::Plain(float) => cols * float.size(),
            Self::Encoded(_) => 0,
        }
    }

    /// The bytes of row `index` of `cols` numbers in those of the main tensor; none of a weight that
    /// is read through its encoding.
    pub(crate) fn row(self, main: &[u8], index: usize, cols: usize) -> &[u8] {
        match self {
            Self::Plain(_) => &main[index * self.row_bytes(cols)..][..self.row_bytes(cols)],
            Self::Encoded(_) => &[],
        }
    }

    /// How many rows are best decoded together.
    pub(crate) fn rows_together(self) -> usize {
        match self {
            Self::Plain(_) => 1,
            Self::Encoded(weight) => weight.rows_together(),
        }
    }

    /// Decodes row `index`, of which the bytes are `main`, and as many after it as there is room for if
    /// they are read through their encoding; exact.
    pub(crate) fn decode(self, level: Level, index: usize, main: &[u8], weights: &mut [f32]) {
        match self {
            Self::Plain(Float::F32) => decode_f32(level, main, weights),
            Self::Plain(Float::F16) => decode_f16(level, main, weights),
            Self::Plain(Float::Bf16) => decode_bf16(level, main, weights),
            Self::Encoded(weight) => {
                let cols = weight.cols();
                let rows = weight.some(index, weights.len() / cols.max(1));
                weight.encoding().decode(rows, 0..cols, weights);
            }
        }
    }

    /// Marks the columns of row `index` whose weights have no code that is zero, and counts them.
    pub(crate) fn mark_without_zero(self, index: usize, cols: usize, marks: &mut Vec<bool>) -> u64 {
        match self {
            Self::Plain(_) => 0,
            Self::Encoded(weight) => {
                marks.resize(cols, false);
                weight.encoding().mark_without_zero(weight.some(index, 1), marks)
            }
        }
    }

    /// Scores a row by `|w_j| · factor_j`; whether all scores can be ranked. `None` if the weights
    /// must be decoded first.
    pub(crate) fn score(
        self,
        level: Level,
        row: &[u8],
        factors: &[f32],
        scores: &mut [f32],
    ) -> Option<bool> {
        match self {
            Self::Plain(Float::F32) => Some(score_f32(level, row, factors, scores)),
            Self::Plain(Float::F16) => Some(score_f16(level, row, factors, scores)),
            Self::Plain(Float::Bf16) => Some(score_bf16(level, row, factors, scores)),
            Self::Encoded(_) => None,
        }
    }
}

/// Writes plus zero where `mask` is set, which is all bits zero in every plain type.
pub(crate) fn zero(float: Float, level: Level, row: &mut [u8], mask: &[bool]) {
    match float {
        Float::F32 => zero_4(level, row, mask),
        Float::F16 | Float::Bf16 => zero_2(level, row, mask),
    }
}

/// Copies `from` to `row` but for plus zero where `mask` is set.
pub(crate) fn copy(float: Float, level: Level, from: &[u8], row: &mut [u8], mask: &[bool]) {
    match float {
        Float::F32 => copy_4(level, from, row, mask),
        Float::F16 | Float::Bf16 => copy_2(level, from, row, mask),
    }
}

dispatched! {
    fn decode_f32(row: &[u8], weights: &mut [f32]) {
        for (weight, &bytes) in weights.iter_mut().zip(row.as_chunks::<4>().0) {
            *weight = f32(bytes);
        }
    }
}

dispatched! {
    fn decode_f16(row: &[u8], weights: &mut [f32]) {
        for (weight, &bytes) in weights.iter_mut().zip(row.as_chunks::<2>().0) {
            *weight = f16(bytes);
        }
    }
}

dispatched! {
    fn decode_bf16(row: &[u8], weights: &mut [f32]) {
        for (weight, &bytes) in weights.iter_mut().zip(row.as_chunks::<2>().0) {
            *weight = bf16(bytes);
        }
    }
}

dispatched! {
    fn score_f32(row: &[u8], factors: &[f32], scores: &mut [f32]) -> bool {
        score(row, factors, scores, f32)
    }
}

dispatched! {
    fn score_f16(row: &[u8], factors: &[f32], scores: &mut [f32]) -> bool {
        score(row, factors, scores, f16)
    }
}

dispatched! {
    fn score_bf16(row: &[u8], factors: &[f32], scores: &mut [f32]) -> bool {
        score(row, factors, scores, bf16)
    }
}

/// Scores a row, and prefetches the bytes of the next one: matrices come from memory slower than
/// they are scored, and rows follow each other there.
#[inline(always)]
fn score<const N: usize>(
    row: &[u8],
    factors: &[f32],
    scores: &mut [f32],
    decode: impl Fn([u8; N]) -> f32 + Copy,
) -> bool {
    const BLOCK: usize = 256;
    let mut worst = 0;
    let blocks = row.chunks(BLOCK * N).zip(factors.chunks(BLOCK)).zip(scores.chunks_mut(BLOCK));
    for ((bytes, factors), scores) in blocks {
        prefetch(bytes.as_ptr().wrapping_add(row.len()), bytes.len());
        let weights = bytes.as_chunks::<N>().0.iter().map(|&bytes| decode(bytes));
        for ((score, weight), factor) in scores.iter_mut().zip(weights).zip(factors) {
            *score = weight.abs() * factor;
            worst = rank_key(*score).max(worst);
        }
    }
    worst < UNRANKABLE
}

dispatched! {
    fn zero_4(row: &mut [u8], mask: &[bool]) {
        for (bytes, &gone) in row.as_chunks_mut::<4>().0.iter_mut().zip(mask) {
            *bytes = kept_4(*bytes, gone);
        }
    }
}

dispatched! {
    fn zero_2(row: &mut [u8], mask: &[bool]) {
        for (bytes, &gone) in row.as_chunks_mut::<2>().0.iter_mut().zip(mask) {
            *bytes = kept_2(*bytes, gone);
        }
    }
}

dispatched! {
    fn copy_4(from: &[u8], row: &mut [u8], mask: &[bool]) {
        let from = from.as_chunks::<4>().0;
        for ((bytes, &old), &gone) in row.as_chunks_mut::<4>().0.iter_mut().zip(from).zip(mask) {
            *bytes = kept_4(old, gone);
        }
    }
}

dispatched! {
    fn copy_2(from: &[u8], row: &mut [u8], mask: &[bool]) {
        let from = from.as_chunks::<2>().0;
        for ((bytes, &old), &gone) in row.as_chunks_mut::<2>().0.iter_mut().zip(from).zip(mask) {
            *bytes = kept_2(old, gone);
        }
    }
}

/// The bytes, or zero. Arithmetic, not a choice: what comes of it is always written.
#[inline(always)]
fn kept_4(bytes: [u8; 4], gone: bool) -> [u8; 4] {
    (u32::from_le_bytes(bytes) & u32::from(gone).wrapping_sub(1)).to_le_bytes()
}

#[inline(always)]
fn kept_2(bytes: [u8; 2], gone: bool) -> [u8; 2] {
    (u16::from_le_bytes(bytes) & u16::from(gone).wrapping_sub(1)).to_le_bytes()
}

#[inline(always)]
fn f32(bytes: [u8; 4]) -> f32 {
    f32::from_le_bytes(bytes)
}

#[inline(always)]
fn bf16(bytes: [u8; 2]) -> f32 {
    f32::from_bits(u32::from(u16::from_le_bytes(bytes)) << 16)
}

/// Exact, in operations that all vector units have.
#[inline(always)]
fn f16(bytes: [u8; 2]) -> f32 {
    /// What to add to the exponent of an f16 to make it that of an f32.
    const REBIAS: u32 = (127 - 15) << 23;
    /// The smallest normal f16.
    const SMALLEST: u32 = (127 - 14) << 23;
    let bits = u16::from_le_bytes(bytes);
    let sign = u32::from(bits & 0x8000) << 16;
    let rest = u32::from(bits & 0x7fff);
    let normal = (rest << 13) + REBIAS;
    // The largest exponent stands for infinity and NaN, and stays the largest.
    let normal = if rest >= 0x7c00 { normal + REBIAS } else { normal };
    // Below the smallest normal number, the mantissa counts steps of 2^-24: as the mantissa of
    // that number it does the same, beyond its leading one.
    let subnormal = f32::from_bits((rest << 13) + SMALLEST) - f32::from_bits(SMALLEST);
    f32::from_bits(sign | if rest < 0x0400 { subnormal.to_bits() } else { normal })
}

#[cfg(test)]
mod tests {
    use moeprune_core::encoding::Float;

    use super::{Storage, copy, zero};
    use crate::simd::same_at_all_levels;

    #[test]
    fn every_f16() {
        for bits in 0..=u16::MAX {
            let got = super::f16(bits.to_le_bytes());
            let expected = half::f16::from_bits(bits).to_f32();
            let same = got.to_bits() == expected.to_bits() || (got.is_nan() && expected.is_nan());
            assert!(same, "{bits:#06x}: {got} instead of {expected}");
        }
    }

    /// Every 16-bit pattern and then some, at lengths that leave a rest.
    #[test]
    fn all_levels_decode_and_zero_alike() {
        let bytes: Vec<u8> = (0..=u16::MAX).flat_map(u16::to_le_bytes).chain([7; 28]).collect();
        for float in [Float::F32, Float::F16, Float::Bf16] {
            let (storage, len) = (Storage::Plain(float), bytes.len() / float.size());
            let mask: Vec<bool> = (0..len).map(|j| j * j % 7 < 3).collect();
            let decoded = same_at_all_levels(|level| {
                let mut weights = vec![1.5; len];
                storage.decode(level, 0, &bytes, &mut weights);
                weights.into_iter().map(f32::to_bits).collect::<Vec<_>>()
            });
            let zeroed = same_at_all_levels(|level| {
                let (mut zeroed, mut copied) = (bytes.clone(), vec![1; bytes.len()]);
                zero(float, level, &mut zeroed, &mask);
                copy(float, level, &bytes, &mut copied, &mask);
                assert!(zeroed == copied, "{storage:?}");
                zeroed
            });
            let after = same_at_all_levels(|level| {
                let mut weights = vec![1.5; len];
                storage.decode(level, 0, &zeroed, &mut weights);
                weights.into_iter().map(f32::to_bits).collect::<Vec<_>>()
            });
            let factors: Vec<f32> = (0..len).map(|j| j as f32 * 1e-3).collect();
            let scores = same_at_all_levels(|level| {
                let mut scores = vec![1.5; len];
                let all = storage.score(level, &bytes, &factors, &mut scores);
                assert!(all == Some(false), "some are infinite or not numbers");
                scores.into_iter().map(f32::to_bits).collect::<Vec<_>>()
            });
            let by_one = |j: usize| (f32::from_bits(decoded[j]).abs() * factors[j]).to_bits();
            assert!((0..len).all(|j| scores[j] == by_one(j) || f32::from_bits(scores[j]).is_nan()));
            for j in 0..len {
                assert_eq!(after[j], if mask[j] { 0 } else { decoded[j] }, "{storage:?} {j}");
            }
        }
    }
}
