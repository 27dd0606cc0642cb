//! Ways of choosing experts that are no ranking: what `experts.criterion` may name beside saliencies.

use super::{Registry, StageInfo};
use crate::{
    Error, ExpertStage, Recipe,
    recipe::{
        CLUSTERS, EXHAUSTIVE, KEEP_LIST, LOOKED_AT, MOST_SUBSETS, Parameter, RECONSTRUCTION,
        StageChoice, keys::unknown,
    },
};

/// A way of choosing experts under a name.
pub(super) struct Criterion {
    pub(super) name: &'static str,
    about: &'static str,
    /// Positive whole numbers, and their defaults.
    parameters: &'static [(&'static str, i64)],
    make: fn(&Registry, &Recipe) -> Result<ExpertStage, Error>,
}

/// All of them.
pub(super) const CRITERIA: [Criterion; 4] = [
    Criterion {
        name: CLUSTERS,
        about: "groups alike experts and keeps one of each group",
        parameters: &[],
        make: |registry, recipe| Ok(ExpertStage::Grouped(registry.grouped(recipe)?)),
    },
    Criterion {
        name: EXHAUSTIVE,
        about: "tries every subset of a layer's experts on its output",
        parameters: &[(SUBSETS, MOST_SUBSETS)],
        make: |_, recipe| {
            let most = number(recipe, SUBSETS).unwrap_or(MOST_SUBSETS);
            Ok(ExpertStage::Searched { most_subsets: u64::try_from(most).unwrap_or(0) })
        },
    },
    Criterion {
        name: RECONSTRUCTION,
        about: "drops, one by one, what a layer's output misses least",
        parameters: &[(TOKENS, LOOKED_AT)],
        make: |_, recipe| {
            let tokens = number(recipe, TOKENS).unwrap_or(LOOKED_AT);
            Ok(ExpertStage::Greedy { tokens: usize::try_from(tokens).unwrap_or(0) })
        },
    },
    Criterion {
        name: KEEP_LIST,
        about: "keeps the experts that a list names (--keep FILE)",
        parameters: &[],
        make: |_, _| Ok(ExpertStage::Listed(None)),
    },
];

const SUBSETS: &str = "most_subsets";
const TOKENS: &str = "tokens";

/// What a recipe sets a parameter of its criterion to.
fn number(recipe: &Recipe, key: &str) -> Option<i64> {
    match recipe.experts.criterion.parameters.get(key) {
        Some(&Parameter::Integer(value)) => Some(value),
        _ => None,
    }
}

impl Criterion {
    /// The one that a recipe's choice names; `None` if it must be a saliency.
    pub(super) fn of(choice: &StageChoice) -> Option<&'static Self> {
        const ALL: &[Criterion] = &CRITERIA;
        ALL.iter().find(|criterion| criterion.name == choice.name)
    }

    /// Refuses parameters that it does not have, or cannot have.
    pub(super) fn check(&self, choice: &StageChoice) -> Result<(), Error> {
        let known = || self.parameters.iter().map(|(key, _)| *key);
        for (key, value) in &choice.parameters {
            if !known().any(|name| name == key) {
                let of = format!("experts.criterion, parameters of `{}`", self.name);
                return Err(Error::Recipe(unknown(&of, key, known())));
            }
            if !matches!(value, Parameter::Integer(1..)) {
                return Err(Error::Recipe(format!(
                    "experts.criterion: {key} is {value}; it must be a positive whole number"
                )));
            }
        }
        Ok(())
    }

    /// The stage that a resolved recipe asks for.
    pub(super) fn stage(&self, registry: &Registry, recipe: &Recipe) -> Result<ExpertStage, Error> {
        (self.make)(registry, recipe)
    }

    /// What is known of it.
    pub(super) fn info(&self) -> StageInfo {
        let default = |&(key, value): &(&str, i64)| (key.to_owned(), Parameter::Integer(value));
        StageInfo {
            name: self.name.to_owned(),
            about: self.about.to_owned(),
            defaults: self.parameters.iter().map(default).collect(),
        }
    }
}
