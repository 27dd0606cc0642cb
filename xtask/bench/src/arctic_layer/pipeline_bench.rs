//! The default pipeline over the layer, as it runs over a model.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Instant,
};

use moeprune_checkpoint::{Access, Checkpoint};
use serde::Serialize;

use super::{disk, layer::Layer};
use moeprune::{Error, Execution, Job, OutputPlace, Pipeline, Progress, Recipe, Report, Resume};
use moeprune_cli::Terminal;

/// The step in which a layer is read, run, zeroed and written.
pub(super) const PRUNING: &str = "pruning and writing";

/// Left free where memory is the disk.
const SPARE: u64 = 2 << 30;

/// What a run took.
#[derive(Debug, Clone, Serialize)]
pub(super) struct PipelineRun {
    /// Where its files were.
    pub(super) from: String,
    pub(super) steps: Vec<Step>,
    /// From the first byte read to the last one durable.
    pub(super) seconds: f64,
    /// Bytes of weights read once, and written.
    pub(super) bytes_before: u64,
    pub(super) bytes_after: u64,
    pub(super) experts_kept: usize,
}

#[derive(Debug, Clone, Serialize)]
pub(super) struct Step {
    pub(super) name: String,
    pub(super) seconds: f64,
}

impl PipelineRun {
    pub(super) fn seconds_of(&self, step: &str) -> Option<f64> {
        self.steps.iter().find(|s| s.name == step).map(|s| s.seconds)
    }
}

/// What every run of the pipeline has in common.
#[derive(Debug, Clone, Copy)]
pub(super) struct How<'a> {
    pub(super) recipe: &'a Recipe,
    pub(super) pipeline: &'a Pipeline,
    pub(super) execution: &'a Execution,
}

/// From the disk, files dropped from the system's cache before.
pub(super) fn from_disk(
    layer: &Layer,
    how: How<'_>,
    terminal: &mut Terminal,
) -> Result<PipelineRun, Error> {
    disk::drop_cached(&layer.files())?;
    let out = layer.dir().join(format!("pruned-{}", std::process::id()));
    let from = "disk, files dropped from the cache before".to_owned();
    run(&Places { checkpoint: &layer.checkpoint, out, tokens: &layer.tokens, from }, how, terminal)
}

/// From host memory: the layer is copied to a file system there and pruned to it. An error's text
/// if there is no room.
pub(super) fn from_memory(
    layer: &Layer,
    dir: &Path,
    how: How<'_>,
    terminal: &mut Terminal,
) -> Result<Result<PipelineRun, String>, Error> {
    let needed = 2 * layer.checkpoint.weight_bytes() + SPARE;
    let Ok(free) = disk::free(dir) else {
        return Ok(Err(format!("there is no {}; name a folder with --memory-dir", dir.display())));
    };
    let free = moeprune::available_memory().map_or(free, |memory| memory.min(free));
    if needed > free {
        return Ok(Err(format!(
            "{} has room for {}, and it takes {}; fewer --experts fit, or another --memory-dir",
            dir.display(),
            moeprune_cli::bytes(free),
            moeprune_cli::bytes(needed)
        )));
    }
    let held = tempfile::Builder::new()
        .prefix("moeprune-bench-")
        .tempdir_in(dir)
        .map_err(|e| Error::io(dir, "create a folder in", e))?;
    let model = copy(&layer.model(), &held.path().join("layer"))?;
    let checkpoint = Checkpoint::open_by(&model, None, Access::Read)?;
    let out = held.path().join("pruned");
    let from = format!("files in {}", dir.display());
    let places = Places { checkpoint: &checkpoint, out, tokens: &layer.tokens, from };
    run(&places, how, terminal).map(Ok)
}

fn copy(from: &Path, to: &Path) -> Result<PathBuf, Error> {
    fs::create_dir(to).map_err(|e| Error::io(to, "create", e))?;
    for entry in fs::read_dir(from).map_err(|e| Error::io(from, "list", e))? {
        let path = entry.map_err(|e| Error::io(from, "list", e))?.path();
        let name = path.file_name().unwrap_or_default();
        fs::copy(&path, to.join(name)).map_err(|e| Error::io(&path, "copy", e))?;
    }
    Ok(to.to_owned())
}

/// What a run reads and where it writes.
struct Places<'a> {
    checkpoint: &'a Checkpoint,
    out: PathBuf,
    tokens: &'a Path,
    /// The same for a reader of the results.
    from: String,
}

fn run(places: &Places<'_>, how: How<'_>, terminal: &mut Terminal) -> Result<PipelineRun, Error> {
    let &Places { checkpoint, ref out, tokens, ref from } = places;
    let How { recipe, pipeline, execution } = how;
    let began = Instant::now();
    let mut clock = StepClock { terminal, begun: None, steps: Vec::new() };
    let to = OutputPlace { origin: checkpoint, path: out, resume: Resume::No };
    let mut job = Job::new(checkpoint, pipeline, execution, &mut clock);
    let report: Report = moeprune::prune(&mut job, to, tokens, recipe)?;
    let (steps, seconds) = (clock.steps, began.elapsed().as_secs_f64());
    fs::remove_dir_all(out).map_err(|e| Error::io(out, "remove", e))?;
    Ok(PipelineRun {
        from: from.clone(),
        steps,
        seconds,
        bytes_before: report.bytes.before,
        bytes_after: report.bytes.after,
        experts_kept: report.layers.iter().map(|layer| layer.kept.len()).sum(),
    })
}

/// Shows progress and keeps the time of each step.
#[derive(Debug)]
struct StepClock<'a> {
    terminal: &'a mut Terminal,
    begun: Option<(String, Instant)>,
    steps: Vec<Step>,
}

impl Progress for StepClock<'_> {
    fn begin(&mut self, step: &str, total: u64, unit: &str) {
        self.begun = Some((step.to_owned(), Instant::now()));
        self.terminal.begin(step, total, unit);
    }

    fn advance(&mut self, done: u64, what: &str) {
        self.terminal.advance(done, what);
    }

    fn end(&mut self) {
        if let Some((name, began)) = self.begun.take() {
            self.steps.push(Step { name, seconds: began.elapsed().as_secs_f64() });
        }
        self.terminal.end();
    }

    fn should_stop(&self) -> bool {
        self.terminal.should_stop()
    }

    fn note(&mut self, line: &str) {
        self.terminal.note(line);
    }
}
