//! How many experts stay, and whether a stage kept to it.

use moeprune_core::{ExpertBudget, ExpertGroups, ModelSpec, MoeSpec};

use crate::{BudgetSpread, Error, ExpertRequest, Remedy};

/// The budget that a request means for this model, `None` when no expert goes.
///
/// # Errors
/// [`Error::Refused`] if fewer experts would be left than a token is routed to, or the layers cannot
/// all keep the same number.
pub fn expert_budget(
    spec: &ModelSpec,
    request: &ExpertRequest,
) -> Result<Option<ExpertBudget>, Error> {
    let moe: Vec<_> = spec.layers.iter().filter_map(|l| l.moe()).collect();
    let top_k = moe.iter().map(|m| m.top_k).max();
    let Some(top_k) = top_k.filter(|_| request.share.value() > 0.0) else { return Ok(None) };
    let groups = groups_of(spec);
    let budget = match request.spread {
        BudgetSpread::Uniform => uniform(spec, request, &moe, top_k)?,
        BudgetSpread::Global if groups.is_some() => {
            return Err(Error::refused(
                "the router selects groups of experts, which must all be equally large, so layers \
                 cannot keep any number",
                Remedy::Spread(BudgetSpread::Uniform),
            ));
        }
        BudgetSpread::Global => {
            let total: usize = moe.iter().map(|m| m.experts).sum();
            let (keep, layers) = (left(total, 1, request), moe.len());
            if keep < layers * top_k {
                return Err(too_few(request, total, layers * top_k, || {
                    format!("leaves {keep} over {layers} layers, but every layer needs {top_k}")
                }));
            }
            ExpertBudget::Global { keep, min_per_layer: top_k }
        }
    };
    Ok(Some(budget))
}

/// The same number in each layer.
fn uniform(
    spec: &ModelSpec,
    request: &ExpertRequest,
    moe: &[&MoeSpec],
    top_k: usize,
) -> Result<ExpertBudget, Error> {
    let experts = moe.iter().map(|m| m.experts).min().unwrap_or_default();
    if moe.iter().any(|m| m.experts != experts) {
        return Err(Error::refused(
            "the layers have different numbers of experts, so they cannot all keep the same number",
            Remedy::Spread(BudgetSpread::Global),
        ));
    }
    let groups = groups_of(spec);
    let nearest = left(experts, groups.map_or(1, |groups| groups.count), request);
    let keep = match groups {
        Some(groups) => allowed(groups, nearest, experts, request.share.value(), top_k),
        None => nearest,
    };
    if keep < top_k {
        return Err(too_few(request, experts, top_k, || {
            format!("leaves {keep} in a layer, but every token is routed to {top_k}")
        }));
    }
    if let Some(problem) = groups.and_then(|groups| groups.check_count(keep, top_k).err()) {
        let remedy = Remedy::FewerExperts { at_most: None };
        let first = spec.layers.iter().position(|layer| layer.moe().is_some());
        let problem = format!("layer {}: {problem}", first.unwrap_or_default());
        return Err(Error::refused(problem, remedy));
    }
    Ok(ExpertBudget::Uniform { keep })
}

/// How many of `experts` stay if each of the groups loses the same number.
fn left(experts: usize, groups: usize, request: &ExpertRequest) -> usize {
    experts - groups * ((experts / groups) as f64 * request.share.value()).round() as usize
}

/// How many of `experts` experts stay: the `nearest` to the share that goes, or, where these groups refuse
/// it and the share lies between two numbers, the other one.
fn allowed(
    groups: ExpertGroups,
    nearest: usize,
    experts: usize,
    share: f64,
    top_k: usize,
) -> usize {
    let size = experts / groups.count;
    let fewest_gone = (size as f64 * share).floor() as usize;
    let more = groups.count * (size - fewest_gone);
    let fits = |keep: usize| groups.check_count(keep, top_k).is_ok();
    if !fits(nearest) && fewest_gone > 0 && fits(more) { more } else { nearest }
}

/// Of `experts` experts, fewer are left than the `least`.
fn too_few(
    request: &ExpertRequest,
    experts: usize,
    least: usize,
    leaves: impl FnOnce() -> String,
) -> Error {
    let problem = format!("removing {} of {experts} experts {}", request.share, leaves());
    let at_most = Some((experts - least) as f64 / experts as f64);
    Error::refused(problem, Remedy::FewerExperts { at_most })
}

/// The groups by which every layer with experts selects them, if routers do.
pub(super) fn groups_of(spec: &ModelSpec) -> Option<ExpertGroups> {
    spec.layers.iter().filter_map(|layer| layer.moe()).find_map(|moe| moe.router.groups())
}

/// Refuses what a stage returned if it is not as many experts as expected.
pub(crate) fn contract(
    stage: &'static str,
    layer: usize,
    expected: usize,
    got: usize,
) -> Result<(), Error> {
    if expected == got {
        return Ok(());
    }
    Err(Error::Contract {
        stage,
        layer,
        problem: format!("expected {expected} experts, got {got}"),
    })
}

#[cfg(test)]
mod tests {
    use moeprune_core::GroupScore;

    use super::*;

    #[test]
    fn groups_keep_the_nearest_number_that_can_be_routed() {
        // Groups of 3 or 6 experts that keep at least 2.
        let groups = ExpertGroups { count: 4, selected: 2, score: GroupScore::TopTwo };
        let check = |experts: usize, share: f64, expected: usize| {
            let size = experts / groups.count;
            let nearest = experts - groups.count * (size as f64 * share).round() as usize;
            assert_eq!(allowed(groups, nearest, experts, share, 4), expected, "{experts} {share}");
        };
        check(12, 0.3, 8);
        check(12, 0.5, 8);
        check(12, 0.6, 8);
        check(12, 0.7, 4); // refused: neither number of the two fits
        check(12, 0.2, 8);
        check(24, 0.75, 8);
        check(24, 0.8, 8);
        check(24, 0.58, 12);
    }
}
