/*!
The command line: `moeprune` and, with the same options, `cargo xtask prune-arctic`.

One file per command. A command parses its options, calls the library and prints what it returned;
it decides nothing itself. Standard output carries results, standard error progress and errors, as lines or as JSON
([`LogFormat`]). Nothing is read from standard input: a command never asks.
Exit codes: 0 done, 1 failed (a result that could not be written is a failure), 2 wrong usage, 130
stopped by Ctrl-C, 143 by SIGTERM, 129 by SIGHUP. Files are written through
[`RunFiles`](moeprune_files::RunFiles), which replaces no input and nothing of another kind.
*/

/// Prints a line to standard output, formatted as by `format!`; a `Result`, as of
/// [`print`](print::print).
macro_rules! line {
    ($($format:tt)*) => { $crate::print::print(&(format!($($format)*) + "\n")) };
}

mod against;
mod apply;
mod blend;
mod card;
mod command_line;
mod compare;
mod completions;
mod degradation;
mod doctor;
mod endpoint;
mod environment;
mod eval;
mod imatrix;
mod inspect;
mod interrupt;
mod join;
mod keep;
mod log;
mod man;
mod memory_size;
mod merge;
mod observe;
mod options;
mod part;
mod plan;
mod print;
mod prune;
mod rates;
mod recipe;
mod remedy;
mod repair;
mod serving;
mod streaming;
mod table;
mod terminal;
mod texts;
mod verify;

pub use against::AgainstArgs;
pub use card::CardArgs;
pub use command_line::parse;
pub use degradation::degradation_rows;
pub use endpoint::{CallArgs, EndpointArgs};
pub use eval::{EvalArgs, eval};
pub use interrupt::{listen as listen_for_stop, listen_resumable, stopped_code};
pub use keep::KeepArgs;
pub use log::LogFormat;
pub use options::{
    CalibrationArgs, DeviceArgs, ExpertShare, FamilyArgs, RecipeArgs, ResumeArgs, positive,
};
pub use print::{json, print};
pub use prune::{PruneArgs, print_report, prune, search_if_asked};
pub use rates::RateArgs;
pub use remedy::explain;
pub use repair::{RepairArgs, RepairText};
pub use streaming::StreamingArgs;
pub use table::{bytes, percent, seconds, table};
pub use terminal::Terminal;
pub use texts::{ChatArgs, DomainFrom};

use std::process::ExitCode;

use clap::{CommandFactory as _, Parser, Subcommand};
use moeprune::{Error, Registry};

/// Prune mixture-of-experts language models: experts first, those that stay repaired, weights next.
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
    /// Print results and errors only [env: MOEPRUNE_QUIET]
    #[arg(long, global = true)]
    quiet: bool,
    /// How notes, progress and errors are written to standard error: json is an object a line [env: MOEPRUNE_LOG_FORMAT]
    #[arg(long, global = true, default_value = "text", value_name = "FORMAT", value_parser = LogFormat::names())]
    log_format: LogFormat,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show family, layers, experts, parameters by role and bytes; reads headers only
    Inspect(inspect::InspectArgs),
    /// Run the model once over calibration text and store what it did
    Observe(observe::ObserveArgs),
    /// Add up the parts of an observation that several processes made; runs no model
    Merge(merge::MergeArgs),
    /// Weigh observations of several texts against each other; runs no model
    Blend(blend::BlendArgs),
    /// Decide which experts go and how sparse the rest becomes
    Plan(plan::PlanArgs),
    /// Write the pruned checkpoint that a plan describes
    Apply(apply::ApplyArgs),
    /// Put together the parts that `apply --part` wrote; runs no model
    Join(join::JoinArgs),
    /// Observe, plan, repair and apply in one go
    Prune(PruneArgs),
    /// Show a recipe that is built in, or what a recipe may say
    Recipe(recipe::RecipeCommand),
    /// Score tasks, measure perplexity, or hold a model against the unpruned one
    Eval(EvalArgs),
    /// Measure several prunings side by side, without writing any
    Compare(Box<compare::CompareArgs>),
    /// Check a pruned checkpoint against its source
    Verify(verify::VerifyArgs),
    /// Say what this machine has and can do: cores, memory, disk, GPU, models
    Doctor(doctor::DoctorArgs),
    /// Print the script that has a shell complete commands and options
    Completions(completions::CompletionsArgs),
    /// Write a page of the manual for each command
    Man(man::ManArgs),
}

/// Parses the process's arguments, runs the command and returns its exit code.
#[must_use]
pub fn main() -> ExitCode {
    main_with(&Registry::built_in())
}

/// As [`main`], with custom stages under names that recipes and options can use.
#[must_use]
pub fn main_with(registry: &Registry) -> ExitCode {
    let cli: Cli = match parse() {
        Ok(cli) => cli,
        Err(code) => return code,
    };
    let mut terminal = Terminal::new(cli.quiet);
    match run(&cli.command, registry, &mut terminal) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            terminal.error(&explain(&error), &error);
            match error.is_wrong_usage() {
                true => ExitCode::from(2),
                false if error.is_stop() => ExitCode::from(stopped_code()),
                false => ExitCode::FAILURE,
            }
        }
    }
}

/// Runs a command; false if what it checked is not so.
fn run(command: &Command, registry: &Registry, terminal: &mut Terminal) -> Result<bool, Error> {
    match command {
        Command::Inspect(args) => inspect::inspect(args),
        Command::Observe(args) => observe::observe(args, terminal),
        Command::Merge(args) => merge::merge(args),
        Command::Blend(args) => blend::blend(args),
        Command::Plan(args) => plan::plan(args, registry, terminal),
        Command::Apply(args) => apply::apply(args, registry, terminal),
        Command::Join(args) => join::join(args, terminal),
        Command::Prune(args) => prune(args, registry, terminal).map(drop),
        Command::Recipe(args) => recipe::recipe(args, registry),
        Command::Eval(args) => eval(args, terminal).map(drop),
        Command::Compare(args) => compare::compare(args, registry, terminal),
        Command::Verify(args) => return verify::verify(args),
        Command::Doctor(args) => doctor::doctor(args),
        Command::Completions(args) => completions::completions(args, Cli::command()),
        Command::Man(args) => man::man(args, Cli::command()),
    }
    .map(|()| true)
}
