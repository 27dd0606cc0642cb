//! What a plan is made from, beside the model.

use moeprune_core::Observation;

use crate::Calibration;

/// What a plan is made from, beside the model: what the expert stage needs
/// ([`ExpertStage::needs`](crate::ExpertStage::needs)) must be there.
///
/// An observation alone, or `None`, can be given as it is: [`Job::plan`](crate::Job::plan) takes anything that this is made
/// `From`.
#[derive(Debug, Clone, Copy, Default)]
#[expect(clippy::exhaustive_structs, reason = "plain data, made with `..`")]
pub struct PlanInputs<'a> {
    /// What the model did on calibration text.
    pub observation: Option<&'a Observation>,
    /// Calibration text, on which a stage runs the model itself.
    pub calibration: Option<&'a Calibration>,
}

impl<'a> From<Option<&'a Observation>> for PlanInputs<'a> {
    fn from(observation: Option<&'a Observation>) -> Self {
        Self { observation, calibration: None }
    }
}
