/*!
Repairing the experts that stay, between the expert stage and the weight stage.

All blocks go through the model once. Per layer that lost experts ([`RepairTask::repair`](layer)):

1. the trunk of the layer as it is left runs on the inputs that the repaired layers before it give; the
   tokens are routed by its router and by the one with all experts ([`streams`]);
2. each expert runs once on the tokens that it receives in either model: what it writes is added to the
   layer's output with all experts, and to what is missing of that without those that went; what a
   survivor's down projection reads is kept ([`store`]);
3. an [`ExpertRepair`](moeprune_core::ExpertRepair) replaces the survivors' weights and leaves what is then
   still missing;
4. the layer's output is the one with all experts less what is missing: nothing runs twice.

New weights are in a file per layer, which
[`KeptExperts`](crate::KeptExperts) reads them from: all that comes later works on the repaired model. A layer
is what a run resumes from.
*/

mod blocks;
mod cost;
mod estimate;
mod layer;
mod store;
mod streams;
mod supervised;
mod unwritten;

pub use cost::{Holding, RepairCost};
pub use estimate::{RepairEstimate, RepairTextSize};

use std::sync::Arc;

use moeprune_capture::{LayerRun, StoredLayer, TokenBlocks, for_each_loaded_expert, passes};
use moeprune_core::{ExpertRepair, repair::ModelRepair};
use moeprune_model::LayerTrunk;

use self::{
    blocks::RepairTokens,
    layer::{RepairTask, Repaired},
};
use crate::{
    Calibration, Error, Execution, Job, KeptExperts, Model, Progress, RepairCalibration, Stage,
    kept_experts::{
        TemporaryFolder,
        repaired_parts::{After, RepairedParts},
    },
    memory::check_memory,
    session::{LayerRepaired, Pass, Record},
    walk::{AtLayer, Resumed, Route, Walker},
};

/// What a model is repaired with and on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RepairRequest<'a> {
    pub(crate) repair: &'a Stage<dyn ExpertRepair>,
    /// The model whose outputs are wanted.
    pub(crate) wanted: &'a dyn Model,
    pub(crate) after: After,
    pub(crate) calibration: &'a RepairCalibration,
    pub(crate) execution: &'a Execution,
}

/// Repairs the layers that lost experts, or goes on with that. Returns the parts that were changed and
/// what that did.
pub(crate) fn repair_experts(
    kept: &KeptExperts<'_>,
    request: RepairRequest<'_>,
    walker: &mut Walker<'_>,
) -> Result<(RepairedParts, ModelRepair), Error> {
    let RepairRequest { repair, wanted, after, calibration, execution } = request;
    let masked = after == After::Masks;
    let tokens = &RepairTokens::of(calibration)?;
    let mut repaired = match walker.session.state() {
        Some(_) => RepairedParts::default(),
        None => RepairedParts::in_folder(Arc::new(temporary_folder()?)),
    };
    let folder = match walker.session.state() {
        Some(state) => state.to_owned(),
        None => repaired.folder().to_owned(),
    };
    let task = RepairTask { wanted, kept, repair, execution, tokens, after, folder: &folder };
    if walker.session.repaired(masked)?.is_empty() {
        task.note_estimate(walker.progress)?;
    }
    task.all_layers(walker)?;
    let mut layers = Vec::new();
    for layer in walker.session.repaired(masked)? {
        let Some(LayerRepaired { report, replaced }) = layer else { continue };
        repaired.add(kept, (&folder, after), (report.repair.layer, &replaced))?;
        layers.push(report);
    }
    Ok((repaired, ModelRepair { texts: tokens.texts.clone(), layers }))
}

/// Refuses a repair that needs more memory than the run may take, before the model is observed for it.
pub(crate) fn check_repair_memory(job: &Job<'_>, calibration: &Calibration) -> Result<(), Error> {
    let Job { model, pipeline, execution, .. } = *job;
    let stages = [&pipeline.repair, &pipeline.refit];
    if !execution.is_on_cpu() || execution.max_memory().is_none() {
        return Ok(());
    }
    for repair in stages.into_iter().flatten() {
        let size = RepairTokens::of(&calibration.for_repair())?.size();
        // How many experts go does not matter.
        let kept = |layer| model.spec().moe_of(layer).map_or(0, |moe| moe.experts);
        let (passes, rates) = (repair.passes(), execution.rates());
        let estimate = RepairEstimate::of_refit(model, kept, size, passes, rates);
        check_memory(estimate.memory_bytes, execution.max_memory())?;
    }
    Ok(())
}

impl RepairTask<'_> {
    /// Says what the repair takes, and where there are too few tokens for it.
    fn note_estimate(&self, progress: &mut dyn Progress) -> Result<(), Error> {
        let Self { wanted, kept, execution, tokens, .. } = *self;
        let kept_in = |layer| kept.spec().moe_of(layer).map_or(0, |moe| moe.experts);
        let counts = tokens.size();
        let (passes, rates) = (self.repair.passes(), execution.rates());
        let estimate = match self.after {
            After::Experts => RepairEstimate::of(wanted, kept_in, counts, passes, rates),
            After::Masks => RepairEstimate::of_refit(wanted, kept_in, counts, passes, rates),
        };
        if execution.is_on_cpu() {
            check_memory(estimate.memory_bytes, execution.max_memory())?;
        }
        progress.note(&estimate.note());
        let samples = tokens.texts.first().map_or(0, |text| text.fitted);
        estimate.few_tokens(samples).iter().for_each(|note| progress.note(note));
        Ok(())
    }

    /// Walks over the layers that are not done yet.
    fn all_layers(&self, walker: &mut Walker<'_>) -> Result<(), Error> {
        let Self { kept, execution, tokens, .. } = *self;
        let spec = kept.spec();
        let masked = self.after == After::Masks;
        let done = walker.session.repaired(masked)?.len();
        if done >= spec.layers.len() {
            return Ok(());
        }
        let blocks: &TokenBlocks = &tokens.blocks;
        // Each layer that is repaired reads its activations besides.
        let times = self.repair.passes().reads as u64;
        let reads = |layer: usize| match spec.layers[layer].moe().filter(|_| self.changes(layer)) {
            Some(moe) => times * moe.top_k as u64 * blocks.tokens(),
            None => 0,
        };
        let work = |layer| passes(spec, layer, blocks.tokens()) + reads(layer);
        let work: Vec<u64> = (0..spec.layers.len()).map(work).collect();
        let route = Route {
            source: kept,
            spec,
            blocks: Some(blocks),
            micro_batch: execution.micro_batch(),
            execution,
            step: if masked { "refitting what is left" } else { "repairing" },
            work: &work,
        };
        let resumed = Some(Resumed { pass: if masked { Pass::Refit } else { Pass::Repair }, done });
        walker.walk(&route, resumed, |at| {
            let layer = at.layer;
            let done = if self.changes(layer) {
                Some(Box::new(self.repair_at(at)?))
            } else {
                self.pass_at(at)?;
                None
            };
            Ok(Some(Record::Repaired { layer, masked, done }))
        })?;
        Ok(())
    }

    fn repair_at(&self, mut at: AtLayer<'_>) -> Result<LayerRepaired, Error> {
        let holding = self.holding(at.layer);
        let hidden = at.take_hidden();
        let Repaired { report, replaced, hidden } =
            self.repair(at.layer, (hidden, holding), at.watch)?;
        *at.hidden = Some(hidden);
        Ok(LayerRepaired { report, replaced })
    }

    /// Whether a layer has something to make up for.
    fn changes(&self, layer: usize) -> bool {
        match self.after {
            After::Experts => self.kept.loses_experts(layer),
            After::Masks => self.kept.spec().layers[layer].moe().is_some(),
        }
    }

    /// What of a layer is kept in files.
    fn holding(&self, layer: usize) -> Holding {
        let (before, after) = (self.wanted.spec(), self.kept.spec());
        let (tokens, passes) = (self.tokens.blocks.tokens(), self.repair.passes());
        let cost = match (before.moe_of(layer), after.moe_of(layer)) {
            (Some(moe), Some(left)) => {
                RepairCost::of_layer(before, moe, left.experts, tokens, passes)
            }
            _ => RepairCost::default(),
        };
        cost.holding(self.execution.rates())
    }

    /// Runs a layer that lost nothing.
    fn pass_at(&self, mut at: AtLayer<'_>) -> Result<(), Error> {
        let (kept, compute, layer) = (self.kept, self.execution.compute(), at.layer);
        let spec = kept.spec();
        let trunk = LayerTrunk::load(kept, spec, layer, compute)?;
        let hidden = at.take_hidden();
        let mut run = LayerRun::advance(&trunk, layer, hidden, None, at.watch)?;
        drop(trunk);
        let experts = 0..spec.layers[layer].moe().map_or(0, |moe| moe.experts);
        let busy: Vec<usize> = experts.filter(|&e| run.tokens(e) > 0).collect();
        let stored = StoredLayer { source: kept, spec, layer, compute };
        for_each_loaded_expert(stored, &busy, |expert| {
            Ok::<_, Error>(run.expert(expert.index(), &expert, None, at.watch)?)
        })?;
        *at.hidden = Some(run.finish()?);
        Ok(())
    }
}

/// Refuses a folder for temporary files in which no repair can keep its new weights, as that of a model which
/// is written nowhere does.
///
/// # Errors
/// If no folder can be made in it.
pub fn check_repair_folder() -> Result<(), Error> {
    temporary_folder().map(drop)
}

fn temporary_folder() -> Result<TemporaryFolder, Error> {
    TemporaryFolder::new_in(&std::env::temp_dir())
}
