//! Rows times packed weights in bf16, by tiles (AMX) where there are some.

use super::PackedWeights;

/// Whether this machine has tiles for products in bf16, with the leave of its system to use them.
#[must_use]
pub fn has_tiles() -> bool {
    #[cfg(target_arch = "x86_64")]
    return by_amx::Amx::detected().is_some();
    #[cfg(not(target_arch = "x86_64"))]
    false
}

/// As [`multiply_packed`](super::multiply_packed), by tiles: of bf16 weights alone. The bits are others.
///
/// Each number of `x` goes in as three bf16 whose sum it is, and products are added in f32: to about the same error as
/// those in f32. Numbers and products below the smallest normal f32 count as zero. A row has the same
/// bits beside any other rows, and with any number of threads; on machines that have tiles.
///
/// # Panics
/// If the machine has none ([`has_tiles`]), weights are not held as bf16, or `x` or `out` has not as many numbers.
pub fn multiply_in_tiles(rows: usize, x: &[f32], weights: &PackedWeights, out: &mut [f32]) {
    #[cfg(target_arch = "x86_64")]
    by_amx::multiply(rows, x, weights, out);
    #[cfg(not(target_arch = "x86_64"))]
    panic!("no tiles for {rows} rows of {} by {weights:?} to {}", x.len(), out.len());
}

#[cfg(target_arch = "x86_64")]
mod by_amx {
    #![expect(unsafe_code, reason = "kernels take pointers")]

    use std::ops::Range;

    use rayon::prelude::*;

    pub(super) use super::super::kernel::amx::Amx;
    use super::super::{
        PackedElements, PackedWeights,
        kernel::{
            WIDTH, Weights,
            amx::{GROUP, STEP, STEP_PARTS, STEP_WORDS, TileRun, Tiles},
        },
        multiply::PARALLEL_WORK,
        out::Out,
        scratch::with_scratch,
    };

    /// Steps that are computed together: with these, the inputs of [`GROUPS`] groups stay in the second cache, and the
    /// weights of a panel in the first.
    const STEPS: usize = 16;
    const GROUPS: usize = 8;
    /// The rows that reading a weight takes as long as.
    const READING: usize = 16;
    /// Numbers to a cache line.
    const LINE: usize = 16;

    pub(super) fn multiply(rows: usize, x: &[f32], weights: &PackedWeights, out: &mut [f32]) {
        #[expect(clippy::expect_used, reason = "documented")]
        let amx = Amx::detected().expect("a machine with tiles");
        assert_eq!(weights.elements(), PackedElements::Bf16, "how weights are held");
        let (inputs, outputs) = (weights.inputs(), weights.outputs());
        assert_eq!(Some(x.len()), rows.checked_mul(inputs), "{rows} rows of {inputs} inputs");
        assert_eq!(Some(out.len()), rows.checked_mul(outputs), "{rows} rows of {outputs} outputs");
        out.fill(0.0);
        if inputs == 0 || outputs == 0 {
            return;
        }
        let block = GROUP * GROUPS;
        for (x, out) in x.chunks(block * inputs).zip(out.chunks_mut(block * outputs)) {
            let rows = x.len() / inputs;
            let work = rows.max(READING).saturating_mul(inputs).saturating_mul(outputs);
            let parallel = work >= PARALLEL_WORK && rayon::current_num_threads() > 1;
            let block = Block { amx, rows, weights, parallel };
            let numbers = rows.div_ceil(GROUP) * block.group_parts() / 2;
            with_scratch(numbers + LINE, |parts| {
                let first = parts.as_ptr().align_offset(4 * LINE).min(LINE);
                let parts = &mut parts[first..][..numbers];
                block.split(x, parts);
                block.multiply(parts, out);
            });
        }
    }

    /// Rows that are computed together.
    #[derive(Clone, Copy)]
    struct Block<'a> {
        amx: Amx,
        rows: usize,
        weights: &'a PackedWeights,
        parallel: bool,
    }

    impl Block<'_> {
        fn steps(&self) -> usize {
            self.weights.inputs().div_ceil(STEP)
        }

        /// bf16 that a group's inputs take.
        fn group_parts(&self) -> usize {
            self.steps() * STEP_PARTS
        }

        /// Splits the rows, group after group. What is missing of the last group stays what it was: no row's result
        /// depends on others.
        fn split(&self, x: &[f32], parts: &mut [f32]) {
            let inputs = self.weights.inputs();
            let one = |(x, parts): (&[f32], &mut [f32])| {
                for (row, x) in x.chunks_exact(inputs).enumerate() {
                    // SAFETY: `parts` has a group's inputs, in which row `row`, below `GROUP`, begins there.
                    unsafe { self.amx.split(x, parts.as_mut_ptr().cast::<u16>().add(row * STEP)) };
                }
            };
            let (x_size, size) = (GROUP * inputs, self.group_parts() / 2);
            if self.parallel {
                x.par_chunks(x_size).zip(parts.par_chunks_mut(size)).for_each(one);
            } else {
                x.chunks(x_size).zip(parts.chunks_mut(size)).for_each(one);
            }
        }

        fn multiply(&self, parts: &[f32], out: &mut [f32]) {
            let panels = self.weights.panels();
            assert!(out.len() == self.rows * self.weights.outputs(), "rows of outputs");
            let out = Out(out.as_mut_ptr());
            if !self.parallel {
                self.panels(parts, 0..panels, out);
                return;
            }
            let tasks = panels.min(4 * rayon::current_num_threads());
            (0..tasks).into_par_iter().with_max_len(1).for_each(|task| {
                self.panels(parts, task * panels / tasks..(task + 1) * panels / tasks, out);
            });
        }

        /// All rows times some panels.
        fn panels(&self, parts: &[f32], panels: Range<usize>, out: Out) {
            let tiles = self.amx.begin();
            for first in (0..self.steps()).step_by(STEPS) {
                let steps = first..self.steps().min(first + STEPS);
                for panel in panels.clone() {
                    self.panel(&tiles, parts, (panel, steps.clone()), out);
                }
            }
        }

        /// All rows times some steps of a panel.
        fn panel(
            &self,
            tiles: &Tiles,
            parts: &[f32],
            (panel, steps): (usize, Range<usize>),
            out: Out,
        ) {
            let Weights::Bf16(weights) = self.weights.panel(panel, steps.start * STEP) else {
                return;
            };
            // Words of the last step that are not there are zero.
            let words = self.weights.inputs().div_ceil(2) * WIDTH - steps.start * STEP_WORDS;
            let whole = steps.len().min(words / STEP_WORDS);
            let mut last = Aligned([0; STEP_WORDS]);
            if whole < steps.len() {
                let rest = words - whole * STEP_WORDS;
                // SAFETY: the panel has `words` words from there on, `last` more than `rest`.
                unsafe {
                    let from = weights.add(whole * STEP_WORDS);
                    std::ptr::copy_nonoverlapping(from, last.0.as_mut_ptr(), rest);
                }
            }
            for group in 0..self.rows.div_ceil(GROUP) {
                let x = parts[group * self.group_parts() / 2..][..self.group_parts() / 2].as_ptr();
                let x = x.cast::<u16>().wrapping_add(steps.start * STEP_PARTS);
                let last_x = x.wrapping_add(whole * STEP_PARTS);
                let runs = [(whole, x, weights), (steps.len() - whole, last_x, last.0.as_ptr())];
                for (steps, x, weights) in runs.into_iter().filter(|run| run.0 > 0) {
                    let (sums, stride) = (out.at(0), self.weights.outputs());
                    let run = TileRun { steps, x, weights, sums, stride };
                    // SAFETY: the group has inputs, and the panel or `last` weights of so many steps. No other task has
                    // this panel.
                    unsafe { self.tile(tiles, (group, panel), run) };
                }
            }
        }

        /// Adds a run to a group's outputs of a panel, of which some rows or columns may be missing. The run's sums are
        /// all outputs.
        ///
        /// # Safety
        /// As [`Tiles::multiply`], for the outputs that there are.
        unsafe fn tile(&self, tiles: &Tiles, (group, panel): (usize, usize), run: TileRun) {
            let (row, column) = (group * GROUP, panel * WIDTH);
            let (rows, width) = (GROUP.min(self.rows - row), WIDTH.min(run.stride - column));
            let sums = run.sums.wrapping_add(row * run.stride + column);
            let halves = if rows <= GROUP / 2 { 1 } else { 2 };
            if rows == GROUP && width == WIDTH {
                // SAFETY: the caller's promise; all outputs of the group and the panel are there.
                unsafe { tiles.multiply(&TileRun { sums, ..run }, halves) };
                return;
            }
            let mut whole = Aligned([0.0_f32; GROUP * WIDTH]);
            // SAFETY: `whole` has all rows and columns; of the output those are used that are there.
            unsafe {
                for r in 0..rows {
                    let to = whole.0[r * WIDTH..].as_mut_ptr();
                    std::ptr::copy_nonoverlapping(sums.add(r * run.stride), to, width);
                }
                tiles.multiply(
                    &TileRun { sums: whole.0.as_mut_ptr(), stride: WIDTH, ..run },
                    halves,
                );
                for r in 0..rows {
                    let from = whole.0[r * WIDTH..].as_ptr();
                    std::ptr::copy_nonoverlapping(from, sums.add(r * run.stride), width);
                }
            }
        }
    }

    /// Begins with a cache line.
    #[repr(C, align(64))]
    struct Aligned<T>(T);
}
