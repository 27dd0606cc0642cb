//! Runs a binary on every case.

use std::{
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Instant,
};

use anyhow::{Context as _, Result, ensure};

use super::cases::{MODELS, Model, RECIPES, Recipe, Statistics};

/// The calibration text of a model.
pub(super) const CALIBRATION: &str = "calibration.jsonl";
/// What `observe` stored of it.
pub(super) const OBSERVATION: &str = "observation.safetensors";
/// What `observe` stored of other blocks.
pub(super) const OTHER: &str = "other.safetensors";
/// The two, blended.
pub(super) const BLENDED: &str = "blended.safetensors";
/// What `plan` wrote.
pub(super) const PLAN: &str = "plan.json";
/// What `apply` wrote.
pub(super) const APPLIED: &str = "applied";
/// What `verify` says of that.
pub(super) const APPLIED_VERIFIED: &str = "applied-verify.json";
/// What `prune` wrote.
pub(super) const PRUNED: &str = "pruned";
/// What `verify` says of that.
pub(super) const PRUNED_VERIFIED: &str = "pruned-verify.json";

/// A binary to record.
#[derive(Debug)]
pub(super) struct Recorder {
    binary: PathBuf,
}

/// Folders of one model.
struct Place<'a> {
    model: Model,
    /// Where its results go.
    out: &'a Path,
    /// Whose observations and plans are read: the same folder, or one of another record.
    files: &'a Path,
}

impl Place<'_> {
    /// Options that name the calibration text and the blocks drawn from it.
    fn calibration(&self, command: &mut Command, blocks: Option<[usize; 2]>) {
        let [samples, sequence_len] = blocks.unwrap_or(self.model.blocks).map(|n| n.to_string());
        command.arg("--calibration").arg(self.out.join(CALIBRATION));
        command.args(["--samples", &samples, "--seq-len", &sequence_len]);
    }
}

impl Recorder {
    /// The binary must exist.
    pub(super) fn new(binary: &Path) -> Result<Self> {
        let binary = binary.canonicalize().with_context(|| format!("no {}", binary.display()))?;
        Ok(Self { binary })
    }

    /// Keeps all that the binary writes in the folder `out`.
    pub(super) fn record(&self, out: &Path) -> Result<()> {
        self.every_model(out, out)
    }

    /// Keeps what the binary makes of the observations and plans of the record `files`: the plans from these
    /// observations, and the checkpoints from these plans.
    pub(super) fn record_from(&self, files: &Path, out: &Path) -> Result<()> {
        self.every_model(files, out)
    }

    fn every_model(&self, files: &Path, out: &Path) -> Result<()> {
        ensure!(!out.exists(), "{} exists", out.display());
        let start = Instant::now();
        for model in MODELS {
            let (out, files) = (out.join(model.name), files.join(model.name));
            fs::create_dir_all(&out).with_context(|| format!("cannot create {}", out.display()))?;
            let place = Place { model, out: &out, files: &files };
            model.write_calibration(&out.join(CALIBRATION))?;
            self.observations(&place)?;
            for recipe in RECIPES {
                let start = Instant::now();
                self.case(&place, &recipe)
                    .with_context(|| format!("{}/{}", model.name, recipe.name))?;
                let seconds = start.elapsed().as_secs_f64();
                line!("  {}/{}: {seconds:.1} s", model.name, recipe.name)?;
            }
        }
        line!("  recorded in {:.1} s", start.elapsed().as_secs_f64())?;
        Ok(())
    }

    /// Observations, unless another record's are read, and what is blended from them.
    fn observations(&self, place: &Place<'_>) -> Result<()> {
        if place.out == place.files {
            for (name, options) in
                [(OBSERVATION, &[] as &[&str]), (OTHER, &["--seed", "1", "--domain", "other"])]
            {
                let mut observe = self.command("observe", &place.model);
                observe.arg("-o").arg(place.out.join(name)).args(options);
                place.calibration(&mut observe, None);
                finish(&mut observe)?;
            }
        }
        let weighted = |name: &str, weight: &str| {
            let mut argument = place.files.join(name).into_os_string();
            argument.push(weight);
            argument
        };
        let mut blend = Command::new(&self.binary);
        blend.args(["--quiet", "blend"]);
        blend.args([weighted(OBSERVATION, "=0.7"), weighted(OTHER, "=0.3")]);
        finish(blend.arg("-o").arg(place.out.join(BLENDED)))?;
        Ok(())
    }

    /// `plan`, `apply`, `prune` and `verify` with one recipe.
    fn case(&self, place: &Place<'_>, recipe: &Recipe) -> Result<()> {
        let out = place.out.join(recipe.name);
        fs::create_dir(&out)?;
        let plan = place.files.join(recipe.name).join(PLAN);
        let observation = place.files.join(OBSERVATION);

        let mut command = self.command("plan", &place.model);
        command.arg("--observation").arg(&observation).arg("-o").arg(out.join(PLAN));
        finish(command.args(recipe.options))?;

        let applied = out.join(APPLIED);
        let mut command = self.command("apply", &place.model);
        command.arg(&applied).arg("--plan").arg(&plan);
        match recipe.statistics {
            Statistics::Calibration => place.calibration(&mut command, recipe.blocks),
            Statistics::Observation => {
                command.arg("--observation").arg(&observation);
            }
            Statistics::None => {}
        }
        finish(&mut command)?;
        let mut verify = self.verify(place, &applied);
        keep_output(verify.arg("--plan").arg(&plan), &out.join(APPLIED_VERIFIED))?;

        // Reads no file that another binary could have written.
        if place.out == place.files {
            let pruned = out.join(PRUNED);
            let mut command = self.command("prune", &place.model);
            command.arg(&pruned).args(recipe.options);
            place.calibration(&mut command, recipe.blocks);
            finish(&mut command)?;
            keep_output(&mut self.verify(place, &pruned), &out.join(PRUNED_VERIFIED))?;
        }
        Ok(())
    }

    fn command(&self, verb: &str, model: &Model) -> Command {
        let mut command = Command::new(&self.binary);
        command.args(["--quiet", verb]).arg(model.directory());
        command
    }

    fn verify(&self, place: &Place<'_>, checkpoint: &Path) -> Command {
        let mut command = Command::new(&self.binary);
        command.args(["--quiet", "verify", "--json"]).arg(checkpoint);
        command.arg("--source").arg(place.model.directory());
        command
    }
}

/// Runs a command that must succeed; returns what it printed.
fn finish(command: &mut Command) -> Result<Vec<u8>> {
    let output = command.stdin(Stdio::null()).output().context("cannot start the binary")?;
    let arguments: Vec<_> = command.get_args().map(OsStr::to_string_lossy).collect();
    ensure!(
        output.status.success(),
        "`moeprune {}` failed ({}):\n{}{}",
        arguments.join(" "),
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(output.stdout)
}

fn keep_output(command: &mut Command, file: &Path) -> Result<()> {
    let printed = finish(command)?;
    fs::write(file, printed).with_context(|| format!("cannot write {}", file.display()))
}
