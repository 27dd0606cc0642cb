//! The few experts whose outputs peak far above all others'.

use moeprune_core::LayerBehaviour;

use crate::{Error, routing::peaks};

/// What makes an expert a super expert: a peak above a percentile of the peaks of all experts of
/// all layers, and above a share of the largest of them.
///
/// Dropping such an expert is said to break a model, few as they are (arXiv 2507.23279). The paper
/// looks at peaks of the down projection's output, which is what
/// [`output_peaks`](moeprune_core::RoutingSums::output_peaks) has, and uses these two numbers.
#[derive(Debug, Clone, Copy, PartialEq)]
#[expect(clippy::exhaustive_structs, reason = "options, written as literals")]
pub struct SuperExperts {
    /// From 0 to 100.
    pub percentile: f64,
    /// From 0 to 1.
    pub share_of_largest: f64,
}

impl Default for SuperExperts {
    /// As in the paper: the 99.5th percentile, a tenth of the largest.
    fn default() -> Self {
        Self { percentile: 99.5, share_of_largest: 0.1 }
    }
}

/// The super experts of each layer, ascending.
///
/// The percentile is the nearest rank: of `n` peaks, the `⌈n · percentile / 100⌉`-th smallest.
/// Where `n` is so small that this is the largest peak, that one is taken with it.
///
/// ```
/// use moeprune_core::{LayerBehaviour, MatrixView, RoutingSums};
/// use moeprune_saliency::{SuperExperts, super_experts};
///
/// let routing = RoutingSums { output_peaks: vec![1.0, 900.0, 2.0], ..RoutingSums::new(3, 1) };
/// let router = MatrixView::new(3, 1, &[0.0; 3])?;
/// let layer = LayerBehaviour { routing: Some(&routing), ..LayerBehaviour::new(0, router) };
/// assert_eq!(super_experts(&[layer], SuperExperts::default())?, [[1]]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// If a layer was not observed or has no peaks, or a parameter is out of range.
pub fn super_experts(
    layers: &[LayerBehaviour<'_>],
    rule: SuperExperts,
) -> Result<Vec<Vec<usize>>, Error> {
    let SuperExperts { percentile, share_of_largest } = rule;
    let check = |name, value: f64, most: f64, range| match (0.0..=most).contains(&value) {
        true => Ok(()),
        false => Err(Error::Parameter { name, range, value }),
    };
    check("percentile", percentile, 100.0, "from 0 to 100")?;
    check("share_of_largest", share_of_largest, 1.0, "from 0 to 1")?;
    let peaks = layers.iter().map(peaks).collect::<Result<Vec<_>, _>>()?;
    let mut all: Vec<f64> = peaks.iter().copied().flatten().copied().collect();
    all.sort_by(f64::total_cmp);
    let Some(&largest) = all.last() else { return Ok(vec![Vec::new(); layers.len()]) };
    let rank = (all.len() as f64 * percentile / 100.0).ceil() as usize;
    let threshold = all[rank.clamp(1, all.len()) - 1];
    let is_super = |&peak: &f64| {
        let above = peak > threshold || (threshold == largest && peak == largest);
        above && peak > 0.0 && peak >= share_of_largest * largest
    };
    let of_layer = |peaks: &&[f64]| {
        let indexed = peaks.iter().enumerate();
        indexed.filter(|(_, peak)| is_super(peak)).map(|(expert, _)| expert).collect()
    };
    Ok(peaks.iter().map(of_layer).collect())
}
