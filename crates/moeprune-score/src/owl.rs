//! Layers with many outliers keep more.

use moeprune_core::{LayerProfile, Sparsity, SparsityAllocator, StageError};

use crate::{Error, sum::lane_sum};

/// Outlier-weighed layer-wise ratios (OWL, arXiv 2310.05175): a layer in which more scores stand
/// out is pruned less.
///
/// With `o_l` the percentage of scores of layer `l` above `multiplier` times the layer's mean
/// score, and `s` the overall ratio,
///
/// ```text
/// u_l = 2·lambda · (o_l − min o) / (max o − min o)
/// s_l = s − (u_l − mean u)
/// ```
///
/// so that the ratios spread over exactly `2·lambda`, the unweighted mean being `s`. Ratios at or
/// below zero become 0.01, those at or above 0.99 become 0.99. Layers that are all alike get `s`,
/// and at `s = 0` nothing is pruned anywhere.
///
/// Layers need not be equally large (experts were removed, some layers are dense), and the clamps
/// move the mean: with `exact_total` all ratios are shifted by one common amount so that the
/// share of weights over all layers is `s` after all.
///
/// ```
/// use moeprune_core::{LayerProfile, Sparsity, SparsityAllocator};
/// use moeprune_score::Owl;
///
/// let layers = [1.0, 3.0, 5.0]
///     .map(|o| LayerProfile { layer: 0, prunable: 1000, outlier_percent: Some(o) });
/// let ratios = Owl::default().allocate(&layers, Sparsity::new(0.7)?)?;
/// let percent = ratios.iter().map(|s| (s.value() * 100.0).round());
/// assert_eq!(percent.collect::<Vec<_>>(), [78.0, 70.0, 62.0]);
/// # Ok::<(), moeprune_core::StageError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
#[expect(clippy::exhaustive_structs, reason = "the method's parameters")]
pub struct Owl {
    /// `M`: how many times the mean makes an outlier. The paper's pruned models used 5.
    pub multiplier: f64,
    /// Half the spread between the most and the least pruned layer.
    pub lambda: f64,
    /// Whether the parameter-weighted mean of the ratios is made equal to the overall ratio. `false`
    /// reproduces the reference.
    pub exact_total: bool,
}

impl Default for Owl {
    fn default() -> Self {
        Self { multiplier: 5.0, lambda: 0.08, exact_total: true }
    }
}

impl SparsityAllocator for Owl {
    fn allocate(
        &self,
        layers: &[LayerProfile],
        ratio: Sparsity,
    ) -> Result<Vec<Sparsity>, StageError> {
        let positive = "a number above 0";
        check("OWL's multiplier M", self.multiplier, self.multiplier > 0.0, positive)?;
        check("OWL's lambda", self.lambda, (0.0..1.0).contains(&self.lambda), "from 0 to below 1")?;
        let outliers = layers.iter().map(percent).collect::<Result<Vec<f64>, Error>>()?;
        let s = ratio.value();
        if s <= 0.0 {
            return Ok(vec![ratio; layers.len()]);
        }
        let mut ratios = self.spread(&outliers, s);
        if self.exact_total {
            let weights: Vec<f64> = layers.iter().map(|l| l.prunable as f64).collect();
            shift_to_total(&mut ratios, &weights, s);
        } else {
            for ratio in &mut ratios {
                *ratio = if *ratio <= 0.0 { FLOOR } else { ratio.min(CEILING) };
            }
        }
        Ok(ratios.into_iter().map(Sparsity::new).collect::<Result<_, _>>()?)
    }

    fn keeps_mean(&self) -> bool {
        self.exact_total
    }

    fn outlier_threshold(&self) -> Option<f64> {
        Some(self.multiplier)
    }
}

/// What a ratio at or below zero becomes.
const FLOOR: f64 = 0.01;
/// What a ratio above it becomes.
const CEILING: f64 = 0.99;

fn check(name: &'static str, value: f64, good: bool, range: &'static str) -> Result<(), Error> {
    if good && value.is_finite() { Ok(()) } else { Err(Error::Parameter { name, value, range }) }
}

fn percent(layer: &LayerProfile) -> Result<f64, Error> {
    let LayerProfile { layer, outlier_percent, .. } = *layer;
    outlier_percent
        .filter(|percent| (0.0..=100.0).contains(percent))
        .ok_or(Error::OutlierPercent { layer, percent: outlier_percent })
}

impl Owl {
    /// The formula before any clamp, in the reference's order of operations: where a ratio times
    /// the columns is nearly whole, its last bit decides a row's count.
    fn spread(&self, outliers: &[f64], s: f64) -> Vec<f64> {
        let min = outliers.iter().copied().fold(f64::INFINITY, f64::min);
        let max = outliers.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let scale = 1.0 / (max - min) * self.lambda * 2.0;
        // All alike, or so nearly that the scale overflows.
        if !scale.is_finite() {
            return vec![s; outliers.len()];
        }
        let above: Vec<f64> = outliers.iter().map(|o| (o - min) * scale).collect();
        let mean = lane_sum(&above) / above.len() as f64;
        above.iter().map(|u| 1.0 - (u - mean + (1.0 - s))).collect()
    }
}

/// Adds to all ratios the constant that makes their weighted mean `s`, each held between the floor
/// and the ceiling (or `s` itself where that is beyond them).
///
/// The mean is piecewise linear in the constant and does not decrease, with corners where a ratio
/// meets a bound: the corners around `s` are found and the line between them solved.
fn shift_to_total(ratios: &mut [f64], weights: &[f64], s: f64) {
    let (low, high) = (FLOOR.min(s), CEILING.max(s));
    let shifted = |shift: f64, ratio: f64| (ratio + shift).clamp(low, high);
    let total = lane_sum(weights);
    // How far above `s` the mean is, times the total weight.
    let excess = |shift: f64| {
        let terms: Vec<f64> =
            ratios.iter().zip(weights).map(|(&r, w)| w * (shifted(shift, r) - s)).collect();
        lane_sum(&terms)
    };
    if total > 0.0 {
        let mut corners: Vec<f64> = ratios.iter().flat_map(|r| [low - r, high - r]).collect();
        corners.sort_by(f64::total_cmp);
        let after = corners.partition_point(|&shift| excess(shift) < 0.0);
        let right = corners[after.min(corners.len() - 1)];
        let left = corners[after.saturating_sub(1)];
        let (a, b) = (excess(left), excess(right));
        let shift = if b > a { left - a * (right - left) / (b - a) } else { right };
        ratios.iter_mut().for_each(|r| *r = shifted(shift, *r));
    } else {
        ratios.iter_mut().for_each(|r| *r = shifted(0.0, *r));
    }
}
