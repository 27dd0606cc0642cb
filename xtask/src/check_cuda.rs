//! `cargo xtask check-cuda`: the `cuda` feature, checked on a machine without CUDA.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    time::Instant,
};

use anyhow::{Context as _, Result, ensure};
use clap::Args;

use crate::binary::{cargo, target_directory};

/// Check the `cuda` feature (types and clippy, tests too) on a machine without CUDA
///
/// A sham compiler stands in for nvcc. What it makes goes to a separate target folder, so no build can pick it up.
#[derive(Debug, Args)]
pub(crate) struct Arguments {}

/// The crates that have the feature.
const CRATES: [&str; 7] = [
    "moeprune-score",
    "moeprune-model",
    "moeprune-capture",
    "moeprune-engine",
    "moeprune",
    "moeprune-cli",
    "moeprune-bench",
];

/// Where build scripts would look for a real toolkit.
const TOOLKIT_VARIABLES: [&str; 6] = [
    "CUDA_HOME",
    "CUDA_PATH",
    "CUDA_ROOT",
    "CUDA_TOOLKIT_ROOT_DIR",
    "CUDARC_CUDA_VERSION",
    "NVCC_CCBIN",
];

pub(crate) fn run(_: &Arguments) -> Result<()> {
    let target = target_directory()?.join("check-cuda");
    let nvcc = write_sham(&target)?;
    // Alone, the masks' crate loads the driver at run time; beside candle's `cuda` it is linked.
    check(&["moeprune-score"], &target, &nvcc)?;
    check(&CRATES, &target, &nvcc)
}

fn check(crates: &[&str], target: &Path, nvcc: &Path) -> Result<()> {
    let begun = Instant::now();
    let mut clippy = cargo();
    clippy.args(["clippy", "--locked", "--all-targets", "--features", "cuda"]);
    // Nothing but macros and build scripts is compiled, and they run for a moment.
    clippy.args(["--config", r#"profile.dev.package."*".opt-level = 0"#]);
    clippy.args(crates.iter().flat_map(|name| ["--package", name]));
    clippy.args(["--", "-D", "warnings"]);
    clippy.env("CARGO_TARGET_DIR", target).env("NVCC", nvcc).env("CUDA_COMPUTE_CAP", "90");
    for variable in TOOLKIT_VARIABLES {
        clippy.env_remove(variable);
    }
    let status = clippy.status().context("cannot run cargo")?;
    let names = crates.join(", ");
    ensure!(status.success(), "the cuda feature of {names} does not pass");
    line!("cuda feature of {names}: passes, {:.0} s", begun.elapsed().as_secs_f64())?;
    Ok(())
}

/// Writes the stand-in for nvcc, unless it is there: build scripts run again when it changes.
fn write_sham(target: &Path) -> Result<PathBuf> {
    let script = include_str!("check_cuda/sham_nvcc.sh");
    let path = target.join("sham/bin/nvcc");
    if fs::read_to_string(&path).is_ok_and(|there| there == script) {
        return Ok(path);
    }
    let folder = path.parent().context("the sham is in a folder")?;
    fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
    fs::write(&path, script).with_context(|| format!("cannot write {}", path.display()))?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
    // The sham's output of an earlier wording would be kept: cargo does not look at compilers.
    let output = target.join("debug");
    if output.exists() {
        fs::remove_dir_all(&output)?;
    }
    Ok(path)
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn the_sham_answers_as_build_scripts_ask() {
        let folder = tempfile::tempdir().unwrap();
        let nvcc = write_sham(folder.path()).unwrap();
        let ask = |arguments: &[&str]| {
            Command::new(&nvcc).args(arguments).current_dir(folder.path()).output().unwrap()
        };
        let version = ask(&["--version"]);
        assert!(String::from_utf8(version.stdout).unwrap().contains("release 13.0, V"));
        let out = folder.path().to_str().unwrap();
        for arguments in [
            &["-gencode=arch=compute_90", "--ptx", "--output-directory", out, "src/unary.cu"][..],
            &["-c", "-o", "moe.o", "-O3", "src/moe.cu"],
            &["--lib", "-o", "libmoe.a", "moe.o"],
        ] {
            assert!(ask(arguments).status.success(), "{arguments:?}");
        }
        let length = |name: &str| fs::metadata(folder.path().join(name)).unwrap().len();
        assert_eq!([length("unary.ptx"), length("moe.o"), length("libmoe.a")], [0, 0, 8]);
        assert!(!ask(&["--link"]).status.success());
    }
}
