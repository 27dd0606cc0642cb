//! From router logits to experts.

mod gating;
mod real;
mod rule;
mod sparse_mixer;

use rayon::prelude::*;

pub use self::gating::Gating;
pub(crate) use self::rule::Rule;
use crate::{Error, RoutingChoice};

/// The experts of each token of a call.
#[derive(Debug)]
pub(crate) struct Routes {
    experts: usize,
    tokens: usize,
    top_k: usize,
    indices: Vec<u32>,
    weights: Vec<f32>,
}

impl Routes {
    /// The experts of each token as `rule` says. `logits` is `[tokens, experts]`; `layer` is for errors.
    pub(crate) fn choose(
        mut logits: Vec<f32>,
        rule: &Rule<f32>,
        layer: usize,
    ) -> Result<Self, Error> {
        let experts = rule.experts;
        let tokens = logits.len() / experts.max(1);
        let top_k = rule.top_k.min(experts);
        if let Some(place) = logits.iter().position(|v| !v.is_finite()) {
            let (token, expert, value) = (place / experts, place % experts, logits[place]);
            return Err(Error::NonFiniteRouting { layer, token, expert, value });
        }
        let (mut indices, mut weights) = (vec![0; tokens * top_k], vec![0.0; tokens * top_k]);
        if top_k > 0 {
            // A device sends the logits of many tokens at once.
            let rows = logits.par_chunks_exact_mut(experts).with_min_len(TOKENS_A_THREAD);
            rows.zip(indices.par_chunks_exact_mut(top_k))
                .zip(weights.par_chunks_exact_mut(top_k))
                .for_each(|((row, indices), weights)| rule.choose(row, &[], indices, weights));
        }
        Ok(Self { experts, tokens, top_k, indices, weights })
    }

    pub(crate) fn choice(&self) -> RoutingChoice<'_> {
        RoutingChoice {
            experts: self.experts,
            tokens: self.tokens,
            top_k: self.top_k,
            indices: &self.indices,
            weights: &self.weights,
        }
    }

    /// The same choices, expert by expert.
    pub(crate) fn by_expert(&self) -> ExpertTokens {
        let mut starts = vec![0; self.experts + 1];
        for &expert in &self.indices {
            starts[expert as usize + 1] += 1;
        }
        for e in 0..self.experts {
            starts[e + 1] += starts[e];
        }
        let mut next = starts.clone();
        let mut tokens = vec![0; self.indices.len()];
        let mut gates = vec![0.0; self.indices.len()];
        for (place, (&expert, &weight)) in self.indices.iter().zip(&self.weights).enumerate() {
            let slot = &mut next[expert as usize];
            tokens[*slot] = (place / self.top_k) as u32;
            gates[*slot] = weight;
            *slot += 1;
        }
        ExpertTokens { starts, tokens, gates }
    }
}

/// Tokens below which routing is not worth another thread.
const TOKENS_A_THREAD: usize = 1024;

/// For each expert its tokens, ascending, and their gates.
#[derive(Debug)]
pub(crate) struct ExpertTokens {
    starts: Vec<usize>,
    tokens: Vec<u32>,
    gates: Vec<f32>,
}

impl ExpertTokens {
    /// Tokens and gates of an expert; none for one that does not exist.
    pub(crate) fn of(&self, expert: usize) -> (&[u32], &[f32]) {
        match self.starts.get(expert..expert + 2) {
            Some(&[start, end]) => (&self.tokens[start..end], &self.gates[start..end]),
            _ => (&[], &[]),
        }
    }

    /// The largest number of tokens that an expert has.
    pub(crate) fn most(&self) -> usize {
        self.starts.windows(2).map(|range| range[1] - range[0]).max().unwrap_or(0)
    }

    /// Experts with at least one token, ascending: index, tokens, gates.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (usize, &[u32], &[f32])> {
        self.starts.windows(2).enumerate().filter(|(_, range)| range[0] < range[1]).map(
            |(expert, range)| {
                let range = range[0]..range[1];
                (expert, &self.tokens[range.clone()], &self.gates[range])
            },
        )
    }
}

#[cfg(test)]
mod tests {
    use moeprune_core::ScoredRouter;
    use proptest::prelude::*;

    use super::*;

    fn softmax(experts: usize, top_k: usize, renormalize: bool) -> Rule<f32> {
        Rule::new(experts, top_k, ScoredRouter::softmax(renormalize))
    }

    fn route(logits: &[f32], experts: usize, top_k: usize, renormalize: bool) -> Routes {
        Routes::choose(logits.to_vec(), &softmax(experts, top_k, renormalize), 0).unwrap()
    }

    fn check(logits: &[f32], top_k: usize, renormalize: bool, want: &[(u32, f32)]) {
        let routes = route(logits, logits.len(), top_k, renormalize);
        let got: Vec<_> =
            routes.indices.iter().copied().zip(routes.weights.iter().copied()).collect();
        assert_eq!(got.len(), want.len());
        for (g, w) in got.iter().zip(want) {
            assert!(g.0 == w.0 && (g.1 - w.1).abs() < 1e-6, "{got:?}");
        }
    }

    #[test]
    fn known_choices() {
        check(&[0.0, 0.0], 1, false, &[(0, 0.5)]);
        check(&[0.0, 0.0], 1, true, &[(0, 1.0)]);
        check(&[1.0, 3.0, 3.0, 0.0], 3, true, &[(1, 0.468_311), (2, 0.468_311), (0, 0.063_379)]);
        check(&[0.0, 2.0_f32.ln(), 4.0_f32.ln(), 0.0], 2, false, &[(2, 0.5), (1, 0.25)]);
        check(&[7.0], 2, true, &[(0, 1.0)]);
        check(&[-200.0, 200.0, -200.0], 2, true, &[(1, 1.0), (0, 0.0)]);
        check(&[], 2, true, &[]);
    }

    #[test]
    fn a_logit_that_is_not_finite_is_refused() {
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let rule = softmax(2, 1, true);
            let error = Routes::choose(vec![0.0, 1.0, 0.5, bad], &rule, 3).unwrap_err();
            assert!(
                matches!(error, Error::NonFiniteRouting { layer: 3, token: 1, expert: 1, .. }),
                "{error}"
            );
        }
    }

    fn logits() -> impl Strategy<Value = (Vec<f32>, usize, usize)> {
        (1..20_usize, 0..30_usize, 1..6_usize).prop_flat_map(|(experts, tokens, k)| {
            // Few distinct values, so that ties are common.
            let logit = (-8..8_i32).prop_map(|v| v as f32 * 0.5);
            (proptest::collection::vec(logit, experts * tokens), Just(experts), Just(k))
        })
    }

    proptest! {
        #[test]
        fn weights_are_sorted_and_sum_to_one((logits, experts, k) in logits()) {
            let routes = route(&logits, experts, k, true);
            let k = k.min(experts);
            prop_assert_eq!(routes.top_k, k);
            for (t, w) in routes.weights.chunks(k).enumerate() {
                prop_assert!((w.iter().sum::<f32>() - 1.0).abs() < 1e-6);
                prop_assert!(w.windows(2).all(|p| p[0] >= p[1]));
                let chosen = &routes.indices[t * k..][..k];
                let row = &logits[t * experts..][..experts];
                for pair in chosen.windows(2) {
                    let (a, b) = (pair[0] as usize, pair[1] as usize);
                    prop_assert!(row[a] > row[b] || (row[a] == row[b] && a < b));
                }
                let least = row[chosen[k - 1] as usize];
                let left_out = (0..experts).filter(|e| !chosen.contains(&(*e as u32)));
                for e in left_out {
                    prop_assert!(row[e] <= least);
                }
            }
        }

        #[test]
        fn without_renormalising_weights_are_the_softmax((logits, experts, k) in logits()) {
            let routes = route(&logits, experts, k, false);
            let k = k.min(experts);
            for (i, (&e, &w)) in routes.indices.iter().zip(&routes.weights).enumerate() {
                let row = &logits[i / k * experts..][..experts];
                let total: f64 = row.iter().map(|v| f64::from(*v).exp()).sum();
                let want = f64::from(row[e as usize]).exp() / total;
                prop_assert!((f64::from(w) - want).abs() < 1e-6);
            }
        }

        #[test]
        fn by_expert_loses_and_invents_nothing((logits, experts, k) in logits()) {
            let routes = route(&logits, experts, k, true);
            let mut seen = Vec::new();
            for (expert, tokens, gates) in routes.by_expert().iter() {
                prop_assert!(!tokens.is_empty() && tokens.len() == gates.len());
                prop_assert!(tokens.windows(2).all(|p| p[0] < p[1]));
                seen.extend(tokens.iter().zip(gates).map(|(&t, &g)| (t, expert as u32, g.to_bits())));
            }
            seen.sort_unstable();
            let k = k.min(experts);
            let place = |(i, (&e, &w)): (usize, (&u32, &f32))| ((i / k) as u32, e, w.to_bits());
            let mut want: Vec<_> =
                routes.indices.iter().zip(&routes.weights).enumerate().map(place).collect();
            want.sort_unstable();
            prop_assert_eq!(seen, want);
        }

        /// Renormalised weights depend on the chosen logits only, so removing experts that were
        /// not chosen changes nothing but their numbers.
        #[test]
        fn removing_unchosen_experts_changes_no_weight((logits, experts, k) in logits()) {
            let k = k.min(experts);
            for row in logits.chunks(experts) {
                let before = route(row, experts, k, true);
                let mut kept = before.indices.clone();
                kept.sort_unstable();
                let fewer: Vec<f32> = kept.iter().map(|&e| row[e as usize]).collect();
                let after = route(&fewer, k, k, true);
                let renamed: Vec<u32> =
                    after.indices.iter().map(|&e| kept[e as usize]).collect();
                prop_assert_eq!(renamed, before.indices);
                prop_assert_eq!(after.weights, before.weights);
            }
        }
    }
}
