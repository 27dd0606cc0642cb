//! The `moeprune` binary, built, and a scratch folder for what it writes.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::embedded;

/// Builds the binary as it would be installed and says where it is.
pub(crate) fn build() -> Result<PathBuf> {
    let built = cargo()
        .args(["build", "--release", "--package", "moeprune-cli", "--bin", "moeprune"])
        .arg("--message-format=json-render-diagnostics")
        .stderr(Stdio::inherit())
        .output()
        .context("cannot run cargo")?;
    ensure!(built.status.success(), "moeprune does not build");
    let messages = String::from_utf8_lossy(&built.stdout);
    let executable = |line: &str| -> Option<PathBuf> {
        let message: Value = serde_json::from_str(line).ok()?;
        Some(message.get("executable")?.as_str()?.into())
    };
    messages.lines().find_map(executable).context("cargo named no executable")
}

/// The cargo that runs this.
pub(crate) fn cargo_program() -> OsString {
    std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into())
}

/// The cargo that runs this, at the repository's root.
pub(crate) fn cargo() -> Command {
    let mut cargo = Command::new(cargo_program());
    cargo.current_dir(embedded::root());
    cargo
}

/// Where cargo puts what it builds, as the environment and its configuration have it.
pub(crate) fn target_directory() -> Result<PathBuf> {
    let metadata = cargo()
        .args(["metadata", "--no-deps", "--format-version=1"])
        .stderr(Stdio::inherit())
        .output()
        .context("cannot run cargo")?;
    ensure!(metadata.status.success(), "cargo metadata failed");
    let metadata: Value = serde_json::from_slice(&metadata.stdout)?;
    let target = metadata["target_directory"].as_str().context("cargo named no target folder")?;
    Ok(target.into())
}

/// A folder on the disk of the model, removed when dropped.
pub(crate) fn scratch_beside(model: &Path) -> Result<tempfile::TempDir> {
    let real = model.canonicalize().with_context(|| format!("no {}", model.display()))?;
    let parent = real.parent().context("the model has no parent folder")?;
    scratch_in(parent)
}

/// A folder in another, removed when dropped.
pub(crate) fn scratch_in(parent: &Path) -> Result<tempfile::TempDir> {
    tempfile::Builder::new()
        .prefix(".moeprune-measured-")
        .tempdir_in(parent)
        .with_context(|| format!("cannot create a folder in {}", parent.display()))
}
