//! Asking a checkpoint questions: the model, its tokenizer and a task put together.

pub mod against;
mod answering;
mod data;
mod endpoint;
mod kept;
mod native_generator;
mod native_scorer;
mod perplexity;
mod questions;
mod score;
mod stop_strings;
mod streaming;
mod tasks;

use std::{fmt, path::Path};

use moeprune_checkpoint::Checkpoint;
use moeprune_core::{ModelSpec, TensorSource};
use moeprune_endpoint::Journal;
use moeprune_engine::{Finite, StreamingEstimate};
use moeprune_eval::{AskedQuestions, EvaluateOptions};
use moeprune_model::check_runnable;

use self::{answering::NativeModel, streaming::announce_questions};
pub use self::{
    answering::{Answering, WithGenerator, WithScorer},
    data::read_choice_data,
    endpoint::{ServedModel, evaluate_served, native_run_key},
    kept::KeptAnswers,
    native_generator::NativeGenerator,
    native_scorer::NativeScorer,
    questions::read_questions,
    score::Score,
    streaming::NoteEstimate,
    tasks::{FoundTask, default_metric, find_task, known_tasks, named_tasks, task_file},
};
use crate::{Error, Execution, Progress};

/// Name under which [`evaluate`] measures perplexity instead of asking questions.
pub const PERPLEXITY: &str = "perplexity";

/// What to evaluate.
#[derive(Debug, Clone)]
#[expect(clippy::exhaustive_structs, reason = "options, made with `..`")]
pub struct Evaluation<'a> {
    /// `gsm8k`, `gsm8k_cot`, `gsm8k_zeroshot`, … ([`moeprune_eval::TASK_NAMES`]), a multiple-choice task, a file that describes one
    /// (`FILE.toml`, or `FILE.toml:SUBJECT` for a group or subject of it), or `perplexity`.
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

/// Loads the model into memory, or onto the device, and evaluates it. Experts of one that does not fit are read when they
/// are needed, on the CPU; how long that takes is said before.
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
    let mut native = prepare(model, execution, progress)?;
    evaluate_natively(model, what, &mut native, (&mut |_| {}, progress))
}

/// As [`evaluate`], of several tasks one after another: the model is loaded once.
///
/// # Errors
/// As [`evaluate`]; if there is one, what was found before is lost.
pub fn evaluate_all(
    checkpoint: &Checkpoint,
    tasks: &[Evaluation<'_>],
    execution: &Execution,
    progress: &mut dyn Progress,
) -> Result<Vec<Score>, Error> {
    evaluate_all_by(checkpoint, tasks, execution, AskOptions::default(), progress)
}

/// As [`evaluate_all`], with the answers kept in a journal; what it has is not asked again. Perplexity is measured from the start.
///
/// # Errors
/// As [`evaluate_all`]; if the journal cannot be written.
pub fn evaluate_all_kept(
    checkpoint: &Checkpoint,
    tasks: &[Evaluation<'_>],
    execution: &Execution,
    journal: &mut Journal,
    progress: &mut dyn Progress,
) -> Result<Vec<Score>, Error> {
    let options = AskOptions { journal: Some(journal), estimated: None };
    evaluate_all_by(checkpoint, tasks, execution, options, progress)
}

/// What becomes of answers and estimates beside the scores.
#[derive(Default)]
#[expect(clippy::exhaustive_structs, reason = "options, made with `..`")]
pub struct AskOptions<'a> {
    /// Keeps the answers; what it has is not asked again.
    pub journal: Option<&'a mut Journal>,
    /// Receives the estimate of each task before it starts, if experts are read when they are needed.
    pub estimated: Option<NoteEstimate<'a>>,
}

impl fmt::Debug for AskOptions<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AskOptions")
            .field("journal", &self.journal.as_ref().map(|journal| journal.path()))
            .finish_non_exhaustive()
    }
}

/// As [`evaluate_all`], with options.
///
/// # Errors
/// As [`evaluate_all`]; if the journal cannot be written.
pub fn evaluate_all_by(
    checkpoint: &Checkpoint,
    tasks: &[Evaluation<'_>],
    execution: &Execution,
    options: AskOptions<'_>,
    progress: &mut dyn Progress,
) -> Result<Vec<Score>, Error> {
    let (source, spec) = (&Finite(checkpoint), checkpoint.spec());
    let model = Evaluated { checkpoint, source, spec };
    let mut native = prepare(model, execution, progress)?;
    let AskOptions { mut journal, mut estimated } = options;
    let mut evaluate = |what: &Evaluation<'_>| {
        let mut note = |estimate: &StreamingEstimate| {
            if let Some(estimated) = &mut estimated {
                estimated(estimate);
            }
        };
        match &mut journal {
            Some(journal) if what.task != PERPLEXITY => {
                announce_questions(model, what, &mut native, (&mut note, &mut *progress))?;
                evaluate_with(&mut KeptAnswers::new(&mut native, journal), what, &mut *progress)
            }
            _ => evaluate_natively(model, what, &mut native, (&mut note, &mut *progress)),
        }
    };
    tasks.iter().map(&mut evaluate).collect()
}

fn prepare<'a>(
    model: Evaluated<'a>,
    execution: &'a Execution,
    progress: &mut dyn Progress,
) -> Result<NativeModel<'a>, Error> {
    check_runnable(model.spec)?;
    execution.say_where_codes_are_decoded(model.checkpoint, progress);
    Ok(NativeModel::new(model, execution))
}

fn evaluate_natively(
    model: Evaluated<'_>,
    what: &Evaluation<'_>,
    native: &mut NativeModel<'_>,
    (note, progress): (NoteEstimate<'_>, &mut dyn Progress),
) -> Result<Score, Error> {
    match what.task {
        PERPLEXITY => {
            let report = perplexity::of_text(model, what, native, (note, progress))?;
            Ok(Score::Perplexity(report))
        }
        _ => {
            announce_questions(model, what, native, (note, &mut *progress))?;
            evaluate_with(native, what, progress)
        }
    }
}

/// Evaluates what answers, a model or an engine, on a task of questions.
///
/// # Errors
/// If there is no such task, its data cannot be read or does not fit it, `answering` fails, or `progress` asks to stop. Perplexity is no task of
/// questions.
pub fn evaluate_with(
    answering: &mut dyn Answering,
    what: &Evaluation<'_>,
    progress: &mut dyn Progress,
) -> Result<Score, Error> {
    let mut options = EvaluateOptions::default().with_batch(what.batch);
    if let Some(limit) = what.limit {
        options = options.with_limit(limit);
    }
    let report = match find_task(what)? {
        FoundTask::Written(task) => {
            let documents = read_questions(what.data)?;
            let asked = what.limit.map_or(documents.len(), |limit| limit.min(documents.len()));
            let mut evaluate = |generator: &mut dyn moeprune_eval::Generator| {
                moeprune_eval::evaluate(&*task, &documents, generator, &options)
            };
            progress.begin(&format!("asking {}", task.name()), asked as u64, "questions");
            answering.write(&mut evaluate, progress)?
        }
        FoundTask::Choice(task) => {
            let shots = what.fewshot.unwrap_or_else(|| task.shots());
            let data = read_choice_data(&task, what.data, what.fewshot_data, shots)?;
            let asked = AskedQuestions::new(&task, what.fewshot, &data, &options)?;
            let mut evaluate =
                |scorer: &mut dyn moeprune_eval::ContinuationScorer| asked.evaluate(scorer);
            progress.begin(&format!("asking {}", task.name()), asked.choices() as u64, "choices");
            answering.choose(&mut evaluate, progress)?
        }
    };
    Ok(Score::Answers(report))
}

/// How many questions an evaluation asks.
pub(crate) fn count_questions(what: &Evaluation<'_>) -> Result<u64, Error> {
    let limit = what.limit.unwrap_or(usize::MAX);
    let counts = match find_task(what)? {
        FoundTask::Written(_) => vec![read_questions(what.data)?.len()],
        FoundTask::Choice(task) => {
            let data = read_choice_data(&task, what.data, None, 0)?;
            data.iter().map(|part| part.questions.len()).collect()
        }
    };
    Ok(counts.into_iter().map(|count| count.min(limit) as u64).sum())
}

/// What a stop is to the crate that asks.
const STOPPED: &str = "stopped";
