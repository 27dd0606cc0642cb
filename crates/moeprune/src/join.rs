//! A pruned model put together from parts that were written apart.

use moeprune_engine::{Error as EngineError, Parts, Progress, Run};

use crate::{
    Error, Report, WithCard,
    prune::{followed, note_total},
};

/// Puts the parts that [`Job::apply_part`](crate::Job::apply_part) wrote together in the place that a run has claimed,
/// with configs, index, what lies beside the weights, the report and the card. All bytes are those that one
/// [`apply`](crate::apply()) writes, but for seconds and memory in the report: these are of all parts together.
///
/// The folders of the parts are emptied by that and removed.
///
/// # Errors
/// As [`Parts::join`], and if publishing fails. What was moved until then is kept, and joining the same parts again
/// continues with it.
pub fn join<'a>(
    to: impl Into<WithCard<Run<'a>>>,
    parts: &Parts,
    progress: &mut dyn Progress,
) -> Result<Report, Error> {
    let WithCard { place, card } = to.into();
    let (report, leavings) = place.complete(|run| {
        let joined = parts.join(run, progress)?;
        let recipe = serde_json::from_value(joined.applied.plan.recipe.clone())
            .map_err(|e| EngineError::Plan(format!("its recipe cannot be read: {e}")))?;
        let recipe = followed(&recipe, &joined.applied, None);
        let report = Report::new(run.origin(), &recipe, joined.applied);
        note_total(&report, progress);
        report.save(run.folder())?;
        card.save(run, &report, progress)?;
        Ok((report, joined.leavings))
    })?;
    for folder in leavings.remove() {
        progress.note(&format!("note: {} stays: there is something else in it", folder.display()));
    }
    Ok(report)
}
