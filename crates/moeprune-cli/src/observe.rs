//! `moeprune observe`

use std::path::PathBuf;

use clap::Args;
use moeprune_capture::write_observation_to;
use moeprune_files::{OutputKind, PartialOutput};

use crate::{
    options::{CalibrationArgs, DeviceArgs, FamilyArgs, ResumeArgs},
    rates::RateArgs,
    terminal::Terminal,
};
use moeprune::{
    Calibration, Error, Estimate, FromRecipe, ImatrixFile, Job, ObservationPlace, Pipeline,
    Progress as _, Recipe, Work, check_is_run, observe_imatrix, shortened,
};

/// Options of `observe`.
#[derive(Debug, Args)]
#[command(after_help = "Example:
  moeprune observe mixtral-8x7b --calibration c4.json.gz -o mixtral.obs.safetensors
  moeprune observe mixtral-8x7b --calibration code.jsonl --domain code -o code.obs.safetensors
  moeprune observe mixtral-8x7b --imatrix mixtral.imatrix.gguf -o mixtral.obs.safetensors

The observation holds sums only. One serves any number of plans.")]
pub(crate) struct ObserveArgs {
    /// Directory of the model, or a .gguf file
    model: PathBuf,
    /// Calibration text: plain, JSON lines ({"text"}, {"question","answer"}, {"tokens"}), gzipped or not
    #[arg(long, value_name = "FILE", required_unless_present = "imatrix")]
    calibration: Option<PathBuf>,
    /// What llama-imatrix collected on a GGUF of the model, in place of running it: routing counts and
    /// squared inputs, for --criterion frequency and for zeroing weights; several add up
    #[arg(long, value_name = "FILE", conflicts_with_all = IN_A_RUN)]
    imatrix: Vec<PathBuf>,
    /// Where the observation goes
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    /// What the text is about, for tables that compare texts [default: the file's name]
    #[arg(long, value_name = "NAME")]
    domain: Option<String>,
    #[command(flatten)]
    sampling: CalibrationArgs,
    #[command(flatten)]
    device: DeviceArgs,
    #[command(flatten)]
    resume: ResumeArgs,
    #[command(flatten)]
    rates: RateArgs,
    #[command(flatten)]
    family: FamilyArgs,
}

/// What is for a run of the model alone.
const IN_A_RUN: [&str; 9] = [
    "calibration",
    "samples",
    "seq_len",
    "seed",
    "dtype",
    "micro_batch",
    "max_memory",
    "resume",
    "rehash",
];

pub(crate) fn observe(args: &ObserveArgs, terminal: &mut Terminal) -> Result<(), Error> {
    let Some(text) = &args.calibration else { return from_imatrix(args) };
    let mut files = args.family.files(&args.model);
    files.reads(text);
    let output = files.claim("-o", &args.output, OutputKind::Observation).inspect_err(|_| {
        if args.output.is_file() {
            // Refuses it too, and tidies up after a run that was killed when it was complete.
            drop(PartialOutput::open(&args.output));
        }
    })?;
    match output.is_file() {
        true => crate::interrupt::listen_resumable(),
        // Nothing of it is kept.
        false => crate::interrupt::listen(),
    }
    let execution = args.rates.on(args.device.open()?);
    let checkpoint = args.family.open_to_stream(&args.model)?.with_whole_hashes(args.resume.rehash);
    check_is_run(&checkpoint, "observe")?;
    let mut recipe = Recipe::arctic();
    args.sampling.apply(&mut recipe);
    recipe.check()?;
    shortened(&checkpoint, &recipe).iter().for_each(|note| terminal.note(note));
    let mut calibration = Calibration::read(text, &checkpoint, &recipe)?;
    if let Some(domain) = &args.domain {
        calibration.tag.name.clone_from(domain);
    }
    let work = Work::observing(&checkpoint);
    let estimate = Estimate::of(&checkpoint, work, calibration.tag.tokens(), execution.rates());
    terminal.note(&args.rates.note(&estimate, &execution));
    let mut job = Job {
        model: &checkpoint,
        pipeline: &Pipeline::from_recipe(&recipe)?,
        execution: &execution,
        progress: terminal,
    };
    if output.is_file() {
        let place = ObservationPlace { path: &args.output, resume: args.resume.into() };
        job.observe_to(&calibration, place)?;
    } else {
        let observation = job.observe(&calibration)?;
        crate::interrupt::deliver(&output, |file| write_observation_to(&observation, file))?;
    }
    line!(
        "observed {} tokens of {} → {}",
        calibration.tag.tokens(),
        calibration.tag.name,
        args.output.display()
    )
}

/// The observation that imatrix files are.
fn from_imatrix(args: &ObserveArgs) -> Result<(), Error> {
    let mut files = args.family.files(&args.model);
    files.reads_all(&args.imatrix);
    let output = files.claim("-o", &args.output, OutputKind::Observation)?;
    crate::interrupt::listen();
    let checkpoint = args.family.open_to_stream(&args.model)?.with_whole_hashes(args.resume.rehash);
    let read = |path: &PathBuf| {
        let mut file = ImatrixFile::read(path)?;
        if let Some(domain) = &args.domain {
            file.imatrix.datasets = vec![domain.clone()];
        }
        Ok(file)
    };
    let observation = observe_imatrix(&checkpoint, args.imatrix.iter().map(read))?;
    crate::interrupt::deliver(&output, |file| write_observation_to(&observation, file))?;
    for corpus in &observation.corpora {
        line!("{} tokens of {}", corpus.tokens(), corpus.name)?;
    }
    let has_routing = observation.layers.iter().any(|layer| layer.routing.is_some());
    let lacks = match has_routing {
        true => "gate weights, outputs and pairs of experts",
        false => "tokens of experts, gate weights, outputs and pairs of experts",
    };
    line!("from an imatrix, without {lacks} → {}", args.output.display())
}
