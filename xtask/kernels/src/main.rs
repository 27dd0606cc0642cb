//! Chores about CUDA kernels: `cargo xtask check-kernels` and `cargo xtask emulate-cuda` start them.

/// Prints a line to standard output, formatted as by `format!`; what cannot be delivered is an error.
macro_rules! line {
    ($($format:tt)*) => {{
        use std::io::Write as _;
        writeln!(std::io::stdout(), $($format)*).map_err(anyhow::Error::from)
    }};
}

#[cfg(target_os = "linux")]
mod check_kernels;
#[cfg(target_os = "linux")]
mod emulate_cuda;

use std::path::{Path, PathBuf};

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", max_term_width = 100)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    #[cfg(target_os = "linux")]
    CheckKernels(check_kernels::Arguments),
    #[cfg(target_os = "linux")]
    EmulateCuda(emulate_cuda::Arguments),
}

fn main() -> anyhow::Result<()> {
    match Arguments::parse().command {
        #[cfg(target_os = "linux")]
        Command::CheckKernels(arguments) => check_kernels::run(&arguments),
        #[cfg(target_os = "linux")]
        Command::EmulateCuda(arguments) => emulate_cuda::run(&arguments),
    }
}

/// The repository's root.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}
