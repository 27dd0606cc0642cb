//! Repairing experts of a model that is written nowhere.

use moeprune_core::repair::ModelRepair;

use super::{RepairRequest, repair_experts};
use crate::{
    Calibration, Error, Job, KeptExperts, kept_experts::repaired_parts::After, session::Session,
    walk::Walker,
};

impl KeptExperts<'_> {
    /// The same with the experts that stay repaired as the job's pipeline says, and what that did. New
    /// weights are in a temporary folder, which goes with them; one that a killed process left goes when the next
    /// is made.
    ///
    /// # Errors
    /// If the model cannot be run, experts cannot be repaired, or the folder cannot be written.
    pub fn repaired(
        self,
        job: &mut Job<'_>,
        calibration: &Calibration,
    ) -> Result<(Self, Option<ModelRepair>), Error> {
        let Job { pipeline, .. } = *job;
        let loses = (0..self.spec().layers.len()).any(|layer| self.loses_experts(layer));
        let Some(repair) = pipeline.repair.as_ref().filter(|_| loses) else {
            return Ok((self, None));
        };
        let execution = &job.for_blocks(calibration, true)?;
        let walker =
            &mut Walker { session: &mut Session::in_memory(), progress: &mut *job.progress };
        let calibration = &calibration.for_repair();
        let (wanted, after) = (self.source(), After::Experts);
        let request = RepairRequest { repair, wanted, after, calibration, execution };
        let (parts, done) = repair_experts(&self, request, walker)?;
        Ok((self.with_repaired(parts), Some(done)))
    }
}
