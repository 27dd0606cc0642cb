//! Asking a checkpoint questions: the model, its tokenizer and a task put together.

mod native_generator;
mod questions;

use std::path::Path;

use moeprune_checkpoint::Checkpoint;
use moeprune_core::{ModelSpec, TensorSource};
use moeprune_engine::{Finite, ModelText, TextFiles, note_of_length};
use moeprune_eval::{
    BoxError, EvaluateOptions, Nll, PerplexityReport, perplexity, score_each, task_by_name,
};
use moeprune_model::{LanguageModel, check_runnable};
use serde_json::{Map, Value, json};

pub use native_generator::NativeGenerator;
pub use questions::read_questions;

use crate::{Error, Execution, Progress, load_tokenizer};

/// Name under which [`evaluate`] measures perplexity instead of asking questions.
pub const PERPLEXITY: &str = "perplexity";

/// What to evaluate.
#[derive(Debug, Clone)]
#[expect(clippy::exhaustive_structs, reason = "options, made with `..`")]
pub struct Evaluation<'a> {
    /// `gsm8k`, `gsm8k_cot`, `gsm8k_zeroshot`, … ([`moeprune_eval::TASK_NAMES`]), or
    /// `perplexity`.
    pub task: &'a str,
    /// Questions with their answers; for perplexity any text. In any form that calibration text may have.
    pub data: &'a Path,
    /// Only the first so many documents (blocks, for perplexity).
    pub limit: Option<usize>,
    /// Shots before each question, if not as the task defines.
    pub fewshot: Option<usize>,
    /// Documents shots are drawn from.
    pub fewshot_data: Option<&'a Path>,
    /// Prompts answered together.
    pub batch: usize,
    /// Tokens in a block of perplexity; the model's maximum, at most 2048, by default.
    pub sequence_len: Option<usize>,
}

/// What an evaluation found.
#[derive(Debug, Clone, PartialEq)]
#[expect(clippy::exhaustive_enums, reason = "what tasks and perplexity give")]
pub enum Score {
    /// Answers and how many were right.
    Answers(moeprune_eval::EvalReport),
    /// Mean negative log-likelihood.
    Perplexity(PerplexityReport),
}

impl Score {
    /// The result as JSON: `task`, `n`, one key per metric with its mean and one with its standard
    /// error, and every answer; for perplexity `tokens`, `nll` and `perplexity`.
    ///
    /// # Errors
    /// If a number is not finite, which no score has.
    pub fn to_json(&self) -> Result<Value, Error> {
        let bad = |e: serde_json::Error| Error::Request(format!("not JSON: {e}"));
        match self {
            Self::Answers(report) => {
                let mut json = Map::new();
                json.insert("task".into(), json!(report.task));
                json.insert("n".into(), json!(report.n));
                json.insert("fewshot".into(), json!(report.fewshot));
                for (metric, estimate) in &report.metrics {
                    json.insert(metric.clone(), json!(estimate.mean));
                    json.insert(format!("{metric}_stderr"), json!(estimate.stderr));
                }
                let answers = serde_json::to_value(&report.answers).map_err(bad)?;
                json.insert("answers".into(), answers);
                Ok(Value::Object(json))
            }
            Self::Perplexity(report) => {
                let mut json = serde_json::to_value(report).map_err(bad)?;
                json["task"] = json!(PERPLEXITY);
                Ok(json)
            }
        }
    }

    /// The mean of a metric, for example `strict-match`.
    #[must_use]
    pub fn metric(&self, name: &str) -> Option<f64> {
        match self {
            Self::Answers(report) => report.metrics.get(name).map(|estimate| estimate.mean),
            Self::Perplexity(report) => (name == PERPLEXITY).then_some(report.perplexity),
        }
    }
}

/// Loads the whole model into memory, or onto the device, and evaluates it.
///
/// # Errors
/// If the data, the tokenizer or the model cannot be read, the model cannot be run, or `progress` asks
/// to stop.
pub fn evaluate(
    checkpoint: &Checkpoint,
    what: &Evaluation<'_>,
    execution: &Execution,
    progress: &mut dyn Progress,
) -> Result<Score, Error> {
    let (source, spec) = (&Finite(checkpoint), checkpoint.spec());
    evaluate_model(Evaluated { checkpoint, source, spec }, what, execution, progress)
}

/// A model that is evaluated: weights that are made of a checkpoint's.
#[derive(Clone, Copy)]
pub(crate) struct Evaluated<'a> {
    /// Has the tokenizer.
    pub(crate) checkpoint: &'a Checkpoint,
    /// Where the weights are read.
    pub(crate) source: &'a dyn TensorSource,
    /// What they make.
    pub(crate) spec: &'a ModelSpec,
}

/// As [`evaluate`], of a model that is made of a checkpoint.
pub(crate) fn evaluate_model(
    model: Evaluated<'_>,
    what: &Evaluation<'_>,
    execution: &Execution,
    progress: &mut dyn Progress,
) -> Result<Score, Error> {
    let Evaluated { checkpoint, source, spec } = model;
    check_runnable(spec)?;
    execution.say_where_codes_are_decoded(checkpoint, progress);
    let load = || {
        execution.check_whole(checkpoint)?;
        Ok(LanguageModel::load(source, spec, execution.compute())?)
    };
    if what.task == PERPLEXITY {
        if what.fewshot.is_some() || what.fewshot_data.is_some() {
            return Err(Error::Request("perplexity has no shots; leave --fewshot out".into()));
        }
        return text_perplexity(checkpoint, what, load, progress).map(Score::Perplexity);
    }
    let shots = match what.fewshot_data {
        Some(path) => read_questions(path)?,
        None => Vec::new(),
    };
    let task = task_by_name(what.task, what.fewshot, &shots)?;
    let documents = read_questions(what.data)?;
    let tokenizer = load_tokenizer(checkpoint)?;
    let model = load()?;
    let asked = what.limit.map_or(documents.len(), |limit| limit.min(documents.len()));
    progress.begin(&format!("asking {}", what.task), asked as u64, "questions");
    let mut generator =
        NativeGenerator::new(model, tokenizer, checkpoint.eos_token_ids()?, progress);
    let mut options = EvaluateOptions::default().with_batch(what.batch);
    if let Some(limit) = what.limit {
        options = options.with_limit(limit);
    }
    let report = match moeprune_eval::evaluate(&*task, &documents, &mut generator, &options) {
        Err(_) if generator.was_stopped() => return Err(Error::stopped()),
        report => report?,
    };
    let (cut, context) = (generator.prompts_cut(), generator.context());
    progress.end();
    if cut > 0 {
        progress.note(&format!(
            "note: {cut} of {} prompts did not fit the model's {context} positions and lost their \
             beginning; ask with fewer shots",
            report.n
        ));
    }
    Ok(Score::Answers(report))
}

fn text_perplexity(
    checkpoint: &Checkpoint,
    what: &Evaluation<'_>,
    load: impl FnOnce() -> Result<LanguageModel, Error>,
    progress: &mut dyn Progress,
) -> Result<PerplexityReport, Error> {
    let spec = checkpoint.spec();
    let text = ModelText::open(TextFiles::from(what.data), checkpoint)?;
    let length = what.sequence_len.unwrap_or(2048).min(spec.max_positions);
    let asked = what.sequence_len.and_then(|asked| note_of_length(asked, spec.max_positions));
    asked.iter().for_each(|note| progress.note(note));
    let blocks = text.blocks_in_order(length)?;
    text.notes_in_order(&blocks).iter().for_each(|note| progress.note(note));
    let mut blocks: Vec<&[u32]> = blocks.blocks().iter().map(Vec::as_slice).collect();
    blocks.truncate(what.limit.unwrap_or(usize::MAX));
    let model = load()?;
    progress.begin("perplexity", blocks.len() as u64, "blocks");
    let (mut done, mut stopped) = (0, false);
    let mut scorer = score_each(|block: &[u32]| {
        if progress.should_stop() {
            stopped = true;
            return Err(BoxError::from(STOPPED));
        }
        let (sum, tokens) = model.negative_log_likelihood(block)?;
        done += 1;
        progress.advance(done, "");
        Ok(Nll::new(sum, tokens))
    });
    let report = perplexity(&mut scorer, &blocks, 1);
    if stopped {
        return Err(Error::stopped());
    }
    let report = report?;
    progress.end();
    Ok(report)
}

/// What a stop is to the crate that asks.
const STOPPED: &str = "stopped";
