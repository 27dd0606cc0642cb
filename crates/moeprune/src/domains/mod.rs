//! Observations of several texts, weighed against each other.

mod coverage;
mod max_min;

pub use coverage::{Coverage, coverage};
pub(crate) use max_min::plan_max_min;

use moeprune_core::{Observation, Plan};
use moeprune_engine::{Error as EngineError, Job, Remedy};

use crate::{Error, Recipe, planning::plan, recipe};

/// What a model did on one text, and how much the text counts.
#[derive(Debug, Clone, PartialEq)]
#[expect(clippy::exhaustive_structs, reason = "plain data")]
pub struct Domain {
    /// A name for people.
    pub name: String,
    /// What was observed.
    pub observation: Observation,
    /// How much its tokens count against those of the others; at least 0.
    pub weight: f64,
}

/// All domains as one observation, by their weights; `None` of none.
///
/// # Errors
/// As [`Observation::blend`].
pub fn blend(domains: &[Domain]) -> Result<Option<Observation>, Error> {
    if domains.is_empty() {
        return Ok(None);
    }
    let parts: Vec<(&Observation, f64)> =
        domains.iter().map(|domain| (&domain.observation, domain.weight)).collect();
    Ok(Some(Observation::blend(&parts)?))
}

/// Refuses a recipe by which experts are chosen while the model runs, so that observations say nothing.
///
/// # Errors
/// [`Error::Engine`] with what would work.
pub fn check_by_observations(recipe: &Recipe) -> Result<(), Error> {
    if recipe.experts.statistics == recipe::ExpertStatistics::Independent {
        return Ok(());
    }
    let problem = "an observation is of the model with all its experts, and with sequential statistics of experts each \
                   layer is observed once the layers before it have lost theirs: the run takes one calibration text, \
                   and no observation";
    Err(EngineError::refused(problem, Remedy::IndependentStatistics).into())
}

/// As [`plan`] from observations of several texts: blended by their weights, or, if the recipe says
/// so, by weights under which the text that loses most loses least. Returns the plan and the domains
/// with the weights it was made with; their [`blend`] is what it was made from.
///
/// # Errors
/// As [`plan`] and [`blend`]; if weights are to be found and there are not several texts.
pub fn plan_domains(
    job: &mut Job<'_>,
    domains: &[Domain],
    recipe: &Recipe,
) -> Result<(Plan, Vec<Domain>), Error> {
    if !domains.is_empty() {
        check_by_observations(recipe)?;
    }
    match recipe.experts.domains {
        recipe::Domains::Blend => {
            let observation = blend(domains)?;
            let plan = plan(job, recipe, observation.as_ref())?;
            Ok((plan, domains.to_vec()))
        }
        recipe::Domains::MaxMin => plan_max_min(job, domains, recipe),
    }
}
