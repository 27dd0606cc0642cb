//! Finding out how a total is best split, instead of assuming it.

mod texts;

pub use texts::SearchTexts;

use moeprune_capture::TokenBlocks;
use moeprune_checkpoint::Checkpoint;
use moeprune_core::{ParameterCounts, Sparsity, TensorSource, plural};
use moeprune_engine::{PlanInputs, RunKind, expert_budget};

pub use crate::report::{Candidate, SearchReport};
use crate::{
    Error, Recipe, Study, check_repair,
    compare::Pruned,
    planning::check_request,
    recipe::{Budget, StageChoice},
    registry::STAND_IN,
    streamed::{Likelihood, Streamed, likelihood},
};

/// Which choices of a recipe are searched for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[expect(clippy::exhaustive_structs, reason = "what there is to search for")]
pub struct Search {
    /// How much of the total whole experts make up, and by which criterion they go.
    pub experts: bool,
    /// How the ratio of the rest is split over the layers.
    pub allocation: bool,
}

impl Search {
    /// Whether there is anything to search for.
    #[must_use]
    pub fn is_on(self) -> bool {
        self.experts || self.allocation
    }
}

/// Parts of the total that whole experts are tried to make up.
const EXPERT_PARTS: [f64; 5] = [0.0, 0.25, 0.5, 0.75, 1.0];

/// Criteria that are tried beside the recipe's own.
const CRITERIA: [&str; 3] = ["stun", "reap", "frequency"];

/// Splits that are tried beside the recipe's own.
const ALLOCATIONS: [&str; 8] = [
    "uniform",
    "owl:lambda=0.04",
    "owl:lambda=0.08",
    "owl:lambda=0.16",
    "depth:slope=0.05",
    "depth:slope=0.1",
    "depth:slope=-0.05",
    "depth:slope=-0.1",
];

impl Study<'_> {
    /// Looks for the split of `recipe.sparsity` under which the model predicts text best.
    ///
    /// The model is observed on the calibration blocks; each candidate is made from that one observation, in
    /// memory. If the recipe repairs, a candidate's experts are repaired on the same text as the run's are, and
    /// its weights are zeroed by statistics of the repaired candidate: it is the model that [`prune`](crate::prune())
    /// writes by the candidate's recipe. Without a repair, weights are zeroed by the observation's statistics.
    /// A candidate is scored by its mean negative log-likelihood on blocks that share no token with any that it
    /// was made of. First the share of whole experts and their
    /// criterion, with one ratio everywhere; then, for the best of these, how the ratio is split over
    /// the layers: at most [`most_evaluations`] in all. No test data is looked at, and the same blocks
    /// give the same choice.
    ///
    /// # Errors
    /// If the recipe's repair cannot be carried out, no candidate can, or the model cannot be run.
    pub fn search(
        &mut self,
        texts: &SearchTexts,
        recipe: &Recipe,
        what: Search,
    ) -> Result<(Recipe, SearchReport), Error> {
        let SearchTexts { calibration: observed, scored } = texts;
        check_repair(self.checkpoint, recipe, true)?;
        self.progress.note(&format!(
            "searches among at most {} ways to reach {}, by how well calibration text kept apart ({}) is \
             predicted",
            most_evaluations(what),
            recipe.sparsity,
            plural(scored.blocks().len(), "block")
        ));
        let Study { checkpoint, registry, .. } = *self;
        let progress = &mut *self.progress;
        let execution =
            &self.execution.for_blocks(checkpoint, &observed.tag, RunKind::Observe, progress)?;
        let pipeline = &registry.pipeline(recipe)?;
        let study = &mut Study { checkpoint, registry, execution, progress };
        let observation = study.job(pipeline).observe(observed)?;
        let unpruned = Streamed {
            source: checkpoint,
            spec: checkpoint.spec(),
            blocks: scored,
            execution,
            step: "unpruned model",
        };
        let unpruned = likelihood(&unpruned, study.progress)?;
        let inputs = PlanInputs { observation: Some(&observation), calibration: Some(observed) };
        let mut trial = Trial { study, inputs, held_out: scored, tried: Vec::new() };
        let mut best = recipe.clone();
        // Masks come from the observation here, also where the recipe's run would not take them from it, but
        // not where experts are repaired: the observation is of the model without a repair.
        if !recipe.repairs() {
            best.weights.statistics = crate::recipe::Statistics::Stored;
        }
        // A reconstruction needs more than an observation; the scorer that stands in for it ranks
        // splits in its stead.
        let reconstructs = pipeline.weights.method().is_some();
        if reconstructs {
            best.weights.scorer = STAND_IN.into();
        }
        if what.experts {
            let candidates = trial.expert_candidates(&best, recipe, what)?;
            best = trial.best_of(candidates, "searching the experts' share")?;
        }
        if what.allocation && best.prunes_weights() {
            let candidates = trial.allocation_candidates(&best, &recipe.weights.allocation)?;
            best = trial.best_of(candidates, "searching the layers' ratios")?;
        }
        best.weights.statistics = recipe.weights.statistics;
        if reconstructs {
            best.weights.scorer = recipe.weights.scorer.clone();
        }
        let report = trial.report(&best, unpruned.mean(), observed.blocks.blocks().len());
        Ok((best, report))
    }
}

/// The most candidates that a search scores.
#[must_use]
pub fn most_evaluations(what: Search) -> usize {
    let experts = (EXPERT_PARTS.len() - 1) * (CRITERIA.len() + 1) + 1;
    let allocations = ALLOCATIONS.len() + 1;
    usize::from(what.experts) * experts + usize::from(what.allocation) * allocations
}

/// The share of the experts that makes up this part of the total, over the decoder Linears; of all of
/// it, as many whole experts as do not exceed it.
fn expert_share(checkpoint: &Checkpoint, recipe: &Recipe, part: f64) -> Result<Sparsity, Error> {
    let (spec, total) = (checkpoint.spec(), recipe.sparsity.value());
    let counts = ParameterCounts::of(spec);
    let of_linears = counts.experts as f64 / counts.linears.max(1) as f64;
    let mut share = part * total / of_linears.max(f64::MIN_POSITIVE);
    if part == 1.0 {
        let moe = || spec.layers.iter().filter_map(|layer| layer.moe()).map(|moe| moe.experts);
        let experts = match recipe.experts.budget {
            Budget::Uniform => moe().min().unwrap_or(1),
            Budget::Global => moe().sum(),
        };
        share = (share * experts as f64).floor() / experts.max(1) as f64;
    }
    // Equal shares mean that no weight is to be zeroed, and then the total is missed.
    let share = if share == total { share * (1.0 - 1e-9) } else { share };
    // More than all but a few experts is refused later, with what would do.
    Ok(Sparsity::new(share.min(0.999_999))?)
}

/// The recipe's own criterion, and those that are tried beside it.
fn criteria(recipe: &Recipe) -> Vec<StageChoice> {
    let own = recipe.experts.criterion.clone();
    let others = CRITERIA.into_iter().map(StageChoice::new).filter(|other| !other.is_same(&own));
    std::iter::once(own.clone()).chain(others).collect()
}

/// Whether two recipes differ in nothing but a criterion that is not asked, or a share that comes
/// to the same whole experts.
fn removes_as(checkpoint: &Checkpoint, a: &Recipe, b: &Recipe) -> bool {
    let removed = |recipe: &Recipe| {
        expert_budget(checkpoint.spec(), &recipe.experts.request()).ok().flatten()
    };
    let (of_a, of_b) = (removed(a), removed(b));
    of_a == of_b
        && a.prunes_weights() == b.prunes_weights()
        && (of_a.is_none() || a.experts.criterion == b.experts.criterion)
}

struct Trial<'s, 'a> {
    study: &'s mut Study<'a>,
    inputs: PlanInputs<'a>,
    held_out: &'a TokenBlocks,
    tried: Vec<(Recipe, Likelihood)>,
}

impl Trial<'_, '_> {
    /// `base` with each part of the total that whole experts are tried to make up, by each
    /// criterion. Ratios are the same everywhere if how to split them is searched for afterwards.
    fn expert_candidates(
        &self,
        base: &Recipe,
        recipe: &Recipe,
        what: Search,
    ) -> Result<Vec<Recipe>, Error> {
        let mut candidates = Vec::new();
        for part in EXPERT_PARTS {
            for criterion in criteria(recipe) {
                let mut candidate = base.clone();
                candidate.experts.sparsity = expert_share(self.study.checkpoint, recipe, part)?;
                candidate.experts.criterion = criterion;
                if what.allocation {
                    candidate.weights.allocation = "uniform".into();
                }
                self.study.registry.resolve(&mut candidate)?;
                let same = |other: &Recipe| removes_as(self.study.checkpoint, other, &candidate);
                if !candidates.iter().any(same) {
                    candidates.push(candidate);
                }
            }
        }
        Ok(candidates)
    }

    /// `base` with each split of the ratio over the layers that was not tried yet, `own` the last.
    fn allocation_candidates(
        &self,
        base: &Recipe,
        own: &StageChoice,
    ) -> Result<Vec<Recipe>, Error> {
        let mut candidates = Vec::new();
        for allocation in ALLOCATIONS.iter().map(|text| text.parse()).chain([Ok(own.clone())]) {
            let mut candidate = base.clone();
            candidate.weights.allocation = allocation.map_err(Error::Recipe)?;
            self.study.registry.resolve(&mut candidate)?;
            let same = |other: &Recipe| {
                other.experts == candidate.experts
                    && other.weights.allocation == candidate.weights.allocation
            };
            if !candidates.iter().any(same) && !self.tried.iter().any(|(tried, _)| same(tried)) {
                candidates.push(candidate);
            }
        }
        Ok(candidates)
    }

    /// What predicts best of these and all that was tried before, the first among equals. One that cannot be carried out,
    /// because too few experts would stay or the model has no room for what it writes, does not take part.
    fn best_of(&mut self, mut candidates: Vec<Recipe>, step: &str) -> Result<Recipe, Error> {
        candidates.retain(|recipe| {
            let pipeline = self.study.registry.pipeline(recipe);
            pipeline.is_ok_and(|stages| {
                check_request(self.study.checkpoint.spec(), recipe, &stages).is_ok()
            })
        });
        let better = |a: &(f64, Recipe), b: &(f64, Recipe)| a.0 < b.0;
        let mut best: Option<(f64, Recipe)> = None;
        for (recipe, found) in &self.tried {
            let tried = (found.mean(), recipe.clone());
            if best.as_ref().is_none_or(|best| better(&tried, best)) {
                best = Some(tried);
            }
        }
        let (total, mut refused) = (candidates.len(), None);
        for (number, recipe) in candidates.into_iter().enumerate() {
            let step = format!("{step} {}/{total}", number + 1);
            let nll = match self.score(&recipe, &step) {
                Ok(nll) => nll,
                Err(error) if error.is_refusal() => {
                    let candidate = in_words(&recipe);
                    self.study.progress.note(&format!("note: {candidate} is left out: {error}"));
                    refused.get_or_insert(error);
                    continue;
                }
                Err(error) => return Err(error),
            };
            let tried = (nll, recipe);
            if best.as_ref().is_none_or(|best| better(&tried, best)) {
                best = Some(tried);
            }
        }
        best.map(|(_, recipe)| recipe).ok_or_else(|| {
            refused.unwrap_or_else(|| {
                let problem = "no split of the total leaves as many experts as a token needs";
                Error::Request(problem.into())
            })
        })
    }

    fn score(&mut self, recipe: &Recipe, step: &str) -> Result<f64, Error> {
        let (execution, blocks) = (self.study.execution, self.held_out);
        let pruned = Pruned::new(self.study, self.inputs, recipe)?;
        let found = pruned.run(execution, self.study.progress, |model, progress| {
            let (source, spec): (&dyn TensorSource, _) = (model, model.spec());
            likelihood(&Streamed { source, spec, blocks, execution, step }, progress)
        })?;
        let nll = found.mean();
        self.study.progress.note(&format!("{}: {nll:.4} nats a token", in_words(recipe)));
        self.tried.push((recipe.clone(), found));
        Ok(nll)
    }

    fn report(self, chosen: &Recipe, unpruned: f64, observed_blocks: usize) -> SearchReport {
        let same = |recipe: &Recipe| {
            recipe.experts == chosen.experts
                && recipe.weights.allocation == chosen.weights.allocation
        };
        let best =
            self.tried.iter().find(|(recipe, _)| same(recipe)).map(|(_, found)| found.clone());
        let candidate = |(recipe, found): &(Recipe, Likelihood)| Candidate {
            expert_sparsity: recipe.experts.sparsity.value(),
            criterion: recipe.experts.criterion.clone(),
            allocation: recipe.weights.allocation.clone(),
            nll: found.mean(),
            stderr_to_best: match &best {
                Some(best) if !same(recipe) => found.stderr_of_difference(best),
                _ => None,
            },
            chosen: same(recipe),
        };
        SearchReport {
            observed_blocks,
            held_out_blocks: self.held_out.blocks().len(),
            unpruned,
            candidates: self.tried.iter().map(candidate).collect(),
        }
    }
}

/// A candidate, as notes name it.
fn in_words(recipe: &Recipe) -> String {
    format!(
        "{:.1} % of the experts by {}, {}",
        100.0 * recipe.experts.sparsity.value(),
        recipe.experts.criterion.name,
        recipe.weights.allocation
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Registry;

    #[test]
    fn the_number_of_evaluations_is_bounded() {
        assert_eq!(most_evaluations(Search { experts: true, allocation: true }), 17 + 9);
        assert_eq!(most_evaluations(Search::default()), 0);
    }

    #[test]
    fn built_in_candidates_are_known() {
        let registry = Registry::built_in();
        for text in ALLOCATIONS {
            let mut recipe = Recipe::arctic();
            recipe.weights.allocation = text.parse().unwrap();
            registry.resolve(&mut recipe).unwrap();
        }
    }
}
