//! Weights under which the text that loses most loses least.

use moeprune_core::Plan;
use moeprune_engine::Job;

use super::{Coverage, Domain, blend, coverage};
use crate::{Error, Pipeline, Recipe, Silent, planning::plan};

/// Plans that are tried.
const ROUNDS: u64 = 64;

/// Weights are whole thousandths, so that a plan can be made again from what is printed.
const STEPS: f64 = 1000.0;

/// Looks for weights by multiplicative updates: from those that are given, each round makes the plan
/// of the blend and shifts weight towards the texts that it covers least. The plan with the best
/// [coverage](super::Coverage) of the worst text wins, the first among equals. Works with any way of
/// choosing experts, as it does nothing but blend; one that looks at no observation is refused.
pub(crate) fn plan_max_min(
    job: &mut Job<'_>,
    domains: &[Domain],
    recipe: &Recipe,
) -> Result<(Plan, Vec<Domain>), Error> {
    check_can_be_weighed(domains, job.pipeline)?;
    let light: Vec<Domain> = domains
        .iter()
        .map(|domain| Domain { observation: domain.observation.routing_only(), ..domain.clone() })
        .collect();
    let sum: f64 = domains.iter().map(|domain| domain.weight).sum();
    let mut shares: Vec<f64> =
        domains.iter().map(|domain| domain.weight / sum.max(f64::MIN_POSITIVE)).collect();
    let mut best: Option<(f64, Vec<f64>)> = None;
    job.progress.begin("weighing texts", ROUNDS, "plans");
    for round in 0..ROUNDS {
        if job.progress.should_stop() {
            return Err(Error::stopped());
        }
        let weights = whole_steps(&shares);
        let weighed = weighed(&light, &weights);
        let observation = blend(&weighed)?;
        let plan = plan(&mut Job { progress: &mut Silent, ..*job }, recipe, observation.as_ref())?;
        let covered: Vec<f64> = coverage(&plan, &weighed)?.iter().map(Coverage::decisive).collect();
        let (worst, spread) = worst_and_spread(&covered);
        if best.as_ref().is_none_or(|(least, _)| worst > *least) {
            best = Some((worst, weights));
        }
        if spread == 0.0 {
            break;
        }
        shift_to_worst(&mut shares, &covered, round);
        job.progress.advance(round + 1, &format!("worst text keeps {:.1} %", 100.0 * worst));
    }
    job.progress.end();
    let (_, weights) = best.ok_or_else(|| Error::Request("no plan was made".into()))?;
    let domains = weighed(domains, &weights);
    let observation = blend(&domains)?;
    let plan = plan(job, recipe, observation.as_ref())?;
    Ok((plan, domains))
}

/// Refuses texts and pipelines under which all weights give one plan.
fn check_can_be_weighed(domains: &[Domain], pipeline: &Pipeline) -> Result<(), Error> {
    if domains.len() < 2 {
        return Err(Error::Request(
            "to lift the text that loses most, give two observations or more, one of each text"
                .into(),
        ));
    }
    if !pipeline.experts.needs().observation {
        return Err(Error::Request(
            "what experts are chosen by looks at no observation, so no weights of texts change it; \
             choose another --criterion or --similarity, or --domains blend"
                .into(),
        ));
    }
    Ok(())
}

/// The least that a text is covered, and how much better the best is.
fn worst_and_spread(covered: &[f64]) -> (f64, f64) {
    let worst = covered.iter().copied().fold(f64::INFINITY, f64::min);
    (worst, covered.iter().copied().fold(0.0, f64::max) - worst)
}

/// Shifts weight towards the texts that are covered least.
///
/// Steps shrink, so that weights settle; they depend on how far texts are apart, not on how much of
/// all is lost.
fn shift_to_worst(shares: &mut [f64], covered: &[f64], round: u64) {
    let (worst, spread) = worst_and_spread(covered);
    let rate = 1.0 / (1.0 + round as f64 / 8.0);
    for (share, covered) in shares.iter_mut().zip(covered) {
        *share = (*share).max(1.0 / STEPS) * (-rate * (covered - worst) / spread).exp();
    }
    let sum: f64 = shares.iter().sum();
    shares.iter_mut().for_each(|share| *share /= sum);
}

fn weighed(domains: &[Domain], weights: &[f64]) -> Vec<Domain> {
    let weigh = |(domain, &weight): (&Domain, &f64)| Domain { weight, ..domain.clone() };
    domains.iter().zip(weights).map(weigh).collect()
}

/// Whole thousandths, none of them zero: a text without any weight could not come back.
fn whole_steps(shares: &[f64]) -> Vec<f64> {
    shares.iter().map(|share| (share * STEPS).round().max(1.0)).collect()
}
