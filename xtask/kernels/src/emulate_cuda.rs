//! `cargo xtask emulate-cuda -- COMMAND…`: runs a command on a CUDA driver that is emulated on the CPU.

use std::{
    env,
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail, ensure};
use clap::Args;
use moeprune_cuda_on_cpu::{Build, build, default_folder, preload, toolkit};
use serde_json::Value;

use crate::root;

/// Run a command on an emulated CUDA driver with the workspace's kernels in it (wants a C++ compiler).
#[derive(Args)]
pub(crate) struct Arguments {
    /// Check every access of a kernel with AddressSanitizer
    #[arg(long)]
    sanitize: bool,
    /// Add candle's kernels, and let the command build its `cuda` feature, in a separate target folder
    #[arg(long)]
    candle: bool,
    /// What to run, for example `cargo test -p moeprune-score --features cuda`
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let (program, rest) = arguments.command.split_first().context("no command")?;
    let mut kernels = kernels()?;
    if arguments.candle {
        kernels.extend(kernels_of_candle()?);
    }
    let folder = default_folder();
    let wanted = Build { kernels, sanitize: arguments.sanitize, folder: folder.clone() };
    let Some(libraries) = build(&wanted)? else { return Ok(()) };
    let mut command = Command::new(program);
    command.args(rest).env("LD_LIBRARY_PATH", prepended(&libraries, "LD_LIBRARY_PATH")?);
    if arguments.candle {
        let toolkit = toolkit(&folder, &libraries)?;
        command.env("NVCC", toolkit.join("bin/nvcc")).env("CUDA_HOME", toolkit);
        command.env("CUDA_COMPUTE_CAP", "90").env("CARGO_TARGET_DIR", folder.join("candle"));
    }
    if arguments.sanitize {
        let runtime = preload()
            .context("the C++ compiler has no libasan.so; install it or leave out --sanitize")?;
        command.env("ASAN_OPTIONS", "detect_leaks=0");
        // Cargo and rustc themselves must not be run with it.
        if program == "cargo" {
            let runner = format!("env LD_PRELOAD={}", runtime.display());
            command.env(
                format!("CARGO_TARGET_{}_RUNNER", host()?.to_uppercase().replace('-', "_")),
                runner,
            );
        } else {
            command.env("LD_PRELOAD", runtime);
        }
    }
    let status = command.status().with_context(|| format!("cannot start {}", program.display()))?;
    ensure!(status.success(), "{} failed: {status}", program.display());
    Ok(())
}

/// All kernel sources of the workspace, sorted.
fn kernels() -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for one in fs::read_dir(root().join("crates"))? {
        let Ok(kernels) = fs::read_dir(one?.path().join("kernels")) else { continue };
        for file in kernels {
            let path = file?.path();
            if path.extension().is_some_and(|extension| extension == "cu") {
                found.push(path);
            }
        }
    }
    found.sort();
    Ok(found)
}

/// The sources of candle's kernels that a model runs. Convolutions and quantised products are left out.
fn kernels_of_candle() -> Result<Vec<PathBuf>> {
    let modules =
        ["affine", "binary", "cast", "fill", "indexing", "reduce", "sort", "ternary", "unary"];
    let mut metadata = Command::new("cargo");
    metadata.args(["metadata", "--format-version=1", "--all-features", "--filter-platform"]);
    let output = metadata.arg(host()?).current_dir(root()).output()?;
    ensure!(output.status.success(), "cargo metadata: {}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout)?;
    let packages = metadata["packages"].as_array().context("cargo metadata lists no packages")?;
    let candle = packages.iter().find(|package| package["name"] == "candle-kernels");
    let manifest = candle.and_then(|candle| candle["manifest_path"].as_str());
    let manifest = Path::new(manifest.context("the workspace does not use candle-kernels")?);
    Ok(modules
        .map(|module| manifest.with_file_name("src").join(module).with_extension("cu"))
        .to_vec())
}

fn prepended(folder: &Path, variable: &str) -> Result<OsString> {
    let before = env::var_os(variable).unwrap_or_default();
    Ok(env::join_paths(
        [folder.to_owned()]
            .into_iter()
            .chain(env::split_paths(&before).filter(|path| !path.as_os_str().is_empty())),
    )?)
}

/// The target triple that Cargo builds for.
fn host() -> Result<String> {
    let printed = Command::new("rustc").arg("-vV").output()?;
    let printed = String::from_utf8(printed.stdout)?;
    match printed.lines().find_map(|line| line.strip_prefix("host: ")) {
        Some(host) => Ok(host.to_owned()),
        None => bail!("rustc -vV names no host: {printed}"),
    }
}
