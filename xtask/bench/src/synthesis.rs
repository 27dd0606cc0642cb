//! How far a checkpoint of random weights has come, shown as progress.

use moeprune::Progress;
use moeprune_synthetic::Step;

/// Shows a step of writing random weights.
pub(crate) fn show(step: Step<'_>, progress: &mut dyn Progress) {
    const MEGA: u64 = 1_000_000;
    let (name, unit, done, total, file) = match step {
        Step::Writing { done, total, file } => {
            ("writing random weights", "MB", done.div_ceil(MEGA), total.div_ceil(MEGA), file)
        }
        Step::Flushing { done, total } => {
            ("flushing to disk", "files", done as u64, total as u64, "")
        }
    };
    match done {
        0 => progress.begin(name, total, unit),
        done if done < total => progress.advance(done, file),
        _ => progress.end(),
    }
}
