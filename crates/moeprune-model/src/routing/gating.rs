//! How a router would choose without some of its experts.

use moeprune_core::{GroupScore, ModelSpec, Score, TensorSource};

use super::{
    Rule,
    rule::{Choice, add, score},
};
use crate::{Compute, Error, linear::Weights};

/// From a router's logits to the weight of each expert, as the forward pass chooses: for what asks how
/// a router would choose if some experts did not exist.
#[derive(Debug)]
pub struct Gating {
    rule: Rule<f64>,
}

impl Gating {
    /// The gating of layer `layer`, with the router's vectors, if it has any.
    ///
    /// # Errors
    /// [`Error::Kind`] if routers of this kind cannot be run; [`Error::Spec`] without experts;
    /// [`Error::Read`] if a vector cannot be read.
    pub fn load(source: &dyn TensorSource, spec: &ModelSpec, layer: usize) -> Result<Self, Error> {
        let Some(moe) = spec.layers.get(layer).and_then(|layer| layer.moe()) else {
            return Err(Error::Spec(format!("layer {layer} has no experts")));
        };
        let compute = Compute::cpu();
        let rule = Rule::load(Weights { source, compute: &compute }, layer, moe)?;
        let wide = |values: Option<Vec<f32>>| {
            values.map(|values| values.into_iter().map(f64::from).collect())
        };
        let Rule { experts, top_k, router, bias, correction, expert_scale } = rule;
        let (bias, correction, expert_scale) = (wide(bias), wide(correction), wide(expert_scale));
        Ok(Self { rule: Rule { experts, top_k, router, bias, correction, expert_scale } })
    }

    /// The weight of each expert for a token with these logits if the experts that are `gone` did not
    /// exist; 0 of one that is not chosen. In f64: to compare choices, not to run a model.
    #[must_use]
    pub fn gates_without(&self, logits: &[f64], gone: &[bool]) -> Vec<f64> {
        let mut gates = vec![0.0; logits.len()];
        for (expert, weight) in self.chosen_without(logits, gone) {
            gates[expert] = weight;
        }
        gates
    }

    /// The experts of a token with these logits, and their weights, if the experts that are `gone` did not
    /// exist; the largest weight first. In f64: to compare choices, not to run a model.
    #[must_use]
    pub fn chosen_without(&self, logits: &[f64], gone: &[bool]) -> Vec<(usize, f64)> {
        let top_k = self.rule.top_k.min(logits.len());
        let (mut indices, mut weights) = (vec![0; top_k], vec![0.0; top_k]);
        self.rule.choose(&mut logits.to_vec(), gone, &mut indices, &mut weights);
        let chosen = indices.into_iter().map(|expert| expert as usize).zip(weights);
        // Those that are gone win for want of others.
        chosen.filter(|(expert, _)| !gone.get(*expert).copied().unwrap_or(false)).collect()
    }

    /// The experts, ascending, that can be chosen with a weight other than 0 for a token with these logits
    /// if at most `removals` experts do not exist, of each group where experts are in groups. Perhaps
    /// some more.
    #[must_use]
    pub fn within_reach(&self, logits: &[f64], removals: usize) -> Vec<usize> {
        let experts = logits.len();
        let Some(standing) = self.standing(logits) else { return (0..experts).collect() };
        let mut reach = Vec::new();
        let size = self.group_size(experts);
        for start in (0..experts).step_by(size) {
            let group = start..(start + size).min(experts);
            let mut best_first = standing[group.clone()].to_vec();
            best_first.sort_by(|a, b| b.total_cmp(a));
            let most = (self.rule.top_k + removals).clamp(1, best_first.len());
            let least = best_first[most - 1];
            // Exponentials may tie where logits do not.
            let least = least - 1e-9 * least.abs() - 1e-12;
            reach.extend(group.filter(|&expert| standing[expert] >= least));
        }
        reach
    }

    /// The experts that bear on a token with these logits: without any other than these, beside those that
    /// are `gone`, the choice of experts and their weights stay what they are. `None`: any expert may.
    ///
    /// A softmax that is not divided by its share of the chosen, for example, changes with every expert.
    #[must_use]
    pub fn bearing(&self, logits: &[f64], gone: &[bool]) -> Option<Vec<usize>> {
        if self.depends_on_all() {
            return None;
        }
        let mut found: Vec<usize> =
            self.chosen_without(logits, gone).into_iter().map(|(expert, _)| expert).collect();
        let Choice::Scored(router) = &self.rule.router else { return None };
        if let Some(groups) = router.groups {
            let standing = self.standing(logits)?;
            let best = match groups.score {
                GroupScore::Max => 1,
                GroupScore::TopTwo => 2,
            };
            let size = self.group_size(logits.len());
            for start in (0..logits.len()).step_by(size) {
                let mut left: Vec<usize> =
                    (start..start + size).filter(|&expert| !gone[expert]).collect();
                left.sort_by(|&a, &b| standing[b].total_cmp(&standing[a]).then(a.cmp(&b)));
                found.extend(left.into_iter().take(best));
            }
        }
        found.sort_unstable();
        found.dedup();
        Some(found)
    }

    /// The weight that each expert has whenever it is chosen for a token with these logits; `None` if that
    /// depends on which others there are.
    #[must_use]
    pub fn own_weights(&self, logits: &[f64]) -> Option<Vec<f64>> {
        let Choice::Scored(router) = &self.rule.router else { return None };
        if router.score == Score::Softmax || router.renormalize || router.groups.is_some() {
            return None;
        }
        let mut weights = logits.to_vec();
        add(&mut weights, self.rule.bias.as_deref());
        score(&mut weights, router.score);
        for (expert, weight) in weights.iter_mut().enumerate() {
            let own = self.rule.expert_scale.as_ref().map_or(1.0, |own| own[expert]);
            *weight *= router.scale * own;
        }
        Some(weights)
    }

    /// Numbers by which experts are ordered in their groups as the router orders them, any others being
    /// gone; `None` if their order depends on the others.
    fn standing(&self, logits: &[f64]) -> Option<Vec<f64>> {
        let mut standing = logits.to_vec();
        let Choice::Scored(router) = &self.rule.router else { return Some(standing) };
        add(&mut standing, self.rule.bias.as_deref());
        let correction = self.rule.correction.as_deref();
        let as_logits = router.score == Score::Softmax && correction.is_none();
        if !router.selects_logits && !as_logits {
            if router.score == Score::Softmax {
                return None;
            }
            score(&mut standing, router.score);
        }
        add(&mut standing, correction);
        Some(standing)
    }

    /// Whether experts that are not chosen may bear on the weights of those that are.
    fn depends_on_all(&self) -> bool {
        let Choice::Scored(router) = &self.rule.router else { return true };
        let divided = router.renormalize && router.epsilon == 0.0 && router.least_sum == 0.0;
        let selected = router.selects_logits || self.rule.correction.is_none();
        router.score == Score::Softmax && !(divided && selected)
    }

    fn group_size(&self, experts: usize) -> usize {
        let groups = match &self.rule.router {
            Choice::Scored(router) => router.groups.map_or(1, |groups| groups.count),
            Choice::SparseMixer(_) => 1,
        };
        (experts / groups.max(1)).max(1)
    }
}

#[cfg(test)]
mod tests {
    use moeprune_core::{ExpertGroups, ScoredRouter, SparseMixer};

    use super::*;

    #[test]
    fn experts_that_are_gone_are_passed_over() {
        let gating = Gating { rule: Rule::new(3, 1, ScoredRouter::softmax(true)) };
        let check = |gone: [bool; 3], want: [f64; 3]| {
            assert_eq!(gating.gates_without(&[1.0, 3.0, 2.0], &gone), want);
        };
        check([false; 3], [0.0, 1.0, 0.0]);
        check([false, true, false], [0.0, 0.0, 1.0]);
        check([true, true, false], [0.0, 0.0, 1.0]);
    }

    /// Routers of all kinds for eight experts, and logits for them.
    fn routers() -> Vec<(Gating, Vec<Vec<f64>>)> {
        let softmax = ScoredRouter::softmax;
        let sigmoid = ScoredRouter { score: Score::Sigmoid, ..softmax(true) };
        let groups = |score| Some(ExpertGroups { count: 2, selected: 1, score });
        let corrected = |router| Rule {
            correction: Some((0..8).map(|e| 0.3 * f64::from(e % 3)).collect()),
            ..Rule::new(8, 2, router)
        };
        let scaled = ScoredRouter { scale: 2.5, ..softmax(true) };
        let rules = vec![
            Rule::new(8, 2, softmax(true)),
            Rule::new(8, 2, softmax(false)),
            Rule::new(8, 3, scaled),
            corrected(softmax(true)),
            corrected(ScoredRouter { selects_logits: true, ..softmax(true) }),
            corrected(sigmoid),
            corrected(ScoredRouter { groups: groups(GroupScore::TopTwo), ..sigmoid }),
            Rule::new(8, 2, ScoredRouter { groups: groups(GroupScore::Max), ..softmax(false) }),
            Rule::new(8, 2, ScoredRouter { renormalize: false, ..sigmoid }),
            Rule {
                router: Choice::SparseMixer(SparseMixer { jitter: 0.5 }),
                ..Rule::new(8, 2, softmax(true))
            },
        ];
        let logit =
            |seed: u64| f64::from((seed.wrapping_mul(2_654_435_761) >> 7) as u32 % 17) / 4.0;
        let tokens = |router: u64| {
            let token = |token: u64| (0..8).map(|e| logit(97 * router + 31 * token + e)).collect();
            (0..12).map(token).collect()
        };
        rules.into_iter().zip(0..).map(|(rule, i)| (Gating { rule }, tokens(i))).collect()
    }

    /// All sets of experts that may be gone: at most one per half.
    fn gone() -> Vec<Vec<bool>> {
        let pairs = (0..5).flat_map(|a| (4..9).map(move |b| (a, b)));
        pairs.map(|(a, b)| (0..8).map(|e| (a < 4 && e == a) || e == b).collect()).collect()
    }

    #[test]
    fn experts_out_of_reach_are_not_chosen() {
        for (number, (gating, tokens)) in routers().iter().enumerate() {
            for (logits, gone) in
                tokens.iter().flat_map(|t| gone().into_iter().map(move |g| (t, g)))
            {
                let reach = gating.within_reach(logits, gone.iter().filter(|gone| **gone).count());
                for (expert, weight) in gating.chosen_without(logits, &gone) {
                    assert!(
                        weight == 0.0 || reach.contains(&expert),
                        "{number}: {logits:?} {gone:?}"
                    );
                }
            }
        }
    }

    #[test]
    fn experts_that_do_not_bear_on_a_token_change_nothing() {
        for (number, (gating, tokens)) in routers().iter().enumerate() {
            for (logits, gone) in
                tokens.iter().flat_map(|t| gone().into_iter().map(move |g| (t, g)))
            {
                let Some(bearing) = gating.bearing(logits, &gone) else { continue };
                let before = gating.gates_without(logits, &gone);
                for expert in (0..8).filter(|e| !gone[*e] && !bearing.contains(e)) {
                    let mut fewer = gone.clone();
                    fewer[expert] = true;
                    let after = gating.gates_without(logits, &fewer);
                    let same = before.iter().zip(&after).all(|(a, b)| (a - b).abs() < 1e-12);
                    assert!(same, "{number}: {logits:?} {gone:?} {expert}");
                }
            }
        }
    }

    #[test]
    fn own_weights_are_those_of_any_choice() {
        for (number, (gating, tokens)) in routers().iter().enumerate() {
            let alone = number == 8;
            for logits in tokens {
                let own = gating.own_weights(logits);
                assert_eq!(own.is_some(), alone, "{number}");
                for gone in gone() {
                    for (expert, weight) in gating.chosen_without(logits, &gone) {
                        assert!(own.as_ref().is_none_or(|own| own[expert] == weight), "{number}");
                    }
                }
            }
        }
    }
}
