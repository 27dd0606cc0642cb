//! `cargo xtask readme-results`: the README's table, measured.

use std::{fs, path::Path, time::Instant};

use anyhow::{Context as _, Result};
use clap::Args;
use moeprune::{
    Evaluation, Execution, FromRecipe, Job, OutputPlace, Pipeline, Recipe, Resume, Silent,
    checkpoint::Checkpoint,
    core::Sparsity,
    evaluate,
    evaluation::{PERPLEXITY, Score},
    prune,
};
use moeprune_cli::{bytes, percent, seconds};

use crate::embedded;

const BEGIN: &str = "<!-- readme-results begin -->\n";
const END: &str = "<!-- readme-results end -->";

/// Prune the embedded model in the ways the README compares and print its table
#[derive(Debug, Args)]
pub(crate) struct ReadmeResultsArgs {
    /// Put the table into README.md
    #[arg(long)]
    write: bool,
    /// Ask only the first N questions
    #[arg(long, value_name = "N", conflicts_with = "write")]
    limit: Option<usize>,
}

/// Name, total sparsity, share of experts.
const RUNS: [(&str, f64, f64); 6] = [
    ("dense", 0.0, 0.0),
    ("expert stage only", 0.2, 0.2),
    ("STUN", 0.4, 0.2),
    ("OWL + Wanda only", 0.4, 0.0),
    ("STUN", 0.6, 0.2),
    ("OWL + Wanda only", 0.6, 0.0),
];

pub(crate) fn run(args: &ReadmeResultsArgs) -> Result<()> {
    let source = Checkpoint::open(&embedded::model())?;
    let scratch = embedded::root().join("target/readme-results");
    let mut text = String::from(
        "| | total sparsity | experts left | accuracy, strict (500 questions) | perplexity | \
         weights | pruning |\n|---|---|---|---|---|---|---|\n",
    );
    for (name, total, experts) in RUNS {
        eprintln!("{name} at {}", percent(total));
        let row = if total == 0.0 {
            let layers = source.spec().layers.iter();
            let kept = layers.filter_map(|l| l.moe()).map(|m| m.experts).sum();
            Row { achieved: 0.0, kept, bytes: source.weight_bytes(), seconds: None }
        } else {
            prune_once(&source, &scratch, total, experts)?
        };
        let model = if total == 0.0 { source.dir() } else { &scratch };
        let model = Checkpoint::open(model)?;
        let answers = score(&model, "gsm8k_zeroshot", &embedded::test_set(), args.limit)?;
        let surprise = score(&model, PERPLEXITY, &embedded::held_out(), None)?;
        let (Score::Answers(answers), Score::Perplexity(surprise)) = (answers, surprise) else {
            anyhow::bail!("the tasks gave each other's scores");
        };
        let strict = answers.metrics["strict-match"];
        text += &format!(
            "| {name} | {} | {} | {:.1} ± {:.1} % | {:.3} | {} | {} |\n",
            percent(row.achieved),
            row.kept,
            100.0 * strict.mean,
            100.0 * strict.stderr.unwrap_or(0.0),
            surprise.perplexity,
            bytes(row.bytes),
            row.seconds.map_or_else(|| "-".into(), seconds),
        );
    }
    line!("{text}")?;
    if args.write {
        write(&embedded::root().join("README.md"), &text)?;
    }
    Ok(())
}

struct Row {
    achieved: f64,
    kept: usize,
    bytes: u64,
    seconds: Option<f64>,
}

fn prune_once(source: &Checkpoint, out: &Path, total: f64, experts: f64) -> Result<Row> {
    if out.exists() {
        fs::remove_dir_all(out).with_context(|| format!("cannot remove {}", out.display()))?;
    }
    let mut recipe = Recipe::arctic();
    recipe.sparsity = Sparsity::new(total)?;
    recipe.experts.sparsity = Sparsity::new(experts)?;
    let pipeline = Pipeline::from_recipe(&recipe)?;
    let began = Instant::now();
    let calibration = embedded::calibration();
    let to = OutputPlace { origin: source, path: out, resume: Resume::No };
    let mut job = Job {
        model: source,
        pipeline: &pipeline,
        execution: &Execution::cpu(),
        progress: &mut Silent,
    };
    let report = prune(&mut job, to, &calibration, &recipe)?;
    Ok(Row {
        achieved: report.sparsity.achieved.linears,
        kept: report.layers.iter().map(|l| l.kept.len()).sum(),
        bytes: report.bytes.after,
        seconds: Some(began.elapsed().as_secs_f64()),
    })
}

fn score(model: &Checkpoint, task: &str, data: &Path, limit: Option<usize>) -> Result<Score> {
    let what = Evaluation {
        task,
        data,
        limit,
        fewshot: None,
        fewshot_data: None,
        batch: 64,
        sequence_len: None,
    };
    Ok(evaluate(model, &what, &Execution::cpu(), &mut Silent)?)
}

fn write(readme: &Path, table: &str) -> Result<()> {
    let text = fs::read_to_string(readme)?;
    let (before, rest) = text.split_once(BEGIN).context("README.md has no results section")?;
    let (_, after) = rest.split_once(END).context("README.md's results section has no end")?;
    fs::write(readme, format!("{before}{BEGIN}{table}{END}{after}"))?;
    Ok(())
}
