//! The conformance suites catch scorers, patterns and allocators that break their contract.

use std::{
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::atomic::{AtomicUsize, Ordering},
};

use moeprune_core::{
    BoundScorer, LayerProfile, LinearView, Sparsity, SparsityAllocator, StageError, WeightScorer,
};
use moeprune_score::MaskPattern;
use moeprune_tests::conformance;

/// `suite` must panic, and say `message`.
#[track_caller]
fn caught(suite: impl FnOnce(), message: &str) {
    let payload = catch_unwind(AssertUnwindSafe(suite)).expect_err("the suite found nothing");
    let said = payload.downcast_ref::<String>().map_or("", String::as_str);
    assert!(said.contains(message), "{said}");
}

/// A stage that is a closure.
struct Stage<F> {
    run: F,
    /// What the provided method says: inputs are needed, a ratio is fixed, outliers are wanted.
    says: Option<f64>,
}

impl<F> Stage<F> {
    fn new(run: F) -> Self {
        Self { run, says: None }
    }

    fn saying(run: F, says: f64) -> Self {
        Self { run, says: Some(says) }
    }
}

impl<F> fmt::Debug for Stage<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Stage")
    }
}

impl<F> WeightScorer for Stage<F>
where
    F: Fn(&LinearView<'_>, &[f32], &mut [f32]) + Send + Sync,
{
    fn bind<'a>(
        &'a self,
        linear: &LinearView<'a>,
    ) -> Result<Box<dyn BoundScorer + 'a>, StageError> {
        let linear = *linear;
        Ok(Box::new(move |weights: &[f32], scores: &mut [f32]| {
            (self.run)(&linear, weights, scores);
        }))
    }

    fn needs_inputs(&self) -> bool {
        self.says.is_some()
    }
}

impl<F: Fn(&[f32], usize, &mut [bool]) + Send + Sync> MaskPattern for Stage<F> {
    fn mask_row(&self, scores: &[f32], quota: usize, mask: &mut [bool]) {
        (self.run)(scores, quota, mask);
    }

    fn fixed_ratio(&self) -> Option<Sparsity> {
        self.says.and_then(|says| Sparsity::new(says).ok())
    }
}

impl<F> SparsityAllocator for Stage<F>
where
    F: Fn(&[LayerProfile], f64) -> Vec<f64> + Send + Sync,
{
    fn allocate(
        &self,
        layers: &[LayerProfile],
        ratio: Sparsity,
    ) -> Result<Vec<Sparsity>, StageError> {
        Ok((self.run)(layers, ratio.value())
            .into_iter()
            .map(Sparsity::new)
            .collect::<Result<_, _>>()?)
    }

    fn outlier_threshold(&self) -> Option<f64> {
        self.says
    }
}

fn fill(scores: &mut [f32], weights: &[f32], score: impl Fn(usize, f32) -> f32) {
    for (j, (s, &w)) in scores.iter_mut().zip(weights).enumerate() {
        *s = score(j, w);
    }
}

#[test]
fn scorers() {
    type Row<'a> = (&'a LinearView<'a>, &'a [f32], &'a mut [f32]);
    fn check(run: impl Fn(Row<'_>) + Send + Sync, says: Option<f64>, message: &str) {
        let run = |linear: &LinearView<'_>, weights: &[f32], scores: &mut [f32]| {
            run((linear, weights, scores));
        };
        let stage = Stage { run, says };
        caught(|| conformance::scorer::check(&stage), message);
    }
    check(|(_, w, s)| fill(s, w, |_, w| w), None, "score -");
    check(|(_, w, s)| fill(s, w, |_, w| 1.0 / w.abs()), None, "score inf");
    check(|(_, w, s)| fill(s, w, |_, _| 1.0), None, "all score the same");
    check(|(_, w, s)| fill(&mut s[1..], w, |_, w| w.abs()), None, "on the buffer");
    let calls = AtomicUsize::new(0);
    let counts = |(_, w, s): Row<'_>| {
        let call = calls.fetch_add(1, Ordering::Relaxed);
        fill(s, w, |_, w| w.abs() + call as f32);
    };
    check(counts, None, "on other rows");
    let secretly = |(linear, w, s): Row<'_>| {
        fill(s, w, |j, w| w.abs() * linear.inputs.map_or(1.0, |i| i.sum_squares[j] as f32));
    };
    check(secretly, None, "needs_inputs() is false");
    let dead_without = |(linear, w, s): Row<'_>| {
        fill(s, w, |j, w| w.abs() * linear.inputs.map_or(0.0, |i| i.sum_squares[j] as f32));
    };
    check(dead_without, Some(1.0), "all score the same");
}

#[test]
fn patterns() {
    fn check<F>(stage: &Stage<F>, message: &str)
    where
        F: Fn(&[f32], usize, &mut [bool]) + Send + Sync,
    {
        caught(|| conformance::scorer::check_pattern(stage), message);
    }
    check(&Stage::new(|_: &[f32], _, mask: &mut [bool]| mask.fill(true)), "the quota is");
    check(&Stage::saying(|_: &[f32], _, mask: &mut [bool]| mask.fill(true), 0.5), "fixed_ratio()");
    let by_quota = |_: &[f32], quota: usize, mask: &mut [bool]| {
        let take = quota.min(mask.len() / 2);
        mask[..take].fill(true);
    };
    check(&Stage::saying(by_quota, 0.5), "the quota matters");
    let by_bits = |scores: &[f32], quota: usize, mask: &mut [bool]| {
        let mut order: Vec<usize> = (0..scores.len()).collect();
        order.sort_by(|&a, &b| scores[a].total_cmp(&scores[b]));
        order[..quota].iter().for_each(|&j| mask[j] = true);
    };
    check(&Stage::new(by_bits), "minus zero");
    let calls = AtomicUsize::new(0);
    let alternates = |_: &[f32], quota: usize, mask: &mut [bool]| {
        if calls.fetch_add(1, Ordering::Relaxed).is_multiple_of(2) {
            mask[..quota].fill(true);
        }
    };
    check(&Stage::new(alternates), "two calls differ");
}

#[test]
fn allocators() {
    fn check<F>(stage: &Stage<F>, message: &str)
    where
        F: Fn(&[LayerProfile], f64) -> Vec<f64> + Send + Sync,
    {
        caught(|| conformance::allocator::check(stage), message);
    }
    let short = |layers: &[LayerProfile], s| vec![s; layers.len() - 1];
    check(&Stage::new(short), "one ratio per layer");
    let tenth_less = |layers: &[LayerProfile], s| vec![s * 0.9; layers.len()];
    check(&Stage::new(tenth_less), "the layers make");
    conformance::allocator::check_without_total(&Stage::new(tenth_less));
    let same = |layers: &[LayerProfile], s| vec![s; layers.len()];
    check(&Stage::saying(same, 0.0), "outlier_threshold() is 0");
    let too_much = |layers: &[LayerProfile], s| vec![if s > 0.9 { 1.0 } else { s }; layers.len()];
    check(&Stage::new(too_much), "refused");
}
