//! `cargo xtask measure-memory`: whether runs stay within the memory that they announce.

mod announced;
mod kinds;
mod process;

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, bail, ensure};
use clap::{Args, ValueEnum as _};
use moeprune_cli::{bytes, table};

use self::{announced::announced, process::watch};
use crate::binary;

/// What resident memory may be of what was announced.
const MOST: f64 = 1.1;

/// Run moeprune and hold its peak memory against what it announces
///
/// Each verb says on standard error how much memory it needs at most. Its resident memory, pages of mapped files
/// among it, may be 1.1 times as much. Exits with 1 if a run takes more, or announces nothing.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  cargo xtask measure-memory MODEL --calibration MODEL.jsonl --samples 16 --seq-len 128
  cargo xtask measure-memory MODEL --calibration MODEL.jsonl --verb prune -- --allocation uniform
  cargo xtask measure-memory --kinds /tmp --samples 8 --seq-len 256")]
pub(crate) struct MeasureMemoryArgs {
    /// Directory of the model; its results are written beside it and removed
    #[arg(required_unless_present = "kinds")]
    model: Option<PathBuf>,
    /// Calibration text
    #[arg(long, value_name = "FILE", required_unless_present = "kinds")]
    calibration: Option<PathBuf>,
    /// Make a model of every kind of family in this folder, measure it, and remove it
    #[arg(long, value_name = "FOLDER", conflicts_with_all = ["model", "calibration"])]
    kinds: Option<PathBuf>,
    /// With --kinds: only kinds whose name contains this
    #[arg(long, value_name = "TEXT", requires = "kinds")]
    only: Option<String>,
    /// The program that is measured [default: a release build of this checkout]
    #[arg(long, value_name = "FILE")]
    moeprune: Option<PathBuf>,
    /// Number of calibration blocks
    #[arg(long, value_name = "N", default_value_t = 128)]
    samples: usize,
    /// Tokens in a calibration block
    #[arg(long, value_name = "T", default_value_t = 2048)]
    seq_len: usize,
    /// Threads that moeprune uses [default: as it chooses]
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
    /// What it does; may be repeated [default: everything]
    #[arg(long, value_enum)]
    verb: Vec<Verb>,
    /// More options of the recipe, for `prune`, or for the plan that `apply` is given
    #[arg(last = true, value_name = "OPTIONS")]
    options: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Verb {
    Observe,
    /// Prune without a repair.
    Prune,
    /// Prune by SparseGPT, without a repair.
    Reconstruct,
    /// Prune with the experts that stay refitted.
    Repair,
    Apply,
    /// The model's perplexity, all of it in memory. Takes no more options.
    Eval,
}

pub(crate) fn run(args: &MeasureMemoryArgs) -> Result<()> {
    if let Some(model) = &args.model {
        ensure!(model.exists(), "there is no {}", model.display());
    }
    let moeprune = match &args.moeprune {
        Some(built) => built.clone(),
        None => binary::build()?,
    };
    let mut rows = Vec::new();
    match (&args.model, &args.calibration, &args.kinds) {
        (Some(model), Some(calibration), _) => {
            let in_codes = false;
            let setting = Setting { moeprune: &moeprune, args, model, calibration, in_codes };
            setting.measure("", &mut rows)?;
        }
        (_, _, Some(folder)) => kinds::each(folder, args.only.as_deref(), |made| {
            let kinds::Made { name, model, calibration, in_codes } = made;
            let setting = Setting { moeprune: &moeprune, args, model, calibration, in_codes };
            setting.measure(name, &mut rows)
        })?,
        _ => bail!("a model and its calibration, or --kinds"),
    }
    let header = ["", "announced", "anonymous", "resident", "of announced", ""];
    line!("{}", table(&header, &rows))?;
    ensure!(
        rows.iter().all(|row| row.last().is_some_and(|said| said == "kept")),
        "not all was kept"
    );
    Ok(())
}

/// A model that is measured.
#[derive(Clone, Copy)]
struct Setting<'a> {
    moeprune: &'a Path,
    args: &'a MeasureMemoryArgs,
    model: &'a Path,
    calibration: &'a Path,
    in_codes: bool,
}

impl Setting<'_> {
    /// Measures all verbs, and adds a row for each.
    fn measure(self, name: &str, rows: &mut Vec<Vec<String>>) -> Result<()> {
        let scratch = binary::scratch_beside(self.model)?;
        let verbs = match &self.args.verb[..] {
            [] => Verb::value_variants(),
            chosen => chosen,
        };
        for &verb in verbs.iter().filter(|verb| !(self.in_codes && **verb == Verb::Reconstruct)) {
            let folder = scratch.path().join(format!("{verb:?}"));
            fs::create_dir(&folder)?;
            let row = self.measure_verb(name, verb, &folder)?;
            line!("{}", row.join("  "))?;
            rows.push(row);
            // Results are as large as models.
            fs::remove_dir_all(&folder)?;
        }
        Ok(())
    }

    fn measure_verb(self, name: &str, verb: Verb, folder: &Path) -> Result<Vec<String>> {
        let said = folder.join("said");
        let mut command = self.command(verb, folder)?;
        command.stdout(Stdio::null()).stderr(File::create(&said)?);
        let (peak, status) = watch(command.spawn().context("cannot start moeprune")?)?;
        let said = fs::read_to_string(said)?;
        ensure!(status.success(), "{name} {verb:?} failed: {said}");
        let needed = announced(&said);
        let share = needed.map(|needed| peak.resident as f64 / needed as f64);
        let verdict = match share {
            None => "ANNOUNCES NOTHING",
            Some(share) if share <= MOST => "kept",
            Some(_) => "BROKEN",
        };
        Ok(vec![
            format!("{name} {verb:?}").trim().to_lowercase(),
            needed.map_or_else(String::new, bytes),
            bytes(peak.anonymous),
            bytes(peak.resident),
            share.map_or_else(String::new, |share| format!("{share:.2}")),
            verdict.to_owned(),
        ])
    }

    fn command(self, verb: Verb, folder: &Path) -> Result<Command> {
        let options = &self.args.options;
        let mut command = match verb {
            Verb::Observe => self.start("observe", &folder.join("seen.safetensors")),
            Verb::Prune | Verb::Reconstruct | Verb::Repair => {
                let mut prune = self.start("prune", &folder.join("pruned"));
                prune.args(["--repair", if verb == Verb::Repair { "refit" } else { "none" }]);
                if verb == Verb::Repair && self.in_codes {
                    prune.arg("--requantise");
                }
                if verb == Verb::Reconstruct {
                    prune.args(["--scorer", "sparsegpt"]);
                }
                prune.args(options);
                prune
            }
            Verb::Apply => {
                let plan = self.plan(folder)?;
                let mut apply = self.start("apply", &folder.join("pruned"));
                apply.arg("--plan").arg(plan);
                apply
            }
            Verb::Eval => {
                let mut eval = self.bare("eval");
                eval.args(["--task", "perplexity", "--data"]).arg(self.calibration);
                eval.args(["--limit", &self.args.samples.to_string()]);
                eval.args(["--seq-len", &self.args.seq_len.to_string()]);
                return Ok(eval);
            }
        };
        command.arg("--calibration").arg(self.calibration);
        command.args(["--samples", &self.args.samples.to_string()]);
        command.args(["--seq-len", &self.args.seq_len.to_string()]);
        Ok(command)
    }

    /// A plan that needs no calibration.
    fn plan(self, folder: &Path) -> Result<PathBuf> {
        let place = folder.join("plan.json");
        let mut plan = self.start("plan", &place);
        let status = plan.args(&self.args.options).stdout(Stdio::null()).status()?;
        ensure!(status.success(), "`moeprune plan` failed");
        Ok(place)
    }

    fn start(self, verb: &str, out: &Path) -> Command {
        let mut command = self.bare(verb);
        match verb {
            "observe" | "plan" => command.arg("-o").arg(out),
            _ => command.arg(out),
        };
        command
    }

    fn bare(self, verb: &str) -> Command {
        let mut command = Command::new(self.moeprune);
        command.arg(verb).arg(self.model);
        if let Some(threads) = self.args.threads {
            command.env("RAYON_NUM_THREADS", threads.to_string());
        }
        command
    }
}
