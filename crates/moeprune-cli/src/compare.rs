//! `moeprune compare`

use std::path::PathBuf;

use clap::Args;
use moeprune_core::{Sparsity, comparison::Estimate};
use moeprune_files::{Destination, OutputKind, RunFiles};

use crate::{
    blend::WeighedFile,
    endpoint::{CallArgs, ServedPlace},
    eval::named,
    options::{CalibrationArgs, DeviceArgs, FamilyArgs, RecipeArgs, positive, sparsity},
    streaming::StreamingArgs,
    table::{bytes, percent, seconds, table},
    terminal::Terminal,
    texts::{ChatArgs, Texts, reads_texts},
};
use moeprune::{
    Calibration, CalibrationTexts, Error, Evaluation, PlanInputs, Registry, Study, blend,
    check_is_run,
    checkpoint::Checkpoint,
    compare::{Comparison, Cut, Measures, ServedVariant, Variant},
    evaluation::{ServedModel, default_metric, task_file},
};

/// Options of `compare`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  moeprune compare mixtral-8x7b --observation c4.obs --cuts 0.25,0.5 --criteria stun,reap,frequency,random \\
      --task gsm8k --data test.jsonl --fewshot-data train.jsonl --html compare.html
  moeprune compare mixtral-8x7b --observation c4.obs --cuts 0,0.25 --sparsity 0.5 --text wikitext.txt --text-blocks 32
  moeprune compare mixtral-8x7b --endpoint http://gpu7:8000/v1 --endpoint cut-25=http://gpu8:8000/v1 \\
      --task gsm8k --data test.jsonl --fewshot-data train.jsonl

No checkpoint is written. With --sparsity, weights are zeroed until each cut reaches that total; a
cut of 0 then zeroes weights only. With --repair, experts that stay are repaired before that, on
--calibration, and weights are zeroed by statistics of the repaired model, as `prune` does. Perplexity needs a layer in memory at a time; for
questions experts are read when they are needed if the whole model does not fit (--max-memory). With --text, KL is the divergence of each variant's predictions from the unpruned model's in nats per token, and \"same top\" how often
both find the same token the likeliest; with --task, answers that the model ended itself, that end in a loop, and distinct-4 (docs/evaluation.md).
Models that are served (--endpoint) are asked there, and none is loaded for them.")]
pub(crate) struct CompareArgs {
    /// Directory of the model
    model: PathBuf,
    /// What `observe` stored; several are weighed against each other
    #[arg(long = "observation", value_name = "FILE[=WEIGHT]")]
    observations: Vec<WeighedFile>,
    /// Calibration text, for --repair and --criteria reconstruction and exhaustive: they run the model on it. A file,
    /// a folder or a pattern; may be given several times, and is one text
    #[arg(long, value_name = "FILE")]
    calibration: Vec<PathBuf>,
    /// Shares of the experts to remove
    #[arg(long, value_name = "SHARES", value_delimiter = ',', required_unless_present = "endpoints", value_parser = sparsity)]
    cuts: Vec<Sparsity>,
    /// How it is decided which experts go, each at every cut; hc-smoe and reap stand for the recipes
    #[arg(
        long,
        value_name = "NAMES",
        value_delimiter = ',',
        default_value = "stun,reap,frequency,random"
    )]
    criteria: Vec<String>,
    /// Questions to ask: a task's name (see `eval --list-tasks`), a file that describes one, or a folder that holds one
    #[arg(long, requires = "data")]
    task: Option<String>,
    /// Questions as the task's data set has them, in any form that calibration text may have
    #[arg(long, value_name = "FILE", requires = "task")]
    data: Option<PathBuf>,
    /// Only the first N questions
    #[arg(long, value_name = "N", value_parser = positive)]
    limit: Option<usize>,
    /// Solved examples before each question, if not as the task defines
    #[arg(long, value_name = "N")]
    fewshot: Option<usize>,
    /// Questions that examples are drawn from
    #[arg(long, value_name = "FILE")]
    fewshot_data: Option<PathBuf>,
    /// Metric that counts as accuracy [default: flexible-extract of gsm8k, the first one of other tasks]
    #[arg(long, value_name = "NAME")]
    metric: Option<String>,
    /// Text to measure perplexity on
    #[arg(long, value_name = "FILE")]
    text: Option<PathBuf>,
    /// Only the first N blocks of the text
    #[arg(long, value_name = "N", value_parser = positive)]
    text_blocks: Option<usize>,
    /// Questions answered together
    #[arg(long, value_name = "N", default_value = "64", value_parser = positive)]
    batch: usize,
    /// Write the table here as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Write a page with charts here
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Ask a served model too, over the completions API of OpenAI (vLLM, SGLang, llama.cpp and others): MODEL itself at
    /// URL, or the checkpoint in DIR that was cut from it at DIR=URL. May be given several times. The key, if one is
    /// needed, is read from the variable OPENAI_API_KEY
    #[arg(
        long = "endpoint",
        value_name = "[DIR=]URL",
        requires = "task",
        help_heading = "Endpoint"
    )]
    endpoints: Vec<ServedPlace>,
    #[command(flatten)]
    calls: CallArgs,
    #[command(flatten)]
    recipe: RecipeArgs,
    #[command(flatten)]
    sampling: CalibrationArgs,
    #[command(flatten)]
    chat: ChatArgs,
    #[command(flatten)]
    device: DeviceArgs,
    #[command(flatten)]
    streaming: StreamingArgs,
    #[command(flatten)]
    family: FamilyArgs,
}

pub(crate) fn compare(
    args: &CompareArgs,
    registry: &Registry,
    terminal: &mut Terminal,
) -> Result<(), Error> {
    let mut files = args.family.files(&args.model);
    let texts = args.chat.texts(&args.calibration, &mut files)?;
    let name = task(args)?;
    files.reads_all(name.as_deref().and_then(task_file));
    let (json, html) = destinations(args, files)?;
    args.recipe.check_no_search()?;
    let variants = variants(args, registry)?;
    let execution = args.streaming.on(args.device.open()?);
    let checkpoint = args.family.open_to_stream(&args.model)?;
    if args.endpoints.is_empty() {
        args.calls.check_unused()?;
    }
    if !args.cuts.is_empty() || args.text.is_some() {
        check_is_run(&checkpoint, "compare")?;
    }
    let domains = args.observations.iter().map(WeighedFile::read).collect::<Result<Vec<_>, _>>()?;
    let observation = blend(&domains)?;
    let calibration = calibration(texts.as_ref(), &variants, (&checkpoint, registry), terminal)?;
    let inputs =
        PlanInputs { observation: observation.as_ref(), calibration: calibration.as_ref() };
    let task = name.as_deref().zip(args.data.as_deref());
    let metric = metric(args, name.as_deref())?;
    let measures = Measures {
        task: task.map(|(task, data)| Evaluation {
            task,
            data,
            limit: args.limit,
            fewshot: args.fewshot,
            fewshot_data: args.fewshot_data.as_deref(),
            batch: args.batch,
            sequence_len: None,
        }),
        metric: metric.as_deref(),
        text: args.text.as_deref(),
        text_blocks: args.text_blocks,
        sequence_len: args.sampling.seq_len,
        // What is served needs not be loaded too.
        skip_unpruned: args.cuts.is_empty() && args.text.is_none() || args.serves_model(),
    };
    crate::interrupt::listen();
    let mut study =
        Study { checkpoint: &checkpoint, registry, execution: &execution, progress: terminal };
    let served = served(args, &mut study, &measures)?;
    let mut comparison = study.compare(inputs, &variants, &measures)?;
    args.add_served(served, &mut comparison.cuts);
    // One that fails does not keep the others back.
    let printed = line!("\n{}", in_rows(&comparison));
    let saved = json.map_or(Ok(()), |json| write_json(&comparison, &json));
    let shown = html.map_or(Ok(()), |html| write_page(&comparison, &html));
    printed.and(saved).and(shown)
}

/// The task that is measured, if there is one.
fn task(args: &CompareArgs) -> Result<Option<String>, Error> {
    let Some(name) = &args.task else {
        return match args.text {
            Some(_) => Ok(None),
            None => Err(Error::Request(
                "nothing to measure: give --task with --data, or --text, or both".into(),
            )),
        };
    };
    match named(std::slice::from_ref(name))?.as_slice() {
        [one] => Ok(Some(one.clone())),
        several => Err(Error::Request(format!(
            "--task {name} is {} tasks ({}), and `compare` measures one: name it, and compare again for each other one",
            several.len(),
            several.join(", ")
        ))),
    }
}

/// The metric that counts as accuracy.
fn metric(args: &CompareArgs, task: Option<&str>) -> Result<Option<String>, Error> {
    match (&args.metric, task) {
        (Some(metric), _) => Ok(Some(metric.clone())),
        (None, Some(task)) => default_metric(task).map(Some),
        (None, None) => Ok(None),
    }
}

impl CompareArgs {
    /// Whether MODEL itself is served.
    fn serves_model(&self) -> bool {
        self.endpoints.iter().any(|place| place.directory.is_none())
    }

    /// Adds rows of served models, in their order. The unpruned model is the first, wherever it was asked.
    fn add_served(&self, mut served: Vec<Cut>, cuts: &mut Vec<Cut>) {
        let first = served.drain(..usize::from(self.serves_model())).collect::<Vec<_>>();
        cuts.splice(0..0, first);
        cuts.append(&mut served);
    }
}

/// Asks the models that are served: MODEL first.
fn served(
    args: &CompareArgs,
    study: &mut Study<'_>,
    measures: &Measures<'_>,
) -> Result<Vec<Cut>, Error> {
    let mut places: Vec<&ServedPlace> = args.endpoints.iter().collect();
    places.sort_by_key(|place| place.directory.is_some());
    let ask = |place: &&ServedPlace| {
        let directory = place.directory.as_deref();
        let cut = directory.map(|directory| args.family.open(directory)).transpose()?;
        let tokenizer = cut.as_ref().unwrap_or(study.checkpoint);
        let endpoint = args.calls.connect(&place.url, &*study.progress)?;
        let mut model = ServedModel::new(endpoint).read_by(tokenizer)?;
        let served = ServedVariant { checkpoint: cut.as_ref(), model: &mut model };
        study.measure_served(served, measures)
    };
    places.iter().map(ask).collect()
}

/// The blocks on which variants run the model.
fn calibration(
    texts: Option<&Texts<'_>>,
    variants: &[Variant],
    (checkpoint, registry): (&Checkpoint, &Registry),
    terminal: &mut Terminal,
) -> Result<Option<Calibration>, Error> {
    let runs = |variant: &&Variant| {
        let pipeline = registry.pipeline(&variant.recipe);
        let searches = pipeline.is_ok_and(|stages| stages.experts.needs().calibration);
        variant.recipe.repairs() || searches
    };
    match (texts, variants.iter().find(runs)) {
        (None, _) => Ok(None),
        (Some(_), None) => Err(Error::Request(
            "--calibration is for --repair, --expert-statistics sequential and --criteria reconstruction and \
             exhaustive; all else is measured from what `observe` stored (--observation)"
                .into(),
        )),
        (Some(texts), Some(variant)) => {
            let texts = CalibrationTexts::from(texts.files());
            Ok(Some(texts.read(checkpoint, &variant.recipe, terminal)?))
        }
    }
}

fn write_json(comparison: &Comparison, to: &Destination) -> Result<(), Error> {
    let text = crate::print::json(comparison)?;
    Ok(crate::interrupt::deliver(to, |file| file.write_all(text.as_bytes()))?)
}

#[cfg(feature = "page")]
fn write_page(comparison: &Comparison, to: &Destination) -> Result<(), Error> {
    let page = moeprune_page::render(comparison)
        .map_err(|e| Error::Request(format!("the page cannot be made: {e}")))?;
    crate::interrupt::deliver(to, |file| file.write_all(page.as_bytes()))?;
    line!("page → {}", to.path().display())
}

#[cfg(not(feature = "page"))]
fn write_page(_: &Comparison, _: &Destination) -> Result<(), Error> {
    Err(Error::Request("this build makes no pages; build with the feature `page`".into()))
}

/// Where JSON and page go.
fn destinations(
    args: &CompareArgs,
    mut files: RunFiles,
) -> Result<(Option<Destination>, Option<Destination>), Error> {
    files.reads_all(args.observations.iter().map(|file| &file.path));
    files.reads_all(&args.recipe.recipe);
    let texts = [&args.data, &args.fewshot_data, &args.text];
    reads_texts(&mut files, texts.into_iter().flatten());
    let json = files.claim_if_asked("--json", args.json.as_deref(), OutputKind::Comparison)?;
    let html = files.claim_if_asked("--html", args.html.as_deref(), OutputKind::Page)?;
    Ok((json, html))
}

/// Each criterion at each cut.
fn variants(args: &CompareArgs, registry: &Registry) -> Result<Vec<Variant>, Error> {
    let mut variants = Vec::new();
    for name in &args.criteria {
        for &cut in &args.cuts {
            let mut recipe = args.recipe.resolve(registry, &args.sampling)?;
            registry.choose_experts_by(&mut recipe, name)?;
            recipe.experts.sparsity = match args.recipe.sparsity {
                // Equal shares would mean that no weight is to be zeroed, and the total be missed.
                Some(total) if total == cut => Sparsity::new(cut.value() * (1.0 - 1e-9))?,
                Some(_) => cut,
                None => {
                    recipe.sparsity = cut;
                    cut
                }
            };
            // An observation is of the model without a repair.
            if !recipe.repairs() {
                recipe.weights.statistics = moeprune::recipe::Statistics::Stored;
            }
            registry.resolve(&mut recipe)?;
            let name = match recipe.repairs() && cut > Sparsity::ZERO {
                true => format!("{name} + {}", recipe.repair.name),
                false => name.clone(),
            };
            variants.push(Variant { name, recipe });
        }
    }
    Ok(variants)
}

/// A column of the table: its title, and what a cut has in it.
type Column<'a> = (&'a str, fn(&Cut) -> String);

fn in_rows(comparison: &Comparison) -> String {
    let cuts = &comparison.cuts;
    // What nothing was measured of is left out.
    let optional = |column: Column<'static>| {
        let has = cuts.iter().any(|cut| !column.1(cut).is_empty());
        has.then_some(column)
    };
    let columns: Vec<Column<'_>> = [
        Some(("criterion", (|cut| name(cut)) as fn(&Cut) -> String)),
        Some(("experts", |cut| percent(cut.expert_share))),
        Some(("total", |cut| match cut.total_share > 0.0 {
            true => percent(cut.total_share),
            false => "-".into(),
        })),
        Some(("on disk", |cut| bytes(cut.bytes))),
        Some(("perplexity", |cut| shown(cut.perplexity, |perplexity| format!("{perplexity:.3}")))),
        optional(("KL", |cut| shown(cut.divergence, |found| format!("{:.4}", found.kl)))),
        optional(("same top", |cut| shown(cut.divergence, |found| percent(found.agreement)))),
        Some(("accuracy", |cut| shown(cut.accuracy, accuracy))),
        optional(("ended", |cut| shown(cut.texts.and_then(|texts| texts.ended), percent))),
        optional(("loops", |cut| shown(cut.texts, |texts| percent(texts.looping)))),
        optional(("distinct-4", |cut| {
            shown(cut.texts.and_then(|texts| texts.distinct_4), |share| format!("{share:.3}"))
        })),
        Some(("time", |cut| seconds(cut.seconds))),
    ]
    .into_iter()
    .flatten()
    .collect();
    let titles: Vec<&str> = columns.iter().map(|(title, _)| *title).collect();
    let row = |cut: &Cut| columns.iter().map(|(_, of)| of(cut)).collect();
    table(&titles, &cuts.iter().map(row).collect::<Vec<Vec<String>>>())
}

fn name(cut: &Cut) -> String {
    if cut.is_unpruned() { "unpruned".into() } else { cut.criterion.clone() }
}

fn accuracy(Estimate { mean, stderr }: Estimate) -> String {
    format!("{mean:.3}{}", shown(stderr, |error| format!(" ± {error:.3}")))
}

/// Nothing where it was not measured.
fn shown<T>(figure: Option<T>, in_words: impl FnOnce(T) -> String) -> String {
    figure.map_or_else(String::new, in_words)
}
