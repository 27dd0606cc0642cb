//! The `moeprune` command.

use std::process::ExitCode;

fn main() -> ExitCode {
    moeprune::cli::main()
}
