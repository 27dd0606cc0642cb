/*!
The command line: `moeprune` and, with the same options, `cargo xtask prune-arctic`.

One file a command. A command parses its options, calls the library and prints what it returned;
it decides nothing itself. Standard output carries results, standard error progress and errors.
Exit codes: 0 done, 1 failed, 2 wrong usage, 130 stopped by Ctrl-C.
*/

/// Prints a line to standard output, formatted as by `format!`.
macro_rules! line {
    ($($format:tt)*) => { $crate::cli::print(&(format!($($format)*) + "\n")) };
}

mod apply;
#[cfg(target_os = "linux")]
pub mod bench;
mod blend;
mod compare;
mod eval;
mod inspect;
mod interrupt;
mod observe;
mod options;
mod plan;
mod prune;
mod recipe;
mod table;
mod terminal;
mod verify;

pub use eval::{EvalArgs, eval};
pub use interrupt::{INTERRUPTED, listen as listen_for_interrupt};
pub use options::{CalibrationArgs, DeviceArgs, ExpertShare, RecipeArgs, ResumeArgs};
pub use prune::{PruneArgs, print_report, prune, search_if_asked};
pub use table::{bytes, percent, seconds, table};
pub use terminal::Terminal;

use std::{path::Path, process::ExitCode};

use clap::{Args, Parser, Subcommand};
use moeprune_checkpoint::{Access, Checkpoint, Family};

use crate::{Error, Registry};

/// Prune mixture-of-experts language models: experts first, weights next.
#[derive(Debug, Parser)]
#[command(name = "moeprune", version, about, propagate_version = true, max_term_width = 100)]
#[command(after_help = "Examples:
  moeprune inspect mixtral-8x7b
  moeprune prune mixtral-8x7b pruned --calibration c4.json.gz --sparsity 0.4
  moeprune prune arctic pruned --calibration c4.json.gz --sparsity 0.2 --expert-sparsity 0.2
  moeprune eval pruned --task gsm8k --data test.jsonl --fewshot-data train.jsonl
  moeprune verify pruned --source mixtral-8x7b")]
struct Cli {
    #[command(subcommand)]
    command: Command,
    /// Print results and errors only
    #[arg(long, global = true)]
    quiet: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show family, layers, experts, parameters by role and bytes; reads headers only
    Inspect(inspect::InspectArgs),
    /// Run the model once over calibration text and store what it did
    Observe(observe::ObserveArgs),
    /// Weigh observations of several texts against each other; runs no model
    Blend(blend::BlendArgs),
    /// Decide which experts go and how sparse the rest becomes
    Plan(plan::PlanArgs),
    /// Write the pruned checkpoint that a plan describes
    Apply(apply::ApplyArgs),
    /// Observe, plan and apply in one go
    Prune(PruneArgs),
    /// Show a recipe that is built in, or what a recipe may say
    Recipe(recipe::RecipeCommand),
    /// Ask GSM8K questions, or measure perplexity
    Eval(EvalArgs),
    /// Measure several prunings side by side, without writing any
    Compare(Box<compare::CompareArgs>),
    /// Check a pruned checkpoint against its source
    Verify(verify::VerifyArgs),
    /// Measure this machine on a layer of a published model's size
    #[cfg(target_os = "linux")]
    Bench(bench::BenchArgs),
}

/// Parses the process's arguments, runs the command and returns its exit code.
#[must_use]
pub fn main() -> ExitCode {
    main_with(&Registry::built_in())
}

/// As [`main`], with stages of one's own under names that recipes and options can use.
#[must_use]
pub fn main_with(registry: &Registry) -> ExitCode {
    let cli = Cli::parse();
    let mut terminal = Terminal::new(cli.quiet);
    let result = match &cli.command {
        Command::Inspect(args) => inspect::inspect(args),
        Command::Observe(args) => observe::observe(args, &mut terminal),
        Command::Blend(args) => blend::blend(args),
        Command::Plan(args) => plan::plan(args, registry, &mut terminal),
        Command::Apply(args) => apply::apply(args, registry, &mut terminal),
        Command::Prune(args) => prune(args, registry, &mut terminal).map(|_| ()),
        Command::Recipe(args) => recipe::recipe(args, registry),
        Command::Eval(args) => eval(args, &mut terminal).map(|_| ()),
        Command::Compare(args) => compare::compare(args, registry, &mut terminal),
        Command::Verify(args) => match verify::verify(args) {
            Ok(true) => Ok(()),
            Ok(false) => return ExitCode::FAILURE,
            Err(error) => Err(error),
        },
        #[cfg(target_os = "linux")]
        Command::Bench(args) => bench::bench(args, &mut terminal),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error @ Error::Recipe(_)) => {
            terminal.error(&error);
            ExitCode::from(2)
        }
        Err(error) => {
            terminal.error(&error);
            if error.is_stop() { ExitCode::from(INTERRUPTED) } else { ExitCode::FAILURE }
        }
    }
}

/// How a model directory is read.
#[derive(Debug, Clone, Args)]
pub struct FamilyArgs {
    /// Descriptor (TOML) of a model family that is not built in
    #[arg(long, value_name = "FILE", help_heading = "Model")]
    pub family: Option<std::path::PathBuf>,
}

impl FamilyArgs {
    /// Opens a checkpoint.
    ///
    /// # Errors
    /// If it, or the descriptor, cannot be read.
    pub fn open(&self, model: &Path) -> Result<Checkpoint, Error> {
        self.open_by(model, Access::MemoryMap)
    }

    /// Opens a checkpoint whose tensors are read one at a time into memory of their own: mapped
    /// pages of a large model would fill what a run is promised to need.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn open_to_stream(&self, model: &Path) -> Result<Checkpoint, Error> {
        self.open_by(model, Access::Read)
    }

    fn open_by(&self, model: &Path, access: Access) -> Result<Checkpoint, Error> {
        let family = match &self.family {
            None => None,
            Some(path) => {
                let text = std::fs::read_to_string(path).map_err(|e| Error::io(path, "read", e))?;
                Some(Family::from_toml(&text)?)
            }
        };
        Ok(Checkpoint::open_by(model, family, access)?)
    }
}

/// Prints to standard output. A reader that has gone away (`| head`) is nobody's loss.
fn print(text: &str) {
    let _ = std::io::Write::write_all(&mut std::io::stdout(), text.as_bytes());
}

fn json<T: serde::Serialize>(value: &T) -> Result<String, Error> {
    serde_json::to_string_pretty(value)
        .map_err(|e| Error::Request(format!("the result cannot be written as JSON: {e}")))
}

/// Refuses to overwrite, and a folder that is not there, before any work.
fn check_new(path: &Path) -> Result<(), Error> {
    if path.exists() {
        return Err(Error::Request(format!(
            "{} exists; remove it or choose another name",
            path.display()
        )));
    }
    check_folder(path)
}

/// Refuses a file to be written in a folder that is not there, before any work.
fn check_folder(path: &Path) -> Result<(), Error> {
    let folder = folder_of(path);
    if path.is_dir() {
        return Err(Error::Request(format!("cannot write {}: it is a folder", path.display())));
    }
    if !folder.is_dir() {
        return Err(Error::Request(format!(
            "cannot write {}: there is no folder {}; make it first",
            path.display(),
            folder.display()
        )));
    }
    Ok(())
}

fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|d| !d.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."))
}

/// Writes a file so that it is there whole or not at all.
fn write_whole(path: &Path, text: &str) -> Result<(), Error> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let partial = folder_of(path).join(format!(".{name}.{}.partial", std::process::id()));
    let write = || {
        let mut file = std::fs::File::create(&partial)?;
        std::io::Write::write_all(&mut file, text.as_bytes())?;
        file.sync_all()?;
        std::fs::rename(&partial, path)
    };
    write().map_err(|e| {
        // Whether it is there or not, it is of no use any more.
        let _ = std::fs::remove_file(&partial);
        Error::io(path, "write", e)
    })
}
