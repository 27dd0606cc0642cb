//! Parts put together.

use std::{
    collections::BTreeMap,
    fs,
    ops::ControlFlow,
    path::{Path, PathBuf},
};

use moeprune_checkpoint::{Checkpoint, DividedFiles, DividedPart};
use moeprune_core::{LinearId, ModelSpec, PartOf, Plan};
use moeprune_files::FolderClaim;

use super::{
    files_of,
    joining::{JOINING_FILE, Joining},
    record::{PART_FILE, PartRecord},
};
use crate::{
    Applied, Error, KeptExperts, Progress, Run, StageClock, WrittenLayer,
    apply::{without_zero, write_beside},
    session::{Record, RunIdentity},
};

/// All parts of a pruned model, written by the same run of different processes.
#[derive(Debug)]
pub struct Parts {
    /// In order.
    parts: Vec<Part>,
}

#[derive(Debug)]
struct Part {
    folder: PathBuf,
    record: PartRecord,
}

/// What parts make together.
#[derive(Debug)]
#[non_exhaustive]
pub struct Joined {
    /// As of one run. Of each step, seconds of all parts together and the largest memory.
    pub applied: Applied,
    /// What the parts leave behind.
    pub leavings: Leavings,
}

/// Files of parts that are of no use any more once the whole is published, and the folders that they are in.
#[derive(Debug)]
pub struct Leavings(Vec<Left>);

/// What is left of a part.
#[derive(Debug)]
struct Left {
    folder: PathBuf,
    names: Vec<String>,
    claim: FolderClaim,
}

impl Leavings {
    /// Removes them. Returns the folders that stay, as there is something else in them or they cannot be removed.
    #[must_use]
    pub fn remove(self) -> Vec<PathBuf> {
        let mut stay = Vec::new();
        for Left { folder, names, claim } in self.0 {
            // The record goes last: as long as it is there, the folder is known for a part.
            for name in names.iter().map(String::as_str).chain([JOINING_FILE, PART_FILE]) {
                let _ = fs::remove_file(folder.join(name));
            }
            drop(claim);
            if fs::remove_dir(&folder).is_err() {
                stay.push(folder);
            }
        }
        stay
    }
}

impl Parts {
    /// Reads what the parts in these folders say about themselves.
    ///
    /// # Errors
    /// If a folder holds no part, two hold the same, they are of different runs (plan, model, statistics, recipe,
    /// number of parts), or some are missing, naming these.
    pub fn read<'p>(folders: impl IntoIterator<Item = &'p Path>) -> Result<Self, Error> {
        let mut found: BTreeMap<PartOf, Part> = BTreeMap::new();
        for folder in folders {
            let part = Part::read(folder)?;
            if let Some(other) = found.values().next() {
                part.check_same_run(other)?;
            }
            if let Some(other) = found.insert(part.record.part(), part) {
                let (part, folder) = (other.record.part(), folder.display());
                return Err(Error::Parts(format!(
                    "part {part} is there twice: {} and {folder}; leave one out",
                    other.folder.display()
                )));
            }
        }
        let Some(of) = found.keys().next().map(|part| part.of()) else {
            return Err(Error::Parts("there is no part to join; name their folders".to_owned()));
        };
        let missing: Vec<String> = PartOf::all(of)?
            .filter(|part| !found.contains_key(part))
            .map(|part| part.to_string())
            .collect();
        if !missing.is_empty() {
            return Err(Error::Parts(format!(
                "{} of {of} parts are missing: {}; write them with `--part` and the same plan and inputs as the \
                 others, or name their folders",
                missing.len(),
                listed(&missing)
            )));
        }
        Ok(Self { parts: found.into_values().collect() })
    }

    /// Checks that the parts are of this model and that the folders hold all that they wrote, and puts them together
    /// in the place that `run` has claimed.
    ///
    /// Files that are whole in a part are renamed, or copied from another file system. A call that was interrupted
    /// is continued by one with the same parts.
    ///
    /// # Errors
    /// If the parts are of another model, a file of one is missing or truncated, or the record of one cannot be true;
    /// if reading or writing fails.
    pub fn join(&self, run: &mut Run<'_>, progress: &mut dyn Progress) -> Result<Joined, Error> {
        let origin = run.origin();
        let first = &self.parts[0];
        let (record, of) = (&first.record, self.parts.len());
        let identity = self.identity(origin)?;
        let plan = record.plan().clone();
        let files = files_of(origin, &plan, of).map_err(|e| first.untrue(e))?;
        let layers = self.layers(origin.spec(), &plan)?;
        let ratios = record.ratios()?;
        if ratios.as_ref().is_some_and(|ratios| ratios.len() != layers.len()) {
            return Err(first.untrue("it has not one ratio per layer"));
        }
        let parts: Vec<DividedPart<'_>> = self.parts.iter().map(Part::divided).collect();
        let joining = Joining::to(run);
        let claims = self.claim(&joining)?;
        parts.iter().try_for_each(|part| files.check(*part, Some(run.folder())))?;
        run.begin(origin, &identity)?;
        if !run.session.is_joining() {
            run.session.record(Record::Joining)?;
        }
        // From here on the parts are known for finished ones, though files of them are elsewhere.
        self.folders().try_for_each(|part| joining.mark(part))?;
        run.output.set_keep(true); // from here on it holds the only copy of some files
        let kept = KeptExperts::new(origin, &plan);
        let left_out = write_beside(run, &kept, progress)?;
        move_files(&files, &parts, run, progress)?;
        without_zero(&layers).iter().for_each(|note| progress.note(note));
        let clock = StageClock::of_all(self.parts.iter().map(|part| part.record.stages()));
        let leavings = self.leavings(&files, claims);
        drop(kept);
        let applied = Applied {
            plan,
            ratios,
            layers,
            bytes_written: files.bytes(),
            left_out,
            repair: None,
            refit: None,
            statistics: record.statistics(),
            corpora: record.corpora().to_vec(),
            device: record.device().to_owned(),
            clock,
        };
        Ok(Joined { applied, leavings })
    }

    /// Folders of the parts, in order.
    pub fn folders(&self) -> impl Iterator<Item = &Path> {
        self.parts.iter().map(|part| part.folder.as_path())
    }

    /// What joining depends on.
    ///
    /// # Errors
    /// If the parts are of another model.
    fn identity(&self, origin: &Checkpoint) -> Result<RunIdentity, Error> {
        let first = &self.parts[0];
        let begun = first.record.begun();
        let now = begun.clone().with_model(origin)?;
        let changes = begun.changes(&now);
        if !changes.is_empty() {
            let problem = format!(
                "it is not a part of {}: {}; name the model that the parts were made of",
                origin.dir().display(),
                changes.join("; ")
            );
            return Err(Error::part(&first.folder, problem));
        }
        Ok(now.without_part().with_command("join"))
    }

    /// What there is to say about each layer, checked as far as it can be.
    fn layers(&self, spec: &ModelSpec, plan: &Plan) -> Result<Vec<WrittenLayer>, Error> {
        let pruned = spec.after(plan);
        let total = spec.layers.len();
        let mut layers = Vec::with_capacity(total);
        for part in &self.parts {
            let range = part.record.part().range(total);
            let written: Vec<_> = part.record.written().collect();
            if !written.iter().map(|(layer, _)| *layer).eq(range) {
                return Err(part.untrue("it does not tell of its layers, each once and in order"));
            }
            for (layer, written) in written {
                check_layer(&pruned, layer, &written).map_err(|problem| part.untrue(problem))?;
                layers.push(written);
            }
        }
        Ok(layers)
    }

    /// Keeps all other joins away from the parts.
    ///
    /// # Errors
    /// If another process works with one, or another join has begun with it.
    fn claim(&self, joining: &Joining) -> Result<Vec<FolderClaim>, Error> {
        let claim = |part| Ok(FolderClaim::take(part)?);
        let claims = self.folders().map(claim).collect::<Result<_, Error>>()?;
        self.folders().try_for_each(|part| joining.check_not_elsewhere(part))?;
        Ok(claims)
    }

    fn leavings(&self, files: &DividedFiles, claims: Vec<FolderClaim>) -> Leavings {
        let left = |(part, claim): (&Part, FolderClaim)| {
            let names = files.names_of(part.record.part()).collect();
            Left { folder: part.folder.clone(), names, claim }
        };
        Leavings(self.parts.iter().zip(claims).map(left).collect())
    }
}

impl Part {
    fn read(folder: &Path) -> Result<Self, Error> {
        let Some(record) = PartRecord::find(folder)? else {
            let problem = match folder.is_dir() {
                true => format!(
                    "holds no finished part of a model: there is no {PART_FILE}; write the part again, with --resume \
                     if it was interrupted"
                ),
                false => "is no folder with a part of a model".to_owned(),
            };
            return Err(Error::part(folder, problem));
        };
        Ok(Self { folder: folder.to_owned(), record })
    }

    fn check_same_run(&self, other: &Self) -> Result<(), Error> {
        let (part, of) = (self.record.part(), other.record.part());
        let different = |what: String| {
            let problem = format!(
                "holds part {part} of another run than {}: {what}; write all parts with the same command",
                other.folder.display()
            );
            Err(Error::part(&self.folder, problem))
        };
        if part.of() != of.of() {
            return different(format!("that is part {of}"));
        }
        match other.record.differences(&self.record) {
            differences if differences.is_empty() => Ok(()),
            differences => different(differences.join("; ")),
        }
    }

    fn divided(&self) -> DividedPart<'_> {
        DividedPart { part: self.record.part(), folder: &self.folder }
    }

    fn untrue(&self, problem: impl std::fmt::Display) -> Error {
        let problem = format!(
            "its {PART_FILE} cannot be true: {problem}; remove the folder and write that part again"
        );
        Error::part(&self.folder, problem)
    }
}

/// Whether what is said of a layer is possible in the pruned model.
fn check_layer(pruned: &ModelSpec, layer: usize, written: &WrittenLayer) -> Result<(), String> {
    let linears = pruned.decoded().linears(layer);
    let weights = |of: &dyn Fn(LinearId) -> bool| -> u64 {
        linears.iter().filter(|shape| of(shape.id)).map(|shape| shape.parameters()).sum()
    };
    let zeros = written.zeros;
    let all = weights(&|id| id != LinearId::Router);
    let without_zero = written.without_zero.map_or((0, 0), |all| (all.weights, all.linears));
    let possible = zeros.linears <= all
        && zeros.experts <= weights(&|id| id.expert().is_some())
        && zeros.router <= weights(&|id| id == LinearId::Router)
        && zeros.before.unwrap_or(0) <= all
        && without_zero.0 <= all
        && without_zero.1.max(written.scored) <= linears.len() as u64;
    if !possible {
        return Err(format!("it counts more in layer {layer} than there is"));
    }
    let experts = pruned.moe_of(layer).map_or(0, |moe| moe.experts);
    match written.idle.iter().find(|&&expert| expert >= experts) {
        Some(expert) => Err(format!("layer {layer} has {experts} experts and no {expert}")),
        None => Ok(()),
    }
}

fn move_files(
    files: &DividedFiles,
    parts: &[DividedPart<'_>],
    run: &Run<'_>,
    progress: &mut dyn Progress,
) -> Result<(), Error> {
    let mut done = 0;
    progress.begin("joining", files.bytes().div_ceil(1_000_000), "MB");
    let joined = files.join(parts, run.folder(), &mut |bytes| {
        done += bytes;
        progress.advance(done.div_ceil(1_000_000), "");
        if progress.should_stop() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })?;
    progress.end();
    if joined.is_break() { Err(Error::Stopped) } else { Ok(()) }
}

/// Some of many, for a message.
fn listed(names: &[String]) -> String {
    const SHOWN: usize = 32;
    let shown = names[..names.len().min(SHOWN)].join(", ");
    match names.len() - names.len().min(SHOWN) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}
