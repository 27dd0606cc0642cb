//! The least salient experts go.

use moeprune_core::{ExpertBudget, StageError};

use crate::Error;

/// Which experts of each layer go under a budget, ascending: the least salient, the higher index
/// first among equals, never one that is `protected`.
///
/// A uniform budget ranks within each layer. A global one ranks all experts by their share of their
/// layer's sum, times the layer's number of experts: raw saliencies of different layers have
/// different scales, and the layer with the smallest activations would lose everything. A layer
/// keeps at least its minimum; equals of different layers go from the last layer first.
///
/// ```
/// use moeprune_core::ExpertBudget;
/// use moeprune_select::least_salient;
///
/// let layers = [vec![5.0, 1.0, 4.0], vec![0.2, 0.1, 0.3]];
/// let gone = least_salient(&layers, &ExpertBudget::Uniform { keep: 2 }, &[])?;
/// assert_eq!(gone, [[1], [1]]);
/// # Ok::<(), moeprune_core::StageError>(())
/// ```
///
/// # Errors
/// If a saliency is not finite or negative, the budget cannot be met, or so many experts are
/// protected that it cannot be met without one of them.
pub fn least_salient(
    layers: &[Vec<f64>],
    budget: &ExpertBudget,
    protected: &[Vec<usize>],
) -> Result<Vec<Vec<usize>>, StageError> {
    let experts: Vec<usize> = layers.iter().map(Vec::len).collect();
    budget.check(&experts)?;
    for saliencies in layers {
        let bad = |s: &f64| !s.is_finite() || *s < 0.0;
        if let Some(expert) = saliencies.iter().position(bad) {
            return Err(Error::Saliency { expert, value: saliencies[expert] }.into());
        }
    }
    let ranking = Ranking { layers, protected };
    let mut gone = match *budget {
        ExpertBudget::Uniform { keep } => ranking.gone_per_layer(keep)?,
        ExpertBudget::Global { keep, min_per_layer } => {
            ranking.gone_overall(keep, min_per_layer)?
        }
        ref other => return Err(format!("no ranking for the budget {other:?}").into()),
    };
    gone.iter_mut().for_each(|experts| experts.sort_unstable());
    Ok(gone)
}

/// Saliencies by layer, and the experts by layer that stay at any saliency.
struct Ranking<'a> {
    layers: &'a [Vec<f64>],
    protected: &'a [Vec<usize>],
}

impl Ranking<'_> {
    /// The experts of a layer that may go.
    fn candidates(&self, layer: usize) -> impl Iterator<Item = usize> {
        let protected = self.protected.get(layer);
        (0..self.layers[layer].len())
            .filter(move |expert| !protected.is_some_and(|experts| experts.contains(expert)))
    }

    /// Ranked within each layer, which keeps `keep`.
    fn gone_per_layer(&self, keep: usize) -> Result<Vec<Vec<usize>>, Error> {
        let of_layer = |(layer, saliencies): (usize, &Vec<f64>)| {
            let mut order: Vec<usize> = self.candidates(layer).collect();
            order.sort_by(|&a, &b| saliencies[a].total_cmp(&saliencies[b]).then(b.cmp(&a)));
            let drop = saliencies.len() - keep;
            if order.len() < drop {
                let protected = saliencies.len() - order.len();
                return Err(Error::AllProtected { protected, keep });
            }
            order.truncate(drop);
            Ok(order)
        };
        self.layers.iter().enumerate().map(of_layer).collect()
    }

    /// Ranked over all layers, which keep `keep` together and each at least `min_per_layer`.
    fn gone_overall(&self, keep: usize, min_per_layer: usize) -> Result<Vec<Vec<usize>>, Error> {
        let mut order: Vec<(f64, usize, usize)> = Vec::new();
        for (layer, saliencies) in self.layers.iter().enumerate() {
            let sum: f64 = saliencies.iter().sum();
            let scale = if sum > 0.0 { saliencies.len() as f64 / sum } else { 0.0 };
            order.extend(self.candidates(layer).map(|e| (saliencies[e] * scale, layer, e)));
        }
        order.sort_by(|a, b| a.0.total_cmp(&b.0).then((b.1, b.2).cmp(&(a.1, a.2))));
        let mut left = self.layers.iter().map(Vec::len).sum::<usize>() - keep;
        let mut gone = vec![Vec::new(); self.layers.len()];
        for (_, layer, expert) in order {
            if left > 0 && self.layers[layer].len() - gone[layer].len() > min_per_layer.max(1) {
                gone[layer].push(expert);
                left -= 1;
            }
        }
        if left > 0 {
            let protected = self.protected.iter().map(Vec::len).sum();
            return Err(Error::AllProtected { protected, keep });
        }
        Ok(gone)
    }
}
