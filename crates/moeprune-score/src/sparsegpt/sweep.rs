//! Walking the columns of a block: a weight that goes is made up for by those right of it.
//!
//! Rows are independent of each other. They are turned, 32 at a time, so that they are side by side
//! and one instruction works on many; a column is then changed by all errors left of it at once,
//! in the order they were made.

use crate::{NOfM, simd::dispatched};

/// Rows that are walked side by side.
pub(super) const LANES: usize = 32;
/// A column of them.
pub(super) type Column = [f32; LANES];

/// What a thread needs to walk one tile of rows after another.
#[derive(Default)]
pub(super) struct Tile {
    /// The weights, column by column.
    pub(super) weights: Vec<Column>,
    /// Which of them go.
    pub(super) gone: Vec<[bool; LANES]>,
    /// By how much each one that went was off, over `U_jj`.
    pub(super) errors: Vec<Column>,
    scores: Vec<Column>,
}

impl Tile {
    /// Makes room for `width` columns, all zero and none of them going.
    pub(super) fn clear(&mut self, width: usize) {
        for columns in [&mut self.weights, &mut self.errors, &mut self.scores] {
            columns.clear();
            columns.resize(width, [0.0; LANES]);
        }
        self.gone.clear();
        self.gone.resize(width, [false; LANES]);
    }

    /// Zeroes what goes, changes the columns right of it and notes the errors.
    ///
    /// `upper` is the block of `U` on the diagonal, transposed: row `k` holds `U_0k … U_kk`. With a
    /// `group`, which weights go is chosen on the way, when all columns left of a group are done.
    pub(super) fn walk(&mut self, level: crate::simd::Level, upper: &[f32], group: Option<NOfM>) {
        let Self { weights, gone, errors, scores } = self;
        match group {
            None => walk(level, weights, gone, errors, upper),
            Some(group) => walk_groups(level, weights, gone, errors, upper, group, scores),
        }
    }
}

dispatched! {
    fn walk(
        weights: &mut [Column],
        gone: &[[bool; LANES]],
        errors: &mut [Column],
        upper: &[f32],
    ) {
        let width = weights.len();
        for col in 0..width {
            let factors = &upper[col * width..][..=col];
            let weight = without(weights[col], &errors[..col], factors);
            (weights[col], errors[col]) = settled(weight, &gone[col], factors[col]);
        }
    }
}

dispatched! {
    fn walk_groups(
        weights: &mut [Column],
        gone: &mut [[bool; LANES]],
        errors: &mut [Column],
        upper: &[f32],
        group: NOfM,
        scores: &mut [Column],
    ) {
        let width = weights.len();
        for start in (0..width).step_by(group.m()) {
            let end = width.min(start + group.m());
            for col in start..end {
                let factors = &upper[col * width..][..=col];
                weights[col] = without(weights[col], &errors[..start], factors);
                scores[col] = weights[col].map(|weight| weight.abs() / factors[col]);
            }
            choose(&scores[start..end], group.of(end - start), &mut gone[start..end]);
            for col in start..end {
                let factors = &upper[col * width..][..=col];
                let weight = without(weights[col], &errors[start..col], &factors[start..]);
                (weights[col], errors[col]) = settled(weight, &gone[col], factors[col]);
            }
        }
    }
}

/// A column changed for the errors left of it.
#[inline(always)]
fn without(mut weights: Column, errors: &[Column], factors: &[f32]) -> Column {
    for (errors, factor) in errors.iter().zip(factors) {
        for (weight, error) in weights.iter_mut().zip(errors) {
            *weight -= error * factor;
        }
    }
    weights
}

/// A column after some of its weights went, and the errors that makes.
#[inline(always)]
fn settled(weights: Column, gone: &[bool; LANES], diagonal: f32) -> (Column, Column) {
    let (mut kept, mut errors) = (weights, [0.0; LANES]);
    for (((kept, error), weight), &gone) in kept.iter_mut().zip(&mut errors).zip(weights).zip(gone)
    {
        *kept = if gone { 0.0 } else { weight };
        *error = if gone { weight / diagonal } else { 0.0 };
    }
    (kept, errors)
}

/// Marks the `count` lowest scores of each row, of equal ones those in the lower columns: those
/// that fewer than `count` others come before.
#[inline(always)]
fn choose(scores: &[Column], count: usize, gone: &mut [[bool; LANES]]) {
    for (col, (mine, gone)) in scores.iter().zip(gone).enumerate() {
        let mut before = [0u32; LANES];
        for other in &scores[..col] {
            for ((before, other), mine) in before.iter_mut().zip(other).zip(mine) {
                *before += u32::from(other <= mine);
            }
        }
        for other in &scores[col + 1..] {
            for ((before, other), mine) in before.iter_mut().zip(other).zip(mine) {
                *before += u32::from(other < mine);
            }
        }
        *gone = before.map(|before| (before as usize) < count);
    }
}

#[cfg(test)]
mod tests {
    use super::{LANES, Tile};
    use crate::{NOfM, simd::same_at_all_levels};

    #[test]
    fn all_levels_walk_alike() {
        for width in [1usize, 2, 7, 64, 130] {
            let upper: Vec<f32> = (0..width * width)
                .map(|at| {
                    let (col, row) = (at / width, at % width);
                    if row == col { 1.0 + col as f32 * 0.01 } else { (at % 23) as f32 * 0.01 - 0.1 }
                })
                .collect();
            for group in [None, Some(NOfM::new(2, 4).unwrap()), Some(NOfM::new(5, 9).unwrap())] {
                let gone = same_at_all_levels(|level| {
                    let mut tile = Tile::default();
                    tile.clear(width);
                    for (at, weight) in tile.weights.as_flattened_mut().iter_mut().enumerate() {
                        *weight = (at * 7919 % 101) as f32 - 50.0;
                    }
                    for (at, gone) in tile.gone.as_flattened_mut().iter_mut().enumerate() {
                        *gone = group.is_none() && at % 3 == 0;
                    }
                    tile.walk(level, &upper, group);
                    let bits = |columns: &[[f32; LANES]]| -> Vec<u32> {
                        columns.as_flattened().iter().map(|x| x.to_bits()).collect()
                    };
                    (bits(&tile.weights), bits(&tile.errors), tile.gone)
                })
                .2;
                if let Some(group) = group {
                    for lane in 0..LANES {
                        for columns in gone.chunks(group.m()) {
                            let count = columns.iter().filter(|column| column[lane]).count();
                            assert_eq!(count, group.of(columns.len()));
                        }
                    }
                }
            }
        }
    }
}
