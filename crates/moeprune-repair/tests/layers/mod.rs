//! Random layers that lost experts.

#![allow(dead_code, reason = "each test uses some of it")]

use moeprune_core::{Dtype, LayerRepair, SurvivingExpert};
use moeprune_linalg::Real;
use moeprune_repair::{Error, InMemoryStore, Layer, MemoryExpert, Refit, Store};

/// A layer, before anything is refitted.
#[derive(Debug, Clone)]
pub(crate) struct RandomLayer {
    pub(crate) width: usize,
    pub(crate) features: usize,
    pub(crate) fitted: usize,
    pub(crate) residual: Vec<f64>,
    pub(crate) token_weights: Vec<f64>,
    pub(crate) experts: Vec<SurvivingExpert>,
    pub(crate) activations: Vec<Vec<f64>>,
    pub(crate) weights: Vec<Vec<f64>>,
}

/// What became of one.
pub(crate) struct Refitted {
    pub(crate) repair: LayerRepair,
    pub(crate) residual: Vec<f64>,
    pub(crate) weights: Vec<Vec<f64>>,
}

impl RandomLayer {
    /// Each token reaches each expert by chance; one in four is held out if `held_out`.
    pub(crate) fn new(
        seed: u64,
        [tokens, experts, width, features]: [usize; 4],
        held_out: bool,
    ) -> Self {
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let mut next = move || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 11) as f64 / (1u64 << 53) as f64 * 2.0 - 1.0
        };
        let mut all = |count: usize| (0..count).map(|_| next()).collect::<Vec<f64>>();
        let mut layer = Self {
            width,
            features,
            fitted: if held_out { tokens - tokens / 4 } else { tokens },
            residual: all(tokens * width),
            token_weights: all(tokens).into_iter().map(|x| 1.0 + 0.5 * x).collect(),
            experts: Vec::new(),
            activations: Vec::new(),
            weights: Vec::new(),
        };
        for _ in 0..experts {
            let chosen = all(tokens);
            let tokens: Vec<u32> =
                (0..tokens as u32).filter(|&t| chosen[t as usize] > 0.0).collect();
            layer.activations.push(all(tokens.len() * features));
            layer.weights.push(all(width * features));
            layer.experts.push(SurvivingExpert { tokens, features, parts: Vec::new() });
        }
        layer
    }

    pub(crate) fn store<T: Real>(&self) -> InMemoryStore<T> {
        let experts = self.activations.iter().zip(&self.weights);
        let experts = experts.map(|(activations, weights)| MemoryExpert {
            activations: to(activations),
            weights: to(weights),
            features: self.features,
        });
        InMemoryStore::new(experts.collect())
    }

    pub(crate) fn refit<T: Real>(&self, refit: Refit) -> Result<Refitted, Error> {
        self.refit_in(refit, self.store::<T>())
    }

    pub(crate) fn refit_as(&self, refit: Refit, dtype: Dtype) -> Result<Refitted, Error> {
        self.refit_in(refit, self.store::<f32>().stored_as(dtype))
    }

    fn refit_in<T: Real>(&self, refit: Refit, store: InMemoryStore<T>) -> Result<Refitted, Error> {
        let mut residual = to(&self.residual);
        let repair = self.refit_with(refit, &store, &mut residual)?;
        let weights = store.into_weights().iter().map(|w| back(w)).collect();
        Ok(Refitted { repair, residual: back(&residual), weights })
    }

    pub(crate) fn refit_with<T: Real>(
        &self,
        refit: Refit,
        store: &dyn Store<T>,
        residual: &mut [T],
    ) -> Result<LayerRepair, Error> {
        let token_weights: Vec<T> = to(&self.token_weights);
        refit.refit(&mut Layer {
            layer: 3,
            width: self.width,
            residual,
            token_weights: &token_weights,
            fitted: self.fitted,
            experts: &self.experts,
            store,
        })
    }

    /// The residual that weights leave.
    pub(crate) fn residual_of(&self, weights: &[Vec<f64>]) -> Vec<f64> {
        let mut residual = self.residual.clone();
        for (expert, survivor) in self.experts.iter().enumerate() {
            let rows = self.activations[expert].chunks_exact(self.features);
            for (row, &token) in rows.zip(&survivor.tokens) {
                for out in 0..self.width {
                    let place = out * self.features..(out + 1) * self.features;
                    let change =
                        weights[expert][place.clone()].iter().zip(&self.weights[expert][place]);
                    let change: f64 = change.zip(row).map(|((new, old), x)| (new - old) * x).sum();
                    residual[token as usize * self.width + out] -= change;
                }
            }
        }
        residual
    }

    /// The weighted square of a residual over some tokens.
    pub(crate) fn error(&self, residual: &[f64], tokens: std::ops::Range<usize>) -> f64 {
        tokens
            .map(|token| {
                let row = &residual[token * self.width..(token + 1) * self.width];
                self.token_weights[token] * row.iter().map(|r| r * r).sum::<f64>()
            })
            .sum()
    }
}

pub(crate) fn to<T: Real>(values: &[f64]) -> Vec<T> {
    values.iter().map(|&x| T::from_f64(x)).collect()
}

fn back<T: Real>(values: &[T]) -> Vec<f64> {
    values.iter().map(|x| x.to_f64()).collect()
}
