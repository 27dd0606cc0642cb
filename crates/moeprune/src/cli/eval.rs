//! `moeprune eval`

use std::path::PathBuf;

use clap::Args;

use super::{FamilyArgs, Terminal};
use crate::{Error, Evaluation, evaluate, evaluation::Score};

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
    /// gsm8k (5 shots), gsm8k_cot (8 shots), gsm8k_zeroshot, gsm8k_cot_zeroshot, gsm8k_cot_llama
    /// or perplexity
    #[arg(long)]
    pub task: String,
    /// Questions ({"question","answer"} JSON lines), or text for perplexity
    #[arg(long, value_name = "FILE")]
    pub data: PathBuf,
    /// Only the first N questions, or blocks of text
    #[arg(long, value_name = "N")]
    pub limit: Option<usize>,
    /// Solved examples before each question, if not as the task defines
    #[arg(long, value_name = "N")]
    pub fewshot: Option<usize>,
    /// Questions that examples are drawn from
    #[arg(long, value_name = "FILE")]
    pub fewshot_data: Option<PathBuf>,
    /// Questions answered together
    #[arg(long, value_name = "N", default_value_t = 32)]
    pub batch: usize,
    /// Tokens in a block of perplexity [default: 2048, or the model's maximum if that is less]
    #[arg(long, value_name = "T")]
    pub seq_len: Option<usize>,
    /// Write all answers and scores here
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// How the model is read.
    #[command(flatten)]
    pub family: FamilyArgs,
}

/// Evaluates and prints the scores.
///
/// # Errors
/// As [`evaluate`].
pub fn eval(args: &EvalArgs, terminal: &mut Terminal) -> Result<Score, Error> {
    let checkpoint = args.family.open(&args.model)?;
    let what = Evaluation {
        task: &args.task,
        data: &args.data,
        limit: args.limit,
        fewshot: args.fewshot,
        fewshot_data: args.fewshot_data.as_deref(),
        batch: args.batch,
        sequence_len: args.seq_len,
    };
    let score = evaluate(&checkpoint, &what, terminal)?;
    match &score {
        Score::Answers(report) => {
            println!("{} on {} questions, {} shots", report.task, report.n, report.fewshot);
            for (metric, estimate) in &report.metrics {
                let error = estimate.stderr.map_or_else(String::new, |e| format!(" ± {e:.4}"));
                println!("  {metric:<18} {:.4}{error}", estimate.mean);
            }
        }
        Score::Perplexity(report) => {
            println!(
                "perplexity {:.4} (mean negative log-likelihood {} over {} tokens)",
                report.perplexity, report.nll, report.tokens
            );
        }
    }
    if let Some(path) = &args.json {
        super::write_whole(path, &super::json(&score.to_json()?)?)?;
    }
    Ok(score)
}
