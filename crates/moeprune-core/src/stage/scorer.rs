//! How much one weight matters.

use std::fmt;

use crate::{InputMoments, LinearId, StageError};

/// Scores the weights of a Linear: within a row, the lowest scores are zeroed first.
///
/// Called once a Linear, from several threads; the [`BoundScorer`] it returns is then called once
/// a row. The caller guarantees that `linear.inputs`, when there, has `linear.cols` features and
/// at least one token. A scorer that needs inputs and gets none (an expert that no calibration
/// token reached) must fall back to something that still ranks weights, and never to all-equal
/// scores; built-ins use the magnitude.
///
/// ```
/// use moeprune_core::{BoundScorer, LinearView, StageError, WeightScorer};
///
/// /// Squared magnitude.
/// #[derive(Debug)]
/// struct Squares;
///
/// impl WeightScorer for Squares {
///     fn bind<'a>(&'a self, _: &LinearView<'a>) -> Result<Box<dyn BoundScorer + 'a>, StageError> {
///         Ok(Box::new(|row: &[f32], scores: &mut [f32]| {
///             for (s, w) in scores.iter_mut().zip(row) {
///                 *s = w * w;
///             }
///         }))
///     }
/// }
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a weight scorer",
    note = "implement `WeightScorer::bind`: prepare for one Linear and return what scores its rows"
)]
pub trait WeightScorer: fmt::Debug + Send + Sync {
    /// Prepares for one Linear (for example takes square roots of its moments once).
    ///
    /// # Errors
    /// If the Linear cannot be scored.
    fn bind<'a>(&'a self, linear: &LinearView<'a>)
    -> Result<Box<dyn BoundScorer + 'a>, StageError>;

    /// Whether calibration inputs are used: without, the pipeline needs no forward pass.
    fn needs_inputs(&self) -> bool {
        false
    }
}

/// A scorer prepared for one Linear. Closures `Fn(&[f32], &mut [f32])` are bound scorers.
pub trait BoundScorer: Send + Sync {
    /// Writes the score of each weight of one row. Both slices have the Linear's number of
    /// columns. Scores must be finite and not negative for finite weights.
    fn score_row(&self, weights: &[f32], scores: &mut [f32]);

    /// `Some` when the score of a weight is `|w| · factor`, one `f32` product, with one factor per
    /// column and the same in every row.
    ///
    /// Rows are then decoded, scored and checked in one go and [`score_row`](Self::score_row) is
    /// not called, though it must give the same scores.
    fn column_factors(&self) -> Option<&[f32]> {
        None
    }
}

impl<F: Fn(&[f32], &mut [f32]) + Send + Sync> BoundScorer for F {
    fn score_row(&self, weights: &[f32], scores: &mut [f32]) {
        self(weights, scores);
    }
}

/// A Linear about to be scored.
#[derive(Debug, Clone, Copy)]
#[expect(clippy::exhaustive_structs, reason = "a view the pipeline fills")]
pub struct LinearView<'a> {
    /// Decoder layer.
    pub layer: usize,
    /// Which Linear of it; expert indices are those of the model being pruned.
    pub id: LinearId,
    /// Outputs.
    pub rows: usize,
    /// Inputs.
    pub cols: usize,
    /// Second moments of its input; `None` when nothing reached it or nothing was captured.
    pub inputs: Option<&'a InputMoments>,
}
