//! What is refused of a model that cannot be run.

use moeprune_core::ModelSpec;
use moeprune_model::check_runnable;

use crate::{Error, Remedy};

/// Checks that a model can be run to zero weights of it.
///
/// # Errors
/// [`Error::Refused`] with the part that cannot be run, and what can be done all the same.
pub fn check_runs(spec: &ModelSpec) -> Result<(), Error> {
    check_runnable(spec).map_err(|e| Error::refused(e.to_string(), Remedy::WholeExperts))
}
