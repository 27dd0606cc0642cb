//! `moeprune man`

use std::path::{Path, PathBuf};

use clap::{Args, Command};
use clap_mangen::Man;
use moeprune::{Error, engine::TOOL};
use moeprune_core::plural;
use moeprune_files::{Destination, OutputKind, RunFiles};

/// Options of `man`.
#[derive(Debug, Args)]
#[command(after_help = "Example:
  moeprune man ~/.local/share/man/man1")]
pub(crate) struct ManArgs {
    /// Folder to write to, made if it is missing: moeprune.1, and moeprune-COMMAND.1 for each command
    dir: PathBuf,
}

/// Writes a page of the manual for each command.
pub(crate) fn man(args: &ManArgs, command: Command) -> Result<(), Error> {
    let mut command = command.disable_help_subcommand(true);
    command.build();
    std::fs::create_dir_all(&args.dir).map_err(|e| Error::io(&args.dir, "make the folder", e))?;
    let mut pages = Vec::new();
    collect(&command, &args.dir, &mut RunFiles::new(), &mut pages)?;
    for (page, destination) in &pages {
        crate::interrupt::deliver(destination, |file| file.write_all(page))?;
    }
    line!("wrote {} to {}", plural(pages.len(), "page"), args.dir.display())
}

/// The pages of a command and of those below it, each with where it goes. All places are judged before any is written.
fn collect(
    command: &Command,
    dir: &Path,
    files: &mut RunFiles,
    pages: &mut Vec<(Vec<u8>, Destination)>,
) -> Result<(), Error> {
    let man = Man::new(command.clone()).source(TOOL).manual("moeprune");
    let path = dir.join(man.get_filename());
    let mut page = Vec::new();
    man.render(&mut page).map_err(|e| Error::io(&path, "write", e))?;
    pages.push((page, files.claim("DIR", &path, OutputKind::ManPage)?));
    let below = command.get_subcommands().filter(|command| !command.is_hide_set());
    below.into_iter().try_for_each(|command| collect(command, dir, files, pages))
}
