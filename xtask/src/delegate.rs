//! Chores that are separate programs, compiled when they are first used: other chores do not wait for the trainer, the kernel
//! checks and the benchmarks. What measures is compiled as it would be installed. With the feature `cuda` (`cargo run -p xtask
//! --features cuda -- …`) the benchmarks have it too.

use std::ffi::OsString;

use anyhow::{Context as _, Result};
use clap::Args;

use crate::embedded::root;

/// Everything after the chore's name. The chore parses it, from the process's own arguments: a `--` among them would not
/// survive being parsed twice.
#[derive(Args)]
pub(crate) struct Arguments {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "ARGUMENTS")]
    _passed: Vec<OsString>,
}

/// Where a chore lives.
pub(crate) struct Chore {
    package: &'static str,
    /// What the program receives before the arguments passed on.
    command: Option<&'static str>,
    release: bool,
    /// Whether the package has the feature `cuda`.
    has_cuda: bool,
}

pub(crate) const ARCTIC_LAYER: Chore = Chore {
    package: "moeprune-bench",
    command: Some("arctic-layer"),
    release: true,
    has_cuda: true,
};
pub(crate) const BENCH_PEERS: Chore =
    Chore { package: "moeprune-bench", command: Some("peers"), release: true, has_cuda: true };
pub(crate) const BENCH_DECODE: Chore =
    Chore { package: "moeprune-bench", command: Some("decode"), release: true, has_cuda: true };
pub(crate) const BENCH_PRODUCTS: Chore =
    Chore { package: "moeprune-bench", command: Some("products"), release: true, has_cuda: true };
pub(crate) const BENCH_RUNS: Chore =
    Chore { package: "moeprune-bench", command: Some("runs"), release: true, has_cuda: true };
pub(crate) const MAKE_CHECKPOINT: Chore = Chore {
    package: "moeprune-bench",
    command: Some("make-checkpoint"),
    release: true,
    has_cuda: true,
};
pub(crate) const REPAIR_LAYER: Chore = Chore {
    package: "moeprune-bench",
    command: Some("repair-layer"),
    release: true,
    has_cuda: true,
};
pub(crate) const CHECK_KERNELS: Chore = Chore {
    package: "xtask-kernels",
    command: Some("check-kernels"),
    release: false,
    has_cuda: false,
};
pub(crate) const EMULATE_CUDA: Chore = Chore {
    package: "xtask-kernels",
    command: Some("emulate-cuda"),
    release: false,
    has_cuda: false,
};
pub(crate) const TRAIN_NANO: Chore =
    Chore { package: "nano", command: None, release: true, has_cuda: false };

/// Builds the chore's program, runs it in the current folder and ends as it did.
pub(crate) fn run(chore: Chore, _: &Arguments) -> Result<()> {
    let passed = std::env::args_os().skip(2); // the program and the chore
    let status = command(&chore).args(passed).status().context("cannot run cargo")?;
    match status.code() {
        Some(0) => Ok(()),
        code => std::process::exit(code.unwrap_or(1)),
    }
}

/// What builds a chore's program and runs it; its arguments are to be added.
pub(crate) fn command(chore: &Chore) -> std::process::Command {
    let mut cargo = std::process::Command::new(crate::binary::cargo_program());
    cargo.args(["run", "--quiet", "--package", chore.package, "--manifest-path"]);
    cargo.arg(root().join("Cargo.toml"));
    if chore.release {
        cargo.arg("--release");
    }
    if chore.has_cuda && cfg!(feature = "cuda") {
        cargo.args(["--features", "cuda"]);
    }
    cargo.arg("--").args(chore.command);
    cargo
}
