//! `moeprune observe`

use std::path::{Path, PathBuf};

use clap::Args;
use moeprune_capture::{read_observation, read_part_head, write_observation_to, write_part_to};
use moeprune_core::{PartOf, SameModel};
use moeprune_files::{Destination, OutputKind, PartialOutput, RunFiles};

use crate::{
    options::{CalibrationArgs, DeviceArgs, FamilyArgs, ResumeArgs},
    part::PartArgs,
    rates::RateArgs,
    terminal::Terminal,
    texts::{ChatArgs, Domain, DomainFrom},
};
use moeprune::{
    Calibration, DeviceChoice, Error, Estimate, Execution, FromRecipe, ImatrixFile, Job,
    ObservationPlace, Pipeline, Progress as _, Recipe, TextFiles, TextSize, Work, check_is_run,
    checkpoint::Checkpoint, observe_imatrix, shortened,
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
  moeprune observe mixtral-8x7b --calibration c4.json.gz --parts 8 --devices cuda:0,cuda:1 -o mixtral.obs.safetensors
                     keeps an eighth of the hidden states at a time, per device
  moeprune observe mixtral-8x7b --calibration c4.json.gz --part 3/8 -o part-3.safetensors
                     on one machine of several; then moeprune merge part-*.safetensors -o mixtral.obs.safetensors

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
    #[arg(long, value_name = "WHAT", conflicts_with_all = ["domain", "imatrix", "part"])]
    domain_from: Option<DomainFrom>,
    #[command(flatten)]
    sampling: CalibrationArgs,
    #[command(flatten)]
    chat: ChatArgs,
    #[command(flatten)]
    device: DeviceArgs,
    /// Observe parts on these, one each at a time, as cuda:0,cuda:1: as many parts as devices unless --parts says
    /// otherwise
    #[arg(long, value_name = "DEVICE,...", value_delimiter = ',', conflicts_with_all = ["device", "part"])]
    #[arg(value_parser = str::parse::<DeviceChoice>, help_heading = "Parts")]
    devices: Vec<DeviceChoice>,
    #[command(flatten)]
    part: PartArgs,
    #[command(flatten)]
    resume: ResumeArgs,
    #[command(flatten)]
    rates: RateArgs,
    #[command(flatten)]
    family: FamilyArgs,
}

/// What is for a run of the model alone.
const IN_A_RUN: [&str; 14] = [
    "calibration",
    "system",
    "tools",
    "samples",
    "seq_len",
    "seed",
    "dtype",
    "micro_batch",
    "max_memory",
    "part",
    "parts",
    "devices",
    "resume",
    "rehash",
];

pub(crate) fn observe(args: &ObserveArgs, terminal: &mut Terminal) -> Result<(), Error> {
    let mut files = args.family.files(&args.model);
    let Some(texts) = args.chat.texts(&args.calibration, &mut files)? else {
        return from_imatrix(args, files);
    };
    let part = args.part.part()?;
    let places = match args.domain_from {
        None => {
            let (domain, path) = (args.domain.clone(), args.output.clone());
            let is_there = part.is_some() && path.is_file();
            let output = if is_there { None } else { Some(claim(&path, &mut files)?) };
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
    let share = Share::of(args, part)?;
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
            Some(file) => {
                let files = TextFiles::from(file).with_chat(texts.chat());
                files.stopping(crate::interrupt::asked)
            }
        };
        let mut calibration = Calibration::read(text, &checkpoint, &recipe)?;
        if let Some(domain) = &place.domain {
            calibration.tag.name.clone_from(domain);
        }
        Ok(calibration)
    };
    let calibrations = places.iter().map(read).collect::<Result<Vec<_>, _>>()?;
    let model = (&checkpoint, &share, &recipe);
    let mut each = places.iter().zip(&calibrations);
    each.try_for_each(|(place, calibration)| place.observe(args, model, calibration, terminal))
}

/// How much of the blocks is observed, and where.
enum Share {
    /// All at once.
    Whole(Execution),
    /// One part.
    One(PartOf, Execution),
    /// All, in so many parts.
    All(usize, Vec<Execution>),
}

impl Share {
    fn of(args: &ObserveArgs, part: Option<PartOf>) -> Result<Self, Error> {
        let open =
            |device: &DeviceArgs| -> Result<Execution, Error> { Ok(args.rates.on(device.open()?)) };
        if let Some(part) = part {
            return Ok(Self::One(part, open(&args.device)?));
        }
        let on = |&device| open(&DeviceArgs { device, ..args.device });
        let mut devices = args.devices.iter().map(on).collect::<Result<Vec<_>, _>>()?;
        let parts = args.part.parts_here().unwrap_or(devices.len());
        match (devices.is_empty(), parts) {
            (true, 0) => return Ok(Self::Whole(open(&args.device)?)),
            (true, _) => devices.push(open(&args.device)?),
            (false, _) => {}
        }
        Ok(Self::All(parts, devices))
    }

    /// The device of the first part.
    fn execution(&self) -> &Execution {
        match self {
            Self::Whole(execution) | Self::One(_, execution) => execution,
            // There is at least one.
            Self::All(_, devices) => &devices[0],
        }
    }
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
        (checkpoint, share, recipe): (&Checkpoint, &Share, &Recipe),
        calibration: &Calibration,
        terminal: &mut Terminal,
    ) -> Result<(), Error> {
        calibration.notes().iter().for_each(|note| terminal.note(note));
        let (tag, path) = (&calibration.tag, &self.path);
        let Some(output) = &self.output else {
            return self.observed_before(checkpoint, share, calibration);
        };
        let execution = share.execution();
        let (own, each) = match share {
            Share::Whole(_) => (calibration.blocks.tokens(), ""),
            Share::One(part, _) => (calibration.part(*part).blocks.tokens(), ""),
            Share::All(parts, _) => {
                (calibration.part(PartOf::new(*parts, *parts)?).blocks.tokens(), ", for each part")
            }
        };
        let work = Work::observing(checkpoint);
        let text = TextSize { tokens: own, block: tag.sequence_len };
        let estimate = Estimate::of(checkpoint, work, text, execution.rates());
        terminal.note(&(args.rates.note(&estimate, execution) + each));
        let pipeline = &Pipeline::from_recipe(recipe)?;
        let mut job = Job { model: checkpoint, pipeline, execution, progress: terminal };
        let place = ObservationPlace { path, resume: args.resume.into() };
        match share {
            Share::Whole(_) if output.is_file() => drop(job.observe_to(calibration, place)?),
            Share::Whole(_) => {
                let observation = job.observe(calibration)?;
                crate::interrupt::deliver(output, |file| write_observation_to(&observation, file))?;
            }
            Share::One(part, _) => {
                if output.is_file() {
                    job.observe_part_to(calibration, *part, place)?;
                } else {
                    let made = job.observe_part(calibration, *part)?;
                    crate::interrupt::deliver(output, |file| write_part_to(&made, file))?;
                }
                return line!(
                    "observed part {part}, {own} tokens of {} → {}",
                    tag.name,
                    path.display()
                );
            }
            Share::All(parts, devices) => {
                if !output.is_file() {
                    return Err(Error::Request(format!(
                        "parts are kept beside {}, which is no place for a file: name a file with -o, or leave --parts \
                         out",
                        path.display()
                    )));
                }
                job.observe_in_parts(calibration, *parts, devices, place)?;
            }
        }
        line!("observed {} tokens of {} → {}", tag.tokens(), tag.name, path.display())
    }

    /// What is there is what would be observed.
    fn observed_before(
        &self,
        checkpoint: &Checkpoint,
        share: &Share,
        calibration: &Calibration,
    ) -> Result<(), Error> {
        let (tag, path) = (&calibration.tag, &self.path);
        if let Share::One(part, execution) = share {
            let found = read_part_head(path)?;
            if found == calibration.part_head(checkpoint, execution, *part)? {
                return line!(
                    "part {part} of {} was observed before → {}",
                    tag.name,
                    path.display()
                );
            }
            return Err(Error::Request(format!(
                "{} is part {} of {}, of another run or not the part {part} that is to be observed; remove it, or \
                 choose another file for -o",
                path.display(),
                found.part,
                found.corpus.name
            )));
        }
        let found = read_observation(path)?;
        let same = checkpoint.is_of(&found.model_fingerprint)? == SameModel::Yes;
        if same && found.corpora == [tag.clone()] {
            return line!("{} was observed before → {}", tag.name, path.display());
        }
        Err(Error::Request(format!(
            "{} is of another model or text than the run that is resumed would make; remove it, or choose another \
             folder for -o",
            path.display()
        )))
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
