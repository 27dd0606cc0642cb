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
mod steps;
#[cfg(target_os = "linux")]
pub mod timed;
mod unwritten;
mod writing;

pub(crate) use kept_experts::KeptExperts;
pub(crate) use steps::Steps;
pub(crate) use unwritten::UnwrittenModel;
pub(crate) use writing::LayerZeros;

use layer::{PrunedLayer, Stages};
use statistics::Statistics;
use writing::Output;

use moeprune_checkpoint::Checkpoint;
use moeprune_core::{CorpusTag, ExpertRatio, ExtraPolicy, Observation, Plan, SameModel, Sparsity};

use crate::{
    Error, Execution, Pipeline, Progress, Recipe, Report, Run,
    planning::{PLAN_FORMAT, stored_otherwise},
    recipe::CalibrationRecipe,
    report::Applied,
    session::{Pass, Record, RunIdentity},
    survivors::{check_clusters, check_survivors, choose_survivors_in},
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

/// Writes the pruned checkpoint and its report to the place that `run` has claimed.
///
/// # Errors
/// If the plan is not for this model, inputs it needs are missing, weights are not finite, or
/// reading or writing fails. What was done until then is kept if any layer was finished
/// ([`Error::Kept`]); otherwise nothing is left behind.
pub fn apply(
    checkpoint: &Checkpoint,
    run: Run,
    plan: &Plan,
    inputs: Inputs<'_>,
    pipeline: &Pipeline,
    on: &Execution,
    progress: &mut dyn Progress,
) -> Result<Report, Error> {
    run.complete(|run| {
        let recipe = check_plan(checkpoint, plan)?;
        let mut identity = RunIdentity::new("apply", checkpoint)?
            .with_recipe(&recipe, pipeline)?
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
        apply_plan(checkpoint, run, &plan, inputs, pipeline, &on, progress)
    })
}

/// [`apply`] within a run that has begun, of a plan that leaves nothing open.
pub(crate) fn apply_plan(
    checkpoint: &Checkpoint,
    run: &mut Run,
    plan: &Plan,
    inputs: Inputs<'_>,
    pipeline: &Pipeline,
    on: &Execution,
    progress: &mut dyn Progress,
) -> Result<Report, Error> {
    let mut recipe = check_plan(checkpoint, plan)?;
    for (what, fingerprint) in [
        ("plan", Some(&plan.model_fingerprint)),
        (
            "observation",
            match inputs {
                Inputs::Observation(observation) => Some(&observation.model_fingerprint),
                Inputs::None | Inputs::Calibration(_) => None,
            },
        ),
    ] {
        if let Some(fingerprint) = fingerprint
            && checkpoint.is_of(fingerprint)? == SameModel::StoredOtherwise
        {
            progress.note(&stored_otherwise(what));
        }
    }
    let extra = checkpoint.spec().extra;
    if let Some(extra) = extra.filter(|extra| extra.policy == ExtraPolicy::Keep) {
        progress.note(&format!(
            "note: the {} layers behind the decoder's are copied with all their experts, whatever \
             the config now says of their number",
            extra.count
        ));
    }
    let kept = KeptExperts::new(checkpoint, plan);
    let statistics = Statistics::new(checkpoint, plan, &recipe, inputs, pipeline)?;
    // The report tells what was done.
    if let Some(source) = statistics.source() {
        recipe.weights.statistics = source;
    }
    if let Inputs::Calibration(calibration) = inputs {
        let CorpusTag { samples, sequence_len, seed, .. } = calibration.tag;
        recipe.calibration = CalibrationRecipe {
            samples: samples as usize,
            sequence_len: sequence_len as usize,
            seed,
        };
    }
    let mut corpora = plan.corpora.clone();
    corpora.extend(statistics.corpora());
    corpora.sort_by(|a, b| (&a.sha256, a.seed).cmp(&(&b.sha256, b.seed)));
    corpora.dedup();

    let Run { output, session, clock, .. } = run;
    let mut output = Output::open(output, &kept, session, progress)?;
    let expert_ratios =
        plan.unstructured.as_ref().map_or(&[][..], |asked| asked.expert_ratios.as_slice());
    let stages = Stages { kept: &kept, recipe: &recipe, pipeline, on, expert_ratios };
    let ratios = match &plan.unstructured {
        None => None,
        Some(asked) => {
            let ratios = ratios::layer_ratios(asked, stages, &statistics, session, progress)?;
            clock.lap("layer ratios");
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
    clock.lap(step);

    let written = session.written()?;
    let scored = written.iter().map(|layer| layer.scored).sum();
    let (zeros, idle): (Vec<_>, Vec<_>) =
        written.into_iter().map(|layer| (layer.zeros, layer.idle)).unzip();
    let report = Report::new(
        Applied {
            checkpoint,
            plan,
            recipe: &recipe,
            ratios: ratios.as_deref(),
            idle: &idle,
            scored,
            corpora,
            zeros: &zeros,
            bytes_written,
            device: on.name(),
        },
        clock.clone(),
    );
    let (asked, got) = (report.sparsity.requested, report.sparsity.achieved.linears);
    if plan.unstructured.is_some() && (asked - got).abs() > 1e-3 {
        progress.note(&format!(
            "note: {:.2} % was asked for in all, the plan as it stands gives {:.2} %",
            100.0 * asked,
            100.0 * got
        ));
    }
    Ok(report)
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

/// Refuses a plan that is not for this model or was edited into nonsense, and returns its recipe.
fn check_plan(checkpoint: &Checkpoint, plan: &Plan) -> Result<Recipe, Error> {
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
    let recipe: Recipe = serde_json::from_value(plan.recipe.clone())
        .map_err(|e| Error::Plan(format!("its recipe cannot be read: {e}")))?;
    recipe.check()?;
    Ok(recipe)
}
