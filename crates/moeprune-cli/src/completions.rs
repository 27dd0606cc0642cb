//! `moeprune completions`

use clap::{Args, Command};
use clap_complete::Shell;
use moeprune::Error;

/// Options of `completions`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  moeprune completions bash > ~/.local/share/bash-completion/completions/moeprune
  moeprune completions zsh > ~/.zfunc/_moeprune        with `fpath+=~/.zfunc` before `compinit` in ~/.zshrc
  moeprune completions fish > ~/.config/fish/completions/moeprune.fish")]
pub(crate) struct CompletionsArgs {
    /// Which shell
    shell: Shell,
}

/// Prints the script that has a shell complete commands and options.
pub(crate) fn completions(args: &CompletionsArgs, mut command: Command) -> Result<(), Error> {
    let name = command.get_name().to_owned();
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut command, name, &mut script);
    crate::print::print(&String::from_utf8_lossy(&script))
}
