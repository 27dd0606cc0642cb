//! Dropping one expert after the other.

use moeprune_core::{GateSide, LayerNorms, LayerSpec};
use moeprune_model::Gating;
use rayon::prelude::*;

use crate::Error;

/// What is known of one token in a layer.
#[derive(Debug)]
pub(super) struct Token {
    /// Of each expert, without the router's bias.
    pub(super) logits: Vec<f64>,
    /// The experts that it may be sent to, ascending.
    pub(super) reach: Vec<u32>,
    /// The inner products of what they make of it: of the `i`-th with those up to it, for each `i`.
    pub(super) products: Vec<f64>,
}

/// How gates and tokens count.
#[derive(Debug, Clone, Copy)]
pub(super) struct Weighing {
    /// What gates multiply. Outputs of experts whose inputs they multiply have them in them.
    pub(super) gates: GateSide,
    /// Whether a norm follows the experts' sum, so that differences count relative to it.
    pub(super) is_normed: bool,
}

impl Weighing {
    /// In this layer.
    pub(super) fn of(layer: &LayerSpec) -> Self {
        let side = layer.moe().map(|moe| moe.router.gate_side());
        Self {
            gates: side.unwrap_or(GateSide::Output),
            is_normed: layer.norms != LayerNorms::Before,
        }
    }
}

/// How many experts go, and which cannot.
#[derive(Debug)]
pub(super) struct Quota {
    /// Of each block.
    pub(super) per_block: usize,
    /// Equally large blocks of neighbours.
    pub(super) blocks: usize,
    /// Per expert, whether it stays in any case.
    pub(super) protected: Vec<bool>,
}

/// An expert that goes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Removal {
    pub(super) expert: usize,
    /// By how much that raises the loss, as a share of what the experts make in all.
    pub(super) share: f64,
}

/// The experts of a layer in the order in which they go.
///
/// A token's loss depends on its own experts and on those that would take their places. After each removal
/// only tokens of which it was one are computed again.
pub(super) fn removals(
    tokens: &[Token],
    gating: &Gating,
    weighing: Weighing,
    quota: &Quota,
) -> Result<Vec<Removal>, Error> {
    let rule = Rule { gating, weighing };
    let experts = quota.protected.len();
    let size = (experts / quota.blocks.max(1)).max(1);
    let mut gone = vec![false; experts];
    let mut states: Vec<State> = tokens.par_iter().map(|token| rule.begin(token)).collect();
    let whole: f64 = states.iter().map(|state| state.whole).sum();
    if !whole.is_finite() {
        return Err(Error::Request(
            "what experts make of calibration tokens is not finite; check the model".to_owned(),
        ));
    }
    tokens.par_iter().zip(&mut states).for_each(|(token, state)| rule.update(token, state, &gone));
    let mut left = vec![quota.per_block; quota.blocks];
    let mut found = Vec::with_capacity(quota.per_block * quota.blocks);
    while found.len() < quota.per_block * quota.blocks {
        let mut raises = vec![0.0; experts];
        for state in &states {
            for &(expert, raise) in &state.raises {
                raises[expert] += raise;
            }
        }
        let may_go = |e: &usize| !gone[*e] && !quota.protected[*e] && left[*e / size] > 0;
        let first_least = |best: usize, e: usize| if raises[e] < raises[best] { e } else { best };
        let Some(expert) = (0..experts).filter(may_go).reduce(first_least) else { break };
        let share = if whole > 0.0 { raises[expert] / whole } else { 0.0 };
        found.push(Removal { expert, share });
        gone[expert] = true;
        left[expert / size] -= 1;
        tokens
            .par_iter()
            .zip(&mut states)
            .filter(|(_, state)| state.concerned.binary_search(&expert).is_ok())
            .for_each(|(token, state)| rule.update(token, state, &gone));
    }
    Ok(found)
}

/// How a token stands while experts go.
#[derive(Debug)]
struct State {
    /// Its experts, and how much each counts, when none is gone.
    dense: Vec<(usize, f64)>,
    /// The square of what they make together, as far as the token counts.
    whole: f64,
    /// How much the token counts.
    weight: f64,
    /// By how much its loss rises without one more expert, of all experts that bear on it.
    raises: Vec<(usize, f64)>,
    /// The experts without which that changes, ascending: they bear on the token, or will when one that does
    /// is gone.
    concerned: Vec<usize>,
}

/// What a token is sent to, and what that costs.
struct Rule<'a> {
    gating: &'a Gating,
    weighing: Weighing,
}

impl Rule<'_> {
    fn begin(&self, token: &Token) -> State {
        let dense = self.chosen(token, &vec![false; token.logits.len()]);
        let square = token.square(&dense);
        let (whole, weight) = match self.weighing.is_normed {
            false => (square, 1.0),
            true if square > 0.0 => (1.0, 1.0 / square),
            true => (square, 0.0),
        };
        State { dense, whole, weight, raises: Vec::new(), concerned: Vec::new() }
    }

    /// Computes the raises of a token again, now that these experts are gone.
    fn update(&self, token: &Token, state: &mut State, gone: &[bool]) {
        let mut gone = gone.to_vec();
        let loss = self.loss(token, state, &gone);
        let bearing = self.bearing(token, &gone);
        let mut concerned = bearing.clone();
        let raise = |expert: usize| {
            gone[expert] = true;
            let raise = state.weight * (self.loss(token, state, &gone) - loss);
            concerned.extend(self.bearing(token, &gone));
            gone[expert] = false;
            (expert, raise)
        };
        state.raises = bearing.into_iter().map(raise).collect();
        concerned.sort_unstable();
        concerned.dedup();
        state.concerned = concerned;
    }

    /// The experts that bear on a token when these are gone.
    fn bearing(&self, token: &Token, gone: &[bool]) -> Vec<usize> {
        let bearing = self.gating.bearing(&token.logits, gone);
        bearing.unwrap_or_else(|| (0..gone.len()).filter(|&expert| !gone[expert]).collect())
    }

    fn loss(&self, token: &Token, state: &State, gone: &[bool]) -> f64 {
        let mut difference = state.dense.clone();
        for (expert, gate) in self.chosen(token, gone) {
            match difference.iter_mut().find(|(other, _)| *other == expert) {
                Some((_, old)) => *old -= gate,
                None => difference.push((expert, -gate)),
            }
        }
        token.square(&difference)
    }

    /// The experts of a token if these are gone, and how much the output of each counts.
    fn chosen(&self, token: &Token, gone: &[bool]) -> Vec<(usize, f64)> {
        let mut chosen = self.gating.chosen_without(&token.logits, gone);
        if self.weighing.gates == GateSide::Input {
            chosen.iter_mut().for_each(|(_, gate)| *gate = 1.0);
        }
        chosen
    }
}

impl Token {
    /// `|Σ factor · output|²` over these experts.
    fn square(&self, factors: &[(usize, f64)]) -> f64 {
        let place = |&(expert, factor): &(usize, f64)| {
            let place =
                self.reach.binary_search(&(expert as u32)).ok().filter(|_| factor != 0.0)?;
            Some((place, factor))
        };
        let factors: Vec<(usize, f64)> = factors.iter().filter_map(place).collect();
        let mut square = 0.0;
        for (i, &(a, of_a)) in factors.iter().enumerate() {
            for &(b, of_b) in &factors[..i] {
                square += 2.0 * of_a * of_b * self.products[triangle(a.max(b)) + a.min(b)];
            }
            square += of_a * of_a * self.products[triangle(a) + a];
        }
        // Rounding may leave less than nothing of what cancels.
        square.max(0.0)
    }
}

/// Numbers before row `row` of a lower triangle.
pub(super) fn triangle(row: usize) -> usize {
    row * (row + 1) / 2
}
