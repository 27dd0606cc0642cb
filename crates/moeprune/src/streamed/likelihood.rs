//! How well a model predicts text, one layer in memory at a time.

use candle_core::Tensor;
use moeprune_engine::Progress;

use super::Streamed;
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

/// Runs all blocks through the model, layer after layer.
pub(crate) fn likelihood(
    model: &Streamed<'_>,
    progress: &mut dyn Progress,
) -> Result<Likelihood, Error> {
    likelihood_after(model, &model.hidden(progress)?)
}

/// The same, given the last layer's outputs.
pub(crate) fn likelihood_after(
    model: &Streamed<'_>,
    hidden: &[Tensor],
) -> Result<Likelihood, Error> {
    let head = model.head()?;
    let blocks = hidden.iter().zip(model.blocks.blocks()).enumerate();
    let of = |(number, (hidden, block)): (usize, (&Tensor, &Vec<u32>))| {
        Ok(head.negative_log_likelihood(hidden, block, number)?)
    };
    Ok(Likelihood { blocks: blocks.map(of).collect::<Result<_, Error>>()? })
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
