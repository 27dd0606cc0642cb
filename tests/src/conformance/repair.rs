//! What [`ExpertRepair`] promises.

use std::ops::Range;

use moeprune_core::{
    Dtype, ExpertRepair, LayerRepair, LayerToRepair, RepairStore, SurvivingExpert,
    repair::ExpertOutcome,
};
use moeprune_repair::{InMemoryStore, MemoryExpert};
use proptest::{prelude::*, test_runner::TestCaseError};
use rayon::ThreadPoolBuilder;

use super::{for_all, pure};

/// Holds a repair to its contract:
///
/// * the residual is what is missing with the weights that the store has afterwards, rounded as they are;
/// * nothing is fitted to held-out tokens, and they are not worse off afterwards if they are reported;
/// * an expert without fitted tokens keeps its weights, and so does one that is reported as reverted;
/// * the report is of this layer, one entry per expert, and its errors are those of the residuals;
/// * it gives the same weights, residual and report each time, with any number of threads.
///
/// # Panics
/// If one of these is broken.
pub fn check(repair: &dyn ExpertRepair) {
    for_all(&layers(), |layer| {
        let run = || layer.run(repair, &layer.residual);
        let done = pure(run)?.map_err(TestCaseError::fail)?;
        for threads in [1, 3] {
            let pool = ThreadPoolBuilder::new().num_threads(threads).build();
            let pool = pool.map_err(|error| TestCaseError::fail(error.to_string()))?;
            let other = pool.install(run).map_err(TestCaseError::fail)?;
            prop_assert!(other == done, "{} threads give another result", threads);
        }
        layer.check_weights(&done)?;
        layer.check_residual(&done)?;
        layer.check_report(&done)?;
        layer.check_held_out(repair, &done)
    });
}

/// What a repair left.
#[derive(Debug, PartialEq)]
struct Done {
    report: LayerRepair,
    residual: Vec<f32>,
    weights: Vec<Vec<f32>>,
}

#[derive(Debug, Clone)]
struct Layer {
    width: usize,
    features: usize,
    fitted: usize,
    residual: Vec<f32>,
    token_weights: Vec<f32>,
    experts: Vec<SurvivingExpert>,
    activations: Vec<Vec<f32>>,
    weights: Vec<Vec<f32>>,
}

impl Layer {
    fn run(&self, repair: &dyn ExpertRepair, residual: &[f32]) -> Result<Done, String> {
        let experts = self.activations.iter().zip(&self.weights);
        let experts = experts.map(|(activations, weights)| MemoryExpert {
            activations: activations.clone(),
            weights: weights.clone(),
            features: self.features,
        });
        let store = InMemoryStore::new(experts.collect()).stored_as(Dtype::BF16);
        let mut residual = residual.to_vec();
        let report = repair
            .repair(&mut LayerToRepair {
                layer: 5,
                width: self.width,
                residual: &mut residual,
                token_weights: &self.token_weights,
                fitted: self.fitted,
                experts: &self.experts,
                store: &store,
            })
            .map_err(|error| error.to_string())?;
        let weights = (0..self.experts.len()).map(|expert| RepairStore::weights(&store, expert));
        let weights = weights.collect::<Result<_, _>>().map_err(|error| error.to_string())?;
        Ok(Done { report, residual, weights })
    }

    fn check_weights(&self, done: &Done) -> Result<(), TestCaseError> {
        for (expert, survivor) in self.experts.iter().enumerate() {
            let unchanged = done.weights[expert] == self.weights[expert];
            let reached = survivor.fitted_tokens(self.fitted) > 0;
            prop_assert!(reached || unchanged, "expert {} has no tokens and changed", expert);
            let outcome = done.report.experts.get(expert).map(|expert| expert.outcome);
            let kept = done.report.reverted || outcome == Some(ExpertOutcome::Reverted);
            prop_assert!(
                !kept || unchanged,
                "expert {} is reported as reverted and changed",
                expert
            );
        }
        Ok(())
    }

    fn check_residual(&self, done: &Done) -> Result<(), TestCaseError> {
        for (at, (left, expected)) in
            done.residual.iter().zip(self.missing(&done.weights)).enumerate()
        {
            let off = (f64::from(*left) - expected).abs();
            prop_assert!(
                off < 2e-4,
                "the residual at {} is {}, the weights leave {}",
                at,
                left,
                expected
            );
        }
        Ok(())
    }

    /// What is missing with some weights.
    fn missing(&self, weights: &[Vec<f32>]) -> Vec<f64> {
        let mut residual: Vec<f64> = self.residual.iter().map(|&r| r.into()).collect();
        for (expert, survivor) in self.experts.iter().enumerate() {
            let changes: Vec<f64> = weights[expert]
                .iter()
                .zip(&self.weights[expert])
                .map(|(&new, &old)| f64::from(new) - f64::from(old))
                .collect();
            let rows = self.activations[expert].chunks_exact(self.features);
            for (row, &token) in rows.zip(&survivor.tokens) {
                let missing = &mut residual[token as usize * self.width..][..self.width];
                for (r, change) in missing.iter_mut().zip(changes.chunks_exact(self.features)) {
                    *r -= row.iter().zip(change).map(|(&x, w)| f64::from(x) * w).sum::<f64>();
                }
            }
        }
        residual
    }

    fn error(&self, residual: &[f32], tokens: Range<usize>) -> f64 {
        let of = |token: usize| {
            let row = &residual[token * self.width..][..self.width];
            let square: f64 = row.iter().map(|&r| f64::from(r) * f64::from(r)).sum();
            f64::from(self.token_weights[token]) * square
        };
        tokens.map(of).sum()
    }

    fn check_report(&self, done: &Done) -> Result<(), TestCaseError> {
        let report = &done.report;
        prop_assert_eq!(report.layer, 5, "the layer in the report");
        let named: Vec<usize> = report.experts.iter().map(|expert| expert.expert).collect();
        prop_assert_eq!(
            named,
            (0..self.experts.len()).collect::<Vec<_>>(),
            "experts in the report"
        );
        let near = |a: f64, b: f64| (a - b).abs() <= 1e-4 * (a.abs() + b.abs()) + 1e-6;
        let before = self.error(&self.residual, 0..self.fitted);
        let first = report.errors.first().copied().unwrap_or(f64::NAN);
        prop_assert!(near(first, before), "the error before is {}, reported is {}", before, first);
        let reverted = report.experts.iter().any(|e| e.outcome == ExpertOutcome::Reverted);
        if !reverted && !report.reverted {
            let after = self.error(&done.residual, 0..self.fitted);
            let last = report.errors.last().copied().unwrap_or(f64::NAN);
            prop_assert!(near(last, after), "the error after is {}, reported is {}", after, last);
        }
        let held_out = self.fitted..self.token_weights.len();
        let Some(reported) = report.held_out else { return Ok(()) };
        prop_assert!(!held_out.is_empty(), "an error on held-out tokens that there are not");
        let before = self.error(&self.residual, held_out.clone());
        let after = self.error(&done.residual, held_out);
        prop_assert!(
            near(reported.before, before) && near(reported.after, after),
            "held out: from {} to {}, reported are {} and {}",
            before,
            after,
            reported.before,
            reported.after
        );
        prop_assert!(
            after <= before * (1.0 + 1e-4) + 1e-6,
            "held out: worse, from {} to {}",
            before,
            after
        );
        Ok(())
    }

    /// Unless a change of theirs is undone or not, what held-out tokens miss makes no difference.
    fn check_held_out(&self, repair: &dyn ExpertRepair, done: &Done) -> Result<(), TestCaseError> {
        let mut residual = self.residual.clone();
        for (at, r) in residual[self.fitted * self.width..].iter_mut().enumerate() {
            *r *= 1.0 + 1e-3 * (at % 5) as f32;
        }
        let other = self.run(repair, &residual).map_err(TestCaseError::fail)?;
        let outcomes = |done: &Done| {
            let experts = done.report.experts.iter().map(|expert| expert.outcome);
            (done.report.reverted, experts.collect::<Vec<_>>())
        };
        let same = other.weights == done.weights;
        prop_assert!(same || outcomes(&other) != outcomes(done), "held-out tokens are fitted");
        Ok(())
    }
}

/// Two or three experts, one of which may have no tokens, and weights in bf16.
fn layers() -> impl Strategy<Value = Layer> {
    (2usize..4, 1usize..5, 1usize..6, 8usize..40, 0usize..8).prop_flat_map(
        |(experts, width, features, fitted, held_out)| {
            let tokens = fitted + held_out;
            let chosen = prop::collection::vec(
                (any::<bool>(), prop::collection::vec(any::<bool>(), tokens)),
                experts,
            );
            let numbers = |count: usize| prop::collection::vec(-1.0f32..1.0, count);
            let per_expert = prop::collection::vec(
                (numbers(tokens * features), numbers(width * features)),
                experts,
            );
            (
                chosen,
                per_expert,
                numbers(tokens * width),
                prop::collection::vec(0.5f32..1.5, tokens),
            )
                .prop_map(move |(chosen, per_expert, residual, token_weights)| {
                    let mut layer = Layer {
                        width,
                        features,
                        fitted,
                        residual,
                        token_weights,
                        experts: Vec::new(),
                        activations: Vec::new(),
                        weights: Vec::new(),
                    };
                    for ((idle, reached), (activations, weights)) in
                        chosen.into_iter().zip(per_expert)
                    {
                        let reached = |token: &u32| !idle && reached[*token as usize];
                        let tokens: Vec<u32> = (0..tokens as u32).filter(reached).collect();
                        layer.activations.push(activations[..tokens.len() * features].to_vec());
                        // The upper half of an f32 is a bf16.
                        let round = |w: f32| f32::from_bits(w.to_bits() & 0xffff_0000);
                        layer.weights.push(weights.into_iter().map(round).collect());
                        layer.experts.push(SurvivingExpert { tokens, features, parts: Vec::new() });
                    }
                    layer
                })
        },
    )
}
