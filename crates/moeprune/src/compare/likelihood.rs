//! How well a model predicts text, one layer in memory at a time.

use moeprune_capture::{ObserverOptions, StoredLayer, TokenBlocks, passes};
use moeprune_core::{ModelSpec, TensorSource};
use moeprune_model::Head;

use moeprune_engine::{Execution, Progress, Route, walk};

use crate::Error;

/// Negative log-likelihoods of blocks of text, in nats.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Likelihood {
    /// Sum and number of tokens predicted, block by block.
    pub(crate) blocks: Vec<(f64, usize)>,
}

impl Likelihood {
    /// The mean over all tokens.
    pub(crate) fn mean(&self) -> f64 {
        let (sum, tokens) =
            self.blocks.iter().fold((0.0, 0), |(sum, n), block| (sum + block.0, n + block.1));
        sum / tokens.max(1) as f64
    }

    /// The standard error of the difference of two models' means on the same blocks, each block
    /// one draw; `None` of fewer than two.
    pub(crate) fn stderr_of_difference(&self, other: &Self) -> Option<f64> {
        let mean = |block: &(f64, usize)| block.0 / block.1.max(1) as f64;
        let differences: Vec<f64> =
            self.blocks.iter().zip(&other.blocks).map(|(a, b)| mean(a) - mean(b)).collect();
        let n = differences.len() as f64;
        if n < 2.0 {
            return None;
        }
        let average = differences.iter().sum::<f64>() / n;
        let squares: f64 = differences.iter().map(|d| (d - average).powi(2)).sum();
        Some((squares / (n - 1.0) / n).sqrt())
    }
}

/// Text that a model predicts.
#[derive(Clone, Copy)]
pub(crate) struct Prediction<'a> {
    /// The model's weights.
    pub(crate) source: &'a dyn TensorSource,
    pub(crate) spec: &'a ModelSpec,
    pub(crate) blocks: &'a TokenBlocks,
    /// Where the model runs.
    pub(crate) execution: &'a Execution,
    /// What the work is called.
    pub(crate) step: &'a str,
}

/// Runs all blocks through the model, layer after layer.
pub(crate) fn likelihood(
    prediction: Prediction<'_>,
    progress: &mut dyn Progress,
) -> Result<Likelihood, Error> {
    let Prediction { source, spec, blocks, execution, step } = prediction;
    let compute = execution.compute();
    let tokens = blocks.tokens();
    let work: Vec<u64> = (0..spec.layers.len()).map(|layer| passes(spec, layer, tokens)).collect();
    let micro_batch = execution.micro_batch();
    let route =
        Route { source, spec, blocks: Some(blocks), micro_batch, execution, step, work: &work };
    let nothing = ObserverOptions { routing: false, inputs: false, hessians: false };
    let hidden = walk(&route, progress, |mut at| {
        let (layer, hidden) = (at.layer, at.take_hidden());
        let stored = StoredLayer { source, spec, layer, compute };
        let (_, outputs) = stored.observe_and_advance(hidden, nothing, at.watch)?;
        *at.hidden = Some(outputs);
        Ok(())
    })?;
    let head = Head::load(source, spec, compute)?;
    let mut found = Vec::with_capacity(blocks.blocks().len());
    let mut tokens = blocks.blocks().iter();
    for batch in hidden {
        let in_batch = batch.dim(0)?;
        for (row, block) in (0..in_batch).zip(&mut tokens) {
            let hidden = batch.get(row)?;
            found.push(head.negative_log_likelihood(&hidden, block, found.len())?);
        }
    }
    Ok(Likelihood { blocks: found })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn means_and_paired_errors() {
        let of = |sums: &[f64]| Likelihood { blocks: sums.iter().map(|&s| (s, 2)).collect() };
        let (a, b) = (of(&[4.0, 6.0]), of(&[2.0, 2.0]));
        assert_eq!((a.mean(), b.mean()), (2.5, 1.0));
        // Differences 1 and 2: standard deviation √½, over √2.
        assert!((a.stderr_of_difference(&b).unwrap() - 0.5).abs() < 1e-12);
        assert_eq!(of(&[1.0]).stderr_of_difference(&of(&[1.0])), None);
    }
}
