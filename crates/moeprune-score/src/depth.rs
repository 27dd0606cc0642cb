//! Ratios that rise or fall from the first layer to the last.

use moeprune_core::{LayerProfile, Sparsity, SparsityAllocator, StageError};

use crate::Error;

/// Ratios on a straight line over the layers: the first has `s − slope`, the last `s + slope`, and
/// all are shifted so that the parameter-weighted mean is `s`, the ratio asked for. Ratios stay
/// between 0 and 0.99.
///
/// Early layers feed all later ones, so a positive slope spares them. It looks at nothing but a
/// layer's place: a profile to compare others with.
///
/// ```
/// use moeprune_core::{LayerProfile, Sparsity, SparsityAllocator};
/// use moeprune_score::Depth;
///
/// let layers = [0, 1, 2]
///     .map(|layer| LayerProfile { layer, prunable: 1000, outlier_percent: None });
/// let ratios = Depth { slope: 0.1 }.allocate(&layers, Sparsity::new(0.5)?)?;
/// let percent = ratios.iter().map(|s| (s.value() * 100.0).round());
/// assert_eq!(percent.collect::<Vec<_>>(), [40.0, 50.0, 60.0]);
/// # Ok::<(), moeprune_core::StageError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Default)]
#[expect(clippy::exhaustive_structs, reason = "the one parameter")]
pub struct Depth {
    /// Between −1 and 1.
    pub slope: f64,
}

/// No layer goes entirely.
const MOST: f64 = 0.99;

impl SparsityAllocator for Depth {
    fn allocate(
        &self,
        layers: &[LayerProfile],
        ratio: Sparsity,
    ) -> Result<Vec<Sparsity>, StageError> {
        if !(-1.0..=1.0).contains(&self.slope) {
            let range = "from -1 to 1";
            return Err(Error::Parameter { name: "slope", value: self.slope, range }.into());
        }
        let s = ratio.value();
        if s == 0.0 {
            return Ok(vec![ratio; layers.len()]);
        }
        let last = layers.len().saturating_sub(1).max(1) as f64;
        let total: f64 = layers.iter().map(|layer| layer.prunable as f64).sum();
        let offset = |place: usize| self.slope * (2.0 * place as f64 / last - 1.0);
        let line = |shift: f64| -> Vec<f64> {
            (0..layers.len()).map(|l| (s + offset(l) + shift).clamp(0.0, MOST.max(s))).collect()
        };
        let share = |ratios: &[f64]| -> f64 {
            let zeroed: f64 =
                ratios.iter().zip(layers).map(|(r, layer)| r * layer.prunable as f64).sum();
            zeroed / total.max(1.0)
        };
        // The share grows with the shift, and two shifts of opposite effect enclose the answer.
        let (mut low, mut high) = (-2.0, 2.0);
        for _ in 0..64 {
            let middle = 0.5 * (low + high);
            if share(&line(middle)) < s { low = middle } else { high = middle }
        }
        let ratios = line(if layers.len() < 2 { -offset(0) } else { high });
        ratios.into_iter().map(|r| Ok(Sparsity::new(r)?)).collect()
    }
}
