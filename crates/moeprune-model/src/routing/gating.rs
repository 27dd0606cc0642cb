//! How the experts of one token are chosen.

use std::cmp::Ordering;

use moeprune_core::{
    ExpertGroups, GroupScore, LayerTensor, LinearId, MoeSpec, RouterSpec, Score, ScoredRouter,
    TensorId, TensorSource,
};

use super::real::Real;
use crate::{Compute, Error, linear::Weights, runnable};

/// From a router's logits to the experts of a token and their weights, in the steps of
/// [`ScoredRouter`].
///
/// Written once, for the forward pass and for what asks how a router would choose without some of its
/// experts ([`gates_without`](Self::gates_without)).
#[derive(Debug, Clone)]
pub struct Gating {
    pub(super) experts: usize,
    /// Experts of a token; groups, if there are some, have as many.
    pub(super) top_k: usize,
    pub(super) router: ScoredRouter,
    /// Added to the logits.
    pub(super) bias: Vec<f32>,
    /// Added to the scores, for the selection.
    pub(super) correction: Vec<f32>,
    /// What weights are multiplied by.
    pub(super) expert_scale: Vec<f32>,
}

impl Gating {
    /// The gating of layer `layer`, whose block of experts is `moe`, with the vectors that it needs.
    ///
    /// # Errors
    /// [`Error::Kind`] if routers of this kind cannot be run; [`Error::Spec`] without experts, or if
    /// groups of experts are uneven or too few; [`Error::Read`] names a vector.
    pub fn load(source: &dyn TensorSource, moe: &MoeSpec, layer: usize) -> Result<Self, Error> {
        let RouterSpec::Scored(router) = moe.router else {
            return Err(runnable::opaque_router(layer));
        };
        if moe.experts == 0 || moe.top_k == 0 {
            return Err(Error::Spec(format!(
                "layer {layer}: {} experts, {} for each token; both must be at least 1",
                moe.experts, moe.top_k
            )));
        }
        check_groups(&router, moe, layer)?;
        let vector = |is_there: bool, tensor| match is_there {
            true => read(source, TensorId::Layer(layer, tensor), moe.experts),
            false => Ok(Vec::new()),
        };
        Ok(Self {
            experts: moe.experts,
            top_k: moe.top_k,
            router,
            bias: vector(router.bias, LayerTensor::Bias(LinearId::Router))?,
            correction: vector(router.correction_bias, LayerTensor::CorrectionBias)?,
            expert_scale: vector(router.expert_scale, LayerTensor::ExpertScale)?,
        })
    }

    /// The weight of each expert for a token with these logits if the experts that are `gone` did not
    /// exist; 0 of one that is not chosen. In f64: to compare choices, not to run a model.
    ///
    /// ```
    /// use moeprune_core::{
    ///     MlpSpec, MoeInput, MoeSpec, RouterSpec, StageError, StoredWeight, TensorId, TensorSource,
    /// };
    /// use moeprune_model::Gating;
    ///
    /// let moe = MoeSpec {
    ///     experts: 3,
    ///     top_k: 1,
    ///     router: RouterSpec::softmax(true),
    ///     expert: MlpSpec::gated(4),
    ///     shared: Vec::new(),
    ///     residual: None,
    ///     input: MoeInput::AfterAttention,
    /// };
    /// # struct NoVectors;
    /// # impl TensorSource for NoVectors {
    /// #     fn weight(&self, _: TensorId) -> Result<StoredWeight<'_>, StageError> {
    /// #         Err("this router has none".into())
    /// #     }
    /// # }
    /// let gating = Gating::load(&NoVectors, &moe, 0)?;
    /// assert_eq!(gating.gates_without(&[1.0, 3.0, 2.0], &[false; 3]), [0.0, 1.0, 0.0]);
    /// assert_eq!(gating.gates_without(&[1.0, 3.0, 2.0], &[false, true, false]), [0.0, 0.0, 1.0]);
    /// # Ok::<(), moeprune_model::Error>(())
    /// ```
    #[must_use]
    pub fn gates_without(&self, logits: &[f64], gone: &[bool]) -> Vec<f64> {
        let left = logits.iter().zip(gone);
        // Their score is 0, so where one is chosen for want of others its weight is 0 too.
        let mut logits_left: Vec<f64> =
            left.map(|(&logit, &gone)| if gone { f64::NEG_INFINITY } else { logit }).collect();
        let top_k = self.top_k.min(logits_left.len());
        let (mut indices, mut weights) = (vec![0; top_k], vec![0.0; top_k]);
        self.choose(&mut logits_left, &mut indices, &mut weights);
        let mut gates = vec![0.0; logits.len()];
        for (expert, weight) in indices.into_iter().zip(weights) {
            gates[expert as usize] = weight;
        }
        gates
    }

    /// The experts of a token and their weights, the largest weight first and the lower index first
    /// among equals. The logits are of no use afterwards; those of experts that are gone are minus
    /// infinity.
    pub(super) fn choose<R: Real>(&self, logits: &mut [R], indices: &mut [u32], weights: &mut [R]) {
        let renormalize = self.router.renormalize;
        if self.router == ScoredRouter::softmax(renormalize) {
            choose_by_softmax(logits, indices, weights, renormalize);
        } else {
            self.choose_by_steps(logits, indices, weights);
        }
    }

    fn choose_by_steps<R: Real>(&self, scores: &mut [R], indices: &mut [u32], weights: &mut [R]) {
        let gone: Vec<bool> = scores.iter().map(|logit| *logit == R::LOWEST).collect();
        add(scores, &self.bias);
        score(scores, self.router.score);
        let mut candidates = scores.to_vec();
        add(&mut candidates, &self.correction);
        for (candidate, _) in candidates.iter_mut().zip(gone).filter(|(_, gone)| *gone) {
            *candidate = R::LOWEST;
        }
        if let Some(groups) = self.router.groups {
            leave_out_groups(scores, &mut candidates, groups);
        }
        for (index, weight) in indices.iter_mut().zip(&mut *weights) {
            let best = first_largest(&candidates);
            (*index, *weight) = (best as u32, scores[best]);
            candidates[best] = R::LOWEST;
        }
        if self.router.renormalize {
            let total = weights.iter().copied().sum::<R>() + R::from_f64(self.router.epsilon);
            weights.iter_mut().for_each(|weight| *weight /= total);
        }
        for (weight, &index) in weights.iter_mut().zip(&*indices) {
            *weight *= R::from_f64(self.router.scale);
            if let Some(&own) = self.expert_scale.get(index as usize) {
                *weight *= R::from(own);
            }
        }
        sort(indices, weights);
    }
}

#[cfg(test)]
impl Gating {
    /// Without vectors.
    pub(super) fn plain(experts: usize, top_k: usize, router: ScoredRouter) -> Self {
        let (bias, correction, expert_scale) = (Vec::new(), Vec::new(), Vec::new());
        Self { experts, top_k, router, bias, correction, expert_scale }
    }
}

fn read(source: &dyn TensorSource, id: TensorId, experts: usize) -> Result<Vec<f32>, Error> {
    Weights { source, compute: &Compute::cpu() }.values(id, experts)
}

fn check_groups(router: &ScoredRouter, moe: &MoeSpec, layer: usize) -> Result<(), Error> {
    let Some(ExpertGroups { count, selected, .. }) = router.groups else { return Ok(()) };
    let is_even = count > 0 && moe.experts.is_multiple_of(count);
    if is_even && selected <= count && moe.top_k <= selected * (moe.experts / count) {
        return Ok(());
    }
    Err(Error::Spec(format!(
        "layer {layer}: {} experts in {count} groups, of which {selected} are chosen for {} experts \
         of a token: groups must be of equal size, and those chosen have as many experts",
        moe.experts, moe.top_k
    )))
}

/// Softmax over all experts, the largest, and, if asked, division by their sum.
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

/// Adds a vector, if there is one.
fn add<R: Real>(values: &mut [R], vector: &[f32]) {
    for (value, &added) in values.iter_mut().zip(vector) {
        *value += R::from(added);
    }
}

/// From logits to scores, in place.
fn score<R: Real>(logits: &mut [R], score: Score) {
    match score {
        Score::Softmax => {
            let total = R::exponentiate(logits);
            logits.iter_mut().for_each(|logit| *logit /= total);
        }
        Score::Sigmoid => logits.iter_mut().for_each(|logit| *logit = logit.sigmoid()),
        Score::SqrtSoftplus => logits.iter_mut().for_each(|logit| *logit = logit.sqrt_softplus()),
    }
}

/// Leaves out the experts of all but the best groups, the lower group first among equals.
fn leave_out_groups<R: Real>(scores: &mut [R], candidates: &mut [R], groups: ExpertGroups) {
    let size = candidates.len() / groups.count;
    let score = |group: &[R]| {
        let first = first_largest(group);
        match groups.score {
            GroupScore::Max => group[first],
            GroupScore::TopTwo => {
                let mut rest = group.to_vec();
                rest.remove(first);
                group[first] + rest.get(first_largest(&rest)).copied().unwrap_or(R::from(0.0))
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
                candidates[experts.clone()].fill(R::from(0.0));
                scores[experts].fill(R::from(0.0));
            }
        }
    }
}

fn first_largest<R: PartialOrd>(values: &[R]) -> usize {
    let mut best = 0;
    for (place, value) in values.iter().enumerate() {
        if *value > values[best] {
            best = place;
        }
    }
    best
}

/// The largest weight first, the lower index first among equals.
fn sort<R: Real>(indices: &mut [u32], weights: &mut [R]) {
    let mut pairs: Vec<(u32, R)> = indices.iter().copied().zip(weights.iter().copied()).collect();
    let order = |a: &(u32, R), b: &(u32, R)| b.1.partial_cmp(&a.1).unwrap_or(Ordering::Equal);
    pairs.sort_by(|a, b| order(a, b).then(a.0.cmp(&b.0)));
    for ((index, weight), pair) in indices.iter_mut().zip(weights).zip(pairs) {
        (*index, *weight) = pair;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIGMOID: ScoredRouter = ScoredRouter {
        score: Score::Sigmoid,
        bias: false,
        correction_bias: false,
        groups: None,
        renormalize: false,
        epsilon: 0.0,
        scale: 1.0,
        expert_scale: false,
    };

    /// Logits of these probabilities under the logistic function.
    fn logits(scores: &[f32]) -> Vec<f32> {
        scores.iter().map(|s| (s / (1.0 - s)).ln()).collect()
    }

    fn gating(top_k: usize, router: ScoredRouter) -> Gating {
        Gating::plain(6, top_k, router)
    }

    #[track_caller]
    fn check(gating: &Gating, mut logits: Vec<f32>, expected: &[(u32, f32)]) {
        let (mut indices, mut weights) = (vec![0; gating.top_k], vec![0.0; gating.top_k]);
        gating.choose(&mut logits, &mut indices, &mut weights);
        let got: Vec<_> = indices.into_iter().zip(weights).collect();
        assert_eq!(got.len(), expected.len());
        for (got, want) in got.iter().zip(expected) {
            assert!(got.0 == want.0 && (got.1 - want.1).abs() < 1e-6, "{got:?} {expected:?}");
        }
    }

    const SCORES: [f32; 6] = [0.5, 0.1, 0.3, 0.4, 0.6, 0.2];

    #[test]
    fn scores() {
        check(&gating(2, SIGMOID), logits(&SCORES), &[(4, 0.6), (0, 0.5)]);
        check(&gating(2, SIGMOID), vec![0.0; 6], &[(0, 0.5), (1, 0.5)]);
        let softplus = ScoredRouter { score: Score::SqrtSoftplus, ..SIGMOID };
        let mut high = vec![-100.0; 6];
        (high[3], high[1]) = (100.0, 0.0);
        check(&gating(2, softplus), high, &[(3, 10.0), (1, 2.0_f32.ln().sqrt())]);
    }

    #[test]
    fn weights_are_divided_and_multiplied() {
        let some = ScoredRouter { renormalize: true, scale: 2.0, ..SIGMOID };
        check(&gating(2, some), logits(&SCORES), &[(4, 1.2 / 1.1), (0, 1.0 / 1.1)]);
        let padded = ScoredRouter { epsilon: 0.9, ..some };
        check(&gating(2, padded), logits(&SCORES), &[(4, 0.6), (0, 0.5)]);
        let own = vec![10.0, 1.0, 1.0, 1.0, 1.0, 1.0];
        let own = Gating { expert_scale: own, ..gating(2, SIGMOID) };
        check(&own, logits(&SCORES), &[(0, 5.0), (4, 0.6)]);
        let softmax = ScoredRouter { scale: 3.0, ..ScoredRouter::softmax(false) };
        check(&Gating::plain(2, 1, softmax), vec![0.0, 2.0_f32.ln()], &[(1, 2.0)]);
    }

    #[test]
    fn biases_choose_and_corrections_do_not_weigh() {
        let correction = vec![0.0, 0.45, 0.0, 0.0, 0.0, 0.0];
        let corrected = Gating { correction: correction, ..gating(2, SIGMOID) };
        check(&corrected, logits(&SCORES), &[(4, 0.6), (1, 0.1)]);
        let bias = vec![100.0, 0.0, 0.0, 0.0, 0.0, 0.0];
        check(&Gating { bias: bias, ..gating(1, SIGMOID) }, logits(&SCORES), &[(0, 1.0)]);
    }

    #[test]
    fn experts_that_are_gone_weigh_nothing() {
        let correction = vec![9.0, 0.0, 0.0, 0.0, 0.0, 0.0];
        let corrected = Gating { correction, ..gating(2, SIGMOID) };
        let wide: Vec<f64> = logits(&SCORES).into_iter().map(f64::from).collect();
        let gates = corrected.gates_without(&wide, &[true, false, false, false, true, false]);
        let want = [0.0, 0.0, 0.3, 0.4, 0.0, 0.0];
        assert!(gates.iter().zip(want).all(|(got, want)| (got - want).abs() < 1e-6), "{gates:?}");
        let left = corrected.gates_without(&wide, &[true, true, true, true, true, false]);
        assert!((left[5] - 0.2).abs() < 1e-6 && left[..5] == [0.0; 5], "{left:?}");
    }

    #[test]
    fn groups_come_first() {
        let by = |count, selected, score| {
            let groups = Some(ExpertGroups { count, selected, score });
            ScoredRouter { groups, ..SIGMOID }
        };
        // Groups of two: sums .6, .7, .8 and largest .5, .4, .6.
        check(&gating(2, by(3, 1, GroupScore::TopTwo)), logits(&SCORES), &[(4, 0.6), (5, 0.2)]);
        check(
            &gating(3, by(3, 2, GroupScore::TopTwo)),
            logits(&SCORES),
            &[(4, 0.6), (3, 0.4), (2, 0.3)],
        );
        check(
            &gating(3, by(3, 2, GroupScore::Max)),
            logits(&SCORES),
            &[(4, 0.6), (0, 0.5), (5, 0.2)],
        );
        // Groups of three: the two best make 0.8 each, so the first stays.
        check(&gating(1, by(2, 1, GroupScore::TopTwo)), vec![0.0; 6], &[(0, 0.5)]);
        // A group whose experts all count less than nothing is still preferred to one left out.
        let correction = vec![-9.0, -9.0, -9.0, -9.5, -9.5, -9.5];
        let negative = Gating { correction: correction, ..gating(2, by(2, 1, GroupScore::TopTwo)) };
        check(&negative, logits(&SCORES), &[(0, 0.5), (2, 0.3)]);
    }
}
