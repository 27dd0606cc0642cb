//! Prunings side by side, none of them written.

mod inputs;
mod pictures;
mod served;

pub use moeprune_core::comparison::{Comparison, Cut, LayerPicture};
pub use served::ServedVariant;

use std::{path::Path, time::Instant};

use candle_core::Tensor;
use moeprune_capture::TokenBlocks;
use moeprune_checkpoint::{Checkpoint, StoredTensor};
use moeprune_core::{
    CorpusTag, ModelSpec, Plan, Sparsity, TensorId,
    comparison::{AnswerTexts, Divergence, Estimate, FORMAT, UNPRUNED},
    plural,
};

use moeprune_engine::{
    Error as EngineError, Execution, Finite, Inputs, Job, KeptExperts, ModelText, Pipeline,
    PlanInputs, Progress, Remedy, TOOL, TextFiles, TextSize, UnwrittenModel,
    note_of_streamed_length, read_in_words, warnings_of_text,
};

use crate::{
    Error, Evaluation, Recipe, Registry, Study,
    evaluation::{Evaluated, Score, against::memory::check_host, count_questions, evaluate_model},
    planning::plan,
    streamed::{Streamed, divergence, likelihood_after},
};

/// A pruning to be compared with others.
#[derive(Debug, Clone, PartialEq)]
#[expect(clippy::exhaustive_structs, reason = "plain data")]
pub struct Variant {
    /// What it is called in tables.
    pub name: String,
    /// What it does.
    pub recipe: Recipe,
}

/// What is measured of each pruning.
#[derive(Debug, Clone, Default)]
#[expect(clippy::exhaustive_structs, reason = "options, made with `..`")]
pub struct Measures<'a> {
    /// Questions. The model must fit in memory.
    pub task: Option<Evaluation<'a>>,
    /// The metric that is taken as accuracy, for example `flexible-extract`; the task's first if it
    /// is not said.
    pub metric: Option<&'a str>,
    /// Text for perplexity. A layer is in memory at a time.
    pub text: Option<&'a Path>,
    /// Only the first so many blocks of the text.
    pub text_blocks: Option<usize>,
    /// Tokens in a block of the text; the model's maximum, at most 2048, by default.
    pub sequence_len: Option<usize>,
    /// Whether the unpruned model is left out.
    pub skip_unpruned: bool,
}

impl Study<'_> {
    /// Measures the unpruned model and each variant of it.
    ///
    /// Nothing is written: experts that go are left out when the model is loaded, which gives what
    /// masking them in the router gives, and weights are zeroed on the way. Weights are masked by the
    /// observation's statistics, as with `statistics = "stored"`. Where a recipe repairs, experts are repaired on
    /// calibration text, and statistics are then taken on the repaired model, as [`prune`](crate::prune()) does.
    /// A variant that the model or the request rules out is left out, with a note.
    ///
    /// # Errors
    /// If a variant's recipe cannot be followed without a checkpoint being written (a reconstruction needs more than an observation, a repair
    /// calibration text), if none can be made, or the model cannot be run.
    pub fn compare<'i>(
        &mut self,
        inputs: impl Into<PlanInputs<'i>>,
        variants: &[Variant],
        measures: &Measures<'_>,
    ) -> Result<Comparison, Error> {
        let inputs = inputs.into();
        let observation = inputs.observation;
        let Study { checkpoint, registry, execution, .. } = *self;
        let spec = checkpoint.spec();
        let shortened =
            measures.sequence_len.and_then(|asked| note_of_streamed_length(asked, spec));
        shortened.iter().for_each(|note| self.progress.note(note));
        let given = inputs.calibration.is_some();
        for Variant { name, recipe } in variants {
            inputs::check(checkpoint, registry, recipe, given).map_err(|e| named(name, e))?;
        }
        for corpus in observation.iter().flat_map(|observation| &observation.corpora) {
            read_in_words(corpus).iter().for_each(|note| self.progress.note(note));
            warnings_of_text(corpus, spec).iter().for_each(|note| self.progress.note(note));
        }
        let text = self.text(measures)?;
        let mut measured = Measured { measures, text: text.as_ref(), unpruned: None };
        let unpruned_outputs;
        let mut cuts = Vec::with_capacity(1 + variants.len());
        if !measures.skip_unpruned {
            let built_in = Registry::built_in();
            let mut unpruned =
                Study { registry: &built_in, progress: &mut *self.progress, ..*self };
            let pruned = Pruned::new(&mut unpruned, PlanInputs::default(), &nothing())?;
            let (cut, outputs) = pruned.cut(UNPRUNED, measured, execution, unpruned.progress)?;
            cuts.push(cut);
            unpruned_outputs = outputs;
            measured.unpruned = (!unpruned_outputs.is_empty()).then_some(&unpruned_outputs);
        }
        self.measure(inputs, variants, measured, &mut cuts)?;
        let spec = checkpoint.spec();
        let task = measures.task.as_ref();
        Ok(Comparison {
            format: FORMAT,
            tool: TOOL.to_owned(),
            model: file_name(checkpoint.dir()),
            family: spec.family.clone(),
            observed: observation
                .map(|o| o.corpora.iter().map(describe).collect())
                .unwrap_or_default(),
            task: task.map(|task| task.task.to_owned()),
            data: task.map(|task| file_name(task.data)),
            documents: task.map(count_questions).transpose()?,
            metric: task.and(measures.metric).map(str::to_owned),
            device: execution.name(),
            cuts,
            layers: match pictured(variants, registry) {
                Some(recipe) => pictures::of(checkpoint, observation, recipe, registry)?,
                None => Vec::new(),
            },
        })
    }
}

impl Study<'_> {
    /// The text that is predicted, if it and the model's hidden states fit.
    fn text(&mut self, measures: &Measures<'_>) -> Result<Option<Text>, Error> {
        let Study { checkpoint, execution, .. } = *self;
        let text = Text::read(checkpoint, measures, self.progress)?;
        if let Some(text) = text.as_ref().filter(|_| execution.is_on_cpu()) {
            let block = text.blocks.sequence_len() as u64;
            let text = (
                TextSize { tokens: text.blocks.tokens(), block },
                "use a shorter text or fewer of its blocks (--text-blocks, --seq-len)",
            );
            check_host(execution, (checkpoint, checkpoint), text, self.progress)?;
        }
        Ok(text)
    }

    /// Measures each variant. One that is refused does not take part, with a note, unless all are.
    fn measure(
        &mut self,
        inputs: PlanInputs<'_>,
        variants: &[Variant],
        measured: Measured<'_>,
        cuts: &mut Vec<Cut>,
    ) -> Result<(), Error> {
        let (execution, mut refused) = (self.execution, Vec::new());
        for Variant { name, recipe } in variants {
            let cut = Pruned::new(self, inputs, recipe)
                .and_then(|pruned| pruned.cut(name, measured, execution, self.progress));
            match cut {
                Ok((cut, _)) => {
                    self.progress.note(&format!("{name}: {}", in_words(&cut)));
                    cuts.push(cut);
                }
                Err(error) if error.is_refusal() => {
                    self.progress.note(&format!("note: {name} is left out: {error}"));
                    refused.push(named(name, error));
                }
                Err(error) => return Err(named(name, error)),
            }
        }
        let all = refused.len() == variants.len();
        refused.into_iter().next().filter(|_| all).map_or(Ok(()), Err)
    }
}

/// The recipe whose grouping is drawn: the first that groups experts, or the first.
fn pictured<'a>(variants: &'a [Variant], registry: &Registry) -> Option<&'a Recipe> {
    let groups = |variant: &&Variant| {
        registry.pipeline(&variant.recipe).is_ok_and(|stages| stages.experts.grouped().is_some())
    };
    let pictured = variants.iter().find(groups);
    pictured.or_else(|| variants.first()).map(|variant| &variant.recipe)
}

fn named(name: &str, error: Error) -> Error {
    if error.is_stop() {
        error
    } else {
        Error::Variant { name: name.to_owned(), error: error.into() }
    }
}

/// A plan that is carried out in memory only.
pub(crate) struct Pruned<'a> {
    checkpoint: &'a Checkpoint,
    inputs: PlanInputs<'a>,
    recipe: Recipe,
    pipeline: Pipeline,
    plan: Plan,
    seconds: f64,
}

impl<'a> Pruned<'a> {
    pub(crate) fn new<'s: 'a>(
        study: &mut Study<'s>,
        inputs: PlanInputs<'a>,
        recipe: &Recipe,
    ) -> Result<Self, Error> {
        let started = Instant::now();
        let Study { checkpoint, registry, .. } = *study;
        let mut recipe = recipe.clone();
        registry.resolve(&mut recipe)?;
        let pipeline = registry.pipeline(&recipe)?;
        let mut job = study.job(&pipeline);
        let plan = plan(&mut job, &recipe, inputs)?;
        let plan = job.choose_survivors(&plan)?;
        let seconds = started.elapsed().as_secs_f64();
        Ok(Self { checkpoint, inputs, recipe, pipeline, plan, seconds })
    }

    /// Hands over the model.
    pub(crate) fn run<R>(
        &self,
        execution: &Execution,
        progress: &mut dyn Progress,
        run: impl FnOnce(&UnwrittenModel<'_>, &mut dyn Progress) -> Result<R, Error>,
    ) -> Result<R, Error> {
        let kept = KeptExperts::new(self.checkpoint, &self.plan);
        let (model, pipeline) = (self.checkpoint, &self.pipeline);
        let mut job = Job { model, pipeline, execution, progress };
        let kept = match (self.plan.repairs, self.inputs.calibration) {
            (false, _) => kept,
            (true, Some(calibration)) => kept.repaired(&mut job, calibration)?.0,
            (true, None) => {
                let problem =
                    "experts that stay are repaired on calibration text, and there is none";
                return Err(EngineError::refused(problem, Remedy::Calibration).into());
            }
        };
        let model = UnwrittenModel::new(&kept, &self.plan, self.statistics(), &mut job)?;
        run(&model, job.progress)
    }

    /// Where statistics for masks come from: an observation is of the model without a repair.
    fn statistics(&self) -> Inputs<'a> {
        let PlanInputs { observation, calibration } = self.inputs;
        match (calibration, observation) {
            (Some(calibration), _) if self.recipe.repairs_before_statistics() => {
                Inputs::Calibration(calibration)
            }
            (_, Some(observation)) => Inputs::Observation(observation),
            (_, None) => Inputs::None,
        }
    }

    /// Measures it. Returns the last layer's outputs on the text too; none without a text.
    fn cut(
        &self,
        name: &str,
        measured: Measured<'_>,
        execution: &Execution,
        progress: &mut dyn Progress,
    ) -> Result<(Cut, Vec<Tensor>), Error> {
        let started = Instant::now();
        self.run(execution, progress, |model, progress| {
            let (checkpoint, spec) = (self.checkpoint, model.spec());
            let evaluated = Evaluated { checkpoint, source: model, spec };
            let (accuracy, texts) = measured.answers(evaluated, execution, progress)?;
            let predicted = measured.predictions(evaluated, execution, progress)?;
            let weights_too = self.recipe.prunes_weights();
            let experts_of = |spec: &ModelSpec| -> u64 {
                spec.layers.iter().filter_map(|l| l.moe()).map(|moe| moe.experts as u64).sum()
            };
            let (before, after) = (self.checkpoint.spec(), model.spec());
            let cut = Cut {
                criterion: name.to_owned(),
                expert_share: self.recipe.experts.sparsity.value(),
                total_share: if weights_too { self.recipe.sparsity.value() } else { 0.0 },
                experts_kept: experts_of(after),
                experts: experts_of(before),
                parameters: model.parameters(),
                bytes: bytes_with(self.checkpoint, after),
                accuracy,
                perplexity: predicted.perplexity,
                divergence: predicted.divergence,
                texts,
                seconds: self.seconds + started.elapsed().as_secs_f64(),
                layer_sparsity: model.layer_sparsity(),
                kept: self.kept(),
            };
            Ok((cut, predicted.outputs))
        })
    }

    /// The experts of each MoE layer that stay, as source indices.
    fn kept(&self) -> Vec<Vec<usize>> {
        let layers = self.checkpoint.spec().layers.iter().enumerate();
        let moe = layers.filter_map(|(index, layer)| Some((index, layer.moe()?.experts)));
        moe.map(|(index, experts)| match self.plan.layers.iter().find(|plan| plan.layer == index) {
            Some(plan) => plan.survivors.iter().map(|survivor| survivor.source).collect(),
            None => (0..experts).collect(),
        })
        .collect()
    }
}

/// The recipe that removes and zeroes nothing.
fn nothing() -> Recipe {
    let mut recipe = Recipe::arctic();
    (recipe.sparsity, recipe.experts.sparsity) = (Sparsity::ZERO, Sparsity::ZERO);
    recipe
}

/// Size of a checkpoint's weights if each layer had as many experts as `after` says.
fn bytes_with(checkpoint: &Checkpoint, after: &ModelSpec) -> u64 {
    let spec = checkpoint.spec();
    // A layer behind the decoder's that is dropped has none left.
    let experts = |spec: &ModelSpec, layer| spec.moe_of(layer).map_or(0, |moe| moe.experts) as u64;
    let by_expert = |id: TensorId| {
        id.expert().is_some() || spec.part(id).is_some_and(|part| part.expert_axis.is_some())
    };
    let bytes = |tensor: &StoredTensor| match tensor.part {
        Some(id @ TensorId::Layer(layer, _)) if by_expert(id) => {
            tensor.bytes * experts(after, layer) / experts(spec, layer).max(1)
        }
        _ => tensor.bytes,
    };
    checkpoint.tensors().map(bytes).sum()
}

/// What is measured, the text for it read.
#[derive(Clone, Copy)]
struct Measured<'a> {
    measures: &'a Measures<'a>,
    text: Option<&'a Text>,
    /// The last layer's outputs of the unpruned model on the text, in the host's memory.
    unpruned: Option<&'a Vec<Tensor>>,
}

/// How a model predicts the text.
#[derive(Default)]
struct Predicted {
    perplexity: Option<f64>,
    divergence: Option<Divergence>,
    outputs: Vec<Tensor>,
}

impl Measured<'_> {
    fn answers(
        &self,
        model: Evaluated<'_>,
        execution: &Execution,
        progress: &mut dyn Progress,
    ) -> Result<(Option<Estimate>, Option<AnswerTexts>), Error> {
        let Some(task) = &self.measures.task else { return Ok((None, None)) };
        let score = evaluate_model(model, task, execution, progress)?;
        Ok((accuracy(&score, self.measures.metric)?, texts(&score)))
    }

    fn predictions(
        &self,
        model: Evaluated<'_>,
        execution: &Execution,
        progress: &mut dyn Progress,
    ) -> Result<Predicted, Error> {
        let Some(Text { blocks }) = self.text else { return Ok(Predicted::default()) };
        let Evaluated { checkpoint, source, spec } = model;
        let model = Streamed { source, spec, blocks, execution, step: "perplexity" };
        let outputs = model.hidden_on_host(progress)?;
        let found = likelihood_after(&model, &outputs)?;
        let unpruned = Streamed { source: &Finite(checkpoint), spec: checkpoint.spec(), ..model };
        let divergence = self.unpruned.map(|reference| {
            let found = divergence((&unpruned, reference), (&model, &outputs), progress)?;
            let (kl, agreement) = (found.kl, found.agreement);
            Ok::<_, Error>(Divergence { kl, kl_stderr: found.kl_stderr, agreement })
        });
        Ok(Predicted {
            // A model that was broken predicts next to nothing: its perplexity overflows.
            perplexity: Some(found.mean().exp().min(f64::MAX)),
            divergence: divergence.transpose()?,
            outputs,
        })
    }
}

fn texts(score: &Score) -> Option<AnswerTexts> {
    let Score::Answers(report) = score else { return None };
    let found = report.degradation()?;
    Some(AnswerTexts {
        ended: found.ended.map(|estimate| estimate.mean),
        looping: found.looping.mean,
        distinct_4: found.distinct_4.map(|estimate| estimate.mean),
    })
}

fn accuracy(score: &Score, metric: Option<&str>) -> Result<Option<Estimate>, Error> {
    let Score::Answers(report) = score else { return Ok(None) };
    let found = match metric {
        None => report.metrics.values().next(),
        Some(name) => report.metrics.get(name),
    };
    let Some(estimate) = found else {
        let names: Vec<&str> = report.metrics.keys().map(String::as_str).collect();
        return Err(Error::Request(format!(
            "{} has no metric {}; it has {}",
            report.task,
            metric.unwrap_or("at all"),
            names.join(", ")
        )));
    };
    Ok(Some(Estimate { mean: estimate.mean, stderr: estimate.stderr }))
}

/// Text that perplexity is measured on.
struct Text {
    blocks: TokenBlocks,
}

impl Text {
    fn read(
        checkpoint: &Checkpoint,
        measures: &Measures<'_>,
        progress: &mut dyn Progress,
    ) -> Result<Option<Self>, Error> {
        let Some(path) = measures.text else { return Ok(None) };
        let spec = checkpoint.spec();
        let text = ModelText::open(TextFiles::from(path), checkpoint)?;
        let length = measures.sequence_len.unwrap_or(2048).min(spec.longest_streamed());
        let blocks = text.blocks_in_order(length)?;
        text.notes_in_order(&blocks).iter().for_each(|note| progress.note(note));
        let (blocks, _) = blocks.split_at(measures.text_blocks.unwrap_or(usize::MAX));
        Ok(Some(Self { blocks }))
    }
}

fn describe(corpus: &CorpusTag) -> String {
    if let (Some(words), 1) = (read_in_words(corpus), corpus.repeated) {
        return words;
    }
    let often = if corpus.repeated == 1 {
        String::new()
    } else {
        format!(", each counted {} times", corpus.repeated)
    };
    let CorpusTag { name, samples, sequence_len, .. } = corpus;
    format!("{name}: {samples} blocks of {sequence_len} tokens{often}")
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned()
}

fn in_words(cut: &Cut) -> String {
    let mut words = format!("{} of {}", cut.experts_kept, plural(cut.experts, "expert"));
    if let Some(Estimate { mean, stderr }) = cut.accuracy {
        words += &format!(", accuracy {mean:.3}");
        if let Some(stderr) = stderr {
            words += &format!(" ± {stderr:.3}");
        }
    }
    if let Some(perplexity) = cut.perplexity {
        words += &format!(", perplexity {perplexity:.3}");
    }
    if let Some(Divergence { kl, agreement, .. }) = cut.divergence {
        words += &format!(", KL {kl:.4}, same top token {agreement:.3}");
    }
    words
}
