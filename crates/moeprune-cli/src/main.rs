//! The `moeprune` command.

use std::process::ExitCode;

fn main() -> ExitCode {
    moeprune_cli::main()
}
