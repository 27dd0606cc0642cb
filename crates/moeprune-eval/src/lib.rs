//! What pruning cost, measured: GSM8K accuracy exactly as EleutherAI's lm-evaluation-harness
//! defines it, and perplexity, over anything that writes text.
//!
//! A [`Task`] turns [`Document`]s into [`Request`]s (a prompt, the strings that end an answer, a
//! token budget) and scores what comes back. A [`Generator`] answers requests; it owns the
//! tokenizer and the model, so this crate depends on neither. [`evaluate`] stands between them
//! and returns an [`EvalReport`] with a mean, a standard error and every single answer. Perplexity
//! needs no text at all: [`perplexity`] hands blocks of token ids to a [`LanguageModel`] and adds
//! up what it returns.
//!
//! # Example
//!
//! ```
//! use moeprune_eval::{Document, EvaluateOptions, evaluate, generate_each, task_by_name};
//!
//! let test = [Document::new("What is 2 + 3?", "2 + 3 = <<2+3=5>>5\n#### 5")];
//! // `gsm8k` would also need the training documents, from which it draws its five shots.
//! let task = task_by_name("gsm8k_cot", None, &[])?;
//! let mut model = generate_each(|request| {
//!     assert!(request.prompt.ends_with("Q: What is 2 + 3?\nA:"));
//!     Ok(" Two and three make five. The answer is 5.\n\nQ: What".to_owned())
//! });
//! let report = evaluate(&*task, &test, &mut model, &EvaluateOptions::default())?;
//! assert_eq!(report.metrics["strict-match"].mean, 1.0);
//! assert_eq!(report.answers[0].scores["flexible-extract"].extracted, "5.");
//! # Ok::<(), moeprune_eval::Error>(())
//! ```
//!
//! # Why the harness is followed to the byte
//!
//! Published GSM8K figures differ by several points with the wording of the prompt, the choice of
//! shots and the reading of the answer. A pruned model's figure is worth printing only beside
//! figures obtained the same way, so nothing here improves on the harness: shots come from
//! CPython's generator with the harness's seed ([`PythonRandom`]), a correct `18.0` still scores
//! zero against `18`, and the unescaped final dot of the chain-of-thought pattern still eats the
//! last digit of an answer without a full stop. The tests compare the SHA-256 of all 1,319
//! prompts of each task, and the scores of 5,276 answers written by real models, with what
//! harness 0.4.13 gives.
//!
//! # Tasks
//!
//! | [name](task_by_name) | prompt | shots |
//! |---|---|---|
//! | `gsm8k` | `Question: …\nAnswer:` | 5, drawn from the training documents for each question |
//! | `gsm8k_zeroshot` | the same | none |
//! | `gsm8k_cot` | `Q: …\nA:` | 8 fixed chains of thought |
//! | `gsm8k_cot_zeroshot` | `Q: …\nA: Let's think step by step.` | none |
//! | `gsm8k_cot_llama` | instructions around the problem | the same 8 chains of thought |
//!
//! [`task_by_name`] gives any of them another number of shots, drawn from training documents if
//! there are any. With drawn shots, `gsm8k` and `gsm8k_zeroshot` keep the harness's wording; the
//! chain-of-thought tasks reword the solutions in this crate's way, which
//! [`Gsm8k::with_drawn_shots`] describes.
//!
//! `gsm8k_zeroshot` is this crate's name for the harness's `gsm8k` with `--num_fewshot 0`; the
//! others carry the harness's names. The chat template that usually goes with
//! `gsm8k_cot_llama` is the generator's to apply.

mod choice;
mod continuation;
mod degradation;
mod divergence;
mod document;
mod ending;
mod error;
mod evaluate;
mod exact_match;
mod filter;
mod generator;
mod gsm8k;
mod perplexity;
mod python_random;
mod registry;
mod report;
mod task;
mod whitespace;

pub use choice::{
    AskedQuestions, CHOICE_TASK_NAMES, ChoiceData, ChoiceMetric, ChoiceTask, Question, Record,
    choice_task, evaluate_choices,
};
pub use continuation::{
    Continuation, ContinuationScorer, LogLikelihood, ScoreEachContinuation, score_each_continuation,
};
pub use degradation::{Degradation, LOOP_CHARACTERS, LOOP_REPETITIONS, ends_in_loop};
pub use divergence::{Divergence, DivergenceReport, TokenDivergence};
pub use document::Document;
pub use ending::Ending;
pub use error::{BoxError, Error};
pub use evaluate::{EvaluateOptions, evaluate};
pub use exact_match::exact_match;
pub use filter::{INVALID, Pick, RegexFilter};
pub use generator::{GenerateEach, Generator, NoteAnswer, Request, generate_each};
pub use gsm8k::Gsm8k;
pub use perplexity::{
    LanguageModel, Nll, PerplexityReport, ScoreEach, perplexity, score_each, token_blocks,
};
pub use python_random::PythonRandom;
pub use registry::{TASK_NAMES, task_by_name};
pub use report::{Answer, Estimate, EvalReport, Part, ScoredChoice};
pub use task::{Extraction, Task};
