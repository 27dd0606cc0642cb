//! What answers are as texts, for people.

use moeprune::{
    Error,
    eval::{Degradation, Estimate, EvalReport},
};

/// The measures with their names, as far as they are known.
#[must_use]
pub fn degradation_rows(found: &Degradation) -> Vec<(&'static str, Estimate)> {
    let rows = [
        ("ended by itself", found.ended),
        ("ends in a loop", Some(found.looping)),
        ("distinct-4", found.distinct_4),
    ];
    rows.into_iter().filter_map(|(name, estimate)| Some((name, estimate?))).collect()
}

/// Prints them under a task's metrics.
pub(crate) fn print_degradation(report: &EvalReport) -> Result<(), Error> {
    let Some(found) = report.degradation() else { return Ok(()) };
    line!("answers as texts")?;
    for (name, estimate) in degradation_rows(&found) {
        let error = estimate.stderr.map_or_else(String::new, |e| format!(" ± {e:.4}"));
        line!("  {name:<18} {:.4}{error}", estimate.mean)?;
    }
    Ok(())
}
