//! Changing what is left of down projections after weights were zeroed, in a checkpoint that is written but not
//! published.
//!
//! The pass reads that checkpoint and leaves new weights in the run's state; only when all of its layers
//! are done are they written over the old ones. A process that dies in between resumes either the pass,
//! on weights that nothing has changed yet, or the writing, which may be done again.

use moeprune_checkpoint::{Access, Checkpoint};
use moeprune_core::{ExpertRepair, repair::ModelRepair};

use super::writing::Output;
use crate::{
    Error, Execution, KeptExperts, Model, Progress, RepairCalibration, Run, Stage,
    kept_experts::repaired_parts::After,
    plan::keeping_all,
    repair::{RepairRequest, repair_experts},
    walk::Walker,
};

/// What the written checkpoint is refitted with.
#[derive(Clone, Copy)]
pub(super) struct RefitRequest<'a> {
    pub(super) refit: &'a Stage<dyn ExpertRepair>,
    /// The model whose outputs are wanted.
    pub(super) wanted: &'a dyn Model,
    pub(super) calibration: &'a RepairCalibration,
    pub(super) execution: &'a Execution,
}

/// Refits the checkpoint in a run's folder, all of whose layers are written.
pub(super) fn refit_written(
    request: RefitRequest<'_>,
    run: &mut Run<'_>,
    kept: &KeptExperts<'_>,
    progress: &mut dyn Progress,
) -> Result<ModelRepair, Error> {
    let RefitRequest { refit, wanted, calibration, execution } = request;
    let family = Some(run.origin.family().clone());
    let written = Checkpoint::open_by(run.output.path(), family, Access::Read)?;
    let nothing = &keeping_all(wanted)?;
    let pruned = KeptExperts::new(&written, nothing);
    let request =
        RepairRequest { repair: refit, wanted, after: After::Masks, calibration, execution };
    let walker = &mut Walker { session: &mut run.session, progress };
    let (parts, done) = repair_experts(&pruned, request, walker)?;
    let pruned = pruned.with_repaired(parts);
    let mut output = Output::written(run, kept)?;
    output.replace(&pruned)?;
    output.finish()?;
    Ok(done)
}
