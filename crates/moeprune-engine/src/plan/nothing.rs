//! Requests under which nothing goes.

use moeprune_core::{ExpertBudget, ModelSpec};

use super::budget::{expert_budget, groups_of};
use crate::{BudgetSpread, Error, ExpertRequest, Remedy};

/// Refuses a share of the experts that is none, where no weight is to be zeroed either.
pub(super) fn refuse(spec: &ModelSpec, request: &ExpertRequest) -> Result<(), Error> {
    let (why, at_least) = too_small(spec, request);
    let problem = format!("nothing would be removed: {why}, and no weight is to be zeroed");
    Err(Error::refused(problem, Remedy::MoreExperts { at_least }))
}

/// The note about a share of the experts that is none, where weights are zeroed.
pub(super) fn note(spec: &ModelSpec, request: &ExpertRequest) -> Result<Option<String>, Error> {
    let Some(budget) = expert_budget(spec, request)? else { return Ok(None) };
    let is_none = removed(budget, &experts(spec)) == 0;
    let (why, _) = too_small(spec, request);
    Ok(is_none.then(|| format!("note: no expert is removed: {why}")))
}

/// Why a share is none, and the smallest that is not.
fn too_small(spec: &ModelSpec, request: &ExpertRequest) -> (String, f64) {
    let all = experts(spec);
    let groups = groups_of(spec).map_or(1, |groups| groups.count);
    let (of, each) = match request.spread {
        BudgetSpread::Uniform => (all.iter().copied().min().unwrap_or(1), " per layer"),
        BudgetSpread::Global => (all.iter().sum(), ""),
    };
    let one = if groups > 1 { format!("{groups} (one of each group)") } else { "one".to_owned() };
    let why = format!("{} of {of} experts{each} is less than half of {one}", request.share);
    // Half an expert is rounded to one; rounded up to what is printed of it.
    let at_least = (0.5e4 * groups as f64 / of.max(1) as f64).ceil() / 1e4;
    (why, at_least.min(1.0))
}

/// The experts of each layer of the decoder's that has any.
fn experts(spec: &ModelSpec) -> Vec<usize> {
    spec.layers.iter().filter_map(|layer| layer.moe()).map(|moe| moe.experts).collect()
}

/// How many experts go under a budget.
pub(super) fn removed(budget: ExpertBudget, experts: &[usize]) -> usize {
    match budget {
        ExpertBudget::Uniform { keep } => experts.iter().map(|n| n - keep).sum::<usize>(),
        ExpertBudget::Global { keep, .. } => experts.iter().sum::<usize>() - keep,
        _ => 0,
    }
}
