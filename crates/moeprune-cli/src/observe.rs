//! `moeprune observe`

use std::path::{Path, PathBuf};

use clap::Args;
use moeprune_capture::{read_observation, write_observation_to};
use moeprune_core::SameModel;
use moeprune_files::{Destination, OutputKind, PartialOutput, RunFiles};

use crate::{
    options::{CalibrationArgs, DeviceArgs, FamilyArgs, ResumeArgs},
    rates::RateArgs,
    terminal::Terminal,
    texts::{ChatArgs, Domain, DomainFrom},
};
use moeprune::{
    Calibration, Error, Estimate, Execution, FromRecipe, ImatrixFile, Job, ObservationPlace,
    Pipeline, Progress as _, Recipe, TextFiles, Work, check_is_run, checkpoint::Checkpoint,
    observe_imatrix, shortened,
};

/// Options of `observe`.
#[derive(Debug, Args)]
#[command(after_help = "Example:
  moeprune observe mixtral-8x7b --calibration c4.json.gz -o mixtral.obs.safetensors
  moeprune observe mixtral-8x7b --calibration code.jsonl --domain code -o code.obs.safetensors
  moeprune observe mixtral-8x7b --calibration chats.jsonl --system 'You are a helpful assistant.' -o chats.obs.safetensors
  moeprune observe mixtral-8x7b --calibration code.jsonl.gz --calibration prose.parquet --domain-from file -o domains
                     makes domains/code.obs.safetensors and domains/prose.obs.safetensors
  moeprune observe mixtral-8x7b --imatrix mixtral.imatrix.gguf -o mixtral.obs.safetensors

The observation holds sums only. One serves any number of plans.")]
pub(crate) struct ObserveArgs {
    /// Directory of the model, or a .gguf file
    model: PathBuf,
    /// Calibration text: plain text, or JSON lines, a JSON array, CSV or Parquet of texts, questions, tokens or
    /// conversations, packed or not. A file, a folder or a pattern; may be given several times, and is one text
    #[arg(long, value_name = "FILE", required_unless_present = "imatrix")]
    calibration: Vec<PathBuf>,
    /// What llama-imatrix collected on a GGUF of the model, in place of running it: routing counts and
    /// squared inputs, for --criterion frequency and for zeroing weights; several add up
    #[arg(long, value_name = "FILE", conflicts_with_all = IN_A_RUN)]
    imatrix: Vec<PathBuf>,
    /// Where the observation goes; with --domain-from file, the folder where observations go
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    /// What the text is about, for tables that compare texts [default: the file's name]
    #[arg(long, value_name = "NAME")]
    domain: Option<String>,
    /// Make an observation of each file: -o is then a folder, in which each gets the file's name without endings,
    /// and that name is its domain
    #[arg(long, value_name = "WHAT", conflicts_with_all = ["domain", "imatrix"])]
    domain_from: Option<DomainFrom>,
    #[command(flatten)]
    sampling: CalibrationArgs,
    #[command(flatten)]
    chat: ChatArgs,
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
const IN_A_RUN: [&str; 11] = [
    "calibration",
    "system",
    "tools",
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
    let mut files = args.family.files(&args.model);
    let Some(texts) = args.chat.texts(&args.calibration, &mut files)? else {
        return from_imatrix(args, files);
    };
    let places = match args.domain_from {
        None => {
            let (domain, path) = (args.domain.clone(), args.output.clone());
            let output = Some(claim(&path, &mut files)?);
            vec![Place { file: None, domain, path, output }]
        }
        Some(DomainFrom::File) => {
            let domains = texts.by_file(&args.output)?.into_iter();
            let place = |domain| Place::of_domain(domain, args.resume.resume, &mut files);
            domains.map(place).collect::<Result<_, _>>()?
        }
    };
    match places.iter().flat_map(|place| &place.output).all(Destination::is_file) {
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
    // All are read first: one that is too short is found before the model has run on the others.
    let read = |place: &Place| -> Result<Calibration, Error> {
        let text = match &place.file {
            None => texts.files(),
            Some(file) => TextFiles::from(file).with_chat(texts.chat()),
        };
        let mut calibration = Calibration::read(text, &checkpoint, &recipe)?;
        if let Some(domain) = &place.domain {
            calibration.tag.name.clone_from(domain);
        }
        Ok(calibration)
    };
    let calibrations = places.iter().map(read).collect::<Result<Vec<_>, _>>()?;
    let model = (&checkpoint, &execution, &recipe);
    let mut each = places.iter().zip(&calibrations);
    each.try_for_each(|(place, calibration)| place.observe(args, model, calibration, terminal))
}

/// Where an observation goes.
struct Place {
    /// The file that it is of, if not of all.
    file: Option<PathBuf>,
    domain: Option<String>,
    path: PathBuf,
    /// `None` if an observation is there from the run that is resumed.
    output: Option<Destination>,
}

fn claim(path: &Path, files: &mut RunFiles) -> Result<Destination, Error> {
    Ok(files.claim("-o", path, OutputKind::Observation).inspect_err(|_| {
        if path.is_file() {
            // Refuses it too, and tidies up after a run that was killed when it was complete.
            drop(PartialOutput::open(path));
        }
    })?)
}

impl Place {
    fn of_domain(domain: Domain, resume: bool, files: &mut RunFiles) -> Result<Self, Error> {
        let Domain { name, file, output: path } = domain;
        let is_there = path.is_file();
        if is_there && !resume {
            return Err(Error::Request(format!(
                "{} is there; pass --resume to keep what was observed and observe the other files, remove it, or \
                 choose another folder for -o",
                path.display()
            )));
        }
        let output = if is_there { None } else { Some(claim(&path, files)?) };
        Ok(Self { file: Some(file), domain: Some(name), path, output })
    }

    fn observe(
        &self,
        args: &ObserveArgs,
        (checkpoint, execution, recipe): (&Checkpoint, &Execution, &Recipe),
        calibration: &Calibration,
        terminal: &mut Terminal,
    ) -> Result<(), Error> {
        calibration.notes().iter().for_each(|note| terminal.note(note));
        let (tag, path) = (&calibration.tag, &self.path);
        let Some(output) = &self.output else {
            let found = read_observation(path)?;
            let same = checkpoint.is_of(&found.model_fingerprint)? == SameModel::Yes;
            if same && found.corpora == [tag.clone()] {
                return line!("{} was observed before → {}", tag.name, path.display());
            }
            return Err(Error::Request(format!(
                "{} is of another model or text than the run that is resumed would make; remove it, or choose another \
                 folder for -o",
                path.display()
            )));
        };
        let work = Work::observing(checkpoint);
        let estimate = Estimate::of(checkpoint, work, tag.tokens(), execution.rates());
        terminal.note(&args.rates.note(&estimate, execution));
        let mut job = Job {
            model: checkpoint,
            pipeline: &Pipeline::from_recipe(recipe)?,
            execution,
            progress: terminal,
        };
        if output.is_file() {
            let place = ObservationPlace { path, resume: args.resume.into() };
            job.observe_to(calibration, place)?;
        } else {
            let observation = job.observe(calibration)?;
            crate::interrupt::deliver(output, |file| write_observation_to(&observation, file))?;
        }
        line!("observed {} tokens of {} → {}", tag.tokens(), tag.name, path.display())
    }
}

/// The observation that imatrix files are.
fn from_imatrix(args: &ObserveArgs, mut files: RunFiles) -> Result<(), Error> {
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
