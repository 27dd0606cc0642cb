//! Zeroing weights and changing the others to make up for it.

use std::fmt;

use crate::{Error, LinearView, MaskPattern, Sparsity, StageError};

/// Which inputs of a Linear came together: the sum of `x xᵀ` over the tokens that reached it.
///
/// Up to a factor, this is the second derivative of the squared error of a Linear's output by one
/// row of its weights, the same for every row: its Hessian. Plain data, added up by the code that
/// runs the model; a `WeightReconstructor` checks what it relies on.
#[derive(Debug, Clone, PartialEq)]
#[expect(clippy::exhaustive_structs, reason = "plain data, summed up outside of this crate")]
pub struct InputHessian {
    /// Tokens (terms of the sum).
    pub tokens: u64,
    /// Forward calls, one per calibration block, in which at least one token arrived.
    pub calls: u64,
    /// Inputs of the Linear, its columns.
    pub features: usize,
    /// `[features, features]`, row-major and symmetric.
    pub sums: Vec<f32>,
}

impl InputHessian {
    /// Checks that there are `features · features` sums.
    ///
    /// ```
    /// use moeprune_core::InputHessian;
    /// // Two tokens, [1, 0] and [2, 1], in one call.
    /// let hessian = InputHessian::new(2, 1, 2, vec![5.0, 2.0, 2.0, 1.0])?;
    /// assert_eq!(hessian.diagonal().collect::<Vec<_>>(), [5.0, 1.0]);
    /// assert!(InputHessian::new(2, 1, 3, vec![0.0; 6]).is_err());
    /// # Ok::<(), moeprune_core::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Length`] if there are not.
    pub fn new(tokens: u64, calls: u64, features: usize, sums: Vec<f32>) -> Result<Self, Error> {
        let expected = features.saturating_mul(features);
        if sums.len() != expected {
            return Err(Error::Length { what: "input Hessian", expected, got: sums.len() });
        }
        Ok(Self { tokens, calls, features, sums })
    }

    /// The sum of squares of each feature.
    pub fn diagonal(&self) -> impl Iterator<Item = f32> {
        self.sums.iter().copied().step_by(self.features + 1)
    }
}

/// Zeroes a share of the weights of a Linear and changes the others so that its output on
/// calibration text changes little.
///
/// The alternative to a [`WeightScorer`](crate::WeightScorer), which leaves the other weights
/// alone. Called once a Linear, from several threads. The caller guarantees that `weights` is
/// `[rows, cols]`, row-major, with every weight finite, and that `hessian` has `cols` features and
/// at least [`least_tokens`](Self::least_tokens) tokens; a Linear that fewer reached is scored
/// instead. The caller encodes what comes back in the type the weights were stored in.
///
/// `pattern` says among which weights the choice is made. A method that can follow only some patterns
/// refuses the others; what it can follow it recognises by [`MaskPattern::known`].
///
/// An implementer writes exactly `+0.0` where a weight goes, zeroes `ratio · rows · cols` weights
/// as closely as its method allows but never all of them, and leaves every weight finite. Where it
/// returns an error the weights may be half done: they are dropped.
///
/// ```
/// use moeprune_core::{
///     InputHessian, LinearView, MaskPattern, Sparsity, StageError, WeightReconstructor,
/// };
///
/// /// The last inputs go, for any weights, and the first makes up for what they were on
/// /// average.
/// #[derive(Debug)]
/// struct IntoFirst;
///
/// impl WeightReconstructor for IntoFirst {
///     fn reconstruct(
///         &self,
///         weights: &mut [f32],
///         linear: &LinearView<'_>,
///         hessian: &InputHessian,
///         ratio: Sparsity,
///         _pattern: &dyn MaskPattern,
///     ) -> Result<u64, StageError> {
///         let gone = (linear.cols as f64 * ratio.value()) as usize;
///         let first = hessian.sums.first().filter(|&&first| first > 0.0).ok_or("no first input")?;
///         for row in weights.chunks_exact_mut(linear.cols) {
///             for col in linear.cols - gone..linear.cols {
///                 row[0] += row[col] * hessian.sums[col] / first;
///                 row[col] = 0.0;
///             }
///         }
///         Ok((gone * linear.rows) as u64)
///     }
/// }
///
/// # use moeprune_core::LinearId;
/// let linear = LinearView { layer: 0, id: LinearId::Router, rows: 1, cols: 2, inputs: None };
/// let hessian = InputHessian::new(2, 1, 2, vec![4.0, 2.0, 2.0, 3.0])?;
/// let mut weights = [1.0, 3.0];
/// let half = Sparsity::new(0.5)?;
/// # #[derive(Debug)]
/// # struct PerRow;
/// # impl MaskPattern for PerRow {
/// #     fn mask_row(&self, _: &[f32], _: usize, _: &mut [bool]) {}
/// # }
/// assert_eq!(IntoFirst.reconstruct(&mut weights, &linear, &hessian, half, &PerRow)?, 1);
/// assert_eq!(weights, [2.5, 0.0]);
/// # Ok::<(), StageError>(())
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a weight reconstructor",
    note = "implement `WeightReconstructor::reconstruct`: zero a share of a Linear's weights and \
            change the others to make up for it"
)]
pub trait WeightReconstructor: fmt::Debug + Send + Sync {
    /// Zeroes weights, changes others, and returns how many it zeroed (some of which may have been
    /// zero before).
    ///
    /// # Errors
    /// If the Linear cannot be done, for example because the sums are not those of any inputs or
    /// the method cannot follow the pattern.
    fn reconstruct(
        &self,
        weights: &mut [f32],
        linear: &LinearView<'_>,
        hessian: &InputHessian,
        ratio: Sparsity,
        pattern: &dyn MaskPattern,
    ) -> Result<u64, StageError>;

    /// Tokens that must have reached a Linear for its Hessian to be worth using.
    ///
    /// One for each input unless overridden: with fewer, some combinations of inputs were never
    /// seen, and weights along them are free to become anything.
    fn least_tokens(&self, linear: &LinearView<'_>) -> u64 {
        linear.cols as u64
    }
}
