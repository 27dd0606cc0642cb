//! `moeprune join`

use std::path::PathBuf;

use clap::Args;
use moeprune_files::OutputKind;

use crate::{
    card::CardArgs,
    options::{FamilyArgs, makes_model},
    prune::print_report,
    terminal::Terminal,
};
use moeprune::{Error, Parts, Resume, Run};

/// Options of `join`.
#[derive(Debug, Args)]
#[command(
    after_help = "The files are moved, not copied, where parts and OUT are on one file system, and the folders of \
the parts are removed at the end. A join that was interrupted is continued by the same command.

Example:
  moeprune apply mixtral-8x7b parts/1 --plan plan.json --observation obs.safetensors --part 1/2
  moeprune apply mixtral-8x7b parts/2 --plan plan.json --observation obs.safetensors --part 2/2
  moeprune join mixtral-8x7b parts/* -o pruned"
)]
pub(crate) struct JoinArgs {
    /// The model that the parts were made of: a directory, or a .gguf file
    model: PathBuf,
    /// Folders that `apply --part` wrote: all parts, in any order
    #[arg(required = true, value_name = "PART")]
    parts: Vec<PathBuf>,
    /// Directory to write, missing or empty; if the model is a .gguf file, one that is missing
    #[arg(short, long, value_name = "OUT")]
    out: PathBuf,
    /// Write the report here too
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    #[command(flatten)]
    card: CardArgs,
    #[command(flatten)]
    family: FamilyArgs,
}

pub(crate) fn join(args: &JoinArgs, terminal: &mut Terminal) -> Result<(), Error> {
    let mut files = args.family.files(&args.model);
    makes_model(&mut files, &args.out);
    let json = files.claim_if_asked("--json", args.json.as_deref(), OutputKind::Report)?;
    check_not_in_parts(args)?;
    crate::interrupt::listen_resumable();
    let checkpoint = args.family.open_to_stream(&args.model)?;
    let run = Run::claim(&args.out, &checkpoint, Resume::Yes)?;
    let parts = Parts::read(args.parts.iter().map(PathBuf::as_path))?;
    let report = moeprune::join(args.card.at(run), &parts, terminal)?;
    print_report(&report, &args.out, json.as_ref())
}

/// Refuses a place in a part, whose folder is removed.
fn check_not_in_parts(args: &JoinArgs) -> Result<(), Error> {
    let real = |path: &PathBuf| path.canonicalize().or_else(|_| std::path::absolute(path)).ok();
    let out = real(&args.out);
    let inside = args.parts.iter().find(|part| {
        real(part).is_some_and(|part| out.as_ref().is_some_and(|out| out.starts_with(part)))
    });
    match inside {
        None => Ok(()),
        Some(part) => Err(Error::Request(format!(
            "{} is in {}, one of the parts, whose folders are removed; choose another place",
            args.out.display(),
            part.display()
        ))),
    }
}
