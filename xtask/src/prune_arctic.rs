//! `cargo xtask prune-arctic`: the default pipeline from checkpoint to scores.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use clap::Args;
use moeprune::{
    Evaluation, Execution, Job, OutputPlace, Registry, Report, Run, SearchedRecipe, Study,
    checkpoint::Checkpoint,
    eval::{Estimate, EvalReport},
    evaluate,
    evaluation::{Score, ServedModel, evaluate_served},
    files::OutputKind,
    prune,
    recipe::REFIT,
    report::LayerReport,
};
use moeprune_cli::{
    CalibrationArgs, CallArgs, CardArgs, DeviceArgs, FamilyArgs, RecipeArgs, ResumeArgs, Terminal,
    bytes, degradation_rows, percent, search_if_asked, seconds, table,
};

use crate::embedded;

/// Prune a model with the default Arctic pipeline and evaluate it before and after
///
/// Without arguments: the embedded model, into target/prune-arctic.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  cargo xtask prune-arctic
  cargo xtask prune-arctic --sparsity 0.6
  cargo xtask prune-arctic arctic-instruct pruned --calibration c4.json.gz \\
      --data test.jsonl --fewshot-data train.jsonl
  cargo xtask prune-arctic arctic-instruct pruned --calibration c4.json.gz --data test.jsonl \\
      --fewshot-data train.jsonl --endpoint-before http://gpu7:8000/v1 --endpoint-after http://gpu8:8000/v1")]
pub(crate) struct PruneArcticArgs {
    /// Directory of the model [default: the embedded model]
    #[arg(requires = "out", requires = "calibration")]
    model: Option<PathBuf>,
    /// Directory to write; must not exist [default: target/prune-arctic, replaced]
    out: Option<PathBuf>,
    /// Directory for the same pruning with its experts repaired [default: OUT-repaired for the embedded
    /// model; none for others]
    #[arg(long, value_name = "DIR")]
    repaired_out: Option<PathBuf>,
    /// Calibration text [default: the embedded model's]
    #[arg(long, value_name = "FILE")]
    calibration: Option<PathBuf>,
    /// Questions to ask before and after [default: the embedded model's; none for others]
    #[arg(long, value_name = "FILE")]
    data: Option<PathBuf>,
    /// The task that words them [default: gsm8k_zeroshot for the embedded model, gsm8k for others]
    #[arg(long)]
    task: Option<String>,
    /// Solved examples before each question, if not as the task defines
    #[arg(long, value_name = "N")]
    fewshot: Option<usize>,
    /// Questions that examples are drawn from
    #[arg(long, value_name = "FILE")]
    fewshot_data: Option<PathBuf>,
    /// Ask only the first N questions
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
    /// Print results and errors only
    #[arg(long)]
    quiet: bool,
    /// Write the report here too
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Ask the unpruned model that is served here, instead of loading it
    #[arg(long, value_name = "URL", help_heading = "Endpoint")]
    endpoint_before: Option<String>,
    /// Ask the pruned model that is served here, instead of loading it: the command waits for the server, which can be
    /// started once OUT is written. Given again, of the repaired model
    #[arg(long, value_name = "URL", help_heading = "Endpoint")]
    endpoint_after: Vec<String>,
    #[command(flatten)]
    card: CardArgs,
    #[command(flatten)]
    calls: CallArgs,
    #[command(flatten)]
    recipe: RecipeArgs,
    #[command(flatten)]
    sampling: CalibrationArgs,
    #[command(flatten)]
    device: DeviceArgs,
    #[command(flatten)]
    resume: ResumeArgs,
    #[command(flatten)]
    family: FamilyArgs,
}

pub(crate) fn run(args: &PruneArcticArgs) -> Result<()> {
    let embedded = args.model.is_none();
    let model = args.model.clone().unwrap_or_else(embedded::model);
    let calibration = args.calibration.clone().unwrap_or_else(embedded::calibration);
    let data = args.data.clone().or_else(|| embedded.then(embedded::test_set));
    let mut files = args.family.files(&model);
    files.reads(&calibration);
    files.reads_all([&data, &args.fewshot_data, &args.recipe.recipe].into_iter().flatten());
    let default_out = embedded::root().join("target/prune-arctic");
    files.makes(args.out.as_ref().unwrap_or(&default_out));
    let json = files.claim_if_asked("--json", args.json.as_deref(), OutputKind::Report)?;
    let recipe = args.recipe.resolve(&Registry::built_in(), &args.sampling)?;
    let execution = args.device.open()?;
    let source = args.family.open_to_stream(&model)?;
    let out = match &args.out {
        Some(out) => out.clone(),
        None => {
            remove_earlier_run(&default_out)?;
            default_out
        }
    };

    let repaired_out = args.repaired_out(&out)?;
    let mut terminal = Terminal::new(args.quiet);
    let data = data.as_deref();
    moeprune_cli::listen_resumable();
    // Claims the places before the first question; the runs claim them again.
    for out in std::iter::once(&out).chain(&repaired_out) {
        drop(Run::claim(out, &source, args.resume.into())?);
    }
    args.check_endpoints(repaired_out.is_some())?;
    let served = args.endpoint_before.as_deref();
    let before =
        args.score(Asked { checkpoint: &source, served }, data, &execution, &mut terminal)?;
    let registry = &Registry::built_in();
    let mut study = Study::new(&source, registry, &execution, &mut terminal);
    let what = args.recipe.search();
    let (recipe, searched) = search_if_asked(&mut study, recipe, what, &calibration)?;
    let job = Pruning { source: &source, execution: &execution, calibration: &calibration, data };
    let stun = SearchedRecipe { recipe: &recipe, searched };
    let mut urls = args.endpoint_after.iter().map(String::as_str);
    let (report, after) = job.run(args, stun, (&out, urls.next()), &mut terminal)?;
    let repaired = match &repaired_out {
        None => None,
        Some(out) => {
            let mut recipe = recipe.clone();
            recipe.repair = REFIT.into();
            registry.resolve(&mut recipe)?;
            Some(job.run(args, (&recipe).into(), (out, urls.next()), &mut terminal)?)
        }
    };
    let mut results = vec![("after", report.clone(), after)];
    results.extend(repaired.map(|(report, score)| ("repaired", report, score)));
    let printed = print(&results, before.as_ref(), &out);
    if let Some(json) = json {
        let text = report.to_json()?;
        json.write(|file| file.write_all(text.as_bytes()))?;
    }
    printed
}

/// A model that answers questions, and where it is served, if it is.
#[derive(Clone, Copy)]
struct Asked<'a> {
    checkpoint: &'a Checkpoint,
    served: Option<&'a str>,
}

/// What is pruned and measured, with any recipe.
#[derive(Clone, Copy)]
struct Pruning<'a> {
    source: &'a Checkpoint,
    execution: &'a Execution,
    calibration: &'a Path,
    data: Option<&'a Path>,
}

impl Pruning<'_> {
    /// Prunes into `out`, and asks the questions.
    fn run(
        self,
        args: &PruneArcticArgs,
        recipe: SearchedRecipe<'_>,
        (out, url): (&Path, Option<&str>),
        terminal: &mut Terminal,
    ) -> Result<(Report, Option<Score>)> {
        let pipeline = Registry::built_in().pipeline(recipe.recipe)?;
        let to = OutputPlace { origin: self.source, path: out, resume: args.resume.into() };
        let mut job = Job::new(self.source, &pipeline, self.execution, terminal);
        let report = prune(&mut job, args.card.at(to), self.calibration, recipe)?;
        let checkpoint = &args.family.open(out)?;
        let asked = Asked { checkpoint, served: url };
        let score = args.score(asked, self.data, self.execution, terminal)?;
        Ok((report, score))
    }
}

impl PruneArcticArgs {
    /// Where the repaired model goes, unless `out` is repaired itself; the embedded model's place is made
    /// free.
    fn repaired_out(&self, out: &Path) -> Result<Option<PathBuf>> {
        let embedded = self.model.is_none();
        if self.recipe.repair.is_some() {
            return Ok(None);
        }
        if !embedded || self.repaired_out.is_some() {
            return Ok(self.repaired_out.clone());
        }
        let mut name = out.as_os_str().to_owned();
        name.push("-repaired");
        if self.out.is_none() {
            remove_earlier_run(Path::new(&name))?;
        }
        Ok(Some(name.into()))
    }

    /// Servers are asked questions, each another model's.
    fn check_endpoints(&self, is_repaired_too: bool) -> Result<()> {
        let urls: Vec<&String> = self.endpoint_before.iter().chain(&self.endpoint_after).collect();
        if urls.is_empty() {
            self.calls.check_unused()?;
        }
        ensure!(
            urls.is_empty() || self.model.is_none() || self.data.is_some(),
            "a server is asked questions: give --data"
        );
        let models = 1 + usize::from(is_repaired_too);
        ensure!(
            self.endpoint_after.len() <= models,
            "--endpoint-after is given {} times, but {models} models are written",
            self.endpoint_after.len()
        );
        let mut different = urls.clone();
        different.sort();
        different.dedup();
        ensure!(
            different.len() == urls.len(),
            "each model is served at another address: two of them are the same"
        );
        Ok(())
    }

    /// The answers to the questions of a file, if there are any.
    fn score(
        &self,
        Asked { checkpoint, served }: Asked<'_>,
        data: Option<&Path>,
        execution: &Execution,
        terminal: &mut Terminal,
    ) -> Result<Option<Score>> {
        let Some(data) = data else { return Ok(None) };
        let default_task = if self.model.is_none() { "gsm8k_zeroshot" } else { "gsm8k" };
        let what = Evaluation {
            task: self.task.as_deref().unwrap_or(default_task),
            data,
            limit: self.limit,
            fewshot: self.fewshot,
            fewshot_data: self.fewshot_data.as_deref(),
            batch: 64,
            sequence_len: None,
        };
        let Some(url) = served else {
            return Ok(Some(evaluate(checkpoint, &what, execution, terminal)?));
        };
        let endpoint = self.calls.connect_once_served(url, checkpoint.dir(), terminal)?;
        let mut model = ServedModel::new(endpoint).read_by(checkpoint)?;
        Ok(Some(evaluate_served(&mut model, &what, terminal)?))
    }
}

/// The default output belongs to this command: an earlier run's is replaced, anything else is not
/// touched.
fn remove_earlier_run(out: &Path) -> Result<()> {
    if !out.exists() {
        return Ok(());
    }
    ensure!(
        out.join("moeprune-report.json").is_file(),
        "{} exists and is not an earlier run's output; remove it",
        out.display()
    );
    std::fs::remove_dir_all(out).with_context(|| format!("cannot remove {}", out.display()))
}

/// One row per figure, one column before pruning and one per pruning.
fn print(
    results: &[(&str, Report, Option<Score>)],
    before: Option<&Score>,
    out: &Path,
) -> Result<()> {
    let row = |name: String, before: String, of: &dyn Fn(&Report, Option<&Score>) -> String| {
        let cells = results.iter().map(|(_, report, score)| of(report, score.as_ref()));
        [name, before].into_iter().chain(cells).collect::<Vec<String>>()
    };
    let report = &results[0].1;
    let kept = |report: &Report, experts: fn(&LayerReport) -> usize| {
        report.layers.iter().map(experts).sum::<usize>().to_string()
    };
    let mut rows = vec![
        row("experts".into(), kept(report, |l| l.experts_before), &|report, _| {
            kept(report, |l| l.kept.len())
        }),
        row("weights on disk".into(), bytes(report.bytes.before), &|report, _| {
            bytes(report.bytes.after)
        }),
        row("decoder Linears removed or zero".into(), percent(0.0), &|report, _| {
            percent(report.sparsity.achieved.linears)
        }),
    ];
    if let Some(Score::Answers(before)) = before {
        for (name, estimate) in figures(before) {
            rows.push(row(name.clone(), cell(&estimate), &|_, score| {
                let Some(Score::Answers(score)) = score else { return String::new() };
                let same = figures(score).into_iter().find(|(other, _)| *other == name);
                same.map_or_else(String::new, |(_, estimate)| cell(&estimate))
            }));
        }
    }
    let titles: Vec<&str> =
        ["", "before"].into_iter().chain(results.iter().map(|(title, ..)| *title)).collect();
    line!("\n{}", table(&titles, &rows))?;
    let steps = report.stages.iter().map(|s| vec![s.name.clone(), seconds(s.seconds)]);
    line!("{}", table(&["step", "time"], &steps.collect::<Vec<_>>()))?;
    for sentence in &report.serving {
        line!("{sentence}")?;
    }
    line!("\nwrote {} (moeprune-report.md says more)", out.display())?;
    Ok(())
}

/// What questions were answered like: each metric, and the answers as texts.
fn figures(report: &EvalReport) -> Vec<(String, Estimate)> {
    let (task, n) = (&report.task, report.n);
    let metrics = report.metrics.iter();
    let metrics = metrics.map(|(metric, e)| (format!("{task} {metric}, {n} questions"), *e));
    let texts = report.degradation().iter().flat_map(degradation_rows).collect::<Vec<_>>();
    metrics.chain(texts.into_iter().map(|(name, e)| (format!("  {name}"), e))).collect()
}

fn cell(estimate: &Estimate) -> String {
    let error = estimate.stderr.map_or_else(String::new, |s| format!(" ± {:.1}", 100.0 * s));
    format!("{:.1}{error} %", 100.0 * estimate.mean)
}
