//! Rotary positions.

use serde::Serialize;

/// Rotary position embeddings (Su et al. 2021): dimensions of a head turn in pairs by
/// `position · theta^(−2i / dims)`.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[expect(clippy::exhaustive_structs, reason = "plain data")]
pub struct RotarySpec {
    /// Base of the angles.
    pub theta: f64,
    /// How many of a head's first dimensions turn; the others stay. Even.
    pub dims: usize,
    /// Which dimensions turn together.
    pub style: RotaryStyle,
    /// How the angles were changed for longer sequences.
    pub scaling: RotaryScaling,
}

/// Which dimensions turn together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[expect(clippy::exhaustive_enums, reason = "a new kind must be answered for everywhere")]
pub enum RotaryStyle {
    /// `i` and `i + dims / 2`
    Half,
    /// `2i` and `2i + 1`
    Pair,
}

/// How angles were changed for longer sequences than a model was first trained on.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
#[expect(clippy::exhaustive_enums, reason = "a new kind must be answered for everywhere")]
pub enum RotaryScaling {
    /// Not at all.
    None,
    /// All angles are divided by `factor` (Chen et al. 2023).
    Linear {
        /// What they are divided by.
        factor: f64,
    },
    /// By wavelength, as Llama 3.1 does.
    Llama3(Llama3Scaling),
    /// By wavelength, as YaRN does.
    Yarn(YarnScaling),
    /// By a larger base, `theta · alpha^(dims / (dims − 2))` (Hunyuan).
    NtkAlpha {
        /// What the base grows with.
        alpha: f64,
    },
    /// By a factor for each pair (LongRoPE).
    LongRope(LongRopeScaling),
    /// Of the pairs only the first turn, by the angles they have among all; those are divided by `factor`
    /// (Gemma 4 in full layers).
    Proportional {
        /// Pairs that turn.
        pairs: usize,
        /// What their angles are divided by.
        factor: f64,
    },
}

/// Angles whose wavelength is above `original / low` positions are divided by `factor`, those below
/// `original / high` stay, those between are blended. Where `low` is `high` there are none between.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[expect(clippy::exhaustive_structs, reason = "plain data")]
pub struct Llama3Scaling {
    /// What slow angles are divided by.
    pub factor: f64,
    /// Turns within the original length below which an angle is slow.
    pub low: f64,
    /// Turns above which it is fast; at least `low`.
    pub high: f64,
    /// Positions of the first training.
    pub original: f64,
}

/// YaRN (Peng et al. 2023, arXiv 2309.00071): as Llama 3.1, but blended linearly over dimensions, and
/// with larger scores.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[expect(clippy::exhaustive_structs, reason = "plain data")]
pub struct YarnScaling {
    /// What slow angles are divided by.
    pub factor: f64,
    /// Positions of the first training.
    pub original: f64,
    /// Turns within the original length above which an angle is fast.
    pub beta_fast: f64,
    /// Turns below which it is slow.
    pub beta_slow: f64,
    /// Whether the first and last blended dimension are rounded outwards to whole numbers.
    pub truncate: bool,
    /// What cosines and sines are multiplied by, if it is said.
    pub attention_factor: Option<f64>,
    /// Numerator of that factor in DeepSeek's form.
    pub mscale: Option<f64>,
    /// Denominator of it; its square multiplies the scores of latent attention.
    pub mscale_all_dim: Option<f64>,
}

/// LongRoPE (Ding et al. 2024, arXiv 2402.13753) up to the length of the first training: each angle is
/// divided by its factor. Longer sequences have other factors, which are not kept here.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[expect(clippy::exhaustive_structs, reason = "plain data")]
pub struct LongRopeScaling {
    /// What the angle of each pair is divided by, `[dims / 2]`.
    pub factors: Vec<f64>,
    /// What cosines and sines are multiplied by.
    pub magnitude: f64,
    /// Positions of the first training, beyond which these factors do not hold.
    pub original: usize,
}

impl RotarySpec {
    /// Half style and unscaled, over `dims` dimensions.
    #[must_use]
    pub fn plain(theta: f64, dims: usize) -> Self {
        Self { theta, dims, style: RotaryStyle::Half, scaling: RotaryScaling::None }
    }

    /// The angle per position of each pair, `[dims / 2]`.
    #[must_use]
    pub fn frequencies(&self) -> Vec<f64> {
        let dims = self.dims as f64;
        let of_base =
            |base: f64| (0..self.dims / 2).map(move |i| base.powf(-2.0 * i as f64 / dims));
        let plain = of_base(self.theta);
        match &self.scaling {
            RotaryScaling::None => plain.collect(),
            RotaryScaling::Linear { factor } => plain.map(|f| f / factor).collect(),
            RotaryScaling::Llama3(llama) => plain.map(|f| llama.scaled(f)).collect(),
            RotaryScaling::Yarn(yarn) => {
                let slow = yarn.slow_share(self.theta, self.dims);
                plain.zip(slow).map(|(f, s)| f * (1.0 - s) + f / yarn.factor * s).collect()
            }
            RotaryScaling::NtkAlpha { alpha } => {
                of_base(self.theta * alpha.powf(dims / (dims - 2.0))).collect()
            }
            RotaryScaling::LongRope(long) => {
                plain.zip(&long.factors).map(|(f, factor)| f / factor).collect()
            }
            RotaryScaling::Proportional { pairs, factor } => {
                let turning = |(i, f)| if i < *pairs { f / factor } else { 0.0 };
                plain.enumerate().map(turning).collect()
            }
        }
    }
}

impl RotaryScaling {
    /// What cosines and sines are multiplied by.
    #[must_use]
    pub fn attention_factor(&self) -> f64 {
        match self {
            Self::Yarn(yarn) => yarn.attention_factor(),
            Self::LongRope(long) => long.magnitude,
            Self::None
            | Self::Linear { .. }
            | Self::Llama3(_)
            | Self::NtkAlpha { .. }
            | Self::Proportional { .. } => 1.0,
        }
    }

    /// What the scores of latent attention are multiplied by in addition.
    #[must_use]
    pub fn latent_score_factor(&self) -> f64 {
        match self {
            Self::Yarn(yarn) => {
                let all = yarn.mscale_all_dim.filter(|all| *all != 0.0);
                all.map_or(1.0, |all| yarn.magnitude(all).powi(2))
            }
            Self::None
            | Self::Linear { .. }
            | Self::Llama3(_)
            | Self::NtkAlpha { .. }
            | Self::LongRope(_)
            | Self::Proportional { .. } => 1.0,
        }
    }

    /// The longest sequence for which the angles are as they are here; `None`: there is no such limit.
    #[must_use]
    pub fn longest(&self) -> Option<usize> {
        match self {
            Self::LongRope(long) => Some(long.original),
            Self::None
            | Self::Linear { .. }
            | Self::Llama3(_)
            | Self::Yarn(_)
            | Self::NtkAlpha { .. }
            | Self::Proportional { .. } => None,
        }
    }
}

impl Llama3Scaling {
    fn scaled(&self, frequency: f64) -> f64 {
        let wavelength = std::f64::consts::TAU / frequency;
        if wavelength > self.original / self.low {
            frequency / self.factor
        } else if wavelength < self.original / self.high || self.low == self.high {
            frequency
        } else {
            let fast = (self.original / wavelength - self.low) / (self.high - self.low);
            (1.0 - fast) * frequency / self.factor + fast * frequency
        }
    }
}

impl YarnScaling {
    /// How far each pair is to be divided by the factor, from 0 to 1.
    fn slow_share(&self, theta: f64, dims: usize) -> impl Iterator<Item = f64> + use<> {
        let dim = |turns: f64| {
            let turns = (self.original / (turns * std::f64::consts::TAU)).ln();
            dims as f64 * turns / (2.0 * theta.ln())
        };
        let (mut low, mut high) = (dim(self.beta_fast), dim(self.beta_slow));
        if self.truncate {
            (low, high) = (low.floor(), high.ceil());
        }
        let (low, mut high) = (low.max(0.0), high.min(dims as f64 - 1.0));
        if low == high {
            high += 0.001;
        }
        (0..dims / 2).map(move |i| ((i as f64 - low) / (high - low)).clamp(0.0, 1.0))
    }

    fn attention_factor(&self) -> f64 {
        let is_given = |scale: &f64| *scale != 0.0;
        let (top, bottom) = (self.mscale.filter(is_given), self.mscale_all_dim.filter(is_given));
        match (self.attention_factor, top, bottom) {
            (Some(said), _, _) => said,
            (None, Some(top), Some(bottom)) => self.magnitude(top) / self.magnitude(bottom),
            (None, _, _) => self.magnitude(1.0),
        }
    }

    /// `0.1 · scale · ln factor + 1`, or 1 for a factor that shortens.
    fn magnitude(&self, scale: f64) -> f64 {
        if self.factor <= 1.0 { 1.0 } else { 0.1 * scale * self.factor.ln() + 1.0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(scaling: RotaryScaling, expected: [f64; 4]) {
        let got = RotarySpec { scaling, ..RotarySpec::plain(1e4, 8) }.frequencies();
        assert_eq!(got.len(), 4);
        for (got, want) in got.iter().zip(expected) {
            assert!((got - want).abs() < 1e-12, "{got} {want}");
        }
    }

    fn yarn(factor: f64, original: f64) -> YarnScaling {
        YarnScaling {
            factor,
            original,
            beta_fast: 32.0,
            beta_slow: 1.0,
            truncate: true,
            attention_factor: None,
            mscale: None,
            mscale_all_dim: None,
        }
    }

    /// Computed from the published formulas by other code.
    #[test]
    fn frequencies() {
        check(RotaryScaling::None, [1.0, 0.1, 0.01, 0.001]);
        check(RotaryScaling::Linear { factor: 4.0 }, [0.25, 0.025, 0.0025, 0.00025]);
        let llama = Llama3Scaling { factor: 8.0, low: 1.0, high: 4.0, original: 1024.0 };
        check(RotaryScaling::Llama3(llama), [1.0, 0.1, 0.003_086_760_967_011_274, 0.000_125]);
        check(RotaryScaling::Yarn(yarn(40.0, 256.0)), [1.0, 0.05125, 0.00025, 0.000_025]);
        let part = RotaryScaling::Proportional { pairs: 2, factor: 2.0 };
        check(part, [0.5, 0.05, 0.0, 0.0]);
        let sharp = Llama3Scaling { high: 1.0, ..llama };
        check(RotaryScaling::Llama3(sharp), [1.0, 0.1, 0.01, 0.000_125]);
        let exact = YarnScaling { truncate: false, ..yarn(4.0, 256.0) };
        check(RotaryScaling::Yarn(exact), [1.0, 0.055_398_636_634_604_78, 0.0025, 0.00025]);
        let steep = YarnScaling { beta_fast: 1.0, ..yarn(32.0, 4096.0) };
        check(RotaryScaling::Yarn(steep), [1.0, 0.1, 0.01, 0.000_031_25]);
    }

    #[track_caller]
    fn check_factors(yarn: YarnScaling, attention: f64, scores: f64) {
        let scaling = RotaryScaling::Yarn(yarn);
        assert!((scaling.attention_factor() - attention).abs() < 1e-12, "{scaling:?}");
        assert!((scaling.latent_score_factor() - scores).abs() < 1e-12, "{scaling:?}");
    }

    #[test]
    fn factors_of_yarn() {
        let (one, share) = (1.368_887_945_411_393_6, 1.260_803_777_405_855_4);
        let plain = yarn(40.0, 256.0);
        check_factors(plain, one, 1.0);
        check_factors(yarn(1.0, 256.0), 1.0, 1.0);
        check_factors(YarnScaling { attention_factor: Some(1.5), ..plain }, 1.5, 1.0);
        let both = YarnScaling { mscale: Some(0.707), mscale_all_dim: Some(0.707), ..plain };
        check_factors(both, 1.0, share * share);
        check_factors(YarnScaling { mscale: Some(1.0), ..both }, one / share, share * share);
        // A zero counts as if it were not there.
        check_factors(YarnScaling { mscale: Some(0.0), ..both }, one, share * share);
        check_factors(YarnScaling { mscale_all_dim: Some(0.0), ..both }, one, 1.0);
    }
}
