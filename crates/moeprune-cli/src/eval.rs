//! `moeprune eval`

use std::path::PathBuf;

use clap::{Args, builder::PossibleValuesParser};
use moeprune_core::plural;
use moeprune_eval::TASK_NAMES;
use moeprune_files::OutputKind;

use crate::{
    options::{DeviceArgs, FamilyArgs, positive},
    terminal::Terminal,
    texts::reads_texts,
};
use moeprune::{
    Error, Evaluation, check_is_run, evaluate,
    evaluation::{PERPLEXITY, Score},
};

/// Options of `eval`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  moeprune eval pruned --task gsm8k --data test.jsonl --fewshot-data train.jsonl
  moeprune eval pruned --task gsm8k_cot --data test.jsonl --limit 100 --json out.json
  moeprune eval pruned --task perplexity --data wikitext.txt --seq-len 2048")]
#[non_exhaustive]
pub struct EvalArgs {
    /// Directory of the model
    pub model: PathBuf,
    /// What to measure; gsm8k has 5 shots, gsm8k_cot 8
    #[arg(long, value_parser = tasks())]
    pub task: String,
    /// Questions ({"question","answer"}), or text for perplexity: JSON lines, an array, CSV, Parquet or plain text,
    /// packed or not
    #[arg(long, value_name = "FILE")]
    pub data: PathBuf,
    /// Only the first N questions, or blocks of text
    #[arg(long, value_name = "N", value_parser = positive)]
    pub limit: Option<usize>,
    /// Solved examples before each question, if not as the task defines
    #[arg(long, value_name = "N")]
    pub fewshot: Option<usize>,
    /// Questions that examples are drawn from
    #[arg(long, value_name = "FILE")]
    pub fewshot_data: Option<PathBuf>,
    /// Questions answered together
    #[arg(long, value_name = "N", default_value = "32", value_parser = positive)]
    pub batch: usize,
    /// Tokens in a block of perplexity [default: 2048, or the model's maximum if that is less]
    #[arg(long, value_name = "T", value_parser = positive)]
    pub seq_len: Option<usize>,
    /// Write all answers and scores here
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Where the model runs.
    #[command(flatten)]
    pub device: DeviceArgs,
    /// How the model is read.
    #[command(flatten)]
    pub family: FamilyArgs,
}

fn tasks() -> PossibleValuesParser {
    PossibleValuesParser::new(TASK_NAMES.into_iter().chain([PERPLEXITY]))
}

/// Evaluates and prints the scores.
///
/// # Errors
/// As [`evaluate`]; if `--json` must not or cannot be written, before any work.
pub fn eval(args: &EvalArgs, terminal: &mut Terminal) -> Result<Score, Error> {
    let mut files = args.family.files(&args.model);
    reads_texts(&mut files, [&args.data].into_iter().chain(&args.fewshot_data));
    let json = files.claim_if_asked("--json", args.json.as_deref(), OutputKind::Evaluation)?;
    crate::interrupt::listen();
    let execution = args.device.open()?;
    let checkpoint = args.family.open(&args.model)?;
    check_is_run(&checkpoint, "eval")?;
    let what = Evaluation {
        task: &args.task,
        data: &args.data,
        limit: args.limit,
        fewshot: args.fewshot,
        fewshot_data: args.fewshot_data.as_deref(),
        batch: args.batch,
        sequence_len: args.seq_len,
    };
    let score = evaluate(&checkpoint, &what, &execution, terminal)?;
    let printed = print_score(&score);
    if let Some(json) = json {
        let text = crate::print::json(&score.to_json()?)?;
        crate::interrupt::deliver(&json, |file| file.write_all(text.as_bytes()))?;
    }
    printed?;
    Ok(score)
}

fn print_score(score: &Score) -> Result<(), Error> {
    match score {
        Score::Answers(report) => {
            let (questions, shots) = (plural(report.n, "question"), plural(report.fewshot, "shot"));
            line!("{} on {questions}, {shots}", report.task)?;
            for (metric, estimate) in &report.metrics {
                let error = estimate.stderr.map_or_else(String::new, |e| format!(" ± {e:.4}"));
                line!("  {metric:<18} {:.4}{error}", estimate.mean)?;
            }
        }
        Score::Perplexity(report) => {
            line!(
                "perplexity {:.4} (mean negative log-likelihood {} over {})",
                report.perplexity,
                report.nll,
                plural(report.tokens, "token")
            )?;
        }
    }
    Ok(())
}
