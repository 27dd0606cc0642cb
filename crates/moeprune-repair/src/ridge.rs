//! How strongly new weights are pulled to the old ones.

/// Where the ridge of each expert comes from.
///
/// With `s` the mean square of an activation summed over tokens (the mean over experts of the trace of
/// `H_e`, per feature), `I` the features and `N_e` the fitted tokens of an expert,
///
/// ```text
/// floor_e = s · clamp(0.05 · (I / N_e)², 1e-4, 10)
/// ```
///
/// The least is 1e-3 where new weights are rounded to codes of four bits: the rounding of larger changes
/// costs more than they gain.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub enum Ridge {
    /// The floor, or what the residual is evidence for if that is more: the ratio of the variance of what
    /// cannot be fitted to that of the changes, estimated after the first two sweeps.
    #[default]
    Automatic,
    /// The floor.
    Floor,
    /// A fixed share of `s`, the same for all experts.
    Share(f64),
}

/// The least and the most that the floor is, as shares of `s`.
const FLOOR: [f64; 2] = [1e-4, 10.0];
/// The least floor of weights in codes of four bits.
const FLOOR_OF_FOUR_BITS: f64 = 1e-3;
/// The floor of an expert with as many tokens as features, as a share of `s`.
const FLOOR_AT_ONE: f64 = 0.05;
/// The most that the evidence makes of the ridge, as a share of `s`.
const MOST: f64 = 10.0;
/// Of a layer that is fitted with almost as many effective parameters as tokens, the share of tokens that
/// count as free.
const LEAST_FREE: f64 = 1.0 / 20.0;

/// An expert's activations as far as its ridge depends on them.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Spread {
    pub(crate) tokens: usize,
    pub(crate) features: usize,
    /// Of the Gram matrix.
    pub(crate) trace: f64,
    /// Whether new weights are rounded to codes of four bits or less.
    pub(crate) coarse: bool,
}

/// The ridges of a layer's experts.
pub(crate) struct Ridges {
    scale: f64,
    floors: Vec<f64>,
    pub(crate) now: Vec<f64>,
}

impl Ridges {
    /// Before the first sweep.
    pub(crate) fn new(ridge: Ridge, experts: &[Spread]) -> Self {
        let with_tokens = experts.iter().filter(|expert| expert.tokens > 0 && expert.features > 0);
        let (sum, count) = with_tokens.fold((0.0, 0usize), |(sum, count), expert| {
            (sum + expert.trace / expert.features as f64, count + 1)
        });
        let scale = sum / count.max(1) as f64;
        let floor = |expert: &Spread| match ridge {
            Ridge::Share(share) => scale * share,
            Ridge::Automatic | Ridge::Floor => {
                let ratio = expert.features as f64 / expert.tokens.max(1) as f64;
                let least = if expert.coarse { FLOOR_OF_FOUR_BITS } else { FLOOR[0] };
                scale * (FLOOR_AT_ONE * ratio * ratio).clamp(least, FLOOR[1])
            }
        };
        let floors: Vec<f64> = experts.iter().map(floor).collect();
        Self { scale, now: floors.clone(), floors }
    }

    /// A ridge above one with which a matrix could not be factored.
    pub(crate) fn raised(&self, ridge: f64) -> f64 {
        (ridge * 10.0).max(self.scale * FLOOR[0])
    }

    /// The fixed point of the evidence: noise over signal, both per parameter.
    pub(crate) fn estimate(&mut self, evidence: &Evidence) {
        let Evidence { error, tokens, width, effective, change } = *evidence;
        let (tokens, width) = (tokens as f64, width as f64);
        let noise = error / ((tokens - effective).max(tokens * LEAST_FREE) * width);
        let most = MOST * self.scale;
        let ridge = width * effective * noise / change;
        // Without changes there is nothing to tell noise from, and no number.
        let ridge = if ridge < most { ridge } else { most };
        for (now, &floor) in self.now.iter_mut().zip(&self.floors) {
            *now = floor.max(ridge);
        }
    }
}

/// What a sweep says about the ridge.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Evidence {
    /// The weighted square of what is missing.
    pub(crate) error: f64,
    /// Fitted tokens of the layer.
    pub(crate) tokens: usize,
    /// Outputs.
    pub(crate) width: usize,
    /// Effective parameters per output, of all experts.
    pub(crate) effective: f64,
    /// The squares of all changes.
    pub(crate) change: f64,
}
