//! An entry of an imatrix that belongs to a Linear, its shape checked.

use moeprune_core::{InputMoments, LinearShape};
use moeprune_gguf::imatrix::{Imatrix, ImatrixEntry, Tally};

use super::names;
use crate::ImatrixMismatch;

/// The entry of a tensor that holds `matrices` matrices of `inputs` inputs each.
#[derive(Debug, Clone)]
pub(super) struct Found<'a> {
    pub(super) tensor: String,
    entry: &'a ImatrixEntry,
    inputs: usize,
}

impl<'a> Found<'a> {
    /// The entry of a tensor of `layer`, if the imatrix has one; `linear` is a Linear that it holds, of
    /// which there are `matrices`.
    pub(super) fn look_up(
        imatrix: &'a Imatrix,
        (layer, name): (usize, &str),
        linear: &LinearShape,
        matrices: usize,
    ) -> Result<Option<Self>, ImatrixMismatch> {
        let tensor = names::full(layer, name);
        let Some(entry) = imatrix.entries.get(&tensor) else { return Ok(None) };
        let inputs = linear.cols;
        let (fits, expected, got) = match entry.tally {
            Tally::Tokens(_) => (
                (entry.matrices, entry.inputs) == (matrices, inputs),
                described(matrices, inputs),
                described(entry.matrices, entry.inputs),
            ),
            // It does not say how many matrices there are.
            Tally::Calls(_) => (
                matrices.checked_mul(inputs) == Some(entry.sums.len()),
                format!("{} values", matrices.saturating_mul(inputs)),
                format!("{} values", entry.sums.len()),
            ),
        };
        if !fits {
            let linear = linear.id.to_string();
            return Err(ImatrixMismatch::Shape { tensor, linear, layer, expected, got });
        }
        Ok(Some(Self { tensor, entry, inputs }))
    }

    /// Tokens per matrix; `None` of the older form.
    pub(super) fn tokens(&self) -> Option<&'a [u64]> {
        match &self.entry.tally {
            Tally::Tokens(tokens) => Some(tokens),
            Tally::Calls(_) => None,
        }
    }

    /// What one matrix multiplied. A matrix of an expert is the one of that number.
    pub(super) fn moments(
        &self,
        expert: Option<usize>,
        chunks: Option<u64>,
    ) -> Result<InputMoments, ImatrixMismatch> {
        let matrix = expert.unwrap_or(0);
        let sums = &self.entry.sums[matrix * self.inputs..(matrix + 1) * self.inputs];
        let (tokens, calls) = match &self.entry.tally {
            Tally::Tokens(tokens) => {
                let tokens = tokens[matrix];
                (tokens, chunks.unwrap_or(1).min(tokens))
            }
            Tally::Calls(calls) => {
                let is_idle = expert.is_some() && sums.iter().all(|&sum| sum == *calls as f32);
                match is_idle {
                    true => return Ok(InputMoments::new(self.inputs)),
                    // The tokens are lost, and with them what calls would be compared with.
                    false => (*calls, 0),
                }
            }
        };
        if tokens == 0
            && let Some(got) = sums.iter().find(|&&sum| sum != 0.0)
        {
            let (tensor, got) = (self.tensor.clone(), got.to_string());
            return Err(ImatrixMismatch::Idle { tensor, expert: matrix, got });
        }
        let sum_squares = sums.iter().map(|&sum| f64::from(sum)).collect();
        Ok(InputMoments { tokens, calls, sum_squares })
    }
}

/// Refuses entries whose tokens differ.
pub(super) fn check_agree(found: &[Found<'_>], of_experts: bool) -> Result<(), ImatrixMismatch> {
    for pair in found.windows(2) {
        let [first, second] = pair else { continue };
        let (Some(mine), Some(theirs)) = (first.tokens(), second.tokens()) else { continue };
        let differs = mine.iter().zip(theirs).position(|(mine, theirs)| mine != theirs);
        if let Some(at) = differs {
            return Err(ImatrixMismatch::Disagree {
                first: first.tensor.clone(),
                second: second.tensor.clone(),
                expected: mine[at],
                got: theirs[at],
                expert: of_experts.then_some(at),
            });
        }
    }
    Ok(())
}

fn described(matrices: usize, inputs: usize) -> String {
    match matrices {
        1 => format!("{inputs} inputs"),
        matrices => format!("{inputs} inputs of each of {matrices} experts"),
    }
}
