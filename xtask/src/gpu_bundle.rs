//! `cargo xtask gpu-bundle`: what a machine with a GPU needs to check moeprune, in one file.

use std::{
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Instant,
};

use anyhow::{Context as _, Result, bail, ensure};
use clap::Args;
use moeprune::files::{OutputKind, RunFiles};
use serde_json::Value;

use crate::{
    binary::{cargo, target_directory},
    embedded,
};

/// Pack the binary and its tests with the `cuda` feature for a machine with a GPU and without Rust
///
/// The tests are the targets named `cuda`. `scripts/cuda-toolkit.sh DIR` makes a toolkit where there is none.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// CUDA 13.0 toolkit: a folder with bin/nvcc, include and lib64
    #[arg(long, value_name = "DIR")]
    toolkit: PathBuf,
    /// File to write [default: moeprune-gpu-check.tar.xz in the target folder]
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Compute capability that candle's kernels are compiled for: 90 is an H100's
    #[arg(long, value_name = "N", default_value_t = 90)]
    compute_capability: u32,
}

const NAME: &str = "moeprune-gpu-check";

/// More than this is a burden to carry to a machine.
const MOST_BYTES: u64 = 60_000_000;

/// Built apart: alone, the kernels' crate needs the driver only, and its tests shall show that.
const GROUPS: [&[&str]; 2] =
    [&["moeprune-score"], &["moeprune-model", "moeprune-capture", "moeprune"]];

/// Packages whose programs are in the bundle.
const PROGRAMS: [&str; 2] = ["moeprune-cli", "moeprune-bench"];

/// Copied as they are in the repository.
const DATA: [&str; 2] = ["assets/nano", "assets/parity"];

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let claimed = match &arguments.out {
        None => None,
        // The default is this command's own, and replaced.
        Some(out) => Some(RunFiles::new().claim("--out", out, OutputKind::Archive)?),
    };
    let toolkit = Toolkit::open(&arguments.toolkit, arguments.compute_capability)?;
    let target = target_directory()?;
    let staging = target.join("gpu-bundle");
    let bundle = staging.join(NAME);
    if staging.exists() {
        fs::remove_dir_all(&staging)?;
    }
    let tests = tests_named_cuda()?;
    for crates in GROUPS {
        let crates: Vec<&str> =
            crates.iter().copied().filter(|name| tests.iter().any(|test| test == name)).collect();
        for built in toolkit.build(&crates, &["test", "--no-run", "--test", "cuda"])? {
            place(&built, &bundle)?;
        }
    }
    for built in toolkit.build(&PROGRAMS, &["build", "--bins"])? {
        place(&built, &bundle)?;
    }
    for folder in DATA {
        copy_folder(&embedded::root().join(folder), &bundle.join(folder))?;
    }
    let scripts = embedded::root().join("scripts");
    fs::copy(scripts.join("gpu-check.sh"), bundle.join("gpu-check.sh"))?;
    fs::copy(scripts.join("gpu-check-readme.md"), bundle.join("README.md"))?;
    fs::write(bundle.join("version.txt"), version(arguments.compute_capability, &bundle)?)?;

    let packed = target.join(format!("{NAME}.tar.xz"));
    pack(&staging, &packed)?;
    let size = fs::metadata(&packed)?.len();
    if size > MOST_BYTES {
        fs::remove_file(&packed)?;
        bail!("packed it is {size} bytes, more than {MOST_BYTES}; see {}", bundle.display());
    }
    let out = arguments.out.as_ref().unwrap_or(&packed);
    if let Some(claimed) = claimed {
        let mut file = fs::File::open(&packed)?;
        claimed.write(|out| std::io::copy(&mut file, out).map(drop))?;
        fs::remove_file(&packed)?;
    }
    line!("{}: {:.1} MB", out.display(), size as f64 / 1e6)?;
    Ok(())
}

struct Toolkit {
    root: PathBuf,
    compute_capability: u32,
}

/// An executable that cargo made.
struct Built {
    /// A test's crate folder, or a program's name.
    name: String,
    is_test: bool,
    path: PathBuf,
}

impl Toolkit {
    fn open(folder: &Path, compute_capability: u32) -> Result<Self> {
        let advice = "scripts/cuda-toolkit.sh DIR makes one that works";
        let root = folder.canonicalize().with_context(|| format!("no {}", folder.display()))?;
        let nvcc = root.join("bin/nvcc");
        let asked = Command::new(&nvcc).arg("--version").output();
        let asked = asked.with_context(|| format!("cannot run {}; {advice}", nvcc.display()))?;
        let version = String::from_utf8_lossy(&asked.stdout);
        ensure!(
            version.contains("release 13.0,"),
            "expected a toolkit of CUDA 13.0 in {}, got {:?}: a driver for 13.0 refuses kernels of a newer compiler; \
             {advice}",
            root.display(),
            version.lines().find(|line| line.contains("release")).unwrap_or("no version"),
        );
        Ok(Self { root, compute_capability })
    }

    /// Builds the crates with cargo's `command`.
    fn build(&self, crates: &[&str], command: &[&str]) -> Result<Vec<Built>> {
        if crates.is_empty() {
            return Ok(Vec::new());
        }
        let begun = Instant::now();
        let mut build = cargo();
        build.args(command).args(["--release", "--locked", "--features", "cuda"]);
        build.arg("--message-format=json-render-diagnostics");
        build.args(crates.iter().flat_map(|name| ["--package", name]));
        build.env("CUDA_HOME", &self.root).env("PATH", self.path()?);
        build.env("CUDA_COMPUTE_CAP", self.compute_capability.to_string()).env_remove("NVCC");
        let built = build.stderr(Stdio::inherit()).output().context("cannot run cargo")?;
        ensure!(built.status.success(), "{} do not build", crates.join(", "));
        line!("built {}: {:.0} s", crates.join(", "), begun.elapsed().as_secs_f64())?;
        let messages = String::from_utf8_lossy(&built.stdout);
        Ok(messages.lines().filter_map(executable).collect())
    }

    /// The toolkit's programs before all others.
    fn path(&self) -> Result<OsString> {
        let others = std::env::var_os("PATH").unwrap_or_default();
        let all = [self.root.join("bin")].into_iter().chain(std::env::split_paths(&others));
        Ok(std::env::join_paths(all)?)
    }
}

/// What a line of cargo's messages says was made, if it is a program to run on the other machine.
fn executable(line: &str) -> Option<Built> {
    let message: Value = serde_json::from_str(line).ok()?;
    let path = message.get("executable")?.as_str()?.into();
    let manifest = Path::new(message["manifest_path"].as_str()?);
    let is_test = message["target"]["kind"][0] == "test";
    let name = match is_test {
        true => manifest.parent()?.file_name()?.to_str()?,
        false => message["target"]["name"].as_str()?,
    };
    Some(Built { name: name.to_owned(), is_test, path })
}

/// The workspace's crates that have a test target of this name.
fn tests_named_cuda() -> Result<Vec<String>> {
    let asked = cargo()
        .args(["metadata", "--no-deps", "--format-version=1"])
        .stderr(Stdio::inherit())
        .output()
        .context("cannot run cargo")?;
    let metadata: Value = serde_json::from_slice(&asked.stdout).context("cargo metadata")?;
    let has_test = |package: &&Value| {
        let mut targets = package["targets"].as_array().into_iter().flatten();
        targets.any(|target| target["kind"][0] == "test" && target["name"] == "cuda")
    };
    let packages = metadata["packages"].as_array().context("cargo named no packages")?;
    let names = packages.iter().filter(has_test).filter_map(|package| package["name"].as_str());
    Ok(names.map(str::to_owned).collect())
}

/// Copies a program to its place, without symbols. A crate's tests look for data from its folder.
fn place(built: &Built, bundle: &Path) -> Result<()> {
    let to = match built.is_test {
        true => bundle.join("crates").join(&built.name).join("cuda"),
        false => bundle.join("bin").join(&built.name),
    };
    fs::create_dir_all(to.parent().context("a file is in a folder")?)?;
    succeed(Command::new("strip").arg("-o").arg(&to).arg(&built.path))
}

fn copy_folder(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from).with_context(|| format!("no {}", from.display()))? {
        let entry = entry?;
        let copy = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_folder(&entry.path(), &copy)?;
        } else {
            fs::copy(entry.path(), copy)?;
        }
    }
    Ok(())
}

/// What this is and what it needs, one line each.
fn version(compute_capability: u32, bundle: &Path) -> Result<String> {
    let mut git = Command::new("git");
    git.args(["describe", "--always", "--dirty", "--abbrev=12"]).current_dir(embedded::root());
    let commit = git.output().ok().filter(|git| git.status.success());
    let commit = commit.map_or_else(|| b"unknown".to_vec(), |git| git.stdout);
    let commit = String::from_utf8_lossy(&commit).trim().to_owned();
    let mut lines = vec![format!(
        "commit {commit}, CUDA 13.0, compute capability {compute_capability}a, which nothing later runs"
    )];
    for program in ["bin/moeprune", "crates/moeprune-score/cuda"] {
        let path = bundle.join(program);
        if path.exists() {
            lines.push(format!("{program}: {}", needs(&path)?));
        }
    }
    lines.push(String::new());
    Ok(lines.join("\n"))
}

/// Libraries that a program is linked to, and the newest glibc that it asks for.
fn needs(program: &Path) -> Result<String> {
    let read = |what: &str| -> Result<String> {
        let read = Command::new("readelf").args([what, "--wide"]).arg(program).output();
        Ok(String::from_utf8_lossy(&read.context("cannot run readelf")?.stdout).into_owned())
    };
    let dynamic = read("--dynamic")?;
    let libraries = dynamic.lines().filter(|line| line.contains("(NEEDED)"));
    let names = libraries.filter_map(|line| Some(line.split_once('[')?.1.trim_end_matches(']')));
    let versions = read("--version-info")?;
    let minor = |text: &str| text.split(|c: char| !c.is_ascii_digit()).next()?.parse::<u32>().ok();
    let newest = versions.split("GLIBC_2.").skip(1).filter_map(minor).max();
    let glibc = newest.map(|minor| format!("glibc 2.{minor}"));
    Ok(names.map(str::to_owned).chain(glibc).collect::<Vec<_>>().join(", "))
}

/// Packs the folder's one entry. Programs with CUDA share most of their bytes, which a dictionary wide enough finds.
fn pack(staging: &Path, out: &Path) -> Result<()> {
    let mut tar = Command::new("tar");
    tar.args([
        "--create",
        "--sort=name",
        "--mtime=@0",
        "--owner=0",
        "--group=0",
        "--numeric-owner",
    ]);
    tar.arg("--use-compress-program=xz --lzma2=preset=6,dict=128MiB").arg("--file").arg(out);
    succeed(tar.arg("--directory").arg(staging).arg(NAME))
}

fn succeed(command: &mut Command) -> Result<()> {
    let program = command.get_program().to_owned();
    let status = command.status();
    let status = status.with_context(|| format!("cannot run {}", program.display()))?;
    ensure!(status.success(), "{} failed: {status}", program.display());
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn programs_in_cargos_messages() {
        let line = r#"{"manifest_path": "/w/crates/moeprune-score/Cargo.toml",
            "target": {"kind": ["test"], "name": "cuda"}, "executable": "/w/target/cuda-1"}"#;
        let built = executable(line).unwrap();
        assert_eq!((built.name.as_str(), built.is_test), ("moeprune-score", true));
        assert_eq!(built.path, Path::new("/w/target/cuda-1"));
        let line = r#"{"manifest_path": "/w/xtask/bench/Cargo.toml",
            "target": {"kind": ["bin"], "name": "moeprune-bench"}, "executable": "/w/target/moeprune-bench"}"#;
        let built = executable(line).unwrap();
        assert_eq!((built.name.as_str(), built.is_test), ("moeprune-bench", false));
        assert!(executable(r#"{"reason": "build-finished", "success": true}"#).is_none());
        assert!(executable(r#"{"executable": null}"#).is_none());
    }

    #[test]
    fn a_toolkit_of_another_version_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let missing = Toolkit::open(folder.path(), 90).err().unwrap();
        assert!(format!("{missing:#}").contains("cuda-toolkit.sh"), "{missing:#}");
        let nvcc = folder.path().join("bin/nvcc");
        fs::create_dir(nvcc.parent().unwrap()).unwrap();
        fs::write(&nvcc, "#!/bin/sh\necho 'Cuda compilation tools, release 13.5, V13.5.1'\n")
            .unwrap();
        fs::set_permissions(&nvcc, fs::Permissions::from_mode(0o755)).unwrap();
        let newer = Toolkit::open(folder.path(), 90).err().unwrap();
        assert!(
            newer.to_string().contains("got \"Cuda compilation tools, release 13.5"),
            "{newer}"
        );
    }
}
