//! `moeprune apply`

use std::{path::PathBuf, time::Instant};

use clap::Args;
use moeprune_checkpoint::Checkpoint;
use moeprune_core::{PartOf, Plan};
use moeprune_files::OutputKind;
use serde::Deserialize;

use crate::{
    blend::WeighedFile,
    card::CardArgs,
    imatrix::ImatrixCut,
    options::{CalibrationArgs, DeviceArgs, FamilyArgs, ResumeArgs, makes_model},
    part::PartArgs,
    prune::print_report,
    repair::{RepairArgs, check_as_planned},
    table::bytes,
    terminal::Terminal,
    texts::{ChatArgs, reads_texts},
};
use moeprune::{
    CalibrationTexts, Error, Inputs, Job, PartPlace, Recipe, Registry, Run, blend, read_plan,
    recipe::StageChoice,
};

/// Options of `apply`.
#[derive(Debug, Args)]
#[command(after_help = "Example:
  moeprune apply mixtral-8x7b pruned --plan plan.json --calibration c4.json.gz
  moeprune apply mixtral-8x7b parts/3 --plan plan.json --observation obs.safetensors --part 3/8
  moeprune apply mixtral.gguf pruned.gguf --plan plan.json --imatrix mixtral.imatrix.gguf --imatrix-out pruned.imatrix.gguf")]
pub(crate) struct ApplyArgs {
    /// Directory of the model, or a .gguf file
    model: PathBuf,
    /// Directory to write, missing or empty; if the model is a .gguf file, one that is missing. Of a part, a
    /// directory for that part
    out: PathBuf,
    /// What `plan` wrote
    #[arg(long, value_name = "FILE")]
    plan: PathBuf,
    /// Statistics of the unpruned model, instead of running calibration text; several are weighed
    #[arg(long = "observation", value_name = "FILE[=WEIGHT]", conflicts_with = "calibration")]
    observations: Vec<WeighedFile>,
    /// Calibration text, run through the pruned layers as they are made. A file, a folder or a pattern; may be given
    /// several times, and is one text
    #[arg(long, value_name = "FILE")]
    calibration: Vec<PathBuf>,
    /// What llama-imatrix collected on the model, to be cut along with a .gguf file
    #[arg(long, value_name = "FILE", requires = "imatrix_out", conflicts_with = "part")]
    imatrix: Option<PathBuf>,
    /// Where what is left of --imatrix goes
    #[arg(long, value_name = "FILE", requires = "imatrix")]
    imatrix_out: Option<PathBuf>,
    /// Write the report here too
    #[arg(long, value_name = "FILE", conflicts_with = "part")]
    json: Option<PathBuf>,
    #[command(flatten)]
    card: CardArgs,
    /// How the experts that stay make up for those that go: refused unless the plan says the same
    #[arg(long, value_name = "REPAIR", value_parser = str::parse::<StageChoice>)]
    repair: Option<StageChoice>,
    #[command(flatten)]
    repair_texts: RepairArgs,
    #[command(flatten)]
    sampling: CalibrationArgs,
    #[command(flatten)]
    chat: ChatArgs,
    #[command(flatten)]
    device: DeviceArgs,
    #[command(flatten)]
    part: PartArgs,
    #[command(flatten)]
    resume: ResumeArgs,
    #[command(flatten)]
    family: FamilyArgs,
}

/// What is written.
enum Place<'a> {
    /// All of it, to a place that is claimed.
    Whole(Box<Run<'a>>),
    /// A part of it, begun so long ago.
    Part(PartOf, Instant),
}

pub(crate) fn apply(
    args: &ApplyArgs,
    registry: &Registry,
    terminal: &mut Terminal,
) -> Result<(), Error> {
    let mut files = args.family.files(&args.model);
    files.reads_all(args.observations.iter().map(|file| &file.path));
    files.reads(&args.plan);
    let texts = args.chat.texts(&args.calibration, &mut files)?;
    reads_texts(&mut files, args.repair_texts.paths());
    files.reads_all(&args.imatrix);
    makes_model(&mut files, &args.out);
    let named = (args.imatrix.as_deref(), args.imatrix_out.as_deref());
    let imatrix = ImatrixCut::of(named, &mut files)?;
    let part = args.part()?;
    let json = files.claim_if_asked("--json", args.json.as_deref(), OutputKind::Report)?;
    crate::interrupt::listen_resumable();
    let execution = args.device.open()?;
    let checkpoint = args.family.open_to_stream(&args.model)?.with_whole_hashes(args.resume.rehash);
    if let Some(imatrix) = &imatrix {
        imatrix.check(&checkpoint)?;
    }
    // The place of a part may hold that part already, which is found out when it is known what is to be in it.
    let place = match part {
        None => Place::Whole(Box::new(Run::claim(&args.out, &checkpoint, args.resume.into())?)),
        Some(part) => Place::Part(part, Instant::now()),
    };
    let (plan, recipe) = args.planned(&checkpoint, registry)?;
    let others = &args.repair_texts.others(&recipe);
    let texts = texts.as_ref().map(|texts| CalibrationTexts { text: texts.files(), others });
    let calibration = texts.map(|texts| texts.read(&checkpoint, &recipe, terminal)).transpose()?;
    let domains = args.observations.iter().map(WeighedFile::read).collect::<Result<Vec<_>, _>>()?;
    let observation = blend(&domains)?;
    let inputs = match (&calibration, &observation) {
        (Some(calibration), _) => Inputs::Calibration(calibration),
        (None, Some(observation)) => Inputs::Observation(observation),
        (None, None) => Inputs::None,
    };
    let pipeline = registry.pipeline(&recipe)?;
    let mut job =
        Job { model: &checkpoint, pipeline: &pipeline, execution: &execution, progress: terminal };
    let mut run = match place {
        Place::Whole(run) => run,
        Place::Part(part, began) => {
            let (origin, path, resume) = (&checkpoint, args.out.as_path(), args.resume.into());
            let to = PartPlace { origin, path, resume, part, began };
            return write_part(&mut job, to, &plan, inputs);
        }
    };
    run.end_step("reading statistics");
    let report = moeprune::apply(&mut job, args.card.at(*run), &plan, inputs)?;
    if let Some(imatrix) = imatrix {
        imatrix.write(&report)?;
    }
    print_report(&report, &args.out, json.as_ref())
}

impl ApplyArgs {
    /// The part that is written; `None` if all is.
    fn part(&self) -> Result<Option<PartOf>, Error> {
        match self.part.parts_here() {
            None => self.part.part(),
            Some(parts) => Err(Error::Request(format!(
                "--parts {parts} says how many parts there are; pass --part I/{parts} or --part auto to say which \
                 one is written"
            ))),
        }
    }

    /// The plan and its recipe, as the other options have it.
    fn planned(&self, model: &Checkpoint, registry: &Registry) -> Result<(Plan, Recipe), Error> {
        let plan = read_plan(&self.plan)?;
        let mut recipe = Recipe::deserialize(&plan.recipe)
            .map_err(|e| Error::Plan(format!("{}: its recipe: {e}", self.plan.display())))?;
        check_as_planned(self.repair.as_ref(), &recipe, registry)?;
        if plan.unstructured.is_some() && model.describes_itself() {
            return Err(Error::Plan(format!(
                "{}: it zeroes weights, which is for safetensors, and {} is {}; make one with --sparsity equal to \
                 --expert-sparsity",
                self.plan.display(),
                self.model.display(),
                model.container().name()
            )));
        }
        self.sampling.apply(&mut recipe);
        Ok((plan, recipe))
    }
}

/// Writes a part and says so.
fn write_part(
    job: &mut Job<'_>,
    to: PartPlace<'_>,
    plan: &Plan,
    inputs: Inputs<'_>,
) -> Result<(), Error> {
    let PartPlace { origin, path, part, .. } = to;
    let written = job.apply_part(to, plan, inputs)?;
    let layers = match written.layers.len() {
        0 => "no layer".to_owned(),
        1 => format!("layer {}", written.layers.start),
        _ => format!("layers {} to {}", written.layers.start, written.layers.end - 1),
    };
    let of = origin.spec().layers.len();
    match written.bytes {
        None => line!("{}: part {part} is finished already, nothing is done", path.display()),
        Some(all) => line!(
            "{}: part {part}, {layers} of {of}, {}; `moeprune join` puts all parts together",
            path.display(),
            bytes(all)
        ),
    }
}
