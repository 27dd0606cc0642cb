/*!
Applying a plan: from a checkpoint and a plan to a pruned checkpoint.

[`apply`] writes into a hidden sibling of the output directory and renames it at the end, so what
is there under the asked name is complete ([`Run`]). One layer is worked on at a time, and of its
experts one; in the order they are worked on, its tensors pass through three forms:

1. the source's, read when they are needed ([`Checkpoint`]);
2. with experts dropped, averaged and renumbered ([`KeptExperts`]);
3. with weights zeroed, when the plan asks for it ([`layer`]).
*/

mod held;
mod in_place;
mod kept_experts;
mod layer;
mod ratios;
mod statistics;
#[cfg(target_os = "linux")]
pub mod timed;
mod unwritten;
mod writing;

pub use kept_experts::KeptExperts;
pub use unwritten::UnwrittenModel;

use layer::{PrunedLayer, Stages};
use statistics::Statistics;
use writing::Output;

use moeprune_checkpoint::Checkpoint;
use moeprune_core::{
    CorpusTag, ExpertRatio, Observation, Plan, SameModel, Sparsity, StatisticsSource,
};

use crate::{
    Error, Execution, Pipeline, Progress, Run, StageClock, WrittenLayer,
    plan::{PLAN_FORMAT, check_clusters, check_survivors, choose_survivors_in, stored_otherwise},
    session::{Pass, Record, RunIdentity},
    steps::Steps,
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
    /// One entry per decoder layer.
    pub layers: Vec<WrittenLayer>,
    /// Bytes of all shards.
    pub bytes_written: u64,
    /// Where the statistics came from, if any were used.
    pub statistics: Option<StatisticsSource>,
    /// The texts that the plan and the statistics are of.
    pub corpora: Vec<CorpusTag>,
    /// Where it ran and in which type.
    pub device: String,
    /// What each step took.
    pub clock: StageClock,
}

/// Begins a run that applies a plan, or resumes it, and writes the pruned checkpoint to the place that
/// it has claimed.
///
/// # Errors
/// If the plan is not for this model, inputs it needs are missing, weights are not finite, or
/// reading or writing fails.
pub fn apply(
    checkpoint: &Checkpoint,
    run: &mut Run,
    plan: &Plan,
    inputs: Inputs<'_>,
    pipeline: &Pipeline,
    on: &Execution,
    progress: &mut dyn Progress,
) -> Result<Applied, Error> {
    check_plan(checkpoint, plan)?;
    let mut identity = RunIdentity::new("apply", checkpoint)?
        .with_recipe(&plan.recipe, pipeline)
        .with_plan(plan)?;
    identity = match inputs {
        Inputs::None => identity,
        Inputs::Calibration(calibration) => identity.with_calibration(&calibration.tag),
        Inputs::Observation(observation) => identity.with_observation(observation),
    };
    let on = match inputs {
        Inputs::Calibration(calibration) => {
            on.for_blocks(checkpoint, &calibration.tag, true, progress)?
        }
        _ => on.clone(),
    };
    run.begin(&identity.with_execution(&on))?;
    let plan = choose_survivors_in(&mut run.session, checkpoint, plan, pipeline, progress)?;
    run.lap("choosing survivors");
    apply_plan(checkpoint, run, plan, inputs, pipeline, &on, progress)
}

/// [`apply`] within a run that has begun, of a plan that leaves nothing open.
pub(crate) fn apply_plan(
    checkpoint: &Checkpoint,
    run: &mut Run,
    plan: Plan,
    inputs: Inputs<'_>,
    pipeline: &Pipeline,
    on: &Execution,
    progress: &mut dyn Progress,
) -> Result<Applied, Error> {
    check_plan(checkpoint, &plan)?;
    note_storage(checkpoint, &plan, inputs, progress)?;
    let kept = KeptExperts::new(checkpoint, &plan);
    let statistics = Statistics::new(checkpoint, &plan, inputs, pipeline)?;
    let mut corpora = plan.corpora.clone();
    corpora.extend(statistics.corpora());
    corpora.sort_by(|a, b| (&a.sha256, a.seed).cmp(&(&b.sha256, b.seed)));
    corpora.dedup();

    let Run { output, session, clock, .. } = run;
    let mut output = Output::open(output, &kept, session, progress)?;
    let promises = plan.promises().unwrap_or_default();
    let expert_ratios =
        plan.unstructured.as_ref().map_or(&[][..], |asked| asked.expert_ratios.as_slice());
    let stages = Stages { kept: &kept, promises, pipeline, on, expert_ratios };
    let ratios = match &plan.unstructured {
        None => None,
        Some(asked) => {
            let ratios = ratios::layer_ratios(asked, stages, &statistics, session, progress)?;
            clock.end_step("layer ratios");
            Some(ratios)
        }
    };
    if !session.outside_written() {
        output.copy_outside_layers(&kept)?;
        output.sync()?;
        session.record(Record::OutsideWritten)?;
    }
    let step = if ratios.is_some() { "pruning and writing" } else { "writing" };
    write_layers(step, stages, &statistics, ratios.as_deref(), session, &mut output, progress)?;
    let bytes_written = output.finish()?;
    clock.end_step(step);
    let (layers, statistics) = (session.written()?, statistics.source());
    let (device, clock) = (on.name(), clock.clone());
    drop(kept);
    Ok(Applied { plan, ratios, layers, bytes_written, statistics, corpora, device, clock })
}

/// Writes all layers that are not written yet, each noted in the journal when it is durable.
fn write_layers(
    step: &str,
    stages: Stages<'_>,
    statistics: &Statistics<'_>,
    ratios: Option<&[Sparsity]>,
    session: &mut crate::session::Session,
    output: &mut Output,
    progress: &mut dyn Progress,
) -> Result<(), Error> {
    let layers = stages.kept.spec().layers.len();
    let done = session.written()?.len();
    let mut walk = match ratios {
        None => statistics::Walk::None,
        Some(_) => statistics.start(stages, session, Pass::Prune, done)?,
    };
    let mut steps = if walk.is_forward() {
        Steps::tokens(step, layers, statistics.tokens(), done, progress)
    } else {
        Steps::megabytes(step, layers, output.planned_bytes(), done, progress)
    };
    for layer in done..layers {
        let PrunedLayer { idle, scored } = match ratios {
            None => {
                steps.begin_layer(layer, output.layer_bytes(stages.kept, layer));
                output.copy_layer(stages.kept, layer, &mut |bytes| steps.watch(bytes))?;
                PrunedLayer::default()
            }
            Some(ratios) => {
                let work = match walk.is_forward() {
                    true => 2 * statistics.passes(stages.kept, layer),
                    false => output.layer_bytes(stages.kept, layer),
                };
                steps.begin_layer(layer, work);
                let watch = &mut |more| steps.watch(more);
                layer::prune_layer(stages, &mut walk, output, layer, ratios[layer], watch)?
            }
        };
        output.sync()?;
        let zeros = output.take_zeros();
        let hidden = walk.hidden().filter(|_| layer + 1 < layers);
        session.layer_done(
            Pass::Prune,
            layer,
            hidden,
            Record::Written { layer, zeros, idle, scored },
        )?;
        steps.end_layer();
    }
    steps.end();
    Ok(())
}

/// Notes a plan or an observation of the same model in other files.
fn note_storage(
    checkpoint: &Checkpoint,
    plan: &Plan,
    inputs: Inputs<'_>,
    progress: &mut dyn Progress,
) -> Result<(), Error> {
    let mut given = vec![("plan", &plan.model_fingerprint)];
    if let Inputs::Observation(observation) = inputs {
        given.push(("observation", &observation.model_fingerprint));
    }
    for (what, fingerprint) in given {
        if checkpoint.is_of(fingerprint)? == SameModel::StoredOtherwise {
            progress.note(&stored_otherwise(what));
        }
    }
    Ok(())
}

/// Refuses a plan that is not for this model or was edited into nonsense.
fn check_plan(checkpoint: &Checkpoint, plan: &Plan) -> Result<(), Error> {
    let bad = |problem: String| Err(Error::Plan(problem));
    if plan.format != PLAN_FORMAT {
        return bad(format!("format {} is not {PLAN_FORMAT}; make the plan again", plan.format));
    }
    if checkpoint.is_of(&plan.model_fingerprint)? == SameModel::No {
        return bad(format!(
            "it is for another model (fingerprint {}, this model's is {}); make a plan for this \
             model",
            plan.model_fingerprint,
            checkpoint.fingerprint()?
        ));
    }
    let mut last = None;
    for layer in &plan.layers {
        let l = layer.layer;
        let Some(moe) = checkpoint.spec().layers.get(l).and_then(|s| s.moe()) else {
            return bad(format!("layer {l} does not exist or has no experts"));
        };
        if last.is_some_and(|last| last >= l) {
            return bad(format!("layer {l} comes twice or out of order"));
        }
        last = Some(l);
        if layer.experts_before != moe.experts {
            return bad(format!(
                "layer {l} has {} experts, the plan says {}",
                moe.experts, layer.experts_before
            ));
        }
        let fits = if layer.is_open() { check_clusters(layer) } else { check_survivors(layer) };
        fits.map_err(|problem| Error::Plan(format!("layer {l}: {problem}")))?;
        if layer.experts_after() < moe.top_k {
            return bad(format!(
                "layer {l} keeps {} experts, but every token is routed to {}",
                layer.experts_after(),
                moe.top_k
            ));
        }
    }
    if let Some(asked) = &plan.unstructured {
        Sparsity::new(asked.ratio)?;
        let (layers, ratios) = (checkpoint.spec().layers.len(), asked.layer_ratios.len());
        if ratios != 0 && ratios != layers {
            return bad(format!("layer_ratios has {ratios} entries for {layers} layers"));
        }
        let mut seen = std::collections::BTreeSet::new();
        for &ExpertRatio { layer, expert, ratio } in &asked.expert_ratios {
            Sparsity::new(ratio)?;
            let spec = checkpoint.spec().layers.get(layer).and_then(|l| l.moe());
            if spec.is_none_or(|moe| expert >= moe.experts) || !seen.insert((layer, expert)) {
                return bad(format!(
                    "expert_ratios names expert {expert} of layer {layer} twice, or there is none"
                ));
            }
        }
    }
    Ok(())
}
