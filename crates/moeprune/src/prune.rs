//! The whole job in one call: observe, plan, apply.

use std::path::{Path, PathBuf};

use moeprune_capture::TokenBlocks;
use moeprune_checkpoint::Checkpoint;
use moeprune_core::Plan;
use moeprune_engine::{
    Applied, Calibration, Error as EngineError, Inputs, Job, Model, OtherText, Progress,
    RepairCalibration, Resume, Run, TextFiles,
};

use crate::{
    Domain, Error, Recipe, Report, WithCard, blend, check_repair, domains::check_by_observations,
    plan_domains, recipe::CalibrationRecipe, report::SearchReport, search::SearchTexts,
};

/// Prunes a model: observes it on the calibration text, plans, and
/// applies the plan with statistics from the same text.
///
/// The observation costs one forward pass of the unpruned model. It is made whenever experts go, with
/// any similarity: a cluster of two is always a tie, and the tokens routed to each expert decide ties
/// better than the lowest index does.
///
/// The work lies in a hidden sibling of the place until it is complete, with a journal of what is
/// done. A run that was killed can be resumed ([`Resume::Yes`]) and gives the bytes
/// that it would have given.
///
/// # Errors
/// As [`Job::observe`], [`plan`](crate::plan()) and [`apply`], and what [`Run::claim`] refuses; nothing is
/// left under the name of the place then.
pub fn prune<'p, 'r>(
    job: &mut Job<'_>,
    to: impl Into<WithCard<OutputPlace<'p>>>,
    calibration: impl Into<CalibrationTexts<'r>>,
    recipe: impl Into<SearchedRecipe<'r>>,
) -> Result<Report, Error> {
    let SearchedRecipe { recipe, searched } = recipe.into();
    let (model, pipeline) = (job.model, job.pipeline);
    let texts = calibration.into();
    let request = recipe.request(pipeline)?;
    moeprune_engine::check_prune(model.spec(), &request, pipeline)?;
    check_repair(model, recipe, true)?;
    texts.check(recipe)?;
    moeprune_engine::check_runs(model.spec())?;
    moeprune_engine::check_reconstructs(model, pipeline)?;
    let to = claimed(to)?;
    let report = to.place.complete(|run| {
        let calibration = texts.drawn(model, recipe, job.progress)?;
        run.end_step("reading calibration text");
        let applied = job.prune(run, &calibration, &request)?;
        let recipe = followed(recipe, &applied, Some(&calibration));
        let mut report = Report::new(run.origin(), &recipe, applied);
        note_total(&report, job.progress);
        report.search = searched;
        report.save(run.folder())?;
        to.card.save(run, &report, job.progress)?;
        Ok(report)
    })?;
    Ok(report)
}

/// Prunes a model by a keep-list alone: plans, and applies the plan. Nothing is run, so any family will
/// do.
///
/// # Errors
/// As [`plan`](crate::plan()) and [`apply`], and if the recipe zeroes weights.
pub fn prune_listed<'p>(
    job: &mut Job<'_>,
    to: impl Into<WithCard<OutputPlace<'p>>>,
    recipe: &Recipe,
) -> Result<Report, Error> {
    if recipe.prunes_weights() {
        return Err(Error::Request(
            "zeroing weights too takes calibration text: pass --calibration FILE".into(),
        ));
    }
    check_repair(job.model, recipe, false)?;
    let plan = crate::plan(job, recipe, None)?;
    apply(job, claimed(to)?, &plan, Inputs::None)
}

/// Prunes a model by observations of it, or of the same model stored otherwise: plans, and applies the plan,
/// with statistics of the unpruned model where weights are zeroed by their inputs. Nothing is run.
///
/// # Errors
/// As [`plan_domains`] and [`apply`], and if the recipe repairs experts, which takes calibration text.
pub fn prune_observed<'p>(
    job: &mut Job<'_>,
    to: impl Into<WithCard<OutputPlace<'p>>>,
    domains: &[Domain],
    recipe: &Recipe,
) -> Result<Report, Error> {
    check_repair(job.model, recipe, false)?;
    let to = claimed(to)?;
    prune_claimed(job, to, domains, recipe)
}

fn prune_claimed(
    job: &mut Job<'_>,
    to: WithCard<Run<'_>>,
    domains: &[Domain],
    recipe: &Recipe,
) -> Result<Report, Error> {
    let (plan, domains) = plan_domains(job, domains, recipe)?;
    let observation = blend(&domains)?;
    let inputs = observation.as_ref().map_or(Inputs::None, Inputs::Observation);
    apply(job, to, &plan, inputs)
}

/// Prunes a model by its files of calibration text, each of which is a domain: observes the model on each, then as
/// [`prune_observed`].
///
/// What was observed is not kept when the run is interrupted.
///
/// # Errors
/// As [`prune_observed`] and [`Job::observe`], and if two files have the same name without endings.
pub fn prune_by_domain<'p>(
    job: &mut Job<'_>,
    to: impl Into<WithCard<OutputPlace<'p>>>,
    texts: TextFiles<'_>,
    recipe: &Recipe,
) -> Result<Report, Error> {
    let (model, pipeline) = (job.model, job.pipeline);
    moeprune_engine::check_request(model.spec(), &recipe.request(pipeline)?, pipeline)?;
    check_by_observations(recipe)?;
    if recipe.repairs() || recipe.refits() {
        return Err(Error::Recipe(
            "where each file is a domain of its own, the run has observations and no text to repair experts on; leave \
             the repair out, or have the files be one text"
                .into(),
        ));
    }
    moeprune_engine::check_runs(model.spec())?;
    let files = texts.domains()?;
    let to = claimed(to)?;
    moeprune_engine::shortened(model, recipe).iter().for_each(|note| job.progress.note(note));
    let mut domains = Vec::with_capacity(files.len());
    for (name, file) in files {
        let text = TextFiles::from(&file).with_chat(texts.chat());
        let mut calibration = Calibration::read(text, model, recipe)?;
        calibration.tag.name.clone_from(&name);
        calibration.notes().iter().for_each(|note| job.progress.note(note));
        let observation = job.observe(&calibration)?;
        domains.push(Domain { name, observation, weight: 1.0 });
    }
    prune_claimed(job, to, &domains, recipe)
}

/// Calibration text, and other texts that a repair of the experts that stay is fitted to or measured on.
/// A path is calibration text alone.
#[derive(Debug, Clone, Copy)]
#[expect(clippy::exhaustive_structs, reason = "plain data")]
pub struct CalibrationTexts<'a> {
    /// Calibration text.
    pub text: TextFiles<'a>,
    /// Texts for a repair.
    pub others: &'a [OtherText<'a>],
}

impl<'a> From<TextFiles<'a>> for CalibrationTexts<'a> {
    fn from(text: TextFiles<'a>) -> Self {
        Self { text, others: &[] }
    }
}

impl<'a> From<&'a Path> for CalibrationTexts<'a> {
    fn from(text: &'a Path) -> Self {
        TextFiles::from(text).into()
    }
}

impl<'a> From<&'a PathBuf> for CalibrationTexts<'a> {
    fn from(text: &'a PathBuf) -> Self {
        TextFiles::from(text).into()
    }
}

impl CalibrationTexts<'_> {
    /// Draws the blocks that a recipe asks for, and those that its repair needs beside them.
    ///
    /// # Errors
    /// As [`Calibration::read`], of any of the texts, and if there are texts for a repair that the recipe
    /// does not ask for.
    pub fn read(
        self,
        model: &dyn Model,
        recipe: &Recipe,
        progress: &mut dyn Progress,
    ) -> Result<Calibration, Error> {
        self.check(recipe)?;
        Ok(self.drawn(model, recipe, progress)?)
    }

    /// The same, and blocks by which a [search](crate::Study::search) scores candidates.
    ///
    /// They are a quarter as many as the calibration's, of the same text, and share no token with any that
    /// candidates are made of: the calibration's, and those that a repair holds out. Where a file of ready-made
    /// blocks has not that many more, they are the last quarter of the calibration's blocks, which candidates are
    /// then made without.
    ///
    /// # Errors
    /// As [`read`](Self::read), and if the text is too short for blocks apart.
    pub fn read_for_search(
        self,
        model: &dyn Model,
        recipe: &Recipe,
        progress: &mut dyn Progress,
    ) -> Result<SearchTexts, Error> {
        self.check(recipe)?;
        let wanted = SearchTexts::scored_of(recipe.calibration.samples);
        let (calibration, scored) = self.drawn_beside(model, recipe, wanted, progress)?;
        SearchTexts::new(calibration, scored, wanted)
    }

    fn drawn(
        self,
        model: &dyn Model,
        recipe: &Recipe,
        progress: &mut dyn Progress,
    ) -> Result<Calibration, EngineError> {
        Ok(self.drawn_beside(model, recipe, 0, progress)?.0)
    }

    /// The same, and at most `beside` further blocks that share no token with any of these.
    fn drawn_beside(
        self,
        model: &dyn Model,
        recipe: &Recipe,
        beside: usize,
        progress: &mut dyn Progress,
    ) -> Result<(Calibration, TokenBlocks), EngineError> {
        moeprune_engine::shortened(model, recipe).iter().for_each(|note| progress.note(note));
        let (calibration, beside) = match recipe.repairs() || recipe.refits() {
            false => Calibration::read_beside(self.text, model, recipe, beside)?,
            true => RepairCalibration::read_beside(self.text, model, recipe, self.others, beside)?,
        };
        calibration.notes().iter().for_each(|note| progress.note(note));
        let notes = calibration.repair.iter().flat_map(RepairCalibration::notes);
        notes.for_each(|note| progress.note(&note));
        Ok((calibration, beside))
    }

    /// Refuses texts for a repair that a recipe does not ask for.
    fn check(self, recipe: &Recipe) -> Result<(), Error> {
        if self.others.is_empty() || recipe.repairs() || recipe.refits() {
            return Ok(());
        }
        Err(Error::Recipe(
            "there are texts for a repair of the experts that stay (--repair-text), and the recipe names none; \
             leave them out, or use repair = \"refit\""
                .into(),
        ))
    }
}

/// Where a pruned checkpoint is written, and what is done about an interrupted run to the same place.
#[derive(Debug, Clone, Copy)]
#[expect(clippy::exhaustive_structs, reason = "plain data")]
pub struct OutputPlace<'a> {
    /// The checkpoint from which what stays as it is is copied.
    pub origin: &'a Checkpoint,
    /// The directory, missing or empty; of a model that is one file, a file that is missing.
    pub path: &'a Path,
    /// Whether an interrupted run is resumed.
    pub resume: Resume,
}

/// A recipe, and what the [search](crate::Study::search) found that made it. A `&Recipe` is one that
/// was not searched for.
#[derive(Debug, Clone, PartialEq)]
#[expect(clippy::exhaustive_structs, reason = "plain data")]
pub struct SearchedRecipe<'a> {
    /// The recipe to follow.
    pub recipe: &'a Recipe,
    /// What goes into the report.
    pub searched: Option<SearchReport>,
}

impl<'a> From<&'a Recipe> for SearchedRecipe<'a> {
    fn from(recipe: &'a Recipe) -> Self {
        Self { recipe, searched: None }
    }
}

/// Claims a place.
fn claimed<'a>(to: impl Into<WithCard<OutputPlace<'a>>>) -> Result<WithCard<Run<'a>>, Error> {
    let WithCard { place: OutputPlace { origin, path, resume }, card } = to.into();
    Ok(WithCard { place: Run::claim(path, origin, resume)?, card })
}

/// Writes the pruned checkpoint, its report and its card to the place that a run has claimed.
///
/// # Errors
/// If the plan is not for this model, inputs it needs are missing, weights are not finite, or
/// reading or writing fails. What was done until then is kept if any layer was finished;
/// otherwise nothing is left behind.
pub fn apply<'a>(
    job: &mut Job<'_>,
    to: impl Into<WithCard<Run<'a>>>,
    plan: &Plan,
    inputs: Inputs<'_>,
) -> Result<Report, Error> {
    let WithCard { place, card } = to.into();
    let report = place.complete(|run| {
        let applied = job.apply(run, plan, inputs)?;
        let recipe = serde_json::from_value(plan.recipe.clone())
            .map_err(|e| EngineError::Plan(format!("its recipe cannot be read: {e}")))?;
        let calibration = match inputs {
            Inputs::Calibration(calibration) => Some(calibration),
            _ => None,
        };
        let report = Report::new(run.origin(), &followed(&recipe, &applied, calibration), applied);
        note_total(&report, job.progress);
        report.save(run.folder())?;
        card.save(run, &report, job.progress)?;
        Ok(report)
    })?;
    Ok(report)
}

/// A recipe, with what was done in place of what was asked where the two differ.
pub(crate) fn followed(
    recipe: &Recipe,
    applied: &Applied,
    calibration: Option<&Calibration>,
) -> Recipe {
    let mut followed = recipe.clone();
    if let Some(source) = applied.statistics {
        followed.weights.statistics = source.into();
    }
    if let Some(Calibration { tag, .. }) = calibration {
        followed.calibration = CalibrationRecipe {
            samples: tag.samples as usize,
            sequence_len: tag.sequence_len as usize,
            seed: tag.seed,
        };
    }
    followed
}

pub(crate) fn note_total(report: &Report, progress: &mut dyn Progress) {
    let (asked, got) = (report.sparsity.requested, report.sparsity.achieved.linears);
    if report.promises.is_some() && (asked - got).abs() > 1e-3 {
        progress.note(&format!(
            "note: {:.2} % was asked for in all, the plan as it stands gives {:.2} %",
            100.0 * asked,
            100.0 * got
        ));
    }
}
