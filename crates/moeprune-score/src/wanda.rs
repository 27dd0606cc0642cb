//! Weights scored by their size and that of what they multiply.

use moeprune_core::{BoundScorer, InputMoments, LinearView, StageError, WeightScorer};

use crate::{Error, Magnitude, input::heard, product::Product};

/// Scores a weight by `|W_ij| · ‖X_j‖`: its magnitude times the norm of its input feature over the
/// calibration tokens that reached the Linear (Wanda, arXiv 2306.11695).
///
/// With `q_j` the normalised sum of squares of feature `j`, rounded to `f32`, the score is
/// `|W_ij| · √q_j`: one correctly rounded `f32` root per column, one `f32` product per weight. A
/// feature that was always zero scores zero in every row.
///
/// Where nothing reached the Linear (an expert no token was routed to), or only zeros did, the
/// score is the magnitude.
///
/// ```
/// use moeprune_core::{AttentionProjection, InputMoments, LinearId, LinearView, WeightScorer};
/// use moeprune_score::Wanda;
///
/// let inputs = InputMoments { tokens: 3, calls: 1, sum_squares: vec![5.0, 2.0, 5.0, 2.0] };
/// let id = LinearId::Attention(AttentionProjection::Query);
/// let linear = LinearView { layer: 0, id, rows: 1, cols: 4, inputs: Some(&inputs) };
/// let wanda = Wanda::default();
/// let mut scores = [0.0; 4];
/// wanda.bind(&linear)?.score_row(&[1.0, -2.0, 0.5, 3.0], &mut scores);
/// let (a, b) = (5f32.sqrt(), 2f32.sqrt());
/// assert_eq!(scores, [a, 2.0 * b, 0.5 * a, 3.0 * b]);
/// # Ok::<(), moeprune_core::StageError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[expect(clippy::exhaustive_structs, reason = "the formula has this one choice")]
pub struct Wanda {
    /// What the sums of squares are divided by. No mask depends on it, as a row is compared only
    /// with itself; what [`outlier_percent`](crate::outlier_percent) pools over a layer does.
    pub normalization: InputNormalization,
}

/// What a sum of squares over calibration tokens is divided by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum InputNormalization {
    /// The number of forward calls in which at least one token arrived, as the reference does. An
    /// expert that few tokens of a call reach then scores lower than attention, which all reach.
    #[default]
    PerCall,
    /// The number of tokens that arrived: Linears compare by the typical input they see.
    PerToken,
}

impl WeightScorer for Wanda {
    fn bind<'a>(
        &'a self,
        linear: &LinearView<'a>,
    ) -> Result<Box<dyn BoundScorer + 'a>, StageError> {
        let Some(moments) = heard(linear) else {
            return Magnitude.bind(linear);
        };
        Ok(Box::new(Product { factors: self.feature_norms(moments)? }))
    }

    fn needs_inputs(&self) -> bool {
        true
    }
}

impl Wanda {
    fn feature_norms(self, moments: &InputMoments) -> Result<Vec<f32>, Error> {
        let divisor = match self.normalization {
            InputNormalization::PerCall if moments.calls == 0 => {
                return Err(Error::NoCalls { tokens: moments.tokens });
            }
            InputNormalization::PerCall => moments.calls as f64,
            InputNormalization::PerToken => moments.tokens as f64,
        };
        let norm = |(feature, &value): (usize, &f64)| {
            let mean = (value / divisor) as f32;
            if value >= 0.0 && mean.is_finite() {
                Ok(mean.sqrt())
            } else {
                Err(Error::Moment { feature, value })
            }
        };
        moments.sum_squares.iter().enumerate().map(norm).collect()
    }
}
