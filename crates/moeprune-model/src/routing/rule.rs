//! How the experts of one token are chosen.

use moeprune_core::{
    CorrectionBias, ExpertGroups, GroupScore, LayerTensor, LinearId, MoeSpec, RouterSpec, Score,
    ScoredRouter, SparseMixer, TensorId,
};

use super::{
    real::{Real, first_largest},
    sparse_mixer,
};
use crate::{Error, linear::Weights, runnable};

/// A router's rule with the vectors it needs, computed in `R`.
#[derive(Debug)]
pub(crate) struct Rule<R> {
    pub(crate) experts: usize,
    /// Experts of a token; groups, if there are some, have as many.
    pub(crate) top_k: usize,
    pub(crate) router: Choice,
    /// Added to the logits.
    pub(crate) bias: Option<Vec<R>>,
    /// Added to the scores, for the selection.
    pub(crate) correction: Option<Vec<R>>,
    /// What weights are multiplied by.
    pub(crate) expert_scale: Option<Vec<R>>,
}

/// The kinds of routers that can be run.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Choice {
    Scored(ScoredRouter),
    SparseMixer(SparseMixer),
}

impl Rule<f32> {
    /// The rule of layer `layer`, whose block of experts is `moe`, with its vectors.
    pub(crate) fn load(weights: Weights<'_>, layer: usize, moe: &MoeSpec) -> Result<Self, Error> {
        if moe.experts == 0 || moe.top_k == 0 {
            return Err(Error::Spec(format!(
                "layer {layer}: {} experts, {} for each token; both must be at least 1",
                moe.experts, moe.top_k
            )));
        }
        let (experts, top_k) = (moe.experts, moe.top_k);
        let plain = |router| Self {
            experts,
            top_k,
            router,
            bias: None,
            correction: None,
            expert_scale: None,
        };
        let router = match &moe.router {
            RouterSpec::Scored(router) => router,
            RouterSpec::SparseMixer(mixer) => return Ok(plain(Choice::SparseMixer(*mixer))),
            RouterSpec::Opaque(_) => return Err(runnable::opaque_router(layer)),
        };
        if let Some(groups) = router.groups {
            let checked = groups.check_count(experts, top_k);
            checked.map_err(|reason| Error::Spec(format!("layer {layer}: {reason}")))?;
        }
        let stored = |tensor, shape: &[usize]| {
            weights.values(TensorId::Layer(layer, tensor), shape).map(Some)
        };
        let vector = |is_there: bool, tensor| match is_there {
            true => stored(tensor, &[experts]),
            false => Ok(None),
        };
        Ok(Self {
            bias: vector(router.bias, LayerTensor::Bias(LinearId::Router))?,
            correction: match router.correction_bias {
                CorrectionBias::None => None,
                CorrectionBias::Vector => stored(LayerTensor::CorrectionBias, &[experts])?,
                CorrectionBias::Row => stored(LayerTensor::CorrectionBias, &[1, experts])?,
            },
            expert_scale: vector(router.expert_scale, LayerTensor::ExpertScale)?,
            ..plain(Choice::Scored(*router))
        })
    }
}

impl<R: Real> Rule<R> {
    /// Without vectors.
    #[cfg(test)]
    pub(crate) fn new(experts: usize, top_k: usize, router: ScoredRouter) -> Self {
        let router = Choice::Scored(router);
        Self { experts, top_k, router, bias: None, correction: None, expert_scale: None }
    }

    /// The experts of a token and their weights, the largest weight first and the lower index first
    /// among equals. Experts that are `gone` (none, if that is empty) count as if they did not exist.
    /// The logits are of no use afterwards.
    pub(super) fn choose(
        &self,
        logits: &mut [R],
        gone: &[bool],
        indices: &mut [u32],
        weights: &mut [R],
    ) {
        leave_out(logits, gone);
        match &self.router {
            Choice::Scored(router) if *router == ScoredRouter::softmax(router.renormalize) => {
                choose_by_softmax(logits, indices, weights, router.renormalize);
            }
            Choice::Scored(router) => {
                self.choose_by_steps(router, logits, gone, (indices, weights))
            }
            Choice::SparseMixer(mixer) => {
                sparse_mixer::choose(mixer, logits, indices, weights);
            }
        }
    }

    fn choose_by_steps(
        &self,
        router: &ScoredRouter,
        scores: &mut [R],
        gone: &[bool],
        (indices, weights): (&mut [u32], &mut [R]),
    ) {
        add(scores, self.bias.as_deref());
        let logits = if router.selects_logits { Some(scores.to_vec()) } else { None };
        score(scores, router.score);
        let mut candidates = logits.unwrap_or_else(|| scores.to_vec());
        add(&mut candidates, self.correction.as_deref());
        leave_out(&mut candidates, gone);
        if let Some(groups) = router.groups {
            leave_out_groups(scores, &mut candidates, groups);
        }
        for (index, weight) in indices.iter_mut().zip(&mut *weights) {
            let best = first_largest(&candidates);
            (*index, *weight) = (best as u32, scores[best]);
            candidates[best] = R::LOWEST;
        }
        if router.renormalize {
            let total = weights.iter().copied().sum::<R>() + R::of(router.epsilon);
            let least = R::of(router.least_sum);
            let total = if total < least { least } else { total };
            weights.iter_mut().for_each(|weight| *weight /= total);
        }
        let scale = R::of(router.scale);
        for (weight, &index) in weights.iter_mut().zip(&*indices) {
            *weight *= scale;
            if let Some(own) = &self.expert_scale {
                *weight *= own[index as usize];
            }
        }
        sort(indices, weights);
    }
}

/// Softmax over all experts in f32, the largest, and, if asked, division by their sum.
fn choose_by_softmax<R: Real>(
    logits: &mut [R],
    indices: &mut [u32],
    weights: &mut [R],
    renormalize: bool,
) {
    let all = R::exponentiate(logits);
    for (index, weight) in indices.iter_mut().zip(&mut *weights) {
        let best = first_largest(logits);
        (*index, *weight) = (best as u32, logits[best]);
        logits[best] = R::LOWEST;
    }
    let total = if renormalize { weights.iter().copied().sum() } else { all };
    for weight in weights {
        *weight /= total;
    }
}

/// Experts that are gone are never chosen, but for want of others, and then have no weight.
fn leave_out<R: Real>(values: &mut [R], gone: &[bool]) {
    for (value, _) in values.iter_mut().zip(gone).filter(|(_, gone)| **gone) {
        *value = R::LOWEST;
    }
}

pub(super) fn add<R: Real>(values: &mut [R], bias: Option<&[R]>) {
    for (value, &bias) in values.iter_mut().zip(bias.unwrap_or_default()) {
        *value += bias;
    }
}

/// From logits to scores, in place.
pub(super) fn score<R: Real>(logits: &mut [R], score: Score) {
    match score {
        Score::Softmax => {
            let total = R::exponentiate(logits);
            logits.iter_mut().for_each(|logit| *logit /= total);
        }
        Score::Sigmoid => logits.iter_mut().for_each(|z| *z = z.sigmoid()),
        Score::SqrtSoftplus => {
            logits.iter_mut().for_each(|z| *z = z.softplus().sqrt());
        }
    }
}

/// Leaves out the experts of all but the best groups, the lower group first among equals.
fn leave_out_groups<R: Real>(scores: &mut [R], candidates: &mut [R], groups: ExpertGroups) {
    let size = candidates.len() / groups.count;
    let score = |group: &[R]| {
        let best = group[first_largest(group)];
        match groups.score {
            GroupScore::Max => best,
            GroupScore::TopTwo => {
                let mut rest = group.to_vec();
                rest.remove(first_largest(group));
                if rest.is_empty() { best } else { best + rest[first_largest(&rest)] }
            }
        }
    };
    let mut of_groups: Vec<R> = candidates.chunks_exact(size).map(score).collect();
    let mut is_left_out = vec![true; groups.count];
    for _ in 0..groups.selected {
        let best = first_largest(&of_groups);
        (is_left_out[best], of_groups[best]) = (false, R::LOWEST);
    }
    for (group, _) in is_left_out.into_iter().enumerate().filter(|(_, left_out)| *left_out) {
        let experts = group * size..(group + 1) * size;
        match groups.score {
            GroupScore::TopTwo => candidates[experts].fill(R::LOWEST),
            GroupScore::Max => {
                candidates[experts.clone()].fill(R::of(0.0));
                scores[experts].fill(R::of(0.0));
            }
        }
    }
}

/// The largest weight first, the lower index first among equals.
fn sort<R: Real>(indices: &mut [u32], weights: &mut [R]) {
    let mut pairs: Vec<(u32, R)> = indices.iter().copied().zip(weights.iter().copied()).collect();
    pairs.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
    for ((index, weight), pair) in indices.iter_mut().zip(weights).zip(pairs) {
        (*index, *weight) = pair;
    }
}

#[cfg(test)]
mod tests {
    use moeprune_core::{GateSide, RouterInput};

    use super::*;

    const SIGMOID: ScoredRouter = ScoredRouter {
        input: RouterInput::Experts,
        score: Score::Sigmoid,
        bias: false,
        correction_bias: CorrectionBias::None,
        groups: None,
        renormalize: false,
        epsilon: 0.0,
        least_sum: 0.0,
        scale: 1.0,
        expert_scale: false,
        selects_logits: false,
        gates: GateSide::Output,
    };

    /// Logits of these probabilities under the logistic function.
    fn logits(scores: &[f32]) -> Vec<f32> {
        scores.iter().map(|s| (s / (1.0 - s)).ln()).collect()
    }

    fn rule(top_k: usize, router: ScoredRouter) -> Rule<f32> {
        Rule::<f32>::new(6, top_k, router)
    }

    #[track_caller]
    fn check(rule: &Rule<f32>, mut logits: Vec<f32>, expected: &[(u32, f32)]) {
        let (mut indices, mut weights) = (vec![0; rule.top_k], vec![0.0; rule.top_k]);
        rule.choose(&mut logits, &[], &mut indices, &mut weights);
        let got: Vec<_> = indices.into_iter().zip(weights).collect();
        assert_eq!(got.len(), expected.len());
        for (got, want) in got.iter().zip(expected) {
            assert!(got.0 == want.0 && (got.1 - want.1).abs() < 1e-6, "{got:?} {expected:?}");
        }
    }

    const SCORES: [f32; 6] = [0.5, 0.1, 0.3, 0.4, 0.6, 0.2];

    #[test]
    fn scores() {
        check(&rule(2, SIGMOID), logits(&SCORES), &[(4, 0.6), (0, 0.5)]);
        check(&rule(2, SIGMOID), vec![0.0; 6], &[(0, 0.5), (1, 0.5)]);
        let softplus = ScoredRouter { score: Score::SqrtSoftplus, ..SIGMOID };
        let mut high = vec![-100.0; 6];
        (high[3], high[1]) = (100.0, 0.0);
        check(&rule(2, softplus), high, &[(3, 10.0), (1, 2.0_f32.ln().sqrt())]);
    }

    #[test]
    fn weights_are_divided_and_multiplied() {
        let some = ScoredRouter { renormalize: true, scale: 2.0, ..SIGMOID };
        check(&rule(2, some), logits(&SCORES), &[(4, 1.2 / 1.1), (0, 1.0 / 1.1)]);
        let padded = ScoredRouter { epsilon: 0.9, ..some };
        check(&rule(2, padded), logits(&SCORES), &[(4, 0.6), (0, 0.5)]);
        let own = vec![10.0, 1.0, 1.0, 1.0, 1.0, 1.0];
        let own = Rule::<f32> { expert_scale: Some(own), ..rule(2, SIGMOID) };
        check(&own, logits(&SCORES), &[(0, 5.0), (4, 0.6)]);
        let softmax = ScoredRouter { scale: 3.0, ..ScoredRouter::softmax(false) };
        check(&Rule::<f32>::new(2, 1, softmax), vec![0.0, 2.0_f32.ln()], &[(1, 2.0)]);
    }

    #[test]
    fn logits_choose_where_scores_are_equal() {
        let late = ScoredRouter { selects_logits: true, ..SIGMOID };
        check(&rule(1, SIGMOID), vec![30.0, 0.0, 40.0, 0.0, 50.0, 0.0], &[(0, 1.0)]);
        check(&rule(1, late), vec![30.0, 0.0, 40.0, 0.0, 50.0, 0.0], &[(4, 1.0)]);
        check(&rule(2, late), logits(&SCORES), &[(4, 0.6), (0, 0.5)]);
    }

    #[test]
    fn biases_choose_and_corrections_do_not_weigh() {
        let correction = vec![0.0, 0.45, 0.0, 0.0, 0.0, 0.0];
        let corrected = Rule::<f32> { correction: Some(correction), ..rule(2, SIGMOID) };
        check(&corrected, logits(&SCORES), &[(4, 0.6), (1, 0.1)]);
        let bias = vec![100.0, 0.0, 0.0, 0.0, 0.0, 0.0];
        check(&Rule::<f32> { bias: Some(bias), ..rule(1, SIGMOID) }, logits(&SCORES), &[(0, 1.0)]);
    }

    #[test]
    fn groups_come_first() {
        let by = |count, selected, score| {
            let groups = Some(ExpertGroups { count, selected, score });
            ScoredRouter { groups, ..SIGMOID }
        };
        // Groups of two: sums .6, .7, .8 and largest .5, .4, .6.
        check(&rule(2, by(3, 1, GroupScore::TopTwo)), logits(&SCORES), &[(4, 0.6), (5, 0.2)]);
        check(
            &rule(3, by(3, 2, GroupScore::TopTwo)),
            logits(&SCORES),
            &[(4, 0.6), (3, 0.4), (2, 0.3)],
        );
        check(
            &rule(3, by(3, 2, GroupScore::Max)),
            logits(&SCORES),
            &[(4, 0.6), (0, 0.5), (5, 0.2)],
        );
        // Groups of three: the two best make 0.8 each, so the first stays.
        check(&rule(1, by(2, 1, GroupScore::TopTwo)), vec![0.0; 6], &[(0, 0.5)]);
        // A group whose experts all count less than nothing is still preferred to one left out.
        let correction = vec![-9.0, -9.0, -9.0, -9.5, -9.5, -9.5];
        let negative =
            Rule::<f32> { correction: Some(correction), ..rule(2, by(2, 1, GroupScore::TopTwo)) };
        check(&negative, logits(&SCORES), &[(0, 0.5), (2, 0.3)]);
    }
}
