/*!
Applying a plan: from a model and a plan to a pruned checkpoint.

[`Job::apply`] writes into a hidden sibling of the output directory and renames it at the end, so what
is there under the asked name is complete ([`Run`]). One layer is worked on at a time, and of its
experts one; in the order they are worked on, its tensors pass through three forms:

1. the source's, read when they are needed ([`Model`]);
2. with experts dropped, averaged and renumbered ([`KeptExperts`]), and those that stay repaired, when
   the plan asks for it ([`repair_experts`]);
3. with weights zeroed, when the plan asks for it ([`layer`]).
*/

mod check;
mod in_place;
mod layer;
mod layer_job;
mod measure;
mod ratios;
mod refit;
mod sequential;
mod statistics;
#[cfg(target_os = "linux")]
pub mod timed;
mod unwritten;
mod work;
mod worker;
mod writing;

pub use unwritten::UnwrittenModel;

use std::{
    ops::{ControlFlow, Range},
    path::PathBuf,
};

pub(crate) use check::check_plan;
use layer::{PruneTask, PrunedLayer};
use layer_job::LayerJob;
use refit::{RefitRequest, refit_written};
use statistics::Statistics;
use work::work_of;
use writing::Output;
pub(crate) use writing::write_beside;

use moeprune_core::{
    CorpusTag, Observation, Plan, Sparsity, StatisticsSource, plural, repair::ModelRepair,
};

use crate::{
    Error, Execution, Job, KeptExperts, LayerZeros, Model, Pipeline, Progress, Remedy,
    RepairCalibration, Run, StageClock, WithoutZero, WrittenLayer,
    in_codes::check_reconstructs,
    kept_experts::repaired_parts::After,
    plan::{check_observation, choose_survivors_in, note_of_kept, stored_otherwise},
    repair::{RepairRequest, repair_experts},
    session::{Pass, Record, RunIdentity},
    walk::{Resumed, Walker},
};

/// Where the statistics for scoring weights come from.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub enum Inputs<'a> {
    /// None: magnitude pruning, or a plan that drops experts only.
    None,
    /// Calibration blocks that are run through the pruned layers as they are made.
    Calibration(&'a crate::Calibration),
    /// An observation of the unpruned model.
    Observation(&'a Observation),
}

/// What was done to a model.
#[derive(Debug)]
#[non_exhaustive]
pub struct Applied {
    /// The plan, with the survivors that it left open.
    pub plan: Plan,
    /// The ratio of each layer, if weights were zeroed.
    pub ratios: Option<Vec<Sparsity>>,
    /// One entry per decoder layer that was written.
    pub layers: Vec<WrittenLayer>,
    /// Bytes of all shards; of a part, of its tensors.
    pub bytes_written: u64,
    /// Files beside the source's weights that were not copied, and why.
    pub left_out: Vec<(PathBuf, String)>,
    /// What the repair of the experts that stay did, if they were repaired.
    pub repair: Option<ModelRepair>,
    /// What refitting down projections after weights were zeroed did, if they were refitted.
    pub refit: Option<ModelRepair>,
    /// Where the statistics came from, if any were used.
    pub statistics: Option<StatisticsSource>,
    /// The texts that the plan and the statistics are of.
    pub corpora: Vec<CorpusTag>,
    /// Where it ran and in which type.
    pub device: String,
    /// What each step took.
    pub clock: StageClock,
}

impl Job<'_> {
    /// Begins a run that applies a plan, or resumes it, and writes the pruned model to the place
    /// that it has claimed.
    ///
    /// # Errors
    /// If the plan is not for this model, inputs it needs are missing, weights are not finite, or
    /// reading or writing fails.
    pub fn apply(
        &mut self,
        run: &mut Run<'_>,
        plan: &Plan,
        inputs: Inputs<'_>,
    ) -> Result<Applied, Error> {
        let begun = self.identity_of(plan, inputs)?;
        self.apply_as(run, plan, inputs, begun)
    }

    /// What the run depends on, and where it takes place.
    pub(crate) fn identity_of(
        &mut self,
        plan: &Plan,
        inputs: Inputs<'_>,
    ) -> Result<(RunIdentity, Execution), Error> {
        let Job { model, pipeline, .. } = *self;
        check_plan(model, plan)?;
        if plan.unstructured.is_some() {
            check_reconstructs(model, pipeline)?;
        }
        check_repair_text(plan, pipeline, inputs)?;
        let mut identity = RunIdentity::new("apply", model)?
            .with_recipe(&plan.recipe, pipeline)
            .with_plan(plan)?;
        identity = match inputs {
            Inputs::None => identity,
            Inputs::Calibration(calibration) => {
                let identity = identity.with_calibration(calibration);
                if plan.repairs || pipeline.refit.is_some() {
                    identity.with_repair(&calibration.for_repair())
                } else {
                    identity
                }
            }
            Inputs::Observation(observation) => identity.with_observation(observation),
        };
        let execution = match inputs {
            Inputs::Calibration(calibration) => self.for_blocks(calibration, true)?,
            _ => self.execution.clone(),
        };
        Ok((identity.with_execution(&execution), execution))
    }

    /// [`apply`](Self::apply), begun as what was found out before. A run that has claimed the place of a part writes
    /// that part.
    pub(crate) fn apply_as(
        &mut self,
        run: &mut Run<'_>,
        plan: &Plan,
        inputs: Inputs<'_>,
        (identity, execution): (RunIdentity, Execution),
    ) -> Result<Applied, Error> {
        let model = self.model;
        let identity = match run.part {
            None => identity,
            Some(part) => identity.with_part(part),
        };
        run.begin(model, &identity)?;
        let execution = &execution;
        let job = &mut self.on(execution);
        let plan = choose_survivors_in(job, &mut run.session, plan)?;
        run.end_step("choosing survivors");
        let observed = match inputs {
            Inputs::Observation(seen) => {
                Some(seen).filter(|_| check_observation(seen, model).is_ok())
            }
            _ => None,
        };
        apply_plan(job, run, plan, inputs, observed)
    }
}

/// [`Job::apply`] within a run that has begun, of a plan that leaves nothing open.
pub(crate) fn apply_plan(
    job: &mut Job<'_>,
    run: &mut Run<'_>,
    plan: Plan,
    inputs: Inputs<'_>,
    observed: Option<&Observation>,
) -> Result<Applied, Error> {
    let Job { model, pipeline, execution, .. } = *job;
    check_plan(model, &plan)?;
    note_storage(model, &plan, inputs, job.progress)?;
    let (kept, repair) = repaired(job, run, &plan, inputs)?;
    let progress = &mut *job.progress;
    let statistics = Statistics::new(model, &plan, inputs, pipeline)?;
    let corpora = corpora_of(&plan, &statistics);
    let range = run.layers(kept.spec().layers.len());
    let mut output = Output::open(run, &kept, progress)?;
    let walker = &mut Walker { session: &mut run.session, progress };
    let promises = plan.promises().unwrap_or_default();
    let expert_ratios =
        plan.unstructured.as_ref().map_or(&[][..], |asked| asked.expert_ratios.as_slice());
    let layer_job =
        LayerJob { kept: &kept, promises, pipeline, execution, expert_ratios, observed };
    let ratios = match &plan.unstructured {
        None => None,
        Some(asked) => {
            let ratios = ratios::layer_ratios(asked, layer_job, &statistics, walker)?;
            run.clock.end_step("layer ratios");
            Some(ratios)
        }
    };
    if output.writes_outside() {
        write_outside_layers(&mut output, walker)?;
    }
    let how = How { range: range.clone(), statistics: &statistics, ratios: ratios.as_deref() };
    write_layers(layer_job, how, &mut output, walker)?;
    let left_out = output.left_out().to_vec();
    let bytes_written = output.finish()?;
    run.clock.end_step(step_of(ratios.as_deref()));
    let refit = refitted(job, run, &kept, ratios.is_some(), inputs)?;
    let (layers, statistics) = (run.session.written(range.start)?, statistics.source());
    if run.part.is_none() {
        without_zero(&layers).iter().for_each(|note| job.progress.note(note));
    }
    let (device, clock) = (execution.name(), run.clock.clone());
    drop(kept);
    Ok(Applied {
        plan,
        ratios,
        layers,
        bytes_written,
        left_out,
        repair,
        refit,
        statistics,
        corpora,
        device,
        clock,
    })
}

/// What is said of weights that have no code that is zero, so that others became zero instead; `None` if there
/// are none.
#[must_use]
pub fn without_zero(layers: &[WrittenLayer]) -> Option<String> {
    let with = || layers.iter().enumerate().filter_map(|(l, layer)| Some((l, layer.without_zero?)));
    let (layer, WithoutZero { first, .. }) = with().next()?;
    let (weights, linears) = with().fold((0, 0), |(weights, linears), (_, all)| {
        (weights + all.weights, linears + all.linears)
    });
    Some(format!(
        "note: {} in {} (the first: layer {layer} {first}) cannot be zero, since the zero points of their groups are none (a stored 15 of GPTQ version 1 means 16): they \
         stay as they are, and others of their rows became zero instead, where there were such",
        plural(weights, "weight"),
        plural(linears, "Linear")
    ))
}

/// The texts of a plan and of statistics, each once.
fn corpora_of(plan: &Plan, statistics: &Statistics<'_>) -> Vec<CorpusTag> {
    let mut corpora = plan.corpora.clone();
    corpora.extend(statistics.corpora());
    corpora.sort_by(|a, b| (&a.sha256, a.seed).cmp(&(&b.sha256, b.seed)));
    corpora.dedup();
    corpora
}

/// Writes what belongs to no layer, unless that is done.
fn write_outside_layers(output: &mut Output<'_>, walker: &mut Walker<'_>) -> Result<(), Error> {
    if walker.session.outside_written() {
        return Ok(());
    }
    let progress = &*walker.progress;
    output.copy_outside_layers(&mut |_| match progress.should_stop() {
        true => ControlFlow::Break(()),
        false => ControlFlow::Continue(()),
    })?;
    output.sync()?;
    walker.session.record(Record::OutsideWritten)
}

/// Refits what is left of down projections in the written checkpoint, if weights of it were zeroed and the
/// pipeline has a stage for it.
fn refitted(
    job: &mut Job<'_>,
    run: &mut Run<'_>,
    kept: &KeptExperts<'_>,
    zeroed: bool,
    inputs: Inputs<'_>,
) -> Result<Option<ModelRepair>, Error> {
    let Job { model, pipeline, execution, .. } = *job;
    let Some(refit) = pipeline.refit.as_ref().filter(|_| zeroed) else { return Ok(None) };
    let calibration = &for_repair(inputs)?;
    let request = RefitRequest { refit, wanted: model, calibration, execution };
    let done = refit_written(request, run, kept, job.progress)?;
    run.clock.end_step("refitting what is left");
    Ok(Some(done))
}

/// The texts that a repair is fitted to.
fn for_repair(inputs: Inputs<'_>) -> Result<RepairCalibration, Error> {
    match inputs {
        Inputs::Calibration(calibration) => Ok(calibration.for_repair()),
        Inputs::None | Inputs::Observation(_) => Err(Error::refused(
            "the plan repairs the experts that stay, or refits what is left of zeroed weights, which takes \
             calibration text",
            Remedy::Calibration,
        )),
    }
}

/// Refuses a plan that repairs or refits, without text for that, before any work.
fn check_repair_text(plan: &Plan, pipeline: &Pipeline, inputs: Inputs<'_>) -> Result<(), Error> {
    let refits = pipeline.refit.is_some() && plan.unstructured.is_some();
    match inputs {
        Inputs::Calibration(_) => Ok(()),
        _ if plan.repairs || refits => for_repair(inputs).map(drop),
        _ => Ok(()),
    }
}

/// The model after the expert stage, its experts repaired if the plan says so, and what that did.
fn repaired<'m: 'p, 'p>(
    job: &mut Job<'m>,
    run: &mut Run<'_>,
    plan: &'p Plan,
    inputs: Inputs<'_>,
) -> Result<(KeptExperts<'p>, Option<ModelRepair>), Error> {
    let Job { model, pipeline, execution, .. } = *job;
    let kept = KeptExperts::new(model, plan);
    if !plan.repairs {
        return Ok((kept, None));
    }
    let Some(repair) = &pipeline.repair else {
        return Err(Error::Plan("it repairs experts, and its recipe names no repair".into()));
    };
    let calibration = &for_repair(inputs)?;
    let walker = &mut Walker { session: &mut run.session, progress: job.progress };
    let (wanted, after) = (kept.source(), After::Experts);
    let request = RepairRequest { repair, wanted, after, calibration, execution };
    let (parts, done) = repair_experts(&kept, request, walker)?;
    run.clock.end_step("repairing");
    Ok((kept.with_repaired(parts), Some(done)))
}

/// Which layers are written, and how their weights are chosen.
struct How<'a> {
    range: Range<usize>,
    statistics: &'a Statistics<'a>,
    /// By layer; `None` if no weight is zeroed.
    ratios: Option<&'a [Sparsity]>,
}

/// Bytes of layers that are made durable together where they are only copied: a disk is kept waiting each time.
const DURABLE_TOGETHER: u64 = 1 << 30;

/// Writes the layers that are not written yet, each noted in the journal when it is durable.
fn write_layers(
    layer_job: LayerJob<'_>,
    How { range, statistics, ratios }: How<'_>,
    output: &mut Output<'_>,
    walker: &mut Walker<'_>,
) -> Result<(), Error> {
    let kept = layer_job.kept;
    let done = walker.session.written(range.start)?.len();
    let blocks = ratios.and_then(|_| statistics.blocks());
    let work = |layer| match blocks {
        Some(_) => 2 * statistics.passes(kept, layer),
        None => output.layer_bytes(layer),
    };
    let work: Vec<u64> = (0..kept.spec().layers.len()).map(work).collect();
    let work_on_layer = work_of(layer_job);
    let route = layer_job.route(step_of(ratios), blocks, &work);
    let resumed = Some(Resumed { pass: Pass::Prune, done });
    let (end, mut written, mut bytes) = (range.end, Vec::new(), 0);
    let walked = walker.walk_layers(&route, range, resumed, |mut at| {
        let layer = at.layer;
        let PrunedLayer { idle, scored, without_zero, zero_before, mass } = match ratios {
            None => {
                output.copy_layer(layer, at.watch)?;
                PrunedLayer::default()
            }
            Some(ratios) => {
                let stored = statistics.stored(kept, layer);
                let task = PruneTask { stored: stored.as_ref(), ratio: ratios[layer] };
                work_on_layer.prune(layer_job, &mut at, output, task)?
            }
        };
        let mass = mass.or_else(|| layer_job.observed_mass(layer));
        let zeros = LayerZeros { before: zero_before, ..output.take_zeros() };
        written.push(Record::Written { layer, zeros, idle, scored, without_zero, mass });
        bytes += output.layer_bytes(layer);
        if ratios.is_none() && bytes < DURABLE_TOGETHER && layer + 1 < end {
            return Ok(Vec::new());
        }
        output.sync()?;
        bytes = 0;
        Ok(std::mem::take(&mut written))
    });
    if walked.is_err() && !written.is_empty() && output.sync().is_ok() {
        // What is finished is not lost.
        written.into_iter().try_for_each(|record| walker.session.record(record))?;
    }
    walked.map(drop)
}

/// What writing is called.
fn step_of(ratios: Option<&[Sparsity]>) -> &'static str {
    if ratios.is_some() { "pruning and writing" } else { "writing" }
}

/// Notes a plan or an observation of the same model in other files, and layers that stay as they are.
fn note_storage(
    model: &dyn Model,
    plan: &Plan,
    inputs: Inputs<'_>,
    progress: &mut dyn Progress,
) -> Result<(), Error> {
    let mut given = vec![("plan", &plan.model_fingerprint)];
    if let Inputs::Observation(observation) = inputs {
        given.push(("observation", &observation.model_fingerprint));
    }
    for (what, fingerprint) in given {
        let note = stored_otherwise(what, fingerprint, model)?;
        note.iter().for_each(|note| progress.note(note));
    }
    if let Some(note) = note_of_kept(model.spec(), plan) {
        progress.note(&note);
    }
    Ok(())
}
