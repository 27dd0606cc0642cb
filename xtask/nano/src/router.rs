//! Routers: which experts a token goes to, and with what shares.

use crate::kernel::experts::Routing;
use crate::kernel::linear::linear;
use anyhow::Result;
use candle_core::{D, Device, Tensor, Var};
use candle_nn::ops::{sigmoid, softmax};

/// The router of one layer.
#[derive(Debug)]
pub(crate) enum Router {
    /// Arctic's: shares are the softmax over all experts, scaled to a sum of 1 over the chosen.
    Softmax {
        /// [experts, hidden].
        weight: Var,
    },
    /// DeepSeek-V3's: selection by sigmoid plus correction bias, shares from the sigmoids alone.
    Sigmoid {
        /// [experts, hidden].
        weight: Var,
        /// Added to the scores of selection; changed by loads, not by gradients.
        bias: Vec<f32>,
        /// What the shares of a token sum to.
        scale: f64,
    },
}

/// What a router decides.
#[derive(Debug)]
pub(crate) struct Routed {
    /// [tokens, chosen].
    pub(crate) shares: Tensor,
    pub(crate) routing: Routing,
    /// The load-balancing loss; absent where a bias balances loads.
    pub(crate) balance: Option<Tensor>,
}

impl Router {
    /// The weights, [experts, hidden].
    pub(crate) fn weight(&self) -> &Var {
        match self {
            Self::Softmax { weight } | Self::Sigmoid { weight, .. } => weight,
        }
    }

    /// The `chosen` experts of each row of `v`, none of them among `dropped`.
    pub(crate) fn route(&self, v: &Tensor, chosen: usize, dropped: &[u32]) -> Result<Routed> {
        match self {
            Self::Softmax { weight } => by_softmax(v, weight, chosen, dropped),
            Self::Sigmoid { weight, bias, scale } => {
                let scores = sigmoid(&linear(v, weight)?)?;
                let mut bias = bias.clone();
                for &expert in dropped {
                    bias[expert as usize] = f32::NEG_INFINITY;
                }
                let experts = bias.len();
                let biased = scores.detach().broadcast_add(&Tensor::new(bias, &Device::Cpu)?)?;
                let (routing, kept) = choose(&biased, &scores, chosen, experts)?;
                let sums = (kept.sum_keepdim(D::Minus1)? + 1e-20)?;
                let shares = (kept.broadcast_div(&sums)? * *scale)?;
                Ok(Routed { shares, routing, balance: None })
            }
        }
    }

    /// Moves the bias of each expert by `step`, up below the mean load and down above it.
    pub(crate) fn correct(&mut self, loads: &[f32], step: f32) {
        if let Self::Sigmoid { bias, .. } = self {
            let mean = 1.0 / loads.len() as f32;
            for (bias, load) in bias.iter_mut().zip(loads) {
                *bias += step * f32::from(i8::from(*load < mean) - i8::from(*load > mean));
            }
        }
    }
}

fn by_softmax(v: &Tensor, weight: &Var, chosen: usize, dropped: &[u32]) -> Result<Routed> {
    let experts = weight.dim(0)?;
    let mut logits = linear(v, weight)?;
    if !dropped.is_empty() {
        let mut mask = vec![0.0f32; experts];
        for &expert in dropped {
            mask[expert as usize] = f32::NEG_INFINITY;
        }
        logits = logits.broadcast_add(&Tensor::new(mask, &Device::Cpu)?)?;
    }
    let probabilities = softmax(&logits, D::Minus1)?;
    let (routing, kept) = choose(&probabilities.detach(), &probabilities, chosen, experts)?;
    let shares = kept.broadcast_div(&kept.sum_keepdim(D::Minus1)?)?;
    // Switch Transformer's: lowest, at 1, when probabilities and loads are both even.
    let loads = Tensor::new(routing.shares(), &Device::Cpu)?;
    let balance = ((probabilities.mean(0)? * loads)?.sum_all()? * experts as f64)?;
    Ok(Routed { shares, routing, balance: Some(balance) })
}

/// The experts with the highest of `by` per row, and what `scores` says of those, [rows, chosen].
fn choose(
    by: &Tensor,
    scores: &Tensor,
    chosen: usize,
    experts: usize,
) -> Result<(Routing, Tensor)> {
    let table = by.flatten_all()?.to_vec1::<f32>()?;
    let top: Vec<u32> = table.chunks_exact(experts).flat_map(|row| highest(row, chosen)).collect();
    let routing = Routing::new(&top, chosen, experts);
    let top = Tensor::from_vec(top, (scores.dim(0)?, chosen), &Device::Cpu)?;
    Ok((routing, scores.gather(&top, D::Minus1)?))
}

/// The indices of the `count` highest values, highest first; the lower index on a tie.
fn highest(row: &[f32], count: usize) -> Vec<u32> {
    let mut found: Vec<u32> = Vec::with_capacity(count);
    for _ in 0..count {
        let mut best: Option<u32> = None;
        for index in 0..row.len() as u32 {
            let better = best.is_none_or(|best| row[index as usize] > row[best as usize]);
            if better && !found.contains(&index) {
                best = Some(index);
            }
        }
        found.extend(best);
    }
    found
}
