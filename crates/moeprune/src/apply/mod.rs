/*!
Applying a plan: from a checkpoint and a plan to a pruned checkpoint.

[`apply`] writes into a hidden sibling of the output directory and renames it at the end, so what
is there under the asked name is complete ([`OutputDirectory`]). One layer is worked on at a time; in the order they
are written, its tensors pass through three forms:

1. the source's, read lazily ([`Checkpoint`]);
2. with experts dropped, averaged and renumbered ([`KeptExperts`]);
3. with weights zeroed ([`MaskedLayer`]), when the plan asks for it.
*/

mod kept_experts;
mod layer_masks;
mod statistics;
mod writing;

pub(crate) use kept_experts::KeptExperts;
use layer_masks::{MaskedLayer, mask_layer};
use statistics::{LayerStatistics, Statistics};
pub(crate) use writing::LayerZeros;
use writing::Output;

use moeprune_checkpoint::{Checkpoint, OutputDirectory};
use moeprune_core::{CorpusTag, LayerProfile, LinearShape, Observation, Plan, Sparsity};

use crate::{
    Error, Pipeline, Progress, Recipe, Report,
    planning::{PLAN_FORMAT, check_survivors},
    recipe::CalibrationRecipe,
    report::{Applied, StageClock},
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

/// Writes the pruned checkpoint and its report to the place that `output` has claimed.
///
/// # Errors
/// If the plan is not for this model, inputs it needs are missing, weights are not finite, or
/// reading or writing fails. Nothing is left behind then.
pub fn apply(
    checkpoint: &Checkpoint,
    output: OutputDirectory,
    plan: &Plan,
    inputs: Inputs<'_>,
    pipeline: &Pipeline,
    mut clock: StageClock,
    progress: &mut dyn Progress,
) -> Result<Report, Error> {
    let mut recipe = check_plan(checkpoint, plan)?;
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
    let mut output = Output::create(output, &kept, progress)?;

    let ratios = match &plan.unstructured {
        None => None,
        Some(asked) => {
            let ratios = layer_ratios(asked, &kept, &statistics, &recipe, pipeline, progress)?;
            clock.lap("layer ratios");
            Some(ratios)
        }
    };

    let layers = kept.spec().layers.len();
    let mut pass = statistics.start(&kept)?;
    let mut idle = Vec::with_capacity(layers);
    output.put_outside_layers(&kept)?;
    let step = if ratios.is_some() { "pruning and writing" } else { "writing" };
    let mut steps = LayerSteps::begin(step, layers, statistics.tokens(), progress);
    for layer in 0..layers {
        let masked = match &ratios {
            None => MaskedLayer::unmasked(),
            Some(ratios) => {
                let inputs = pass.observe(&kept, layer)?;
                let masked = mask_layer(&kept, layer, ratios[layer], &inputs, &recipe, pipeline)?;
                pass.advance(&kept, &masked, layer)?;
                masked
            }
        };
        output.put_layer(&kept, &masked, layer)?;
        idle.push(masked.idle_experts);
        steps.done(layer);
    }
    steps.end();
    let written = output.finish()?;
    clock.lap(step);
    let applied = Applied {
        checkpoint,
        plan,
        recipe: &recipe,
        ratios: ratios.as_deref(),
        idle: &idle,
        corpora,
        zeros: &written.zeros,
        bytes_written: written.bytes,
    };
    let report = Report::new(applied, clock);
    let (asked, got) = (report.sparsity.requested, report.sparsity.achieved.linears);
    if plan.unstructured.is_some() && (asked - got).abs() > 1e-3 {
        progress.note(&format!(
            "note: {:.2} % was asked for in all, the plan as it stands gives {:.2} %",
            100.0 * asked,
            100.0 * got
        ));
    }
    written.publish(&report)?;
    Ok(report)
}

/// Progress in layers, or in tokens where calibration text runs through them.
struct LayerSteps<'a> {
    progress: &'a mut dyn Progress,
    layers: usize,
    total: u64,
}

impl<'a> LayerSteps<'a> {
    fn begin(step: &str, layers: usize, tokens: u64, progress: &'a mut dyn Progress) -> Self {
        let unit = if tokens == 0 { "layers" } else { "tokens" };
        let total = if tokens == 0 { layers as u64 } else { tokens };
        progress.begin(step, total, unit);
        Self { progress, layers, total }
    }

    fn done(&mut self, layer: usize) {
        let done = layer as u64 + 1;
        self.progress.advance(
            done * self.total / self.layers as u64,
            &format!("layer {done}/{}", self.layers),
        );
    }

    fn end(self) {
        self.progress.end();
    }
}

/// Refuses a plan that is not for this model or was edited into nonsense, and returns its recipe.
fn check_plan(checkpoint: &Checkpoint, plan: &Plan) -> Result<Recipe, Error> {
    let bad = |problem: String| Err(Error::Plan(problem));
    if plan.format != PLAN_FORMAT {
        return bad(format!("format {} is not {PLAN_FORMAT}; make the plan again", plan.format));
    }
    let fingerprint = checkpoint.fingerprint()?;
    if plan.model_fingerprint != fingerprint {
        return bad(format!(
            "it is for another model (fingerprint {}, this model's is {fingerprint}); make a plan \
             for this model",
            plan.model_fingerprint
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
        check_survivors(layer).map_err(|problem| Error::Plan(format!("layer {l}: {problem}")))?;
        if layer.survivors.len() < moe.top_k {
            return bad(format!(
                "layer {l} keeps {} experts, but every token is routed to {}",
                layer.survivors.len(),
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
    }
    let recipe: Recipe = serde_json::from_value(plan.recipe.clone())
        .map_err(|e| Error::Plan(format!("its recipe cannot be read: {e}")))?;
    recipe.check()?;
    Ok(recipe)
}

/// The Linears of a layer that may be zeroed.
fn prunable(kept: &KeptExperts<'_>, layer: usize, recipe: &Recipe) -> Vec<LinearShape> {
    let mut linears = kept.spec().linears(layer);
    linears.retain(|l| recipe.weights.prune_router || l.id != moeprune_core::LinearId::Router);
    linears
}

fn layer_ratios(
    asked: &moeprune_core::UnstructuredPlan,
    kept: &KeptExperts<'_>,
    statistics: &Statistics<'_>,
    recipe: &Recipe,
    pipeline: &Pipeline,
    progress: &mut dyn Progress,
) -> Result<Vec<Sparsity>, Error> {
    if !asked.layer_ratios.is_empty() {
        return asked.layer_ratios.iter().map(|&r| Ok(Sparsity::new(r)?)).collect();
    }
    let layers = kept.spec().layers.len();
    let mut profiles: Vec<LayerProfile> = (0..layers)
        .map(|layer| LayerProfile {
            layer,
            prunable: prunable(kept, layer, recipe).iter().map(LinearShape::parameters).sum(),
            outlier_percent: None,
        })
        .collect();
    if let Some(multiplier) = pipeline.allocator.outlier_threshold() {
        let mut pass = statistics.start(kept)?;
        let tokens = statistics.tokens();
        let mut steps = LayerSteps::begin("measuring outliers", layers, tokens, progress);
        for profile in &mut profiles {
            let layer = profile.layer;
            let inputs = pass.observe_and_advance(kept, layer)?;
            profile.outlier_percent = Some(layer_masks::outlier_percent(
                kept, layer, multiplier, &inputs, recipe, pipeline,
            )?);
            steps.done(layer);
        }
        steps.end();
    }
    let ratios = pipeline
        .allocator
        .allocate(&profiles, Sparsity::new(asked.ratio)?)
        .map_err(Error::stage("allocation", None))?;
    if ratios.len() != layers {
        return Err(Error::Contract {
            stage: "allocation",
            layer: 0,
            problem: format!("{} ratios for {layers} layers", ratios.len()),
        });
    }
    Ok(ratios)
}
