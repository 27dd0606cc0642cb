//! Weights that go are made up for by those that stay.

mod choose;
mod hessian;
mod sweep;

use std::ops::Range;

use moeprune_core::{
    InputHessian, KnownPattern, LinearView, MaskPattern, Sparsity, StageError, WeightReconstructor,
};
use moeprune_linalg::{Matrix, Update, multiply};
use rayon::prelude::*;

use crate::{
    Error, NOfM, Rounding,
    simd::Level,
    smallest::mark_smallest,
    sparsegpt::{
        choose::{Block, mark_up_to, quotas},
        hessian::{Factored, factor},
        sweep::{LANES, Tile},
    },
    weights::check_finite,
};

/// Rows that a thread works on at a time.
const PIECE: usize = 128;

/// Zeroes the weights that the output depends on least and changes those right of them to make up
/// for it (SparseGPT, arXiv 2301.00774).
///
/// With `H = (2 / calls) · Σ x xᵀ`, in `f32`, `damping` times the mean of its diagonal added to that
/// diagonal, and `H⁻¹ = Uᵀ U` with `U` upper triangular, columns are taken `block` at a time:
///
/// ```text
/// score_ij = W_ij² / U_jj²                      the lowest of the block go, all rows in one
/// for each column j of the block:
///     e = W_j / U_jj where W_j goes, else 0
///     W_k −= e · U_jk                           for the columns k > j
///     W_j := 0 where it goes
/// ```
///
/// Columns whose input was always zero get a one on the diagonal of `H` before it is damped, and
/// are zeroed; where they are more than the ratio asks for, more than that goes. A matrix is never
/// zeroed entirely. Under an `N:M` pattern, so many of each group of columns go, chosen when all
/// columns left of the group are done, at any ratio; other patterns than this and whole
/// rows are refused. Where damping leaves `H` short of positive definite it is raised tenfold, up to
/// three times.
///
/// Beside the weights and the Hessian it takes memory for one and a half more Hessians, and for
/// five bytes for each weight of a block.
///
/// Results are the same with any number of threads. On processors with other vector units sums are
/// rounded in other places, which changes weights in their last bits and, where two scores are all
/// but equal, may zero one instead of the other.
///
/// ```
/// use moeprune_core::{InputHessian, LinearId, LinearView, Sparsity, WeightReconstructor};
/// use moeprune_score::{PerRow, SparseGpt};
///
/// let mut weights = [1.0, -2.0, 0.5, 3.0, 0.2, 1.5, -1.0, 0.1];
/// // Inputs [1,0,2,1], [0,1,1,0], [2,1,0,1].
/// let sums = vec![5.0, 2.0, 2.0, 3.0, 2.0, 2.0, 1.0, 1.0, 2.0, 1.0, 5.0, 2.0, 3.0, 1.0, 2.0, 2.0];
/// let hessian = InputHessian::new(3, 1, 4, sums)?;
/// let linear = LinearView { layer: 0, id: LinearId::Router, rows: 2, cols: 4, inputs: None };
/// let sparsegpt = SparseGpt::default();
/// let half = Sparsity::new(0.5)?;
/// assert_eq!(sparsegpt.reconstruct(&mut weights, &linear, &hessian, half, &PerRow)?, 4);
/// assert_eq!((weights[0], weights[2], weights[4], weights[7]), (0.0, 0.0, 0.0, 0.0));
/// assert!((weights[3] - 4.7965).abs() < 1e-4);
/// # Ok::<(), moeprune_core::StageError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
#[expect(clippy::exhaustive_structs, reason = "the method's parameters")]
pub struct SparseGpt {
    /// Columns whose weights are chosen together, 128 in the paper; at least 1. Under an `N:M`
    /// pattern, where each group chooses by itself, columns are only worked on so many at a time, in
    /// whole groups.
    pub block: usize,
    /// Share of the mean of the Hessian's diagonal that is added to the diagonal, 0.01 in the paper;
    /// finite and not negative.
    pub damping: f64,
    /// How the ratio becomes a choice of weights; without effect under an `N:M` pattern.
    pub threshold: BlockThreshold,
    /// Tokens below which a Linear is better scored than reconstructed; `None` stands for one for
    /// each of its columns, as fewer leave the Hessian singular but for its damping.
    pub least_tokens: Option<u64>,
}

/// How a ratio becomes a choice of weights in each block of columns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum BlockThreshold {
    /// The matrix loses exactly what [`Rounding::Exact`] says, blocks equal shares of it; of equal
    /// scores the first in row-major order go. Only columns whose input was always zero may make it
    /// more.
    #[default]
    Exact,
    /// As the reference: in each block go all scores up to the one that `⌊weights · ratio⌋` others
    /// are below, hence at least one more than that many.
    Reference,
}

impl Default for SparseGpt {
    fn default() -> Self {
        Self { block: 128, damping: 0.01, threshold: BlockThreshold::Exact, least_tokens: None }
    }
}

impl WeightReconstructor for SparseGpt {
    fn reconstruct(
        &self,
        weights: &mut [f32],
        linear: &LinearView<'_>,
        hessian: &InputHessian,
        ratio: Sparsity,
        pattern: &dyn MaskPattern,
    ) -> Result<u64, StageError> {
        self.check()?;
        let group = group_of(pattern)?;
        let LinearView { rows, cols, .. } = *linear;
        let expected = rows.saturating_mul(cols);
        if weights.len() != expected {
            let got = weights.len();
            return Err(moeprune_core::Error::Length { what: "weights", expected, got }.into());
        }
        if weights.is_empty() {
            return Ok(0);
        }
        check_finite(weights, linear)?;
        let factored = factor(hessian, linear, self.damping)?;
        let zeroed = Run { sparsegpt: self, group, linear, factored, level: Level::detected() }
            .all(weights, ratio)?;
        check_finite(weights, linear)?;
        Ok(zeroed)
    }

    fn least_tokens(&self, linear: &LinearView<'_>) -> u64 {
        self.least_tokens.unwrap_or(linear.cols as u64)
    }
}

impl SparseGpt {
    fn check(&self) -> Result<(), Error> {
        let Self { block, damping, .. } = *self;
        if block == 0 {
            return Err(Error::Parameter { name: "block", value: 0.0, range: "at least 1" });
        }
        if !(0.0..f64::INFINITY).contains(&damping) {
            let range = "finite and not negative";
            return Err(Error::Parameter { name: "damping", value: damping, range });
        }
        Ok(())
    }

    /// The blocks of `cols` columns.
    fn blocks(
        &self,
        cols: usize,
        group: Option<NOfM>,
    ) -> impl Iterator<Item = Range<usize>> + use<> {
        let width = match group {
            None => self.block,
            Some(group) => self.block.checked_next_multiple_of(group.m()).unwrap_or(usize::MAX),
        };
        (0..cols).step_by(width).map(move |start| start..cols.min(start.saturating_add(width)))
    }
}

/// The groups in which weights go; `None` where they go by whole blocks.
fn group_of(pattern: &dyn MaskPattern) -> Result<Option<NOfM>, StageError> {
    match pattern.known() {
        Some(KnownPattern::PerRow) => Ok(None),
        Some(KnownPattern::NOfM { n, m }) => Ok(Some(NOfM::new(n, m)?)),
        None => Err(format!(
            "SparseGPT cannot follow the pattern {pattern:?}; use whole rows or N:M groups"
        )
        .into()),
    }
}

/// The work on one matrix.
struct Run<'a> {
    sparsegpt: &'a SparseGpt,
    group: Option<NOfM>,
    linear: &'a LinearView<'a>,
    factored: Factored,
    level: Level,
}

/// What a thread needs for one piece after another.
#[derive(Default)]
struct Buffers {
    tile: Tile,
    /// The errors of a piece, a column of `PIECE` rows after the other.
    errors: Vec<f32>,
}

impl Run<'_> {
    /// Goes through all columns and counts the weights that went.
    fn all(&self, weights: &mut [f32], ratio: Sparsity) -> Result<u64, Error> {
        let LinearView { layer, id, rows, cols, .. } = *self.linear;
        let dead = &self.factored.dead;
        let whole =
            || Error::WholeMatrix { layer, linear: id, pattern: format!("{:?}", self.sparsegpt) };
        if dead.iter().all(|&dead| dead) {
            return Err(whole());
        }
        if dead.contains(&true) {
            weights.par_chunks_mut(cols).for_each(|row| {
                row.iter_mut().zip(dead).for_each(|(w, &dead)| *w = if dead { 0.0 } else { *w });
            });
        }
        let sizes: Vec<(u64, u64)> = self
            .sparsegpt
            .blocks(cols, self.group)
            .map(|block| {
                let dead = dead[block.clone()].iter().filter(|&&dead| dead).count();
                (rows as u64 * block.len() as u64, rows as u64 * dead as u64)
            })
            .collect();
        let quotas = quotas(Rounding::Exact.total(rows, cols, ratio), &sizes);

        let (mut scores, mut mask) = (Vec::new(), Vec::new());
        let mut zeroed = 0;
        for (block, quota) in self.sparsegpt.blocks(cols, self.group).zip(quotas) {
            let diagonal: Vec<f32> =
                block.clone().map(|j| self.factored.upper[j * cols + j]).collect();
            if self.group.is_none() {
                scores.resize(rows * block.len(), 0.0);
                mask.clear();
                mask.resize(rows * block.len(), false);
                let dead = &dead[block.clone()];
                let scoring =
                    Block { linear: *self.linear, start: block.start, diagonal: &diagonal, dead };
                scoring.score(weights, &mut scores)?;
                match self.sparsegpt.threshold {
                    BlockThreshold::Exact => mark_smallest(&scores, quota as usize, &mut mask),
                    BlockThreshold::Reference => mark_up_to(&scores, ratio, &mut mask),
                }
            }
            zeroed += self.walk(weights, &mask, block);
        }
        if zeroed == rows as u64 * cols as u64 { Err(whole()) } else { Ok(zeroed) }
    }

    /// Does one block of columns, and what it changes right of it. `mask` is that of the block, or
    /// empty when groups are chosen on the way.
    fn walk(&self, weights: &mut [f32], mask: &[bool], block: Range<usize>) -> u64 {
        let cols = self.linear.cols;
        let width = block.len();
        let upper = &self.factored.upper;
        // Transposed, so that what changes a column is in a row.
        let mut turned = vec![0.0; width * width];
        for (j, row) in block.clone().enumerate() {
            for (k, value) in upper[row * cols..][block.clone()].iter().enumerate().skip(j) {
                turned[k * width + j] = *value;
            }
        }
        weights
            .par_chunks_mut(PIECE * cols)
            .enumerate()
            .map_init(Buffers::default, |buffers, (piece, rows)| {
                let count = rows.len() / cols;
                let mask = mask.get(piece * PIECE * width..).unwrap_or_default();
                let zeroed = self.walk_piece(rows, mask, &block, &turned, buffers);
                if block.end < cols {
                    let right = cols - block.end;
                    let errors = Matrix::rows(&buffers.errors, width, count, PIECE).transposed();
                    let factors =
                        Matrix::rows(&upper[block.start * cols + block.end..], width, right, cols);
                    multiply(&mut rows[block.end..], cols, Update::Subtract, errors, factors);
                }
                zeroed
            })
            .sum()
    }

    /// Does one block of the columns of some rows and leaves the errors in `buffers`.
    fn walk_piece(
        &self,
        rows: &mut [f32],
        mask: &[bool],
        block: &Range<usize>,
        turned: &[f32],
        buffers: &mut Buffers,
    ) -> u64 {
        let (cols, width) = (self.linear.cols, block.len());
        let group = self.group;
        let Buffers { tile, errors } = buffers;
        errors.resize(width * PIECE, 0.0);
        let mut zeroed = 0;
        for (number, rows) in rows.chunks_mut(LANES * cols).enumerate() {
            let count = rows.len() / cols;
            tile.clear(width);
            for (lane, row) in rows.chunks_exact(cols).enumerate() {
                for (column, &weight) in tile.weights.iter_mut().zip(&row[block.clone()]) {
                    column[lane] = weight;
                }
            }
            if group.is_none() {
                let mask = mask[number * LANES * width..].chunks_exact(width).take(count);
                for (lane, mask) in mask.enumerate() {
                    for (column, &gone) in tile.gone.iter_mut().zip(mask) {
                        column[lane] = gone;
                    }
                }
            }
            tile.walk(self.level, turned, group);
            for (lane, row) in rows.chunks_exact_mut(cols).enumerate() {
                for (weight, column) in row[block.clone()].iter_mut().zip(&tile.weights) {
                    *weight = column[lane];
                }
            }
            let columns = errors.chunks_exact_mut(PIECE).zip(&tile.errors);
            for (errors, column) in columns {
                errors[number * LANES..][..count].copy_from_slice(&column[..count]);
            }
            for (gone, &dead) in tile.gone.iter().zip(&self.factored.dead[block.clone()]) {
                let gone = gone[..count].iter().filter(|&&gone| gone | dead).count();
                zeroed += gone as u64;
            }
        }
        zeroed
    }
}
