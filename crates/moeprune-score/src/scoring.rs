//! A matrix whose rows are about to be scored.

#[cfg(feature = "cuda")]
use moeprune_core::encoding::Float;
use moeprune_core::{BoundScorer, LinearView, StoredWeight, TensorBytes, WeightScorer};

use crate::{
    Error,
    input::heard,
    rank::{UNRANKABLE, all_good, rank_key},
    simd::Level,
    storage::Storage,
};

/// A scorer bound to a Linear, with the shapes and types checked.
pub(crate) struct Scoring<'a> {
    pub(crate) linear: LinearView<'a>,
    pub(crate) storage: Storage<'a>,
    pub(crate) level: Level,
    scorer: Box<dyn BoundScorer + 'a>,
    /// Whether the scorer wanted inputs and nothing had reached the Linear.
    pub(crate) idle: bool,
}

/// What a thread needs to work on one row after another.
#[derive(Default)]
pub(crate) struct RowBuffers {
    weights: Vec<f32>,
    /// Rows that were decoded together, and the first of them.
    band: (usize, Vec<f32>),
    pub(crate) scores: Vec<f32>,
    pub(crate) mask: Vec<bool>,
    /// Weights that have no code that is zero.
    pub(crate) stay: Vec<bool>,
}

impl<'a> Scoring<'a> {
    pub(crate) fn new(
        weight: &'a StoredWeight<'_>,
        linear: &LinearView<'a>,
        scorer: &'a dyn WeightScorer,
    ) -> Result<Self, Error> {
        check_shape(weight.shape(), linear)?;
        Self::of(Storage::of(weight), linear, scorer)
    }

    /// Of a matrix that is stored elsewhere but has the shape of `linear`.
    pub(crate) fn of(
        storage: Storage<'a>,
        linear: &LinearView<'a>,
        scorer: &'a dyn WeightScorer,
    ) -> Result<Self, Error> {
        let mut linear = *linear;
        let LinearView { layer, id, cols, .. } = linear;
        if let Some(moments) = linear.inputs
            && moments.sum_squares.len() != cols
        {
            let got = moments.sum_squares.len();
            return Err(Error::Features { layer, linear: id, expected: cols, got });
        }
        linear.inputs = heard(&linear);
        let idle = scorer.needs_inputs() && linear.inputs.is_none();
        let bound = scorer.bind(&linear).map_err(|source| Error::Scorer {
            layer,
            linear: id,
            scorer: format!("{scorer:?}"),
            source,
        })?;
        Ok(Self { linear, storage, level: Level::detected(), scorer: bound, idle })
    }

    /// Bytes of one row of numbers; at least 1, so that empty matrices can be cut into rows too.
    pub(crate) fn row_bytes(&self) -> usize {
        self.storage.row_bytes(self.linear.cols).max(1)
    }

    /// How many rows have weights.
    pub(crate) fn rows(&self) -> usize {
        if self.linear.cols == 0 { 0 } else { self.linear.rows }
    }

    /// The number type, for kernels with code per type; `None` of weights that must be decoded.
    #[cfg(feature = "cuda")]
    pub(crate) fn float(&self) -> Option<Float> {
        match self.storage {
            Storage::Plain(float) => Some(float),
            Storage::Encoded(_) => None,
        }
    }

    /// What the magnitude of each column's weights is multiplied by, for scorers that do just that.
    pub(crate) fn column_factors(&self) -> Option<&[f32]> {
        self.scorer.column_factors().filter(|factors| factors.len() == self.linear.cols)
    }

    /// Scores a row of the weight whose main tensor is `main`, as [`score`](Self::score).
    pub(crate) fn score_row(
        &self,
        row: usize,
        main: &[u8],
        buffers: &mut RowBuffers,
    ) -> Result<(), Error> {
        self.score(row, self.storage.row(main, row, self.linear.cols), buffers)
    }

    /// Scores a row into `buffers.scores`: finite and not negative, one per column.
    pub(crate) fn score(
        &self,
        row: usize,
        bytes: &[u8],
        buffers: &mut RowBuffers,
    ) -> Result<(), Error> {
        let cols = self.linear.cols;
        buffers.scores.resize(cols, 0.0);
        if let Some(factors) = self.column_factors() {
            match self.storage.score(self.level, bytes, factors, &mut buffers.scores) {
                Some(true) => return Ok(()),
                Some(false) => self.decode(row, bytes, buffers),
                None => {
                    self.decode(row, bytes, buffers);
                    let products = buffers.weights.iter().zip(factors).map(|(w, f)| w.abs() * f);
                    buffers.scores.iter_mut().zip(products).for_each(|(score, p)| *score = p);
                    if all_good(self.level, &buffers.scores) {
                        return Ok(());
                    }
                }
            }
        } else {
            self.decode(row, bytes, buffers);
            self.scorer.score_row(&buffers.weights, &mut buffers.scores);
            if all_good(self.level, &buffers.scores) {
                return Ok(());
            }
        }
        let col = buffers
            .scores
            .iter()
            .position(|&score| rank_key(score) >= UNRANKABLE)
            .unwrap_or_default();
        Err(Error::Score {
            layer: self.linear.layer,
            linear: self.linear.id,
            row,
            col,
            weight: buffers.weights[col],
            score: buffers.scores[col],
        })
    }

    fn decode(&self, row: usize, bytes: &[u8], buffers: &mut RowBuffers) {
        let (cols, together) = (self.linear.cols, self.storage.rows_together());
        buffers.weights.resize(cols, 0.0);
        if together == 1 {
            self.storage.decode(self.level, row, bytes, &mut buffers.weights);
            return;
        }
        let (first, band) = &mut buffers.band;
        let top = row / together * together;
        if band.is_empty() || *first != top {
            *first = top;
            band.resize(together.min(self.linear.rows - top) * cols, 0.0);
            self.storage.decode(self.level, top, bytes, band);
        }
        buffers.weights.copy_from_slice(&band[(row - top) * cols..][..cols]);
    }
}

/// A tensor that is the weight of a Linear by itself.
pub(crate) fn alone<'a>(
    tensor: TensorBytes<'a>,
    linear: &LinearView<'_>,
) -> Result<StoredWeight<'a>, Error> {
    let (layer, linear_id, dtype) = (linear.layer, linear.id, tensor.dtype());
    check_shape(tensor.shape(), linear)?;
    StoredWeight::alone(tensor).map_err(|_| Error::Dtype { layer, linear: linear_id, dtype })
}

pub(crate) fn check_shape(shape: &[usize], linear: &LinearView<'_>) -> Result<(), Error> {
    let LinearView { layer, id, rows, cols, .. } = *linear;
    if *shape == [rows, cols] {
        return Ok(());
    }
    Err(Error::Shape { layer, linear: id, expected: [rows, cols], got: shape.to_vec() })
}
