//! Where a peer runs: a Python that has it.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, ensure};

use super::sides::Peer;

/// The folder below the build's in which environments are kept.
const FOLDER: &str = "peers";

/// What was found.
pub(super) enum Found {
    /// A Python with the peer.
    Python(PathBuf),
    /// What is missing, and what to do.
    Missing(String),
}

/// A Python with llm-compressor: the given one, or that of the environment below the build's folder, which is made if
/// `install` says so.
pub(super) fn of_llm_compressor(given: Option<&Path>, install: bool) -> Result<Found> {
    let has = |python: &Path| imports(python, "import llmcompressor", &[]);
    if let Some(python) = given {
        return Ok(if has(python) {
            Found::Python(from_anywhere(python)?)
        } else {
            Found::Missing(format!(
                "{} has no llmcompressor; `pip install llmcompressor`",
                python.display()
            ))
        });
    }
    let environment = target()?.join(FOLDER).join("llm-compressor");
    let python = environment.join("bin/python");
    if has(&python) {
        return Ok(Found::Python(python));
    }
    if !install {
        return Ok(Found::Missing(format!(
            "there is no environment with llm-compressor; pass --install to make one in {} (about 6 GB from PyPI), or --python \
             PROGRAM for one that has it",
            environment.display()
        )));
    }
    succeeds(Command::new("python3").args(["-m", "venv"]).arg(&environment))?;
    succeeds(Command::new(&python).args(["-m", "pip", "install", "--quiet", "llmcompressor"]))?;
    ensure!(has(&python), "{} has no llmcompressor after its installation", python.display());
    Ok(Found::Python(python))
}

/// A Python that imports the observer of a checkout of REAP.
pub(super) fn of_reap(checkout: Option<&Path>, python: &Path) -> Result<Found> {
    let Some(checkout) = checkout else {
        return Ok(Found::Missing(
            "the authors' code of REAP is on no package index; pass --reap DIR, a checkout of it, and --reap-python PROGRAM with \
             what it needs (torch, and transformers 4.55)"
                .into(),
        ));
    };
    let path = [("PYTHONPATH", checkout.join("src"))];
    Ok(match imports(python, "import reap.observer", &path) {
        true => Found::Python(from_anywhere(python)?),
        false => Found::Missing(format!(
            "{} cannot import reap.observer of {}; name one that can with --reap-python",
            python.display(),
            checkout.display()
        )),
    })
}

/// What the script of a peer needs in its environment.
pub(super) fn variables(
    peer: Peer,
    checkout: Option<&Path>,
) -> Result<Vec<(&'static str, PathBuf)>> {
    Ok(match (peer, checkout) {
        (Peer::Reap, Some(checkout)) => {
            vec![("PYTHONPATH", std::path::absolute(checkout)?.join("src"))]
        }
        _ => Vec::new(),
    })
}

/// A program as it is found from any folder. Links stay: a virtual environment is known by its own.
fn from_anywhere(program: &Path) -> Result<PathBuf> {
    match program.components().count() {
        1 => Ok(program.to_owned()),
        _ => Ok(std::path::absolute(program)?),
    }
}

fn imports(python: &Path, import: &str, variables: &[(&str, PathBuf)]) -> bool {
    let mut command = Command::new(python);
    command.args(["-c", import]).envs(variables.iter().map(|(name, value)| (name, value)));
    command.stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|s| s.success())
}

fn succeeds(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("cannot run {command:?}"))?;
    ensure!(status.success(), "{command:?} failed ({status})");
    Ok(())
}

/// The folder that this program was built in.
fn target() -> Result<PathBuf> {
    let program = std::env::current_exe()?;
    let folder = program.ancestors().nth(2).context("the program is in no build folder")?;
    Ok(folder.to_owned())
}

/// Our program, built as it is installed.
pub(crate) fn moeprune() -> Result<PathBuf> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut build = Command::new(cargo);
    build.current_dir(root).args(["build", "--quiet", "--release", "--package", "moeprune-cli"]);
    succeeds(build.arg("--target-dir").arg(target()?))?;
    Ok(target()?.join("release/moeprune"))
}
