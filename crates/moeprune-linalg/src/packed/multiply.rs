//! Rows times packed weights.
#![expect(
    unsafe_code,
    reason = "kernels take pointers, and threads write to parts of the same rows"
)]

use std::ops::Range;

use rayon::prelude::*;

use super::{
    PackedWeights,
    kernel::{Level, ROWS, Square, Tile, WIDTH, Weights},
    out::Out,
    scratch::with_scratch,
};

/// Products that are summed before a sum is added to the others. Even, since bf16 weights stand in pairs.
const DEPTH: usize = 512;
/// Groups of rows that are computed together at most: at a depth of [`DEPTH`] they stay in the second cache.
const GROUPS: usize = 40;
/// Numbers of rows that are packed together at most.
const PACKED: usize = 1 << 22;
/// Groups of rows from which on it is faster to widen weights once than in each group.
const WIDENED_GROUPS: usize = 3;
/// Multiply-adds below which one thread is faster than waking others (about 0.1 ms).
pub(super) const PARALLEL_WORK: usize = 1 << 23;
/// The rows that reading a weight takes as long as.
const READING: usize = 4;

/// Writes `x · wᵀ` to `out`: `rows` rows of as many numbers as the weights have inputs become as many rows of their
/// outputs. On all threads of the rayon pool if it is worth it.
///
/// Each element is a chain of fused multiply-adds along the inputs, from zero, cut after every 512, and the
/// sums of the pieces added one after the other. So a row has the same bits beside any other rows, with any number of threads,
/// on any processor, and whichever way the same weights are held.
///
/// # Panics
/// If `x` or `out` has not as many numbers.
pub fn multiply_packed(rows: usize, x: &[f32], weights: &PackedWeights, out: &mut [f32]) {
    multiply_at(Level::detected(), rows, x, weights, out);
}

/// The same by a given instruction set.
pub(super) fn multiply_at(
    level: Level,
    rows: usize,
    x: &[f32],
    weights: &PackedWeights,
    out: &mut [f32],
) {
    let (inputs, outputs) = (weights.inputs(), weights.outputs());
    assert_eq!(Some(x.len()), rows.checked_mul(inputs), "{rows} rows of {inputs} inputs");
    assert_eq!(Some(out.len()), rows.checked_mul(outputs), "{rows} rows of {outputs} outputs");
    if inputs == 0 || outputs == 0 {
        out.fill(0.0);
        return;
    }
    let block = (PACKED / inputs).clamp(1, ROWS * GROUPS);
    for (x, out) in x.chunks(block * inputs).zip(out.chunks_mut(block * outputs)) {
        let rows = x.len() / inputs;
        let work = rows.max(READING).saturating_mul(inputs).saturating_mul(outputs);
        let parallel = work >= PARALLEL_WORK && rayon::current_num_threads() > 1;
        let block = Block { level, rows, weights, parallel };
        if rows == 1 {
            // One row is packed as it is.
            block.multiply(x, out);
        } else {
            with_scratch(x.len(), |packed| {
                block.pack(x, packed);
                block.multiply(packed, out);
            });
        }
    }
}

/// Rows that are computed together.
#[derive(Clone, Copy)]
struct Block<'a> {
    level: Level,
    rows: usize,
    weights: &'a PackedWeights,
    parallel: bool,
}

impl Block<'_> {
    fn groups(&self) -> usize {
        self.rows.div_ceil(ROWS)
    }

    /// The rows of a group: groups differ by one at most.
    fn group(&self, group: usize) -> Range<usize> {
        let first = |group: usize| group * self.rows / self.groups();
        first(group)..first(group + 1)
    }

    /// Pieces of the inputs.
    fn depths(&self) -> impl Iterator<Item = Range<usize>> + use<> {
        let inputs = self.weights.inputs();
        (0..inputs).step_by(DEPTH).map(move |first| first..inputs.min(first + DEPTH))
    }

    /// Where the inputs `depth` of the group that begins with row `first` are once they are packed.
    fn packed_at(&self, first: usize, depth: &Range<usize>) -> usize {
        depth.start * self.rows + first * depth.len()
    }

    /// Packs rows: piece after piece of the inputs, in each group after group, in each input after input.
    fn pack(&self, x: &[f32], packed: &mut [f32]) {
        let inputs = self.weights.inputs();
        assert!(x.len() == self.rows * inputs && packed.len() == x.len(), "rows to pack");
        let to = Out(packed.as_mut_ptr());
        let one = |group: usize| {
            let rows = self.group(group);
            for depth in self.depths() {
                let square = Square {
                    from: x[rows.start * inputs + depth.start..].as_ptr().cast(),
                    row_bytes: inputs * size_of::<f32>(),
                    rows: rows.len(),
                    words: depth.len(),
                    to: to.at(self.packed_at(rows.start, &depth)).cast(),
                    stride: rows.len(),
                };
                // SAFETY: the rows of a group are `inputs` numbers each, of which `depth` are some; what is written begins
                // where nothing of other groups and pieces is, `rows · depth` numbers within `packed`.
                unsafe { self.level.turn(&square) };
            }
        };
        if self.parallel {
            (0..self.groups()).into_par_iter().for_each(one);
        } else {
            (0..self.groups()).for_each(one);
        }
    }

    /// `packed` are the packed rows.
    fn multiply(&self, packed: &[f32], out: &mut [f32]) {
        let (panels, groups) = (self.weights.panels(), self.groups());
        assert!(packed.len() == self.rows * self.weights.inputs(), "packed rows");
        assert!(out.len() == self.rows * self.weights.outputs(), "rows of outputs");
        let out = Out(out.as_mut_ptr());
        if !self.parallel {
            self.part(packed, 0..panels, 0..groups, out);
            return;
        }
        // Enough tasks that no thread is left waiting for long.
        let wanted = 4 * rayon::current_num_threads();
        let columns = panels.min(wanted);
        let bands = wanted.div_ceil(columns).min(groups);
        (0..columns * bands).into_par_iter().with_max_len(1).for_each(|task| {
            let (column, band) = (task % columns, task / columns);
            let of = |all: usize, part: usize, parts: usize| {
                part * all / parts..(part + 1) * all / parts
            };
            self.part(packed, of(panels, column, columns), of(groups, band, bands), out);
        });
    }

    /// Some groups of rows times some panels.
    fn part(&self, packed: &[f32], panels: Range<usize>, groups: Range<usize>, out: Out) {
        let widens = groups.len() >= WIDENED_GROUPS;
        with_scratch(if widens { DEPTH * WIDTH } else { 0 }, |wide| {
            for depth in self.depths() {
                for panel in panels.clone() {
                    let mut weights = self.weights.panel(panel, depth.start);
                    if let (Weights::Bf16(words), true) = (weights, widens) {
                        // SAFETY: the panel has the words of these inputs, and there is room for `DEPTH` of them, which
                        // is even.
                        unsafe {
                            self.level.widen(depth.len().div_ceil(2), words, wide.as_mut_ptr());
                        }
                        weights = Weights::F32(wide.as_ptr());
                    }
                    for group in groups.clone() {
                        self.tile(packed, (panel, weights), (group, &depth), out);
                    }
                }
            }
        });
    }

    /// A group of rows times a panel.
    fn tile(
        &self,
        packed: &[f32],
        (panel, weights): (usize, Weights),
        (group, depth): (usize, &Range<usize>),
        out: Out,
    ) {
        let outputs = self.weights.outputs();
        let (rows, first) = (self.group(group), panel * WIDTH);
        let x = &packed[self.packed_at(rows.start, depth)..][..rows.len() * depth.len()];
        let tile = Tile {
            rows: rows.len(),
            depth: depth.len(),
            x: x.as_ptr(),
            weights,
            out: out.at(rows.start * outputs + first),
            out_stride: outputs,
            adds: depth.start > 0,
        };
        let width = WIDTH.min(outputs - first);
        // SAFETY: `x` has the inputs, the panel their weights. Rows of `outputs` numbers are `WIDTH` wide from `first` on,
        // or a tile of its own takes their place. No other task has this group and this panel.
        unsafe {
            if width == WIDTH {
                self.level.multiply(&tile);
            } else {
                self.narrow(&tile, width);
            }
        }
    }

    /// A tile of which only `width` outputs exist.
    ///
    /// # Safety
    /// As [`Level::multiply`], for so many outputs.
    unsafe fn narrow(&self, tile: &Tile, width: usize) {
        let mut whole = [0.0_f32; ROWS * WIDTH];
        // SAFETY: `whole` has `WIDTH` numbers for each row; the caller's promise for `width` of the output.
        unsafe {
            for r in 0..tile.rows {
                let from = tile.out.add(r * tile.out_stride);
                std::ptr::copy_nonoverlapping(from, whole[r * WIDTH..].as_mut_ptr(), width);
            }
            self.level.multiply(&Tile { out: whole.as_mut_ptr(), out_stride: WIDTH, ..*tile });
            for r in 0..tile.rows {
                let to = tile.out.add(r * tile.out_stride);
                std::ptr::copy_nonoverlapping(whole[r * WIDTH..].as_ptr(), to, width);
            }
        }
    }
}
