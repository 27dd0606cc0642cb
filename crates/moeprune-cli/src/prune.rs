//! `moeprune prune`

use std::path::{Path, PathBuf};

use clap::Args;
use moeprune_core::plural;

use crate::{
    blend::WeighedFile,
    card::CardArgs,
    keep::KeepArgs,
    options::{CalibrationArgs, DeviceArgs, FamilyArgs, RecipeArgs, ResumeArgs, makes_model},
    rates::RateArgs,
    repair::{RepairArgs, print_repair},
    table::{bytes, percent, seconds, table},
    terminal::Terminal,
    texts::{ChatArgs, DomainFrom, Texts, reads_texts},
};
use moeprune::{
    CalibrationTexts, Error, Estimates, Job, OutputPlace, Progress as _, Recipe, Registry, Report,
    Run, Said, SearchedRecipe, Study, check_is_run, check_request, check_whole_experts,
    checkpoint::Checkpoint,
    note_of_recipe_without_repair,
    report::Repairing,
    search::{Search, SearchReport},
    whole_experts_by_default,
};
use moeprune_files::{Destination, OutputKind};

/// Options of `prune`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  moeprune prune mixtral-8x7b pruned --calibration c4.json.gz
  moeprune prune mixtral-8x7b pruned --calibration c4.json.gz --sparsity 0.25 --expert-sparsity 0.25
  moeprune prune arctic pruned --calibration c4.json.gz --sparsity 0.6 --allocation uniform
  moeprune prune arctic pruned --calibration c4.json.gz --sparsity 0.6 --expert-sparsity auto --allocation auto
  moeprune prune arctic pruned --calibration c4.json.gz --device cuda
  moeprune prune mixtral-8x7b pruned --calibration 'c4/*.parquet' --calibration chats.jsonl
  moeprune prune mixtral-8x7b pruned --recipe reap --calibration texts --domain-from file
  moeprune prune mixtral-8x7b pruned --keep published.json
  moeprune prune mixtral.gguf pruned.gguf --observation mixtral.obs.safetensors --sparsity 0.25
  moeprune prune arctic pruned --calibration c4.json.gz --resume      after Ctrl-C, a crash or a full disk")]
#[non_exhaustive]
pub struct PruneArgs {
    /// Directory of the model, or a .gguf file
    pub model: PathBuf,
    /// Directory to write, missing or empty; if the model is a .gguf file, one that is missing
    pub out: PathBuf,
    /// Calibration text: plain text, or JSON lines, a JSON array, CSV or Parquet of texts, questions, tokens or
    /// conversations, packed or not. A file, a folder or a pattern; may be given several times, and is one text. Needed
    /// unless --observation is given, --keep without --sparsity, or the model is a .gguf file
    #[arg(long, value_name = "FILE")]
    pub calibration: Vec<PathBuf>,
    /// Have each calibration file be a domain of its own: the model is observed on each, and pruned as by one
    /// --observation per file (see --domains); nothing is repaired or searched for then
    #[arg(long, value_name = "WHAT", requires = "calibration")]
    pub domain_from: Option<DomainFrom>,
    /// Statistics of the unpruned model, or of the same in another format, instead of running calibration text;
    /// several are weighed
    #[arg(long, value_name = "FILE[=WEIGHT]", conflicts_with = "calibration")]
    pub(crate) observation: Vec<WeighedFile>,
    /// Write the report here too
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Whether the result gets a card.
    #[command(flatten)]
    pub card: CardArgs,
    /// Experts that are named.
    #[command(flatten)]
    pub keep: KeepArgs,
    /// What is pruned, and how.
    #[command(flatten)]
    pub recipe: RecipeArgs,
    /// Which part of the calibration text is used.
    #[command(flatten)]
    pub sampling: CalibrationArgs,
    /// What conversations in it are given.
    #[command(flatten)]
    pub chat: ChatArgs,
    /// What a repair is fitted to beside that.
    #[command(flatten)]
    pub repair: RepairArgs,
    /// Where the model runs.
    #[command(flatten)]
    pub device: DeviceArgs,
    /// Whether an interrupted run is continued.
    #[command(flatten)]
    pub resume: ResumeArgs,
    /// How fast the machine is taken to be.
    #[command(flatten)]
    pub rates: RateArgs,
    /// How the model is read.
    #[command(flatten)]
    pub family: FamilyArgs,
}

/// Prunes and prints the final table.
///
/// # Errors
/// As [`moeprune::prune`].
pub fn prune(
    args: &PruneArgs,
    registry: &Registry,
    terminal: &mut Terminal,
) -> Result<Report, Error> {
    let (texts, json) = declare(args)?;
    let texts = texts.as_ref();
    crate::interrupt::listen_resumable();
    let mut recipe = args.recipe.resolve(registry, &args.sampling)?;
    let execution = &args.rates.on(args.device.open()?);
    let checkpoint =
        &args.family.open_to_stream(&args.model)?.with_whole_hashes(args.resume.rehash);
    let said = (args.recipe.sparsity.is_some(), args.recipe.expert_sparsity.is_some());
    if args.keep.keep.is_none() {
        let note = whole_experts_by_default(&mut recipe, checkpoint, said)?;
        note.iter().for_each(|note| terminal.note(note));
    }
    if texts.is_some() {
        check_is_run(checkpoint, "prune with calibration text")?;
    } else if args.keep.keep.is_none()
        && args.observation.is_empty()
        && !checkpoint.describes_itself()
    {
        return Err(Error::Request(
            "which experts and weights matter is seen on text: pass --calibration FILE, or --observation FILE, or name \
             the experts that stay with --keep FILE"
                .into(),
        ));
    }
    if !checkpoint.describes_itself() {
        repair_by_default(args, &mut recipe, checkpoint, registry, terminal);
    }
    let mut study = Study { checkpoint, registry, execution, progress: terminal };
    let (mut recipe, searched) = search(args, texts, &mut study, recipe)?;
    let pipeline = &args.keep.pipeline(registry, checkpoint, &mut recipe, &args.recipe)?;
    check_whole_experts(&recipe, checkpoint)?;
    let mut job = Job { model: checkpoint, pipeline, execution, progress: terminal };
    note_estimate(args, &mut job, &recipe)?;
    let (path, resume) = (args.out.as_path(), args.resume.into());
    let to = args.card.at(OutputPlace { origin: checkpoint, path, resume });
    let report = match texts {
        None if args.keep.keep.is_none() => {
            let domains = args.observation.iter().map(WeighedFile::read);
            let domains = domains.collect::<Result<Vec<_>, _>>()?;
            moeprune::prune_observed(&mut job, to, &domains, &recipe)?
        }
        None => moeprune::prune_listed(&mut job, to, &recipe)?,
        Some(texts) if args.domain_from.is_some() => {
            moeprune::prune_by_domain(&mut job, to, texts.files(), &recipe)?
        }
        Some(texts) => {
            let others = &args.repair.others(&recipe);
            let texts = CalibrationTexts { text: texts.files(), others };
            let recipe = SearchedRecipe { recipe: &recipe, searched };
            moeprune::prune(&mut job, to, texts, recipe)?
        }
    };
    print_report(&report, &args.out, json.as_ref())?;
    Ok(report)
}

/// The calibration text, and where the report goes; what the run reads and makes is declared.
fn declare(args: &PruneArgs) -> Result<(Option<Texts<'_>>, Option<Destination>), Error> {
    let mut files = args.family.files(&args.model);
    let texts = args.chat.texts(&args.calibration, &mut files)?;
    files.reads_all(args.recipe.recipe.iter().chain(&args.keep.keep));
    reads_texts(&mut files, args.repair.paths());
    files.reads_all(args.observation.iter().map(|file| &file.path));
    makes_model(&mut files, &args.out);
    let json = files.claim_if_asked("--json", args.json.as_deref(), OutputKind::Report)?;
    Ok((texts, json))
}

impl PruneArgs {
    /// Whether the run itself goes over calibration text, rather than over what was observed of its files.
    fn runs_on_one_text(&self) -> bool {
        !self.calibration.is_empty() && self.domain_from.is_none()
    }
}

/// Has the experts that stay repaired, unless what was asked for says whether they are or they cannot be.
fn repair_by_default(
    args: &PruneArgs,
    recipe: &mut Recipe,
    checkpoint: &Checkpoint,
    registry: &Registry,
    terminal: &mut Terminal,
) {
    let said = Said {
        text: args.runs_on_one_text(),
        criterion: args.recipe.criterion.is_some() || args.recipe.grouping_is_said(),
        share: args.recipe.expert_sparsity.is_some(),
        list: args.keep.keep.is_some(),
    };
    if args.recipe.repair.is_some() {
        if args.recipe.recipe.is_none() {
            let note = moeprune::experts_before_repair(recipe, registry, said);
            note.iter().for_each(|note| terminal.note(note));
        }
        return;
    }
    if let Some(path) = &args.recipe.recipe {
        // One that is built in is no file, and has no repair by what it is.
        let written = std::fs::read_to_string(path).ok();
        let note = written.and_then(|text| note_of_recipe_without_repair(&text, recipe));
        note.iter().for_each(|note| terminal.note(note));
        return;
    }
    let note = moeprune::repair_by_default(recipe, checkpoint, registry, said);
    note.iter().for_each(|note| terminal.note(note));
}

/// Says what the run will take, unless it will be refused.
fn note_estimate(args: &PruneArgs, job: &mut Job<'_>, recipe: &Recipe) -> Result<(), Error> {
    if check_request(job.model.spec(), recipe, job.pipeline).is_err() {
        return Ok(());
    }
    let estimates = Estimates::of(job.model, recipe, job.pipeline, job.execution.rates())?;
    let one = args.runs_on_one_text();
    let whole = if one { estimates.prune } else { estimates.apply_experts };
    if let Some(estimate) = whole {
        job.progress.note(&args.rates.note(&estimate, job.execution));
    }
    Ok(())
}

/// The recipe with what was asked to be searched for.
fn search(
    args: &PruneArgs,
    texts: Option<&Texts<'_>>,
    study: &mut Study<'_>,
    recipe: Recipe,
) -> Result<(Recipe, Option<SearchReport>), Error> {
    let what = args.recipe.search();
    if what.is_on() && args.domain_from.is_some() {
        return Err(Error::Request(
            "auto searches on one calibration text; leave --domain-from out, or give the shares"
                .into(),
        ));
    }
    if args.keep.keep.is_some() {
        // What a search would vary is said by the list.
        args.recipe.check_no_search()?;
    }
    let mut left = None;
    if what.is_on() {
        // Refuses what cannot be written before hours are spent; the run claims the place again.
        let run = Run::claim(&args.out, study.checkpoint, args.resume.into())?;
        left = run.left();
    }
    let Some(texts) = texts else { return Ok((recipe, None)) };
    let others = args.repair.others(&recipe);
    let texts = CalibrationTexts { text: texts.files(), others: &others };
    search_if_asked(study, recipe, what, texts).map_err(|error| match left {
        Some(folder) if error.is_stop() => error.kept(folder),
        _ => error,
    })
}

/// Searches for what was asked to be searched for, on calibration text, and prints what was found.
///
/// # Errors
/// As [`CalibrationTexts::read_for_search`] and [`Study::search`].
pub fn search_if_asked<'t>(
    study: &mut Study<'_>,
    recipe: Recipe,
    what: Search,
    calibration: impl Into<CalibrationTexts<'t>>,
) -> Result<(Recipe, Option<SearchReport>), Error> {
    if !what.is_on() {
        return Ok((recipe, None));
    }
    let calibration = calibration.into();
    let texts = calibration.read_for_search(study.checkpoint, &recipe, study.progress)?;
    let (recipe, found) = study.search(&texts, &recipe, what)?;
    print_search(&found)?;
    Ok((recipe, Some(found)))
}

fn print_search(found: &SearchReport) -> Result<(), Error> {
    let rows: Vec<Vec<String>> = found
        .candidates
        .iter()
        .map(|candidate| {
            let error = candidate.stderr_to_best.map_or_else(String::new, |e| format!("± {e:.4}"));
            vec![
                percent(candidate.expert_sparsity),
                candidate.criterion.to_string(),
                candidate.allocation.to_string(),
                format!("{:.4}", candidate.nll),
                error,
                if candidate.chosen { "chosen".into() } else { String::new() },
            ]
        })
        .collect();
    line!(
        "\nnats a token on {} blocks of the calibration text kept apart; the unpruned model has {:.4}\n{}",
        found.held_out_blocks,
        found.unpruned,
        table(&["experts", "criterion", "allocation", "nats", "to the chosen", ""], &rows)
    )
}

/// Prints what a run did, and writes its report to `json` if asked.
///
/// # Errors
/// If the report cannot be written or printed.
pub fn print_report(report: &Report, out: &Path, json: Option<&Destination>) -> Result<(), Error> {
    let printed = print_table(report, out);
    if let Some(json) = json {
        let text = report.to_json()?;
        crate::interrupt::deliver(json, |file| file.write_all(text.as_bytes()))?;
    }
    printed
}

fn print_table(report: &Report, out: &Path) -> Result<(), Error> {
    let ((asked, asked_experts), got) = (report.asked(), report.sparsity.achieved);
    let before: usize = report.layers.iter().map(|l| l.experts_before).sum();
    let kept: usize = report.layers.iter().map(|l| l.kept.len()).sum();
    let mut rows = vec![
        vec![
            "decoder Linears removed or zero".into(),
            asked.map_or_else(String::new, percent),
            percent(got.linears),
        ],
        vec!["  of the experts' weights".into(), String::new(), percent(got.experts)],
        vec!["  of all parameters".into(), String::new(), percent(got.all)],
        vec![
            "experts removed".into(),
            asked_experts.map_or_else(|| "keep-list".into(), percent),
            format!("{} of {before}", before - kept),
        ],
        vec![
            "weights on disk".into(),
            String::new(),
            format!("{} → {}", bytes(report.bytes.before), bytes(report.bytes.after)),
        ],
        vec!["time".into(), String::new(), seconds(report.stages.iter().map(|s| s.seconds).sum())],
    ];
    if let Some(before) = report.sparsity.zero_before.filter(|before| *before > 0.0) {
        let row = vec!["  of that, zero before".into(), String::new(), percent(before)];
        rows.insert(1, row);
    }
    line!("\n{}", table(&["", "asked", "achieved"], &rows))?;
    print_sentences(report, kept < before)?;
    line!("\nwrote {}", out.display())
}

/// What the table does not say.
fn print_sentences(report: &Report, experts_went: bool) -> Result<(), Error> {
    if let Some(repair) = &report.repair {
        print_repair(repair, Repairing::Experts)?;
    }
    if let Some(refit) = &report.refit {
        print_repair(refit, Repairing::Zeros)?;
    }
    if experts_went && !report.recipe.prunes_weights() {
        line!(
            "{} no weight was zeroed.",
            match report.recipe.keeps_listed() {
                true => "Only the experts that the keep-list leaves out were removed;",
                false => "Both shares are the same, so only whole experts were removed and",
            }
        )?;
    }
    for sentence in &report.serving {
        line!("{sentence}")?;
    }
    if !report.idle_experts.is_empty() {
        line!(
            "{} got no calibration token; see the report.",
            plural(report.idle_experts.len(), "expert")
        )?;
    }
    if report.scored_linears > 0 {
        line!(
            "reached by too few tokens to be reconstructed, so scored instead: {}.",
            plural(report.scored_linears, "Linear")
        )?;
    }
    Ok(())
}
