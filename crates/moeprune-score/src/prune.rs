//! One matrix, masked or zeroed.

use std::borrow::Cow;

use moeprune_core::{
    LinearView, Sparsity, StoredWeight, TensorBytes, WeightScorer,
    encoding::{Float, RowsMut},
};
use rayon::prelude::*;

use crate::{
    BitMask, Error, MaskPattern, Rounding,
    mask::{count_set, pack},
    scoring::{RowBuffers, Scoring, alone, check_shape},
    storage::{self, Storage},
};

/// A matrix with its least important weights zeroed.
#[derive(Debug, Clone, PartialEq)]
#[expect(clippy::exhaustive_structs, reason = "what there is to say of one matrix")]
pub struct PrunedMatrix {
    /// The matrix, of the type and shape it had. Every chosen weight is plus zero. Every other one
    /// is as before, bit for bit, unless [`reconstruct_matrix`](crate::reconstruct_matrix) changed
    /// it.
    pub tensor: TensorBytes<'static>,
    /// Weights that were chosen, some of which may have been zero before.
    pub zeroed: u64,
    /// Whether the scorer wanted inputs and had none, because no calibration token (or nothing
    /// but zeros) reached this Linear. Built-in scorers then go by magnitude. From
    /// [`reconstruct_matrix`](crate::reconstruct_matrix): whether the matrix was scored instead of
    /// reconstructed, because too few tokens reached it.
    pub fallback: bool,
    /// Weights that have no code that is zero, and so were left out of the choice.
    pub without_zero: u64,
}

/// Zeroes the weights of `tensor` that matter least.
///
/// Works on the stored bytes a row at a time, in rayon's current thread pool, and gives the same
/// bytes with any number of threads. The bytes are taken over when owned and copied when borrowed.
/// `ratio` is ignored by a pattern that has its [own](MaskPattern::fixed_ratio).
///
/// ```
/// use moeprune_core::{Dtype, LinearId, LinearView, Sparsity, TensorBytes};
/// use moeprune_score::{Magnitude, NOfM, Rounding, prune_matrix};
///
/// let tensor = TensorBytes::encode(Dtype::F32, [1, 4], &[0.1, -3.0, 2.0, -0.2])?;
/// let linear = LinearView { layer: 0, id: LinearId::Router, rows: 1, cols: 4, inputs: None };
/// let (ratio, pattern) = (Sparsity::new(0.5)?, NOfM::new(2, 4)?);
/// let pruned = prune_matrix(tensor, &linear, ratio, &Magnitude, &pattern, Rounding::Exact)?;
/// assert_eq!(pruned.tensor.to_f32()?, [0.0, -3.0, 2.0, 0.0]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// If the tensor, its type or the input moments do not fit `linear`; if the scorer refuses it or
/// makes a score that is NaN, infinite or negative (the first such, in row order, is named); if the
/// pattern would leave nothing.
pub fn prune_matrix(
    tensor: TensorBytes<'_>,
    linear: &LinearView<'_>,
    ratio: Sparsity,
    scorer: &dyn WeightScorer,
    pattern: &dyn MaskPattern,
    rounding: Rounding,
) -> Result<PrunedMatrix, Error> {
    prune_weight(alone(tensor, linear)?, linear, ratio, scorer, pattern, rounding)
}

/// As [`prune_matrix`], of a weight in any encoding: what it is stored in it stays stored in, and
/// the bits of every weight that is not chosen stay as they are. The companions do not change, so
/// the result has the main tensor alone. Weights that have no code that is zero are not chosen: others of
/// their row go instead, as far as there are such.
///
/// # Errors
/// As [`prune_matrix`]; [`Error::NoZero`] if chosen weights have no code that is zero and the encoding
/// does not [mark](moeprune_core::encoding::Encoding::mark_without_zero) them, and [`Error::NotZeroed`] if
/// it is only read.
pub fn prune_weight(
    weight: StoredWeight<'_>,
    linear: &LinearView<'_>,
    ratio: Sparsity,
    scorer: &dyn WeightScorer,
    pattern: &dyn MaskPattern,
    rounding: Rounding,
) -> Result<PrunedMatrix, Error> {
    let Some(float) = weight.encoding().float() else {
        return zero_codes(&weight, linear, ratio, scorer, pattern, rounding);
    };
    check_shape(weight.shape(), linear)?;
    let (tensor, _) = weight.into_parts();
    let scoring = Scoring::of(Storage::Plain(float), linear, scorer)?;
    let masker = RowMasker::new(&scoring, ratio, pattern, rounding);
    let (dtype, shape) = (tensor.dtype(), tensor.shape().to_vec());
    let (bytes, counts) = match tensor.into_cow() {
        Cow::Owned(mut bytes) => {
            let counts = masker.zero_rows(float, &mut bytes);
            (bytes, counts)
        }
        Cow::Borrowed(from) => {
            let mut bytes = vec![0; from.len()];
            let counts = masker.copy_rows(float, from, &mut bytes);
            (bytes, counts)
        }
    };
    let zeroed = masker.total(counts)?;
    let tensor = TensorBytes::new(dtype, shape, bytes).expect("neither shape nor size changed");
    Ok(PrunedMatrix { tensor, zeroed, fallback: scoring.idle, without_zero: 0 })
}

/// [`prune_weight`] of a weight that is read through its encoding: which weights go is chosen row by
/// row, then their codes are zeroed.
fn zero_codes(
    weight: &StoredWeight<'_>,
    linear: &LinearView<'_>,
    ratio: Sparsity,
    scorer: &dyn WeightScorer,
    pattern: &dyn MaskPattern,
    rounding: Rounding,
) -> Result<PrunedMatrix, Error> {
    let (encoding, main) = (weight.encoding(), weight.main());
    let (layer, id) = (linear.layer, linear.id);
    encoding.zeroes().map_err(|source| {
        let source = Box::new(source);
        Error::NotZeroed { layer, linear: id, source }
    })?;
    let mask = mask_weight(weight, linear, ratio, scorer, pattern, rounding)?;
    let (mut without, mut first) = (0, None);
    let mut bytes = main.bytes().to_vec();
    let row_bytes = encoding.row_bytes(linear.cols);
    for row in 0..linear.rows {
        let marks: Vec<bool> = (0..linear.cols).map(|col| mask.is_set(row, col)).collect();
        let main = match row_bytes {
            Some(size) => &mut bytes[row * size..(row + 1) * size],
            None => &mut bytes[..],
        };
        let (shape, companions) = (weight.shape(), weight.companions());
        let mut rows = RowsMut { first: row, count: 1, shape, main, companions };
        let unzeroed = encoding.zero_where(&mut rows, &marks);
        without += unzeroed.count;
        first = first.or_else(|| Some((row, unzeroed.first?)));
    }
    if let Some((row, col)) = first {
        let (encoding, chosen) = (encoding.name(), mask.count());
        return Err(Error::NoZero { layer, linear: id, without, chosen, row, col, encoding });
    }
    let tensor = TensorBytes::new(main.dtype(), main.shape(), bytes);
    let tensor = tensor.expect("neither shape nor size changed");
    let fallback = Scoring::new(weight, linear, scorer)?.idle;
    let (mut marks, mut without_zero) = (vec![false; linear.cols], 0);
    for row in 0..linear.rows {
        without_zero += encoding.mark_without_zero(weight.some(row, 1), &mut marks);
    }
    Ok(PrunedMatrix { tensor, zeroed: mask.count(), fallback, without_zero })
}

/// Marks the weights that [`prune_matrix`] would zero, and leaves the matrix alone.
///
/// # Errors
/// As [`prune_matrix`].
pub fn mask_matrix(
    tensor: &TensorBytes<'_>,
    linear: &LinearView<'_>,
    ratio: Sparsity,
    scorer: &dyn WeightScorer,
    pattern: &dyn MaskPattern,
    rounding: Rounding,
) -> Result<BitMask, Error> {
    mask_weight(&alone(tensor.view(), linear)?, linear, ratio, scorer, pattern, rounding)
}

/// As [`mask_matrix`], of a weight in any encoding.
///
/// # Errors
/// As [`prune_matrix`].
pub fn mask_weight(
    weight: &StoredWeight<'_>,
    linear: &LinearView<'_>,
    ratio: Sparsity,
    scorer: &dyn WeightScorer,
    pattern: &dyn MaskPattern,
    rounding: Rounding,
) -> Result<BitMask, Error> {
    let scoring = Scoring::new(weight, linear, scorer)?;
    let masker = RowMasker::new(&scoring, ratio, pattern, rounding);
    let mut mask = BitMask::unset(linear.rows, linear.cols);
    let main = weight.main().bytes();
    let counts = mask
        .bytes_mut()
        .par_chunks_mut(linear.cols.div_ceil(8).max(1))
        .enumerate()
        .with_min_len(scoring.storage.rows_together())
        .map_init(RowBuffers::default, |buffers, (row, bits)| {
            let bytes = scoring.storage.row(main, row, linear.cols);
            let count = masker.mask(row, bytes, buffers)?;
            pack(&buffers.mask, bits);
            Ok(count)
        })
        .collect();
    masker.total(counts)?;
    Ok(mask)
}

/// Chooses weights row by row: a scoring, a pattern and the quota of each row.
struct RowMasker<'a> {
    scoring: &'a Scoring<'a>,
    pattern: &'a dyn MaskPattern,
    quotas: crate::rounding::Quotas,
}

impl<'a> RowMasker<'a> {
    fn new(
        scoring: &'a Scoring<'a>,
        ratio: Sparsity,
        pattern: &'a dyn MaskPattern,
        rounding: Rounding,
    ) -> Self {
        let quotas = rounding.quotas(scoring.linear.rows, scoring.linear.cols, ratio);
        Self { scoring, pattern, quotas }
    }

    /// Zeroes what is marked, and counts it row by row.
    fn zero_rows(&self, float: Float, bytes: &mut [u8]) -> Vec<Result<u64, Error>> {
        let level = self.scoring.level;
        bytes
            .par_chunks_mut(self.scoring.row_bytes())
            .enumerate()
            .map_init(RowBuffers::default, |buffers, (row, bytes)| {
                let count = self.mask(row, bytes, buffers)?;
                storage::zero(float, level, bytes, &buffers.mask);
                Ok(count)
            })
            .collect()
    }

    /// Copies what is not marked over the zeros of `bytes`, and counts what is, row by row.
    fn copy_rows(&self, float: Float, from: &[u8], bytes: &mut [u8]) -> Vec<Result<u64, Error>> {
        let level = self.scoring.level;
        bytes
            .par_chunks_mut(self.scoring.row_bytes())
            .zip(from.par_chunks(self.scoring.row_bytes()))
            .enumerate()
            .map_init(RowBuffers::default, |buffers, (row, (bytes, from))| {
                let count = self.mask(row, from, buffers)?;
                storage::copy(float, level, from, bytes, &buffers.mask);
                Ok(count)
            })
            .collect()
    }

    /// Marks a row in `buffers.mask` and counts the marks.
    fn mask(&self, row: usize, bytes: &[u8], buffers: &mut RowBuffers) -> Result<u64, Error> {
        self.scoring.score(row, bytes, buffers)?;
        let cols = self.scoring.linear.cols;
        buffers.mask.clear();
        buffers.mask.resize(cols, false);
        let stay = self.scoring.storage.mark_without_zero(row, cols, &mut buffers.stay);
        if stay > 0 {
            let scores = buffers.scores.iter_mut().zip(&buffers.stay);
            scores.filter(|(_, stay)| **stay).for_each(|(score, _)| *score = f32::MAX);
        }
        self.pattern.mask_row(&buffers.scores, self.quotas.of(row), &mut buffers.mask);
        if stay > 0 {
            let marks = buffers.mask.iter_mut().zip(&buffers.stay);
            marks.for_each(|(mark, stay)| *mark &= !stay);
        }
        Ok(count_set(self.scoring.level, &buffers.mask))
    }

    /// Adds up the rows, or gives the first row's error.
    fn total(&self, counts: Vec<Result<u64, Error>>) -> Result<u64, Error> {
        let total = counts.into_iter().sum::<Result<u64, Error>>()?;
        let linear = self.scoring.linear;
        if total > 0 && total == linear.rows as u64 * linear.cols as u64 {
            return Err(Error::WholeMatrix {
                layer: linear.layer,
                linear: linear.id,
                pattern: format!("{:?}", self.pattern),
            });
        }
        Ok(total)
    }
}
