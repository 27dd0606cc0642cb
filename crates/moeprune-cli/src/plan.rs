//! `moeprune plan`

use std::path::{Path, PathBuf};

use clap::Args;
use moeprune_checkpoint::Checkpoint;
use moeprune_core::{ExtraPolicy, ModelSpec, Plan, plural};
use moeprune_files::OutputKind;

use crate::{
    blend::{WeighedFile, print_coverage},
    keep::KeepArgs,
    options::{CalibrationArgs, DeviceArgs, FamilyArgs, RecipeArgs},
    table::bytes,
    terminal::Terminal,
    texts::{ChatArgs, Texts},
};
use moeprune::{
    Calibration, Domain, Error, Execution, Job, Pipeline, PlanInputs, Progress as _, Recipe,
    Registry, blend, check_by_observations, check_repair, check_whole_experts, coverage,
    plan_domains,
    serving::{Cut, GroupRule, unnamed_extra},
    shortened, whole_experts_by_default,
};

/// Options of `plan`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  moeprune plan mixtral-8x7b --expert-sparsity 0.25 --sparsity 0.25 -o plan.json
  moeprune plan mixtral-8x7b --observation mixtral.obs.safetensors --similarity mixed -o plan.json
  moeprune plan mixtral-8x7b --recipe reap --observation code.obs=0.7 --observation prose.obs=0.3 -o plan.json
  moeprune plan mixtral-8x7b --recipe reap --observation code.obs --observation prose.obs --domains max-min -o plan.json
  moeprune plan mixtral-8x7b --keep published.json -o plan.json")]
pub(crate) struct PlanArgs {
    /// Directory of the model, or a .gguf file
    model: PathBuf,
    /// What `observe` stored; rankings need it, ties are decided better with it. Several are weighed
    /// against each other token for token, equally if no weights are given
    #[arg(long = "observation", value_name = "FILE[=WEIGHT]")]
    observations: Vec<WeighedFile>,
    /// Calibration text, for --criterion reconstruction and exhaustive and for --expert-statistics sequential alone: they
    /// run the model. A file, a folder or a pattern; may be given several times, and is one text
    #[arg(long, value_name = "FILE")]
    calibration: Vec<PathBuf>,
    /// Where the plan goes
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    /// Also choose among three or more alike experts, by reading them; otherwise `apply` does
    #[arg(long)]
    read_experts: bool,
    #[command(flatten)]
    keep: KeepArgs,
    #[command(flatten)]
    recipe: RecipeArgs,
    #[command(flatten)]
    sampling: CalibrationArgs,
    #[command(flatten)]
    chat: ChatArgs,
    #[command(flatten)]
    device: DeviceArgs,
    #[command(flatten)]
    family: FamilyArgs,
}

pub(crate) fn plan(
    args: &PlanArgs,
    registry: &Registry,
    terminal: &mut Terminal,
) -> Result<(), Error> {
    let mut files = args.family.files(&args.model);
    files.reads_all(args.observations.iter().map(|file| &file.path));
    let texts = args.chat.texts(&args.calibration, &mut files)?;
    files.reads_all(args.recipe.recipe.iter().chain(&args.keep.keep));
    let output = files.claim("-o", &args.output, OutputKind::Plan)?;
    args.recipe.check_no_search()?;
    let mut recipe = args.recipe.resolve(registry, &args.sampling)?;
    let checkpoint = args.family.open_to_stream(&args.model)?;
    let said = (args.recipe.sparsity.is_some(), args.recipe.expert_sparsity.is_some());
    if args.keep.keep.is_none() {
        let note = whole_experts_by_default(&mut recipe, &checkpoint, said)?;
        note.iter().for_each(|note| terminal.note(note));
    }
    check_repair(&checkpoint, &recipe, true)?;
    let domains = args.observations.iter().map(WeighedFile::read).collect::<Result<Vec<_>, _>>()?;
    let pipeline = args.keep.pipeline(registry, &checkpoint, &mut recipe, &args.recipe)?;
    check_whole_experts(&recipe, &checkpoint)?;
    let execution = match &texts {
        None => Execution::cpu(),
        Some(_) => runs(args, &pipeline)?,
    };
    let mut job =
        Job { model: &checkpoint, pipeline: &pipeline, execution: &execution, progress: terminal };
    let (mut plan, domains) = decide(&mut job, texts.as_ref(), &recipe, domains)?;
    if args.read_experts {
        plan = job.choose_survivors(&plan)?;
    }
    // Refused before it is written: what no file of this format can say.
    checkpoint
        .pruned_form(&checkpoint.spec().after(&plan))
        .map_err(moeprune::engine::Error::from)?;
    let json = crate::print::json(&plan)?;
    crate::interrupt::deliver(&output, |file| file.write_all(json.as_bytes()))?;
    print_plan(&plan, checkpoint.spec(), &args.output)?;
    if !domains.is_empty() && !plan.layers.is_empty() {
        let covered = coverage(&plan, &domains)?;
        if !covered.is_empty() {
            print_coverage(&covered)?;
        }
    }
    print_open(&plan, checkpoint.spec(), &pipeline)?;
    print_serving(&Cut::of(&checkpoint, &checkpoint.spec().after(&plan)), &checkpoint)
}

/// What the result is good for.
fn print_serving(cut: &Cut, checkpoint: &Checkpoint) -> Result<(), Error> {
    let (before, after) = (bytes(checkpoint.weight_bytes()), bytes(cut.weight_bytes));
    line!("weights on disk and in memory: {before} → about {after}")?;
    if let Some(groups) = GroupRule::of(checkpoint.spec()) {
        line!("{}", groups.sentence())?;
    }
    for sentence in cut.sentences().into_iter().chain(unnamed_extra(checkpoint)) {
        line!("{sentence}")?;
    }
    Ok(())
}

/// Where the model runs while it is planned on calibration text.
fn runs(args: &PlanArgs, pipeline: &Pipeline) -> Result<Execution, Error> {
    if !pipeline.experts.needs().calibration {
        return Err(Error::Request(
            "--calibration is for --criterion reconstruction and exhaustive, and for --expert-statistics \
             sequential; all else is planned from what `observe` stored (--observation)"
                .into(),
        ));
    }
    args.device.open()
}

/// The plan, and the texts as they were weighed for it.
fn decide(
    job: &mut Job<'_>,
    texts: Option<&Texts<'_>>,
    recipe: &Recipe,
    domains: Vec<Domain>,
) -> Result<(Plan, Vec<Domain>), Error> {
    let Some(texts) = texts else { return plan_domains(job, &domains, recipe) };
    if !domains.is_empty() {
        check_by_observations(recipe)?;
    }
    shortened(job.model, recipe).iter().for_each(|note| job.progress.note(note));
    let calibration = Calibration::read(texts.files(), job.model, recipe)?;
    calibration.notes().iter().for_each(|note| job.progress.note(note));
    crate::interrupt::listen();
    let observation = blend(&domains)?;
    let inputs = PlanInputs { observation: observation.as_ref(), calibration: Some(&calibration) };
    Ok((moeprune::plan(job, recipe, inputs)?, domains))
}

/// What goes.
fn print_plan(plan: &Plan, spec: &ModelSpec, output: &Path) -> Result<(), Error> {
    let experts = |spec: &ModelSpec| -> usize {
        spec.layers.iter().filter_map(|layer| layer.moe()).map(|moe| moe.experts).sum()
    };
    let (kept, before) = (experts(&spec.after(plan)), plural(experts(spec), "expert"));
    for layer in plan.layers.iter().filter(|l| l.layer >= spec.layers.len()) {
        line!(
            "{}, for multi-token prediction, keeps {} of {}",
            spec.layer_name(layer.layer),
            layer.experts_after(),
            plural(layer.experts_before, "expert")
        )?;
    }
    if plan.extra == Some(ExtraPolicy::Drop) {
        line!("the layers for multi-token prediction are left out")?;
    }
    match &plan.unstructured {
        None => line!("keeps {kept} of {before} → {}", output.display()),
        Some(asked) => line!(
            "keeps {kept} of {before} and zeroes {} of what is left → {}",
            crate::table::percent(asked.ratio),
            output.display()
        ),
    }?;
    if plan.layers.is_empty() && plan.unstructured.is_none() {
        line!("warning: the plan removes no expert and zeroes no weight")?;
    }
    Ok(())
}

/// What is left for `apply` to decide.
fn print_open(plan: &Plan, spec: &ModelSpec, pipeline: &Pipeline) -> Result<(), Error> {
    let of_decoder = plan.layers.iter().filter(|l| l.layer < spec.layers.len());
    let open = plan.layers.iter().filter(|layer| layer.is_open()).count();
    if open > 0 {
        line!(
            "in {open} of {}, which of three or more alike experts stays is decided when \
             the plan is applied; --read-experts decides at once",
            plural(of_decoder.count(), "layer")
        )?;
    }
    let refits = pipeline.refit.is_some() && plan.unstructured.is_some();
    if plan.repairs || refits {
        line!("`moeprune apply` needs --calibration FILE, which the repair is fitted to")?;
    }
    Ok(())
}
