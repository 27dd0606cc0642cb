//! `cargo xtask same-results`: what one moeprune binary writes, kept, and another's held to it.
//!
//! For changes that must not show in results. Weights and `config.json` are compared byte for byte; plans,
//! observations and reports value for value, and may gain keys.

mod cases;
mod compare;
mod difference;
mod json;
mod record;
mod tensors;

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail, ensure};
use clap::{Args, Subcommand};

use compare::CaseResult;
use record::Recorder;

/// Differences printed per case.
const SHOWN: usize = 5;

/// Keep what a moeprune binary writes, or hold another binary to it
///
/// Three small models, each with several recipes: `observe`, `blend`, `plan`, `apply`, `prune` and
/// `verify`, a few hundred tokens each.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  cargo xtask same-results record --binary old/moeprune before
  cargo xtask same-results record --binary target/release/moeprune after
  cargo xtask same-results compare before after
  cargo xtask same-results check --old old/moeprune --new target/release/moeprune")]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Run a binary on every case and keep all it writes
    Record {
        /// The moeprune binary
        #[arg(long, value_name = "FILE")]
        binary: PathBuf,
        /// Folder to write; must not exist
        out: PathBuf,
    },
    /// Hold the record B to the record A; exits with 1 at a difference
    Compare {
        /// What is expected
        a: PathBuf,
        /// What is judged
        b: PathBuf,
    },
    /// Record two binaries, compare, and let the new one read what the old one wrote
    Check {
        /// The binary whose results are right
        #[arg(long, value_name = "FILE")]
        old: PathBuf,
        /// The binary that is judged
        #[arg(long, value_name = "FILE")]
        new: PathBuf,
        /// Keep the records in this folder, which must not exist [default: they are removed]
        #[arg(long, value_name = "DIR")]
        keep: Option<PathBuf>,
    },
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    match &arguments.command {
        Action::Record { binary, out } => Recorder::new(binary)?.record(out),
        Action::Compare { a, b } => judge(&compare::records(a, b, compare::Scope::All)?),
        Action::Check { old, new, keep } => check(old, new, keep.as_deref()),
    }
}

fn check(old: &Path, new: &Path, keep: Option<&Path>) -> Result<()> {
    if let Some(keep) = keep {
        ensure!(!keep.exists(), "{} exists", keep.display());
    }
    let scratch = tempfile::tempdir()?;
    let place = keep.unwrap_or_else(|| scratch.path());
    let at = |name: &str| place.join(name);
    line!("{}:", old.display())?;
    Recorder::new(old)?.record(&at("old"))?;
    line!("{}:", new.display())?;
    Recorder::new(new)?.record(&at("new"))?;
    line!("old and new:")?;
    let own = judge(&compare::records(&at("old"), &at("new"), compare::Scope::All)?);
    let own = own.context("the new binary's results differ");
    // Both judgements are made before either ends the command.
    let read = read_old(new, &at("old"), &at("new-from-old"));
    if let (Err(_), Err(error)) = (&own, &read) {
        // The command ends with the other one.
        line!("  {error:#}")?;
    }
    own.and(read)
}

/// What a binary makes of a record's observations and plans, held to what the record has of them.
fn read_old(new: &Path, old: &Path, out: &Path) -> Result<()> {
    line!("{}, reading the old binary's files:", new.display())?;
    let recorder = Recorder::new(new)?;
    recorder.record_from(old, out).context("the new binary does not read the old one's files")?;
    line!("old, and new from old's files:")?;
    judge(&compare::records(old, out, compare::Scope::MadeFromFiles)?)
        .context("the new binary makes something else of the old one's files")
}

/// Prints a line a case, the first differences of each, and a summary.
fn judge(results: &[CaseResult]) -> Result<()> {
    for result in results {
        let CaseResult { case, files, differences } = result;
        match differences.len() {
            0 => line!("  {case}: {files} files, the same")?,
            n => line!("  {case}: {files} files, differences: {n}")?,
        }
        for difference in differences.iter().take(SHOWN) {
            line!("    {difference}")?;
        }
        if differences.len() > SHOWN {
            line!("    and {} more", differences.len() - SHOWN)?;
        }
    }
    let differing = results.iter().filter(|result| !result.differences.is_empty()).count();
    let files: usize = results.iter().map(|result| result.files).sum();
    line!("  {} cases, {files} files, {differing} cases differ", results.len())?;
    if differing > 0 {
        bail!("{differing} of {} cases differ", results.len());
    }
    Ok(())
}
