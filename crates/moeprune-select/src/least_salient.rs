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
    let spared = |layer: usize, expert: usize| {
        protected.get(layer).is_some_and(|experts| experts.contains(&expert))
    };
    let candidates = |layer: usize| (0..experts[layer]).filter(move |&e| !spared(layer, e));
    let mut gone: Vec<Vec<usize>> = match *budget {
        ExpertBudget::Uniform { keep } => (0..layers.len())
            .map(|layer| {
                let mut order: Vec<usize> = candidates(layer).collect();
                order.sort_by(|&a, &b| {
                    layers[layer][a].total_cmp(&layers[layer][b]).then(b.cmp(&a))
                });
                let drop = experts[layer] - keep;
                if order.len() < drop {
                    let protected = experts[layer] - order.len();
                    return Err(Error::AllProtected { protected, keep });
                }
                order.truncate(drop);
                Ok(order)
            })
            .collect::<Result<_, _>>()?,
        ExpertBudget::Global { keep, min_per_layer } => {
            let mut order: Vec<(f64, usize, usize)> = (0..layers.len())
                .flat_map(|layer| {
                    let sum: f64 = layers[layer].iter().sum();
                    let scale = if sum > 0.0 { experts[layer] as f64 / sum } else { 0.0 };
                    candidates(layer).map(move |e| (layers[layer][e] * scale, layer, e))
                })
                .collect();
            order.sort_by(|a, b| a.0.total_cmp(&b.0).then((b.1, b.2).cmp(&(a.1, a.2))));
            let mut left = experts.iter().sum::<usize>() - keep;
            let mut gone = vec![Vec::new(); layers.len()];
            for (_, layer, expert) in order {
                if left > 0 && experts[layer] - gone[layer].len() > min_per_layer.max(1) {
                    gone[layer].push(expert);
                    left -= 1;
                }
            }
            if left > 0 {
                let protected = protected.iter().map(Vec::len).sum();
                return Err(Error::AllProtected { protected, keep }.into());
            }
            gone
        }
        ref other => return Err(format!("no ranking for the budget {other:?}").into()),
    };
    gone.iter_mut().for_each(|experts| experts.sort_unstable());
    Ok(gone)
}
