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
    let TestCrates { driver_only, others } = TestCrates::of(&metadata()?)?;
    for crates in [driver_only, others] {
        for built in toolkit.build(&crates, &["test", "--no-run", "--test", "cuda"])? {
            place(&built, &bundle)?;
        }
    }
    for built in toolkit.build(&PROGRAMS.map(str::to_owned), &["build", "--bins"])? {
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
    fn build(&self, crates: &[String], command: &[&str]) -> Result<Vec<Built>> {
        if crates.is_empty() {
            return Ok(Vec::new());
        }
        let begun = Instant::now();
        let mut build = cargo();
        build.args(command).args(["--release", "--locked", "--features", "cuda"]);
        build.arg("--message-format=json-render-diagnostics");
        build.args(crates.iter().flat_map(|name| ["--package", name.as_str()]));
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

fn metadata() -> Result<Value> {
    let asked = cargo()
        .args(["metadata", "--no-deps", "--locked", "--format-version=1"])
        .stderr(Stdio::inherit())
        .output()
        .context("cannot run cargo")?;
    serde_json::from_slice(&asked.stdout).context("cargo metadata")
}

/// The workspace's crates that have a test target named `cuda`, built in two goes.
#[derive(Debug, PartialEq)]
struct TestCrates {
    /// Those whose feature `cuda` turns on no other crate's: alone, they need the driver only, and their tests shall show that.
    driver_only: Vec<String>,
    others: Vec<String>,
}

impl TestCrates {
    fn of(metadata: &Value) -> Result<Self> {
        let mut crates = Self { driver_only: Vec::new(), others: Vec::new() };
        for package in metadata["packages"].as_array().context("cargo named no packages")? {
            let mut targets = package["targets"].as_array().into_iter().flatten();
            if !targets.any(|target| target["kind"][0] == "test" && target["name"] == "cuda") {
                continue;
            }
            let name = package["name"].as_str().context("cargo named no package")?;
            let feature = package["features"]["cuda"].as_array();
            let feature = feature.with_context(|| format!("{name} has no feature `cuda`"))?;
            let own = |part: &Value| part.as_str().is_some_and(|part| !part.contains('/'));
            let group =
                if feature.iter().all(own) { &mut crates.driver_only } else { &mut crates.others };
            group.push(name.to_owned());
        }
        Ok(crates)
    }
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
    for program in programs(bundle)? {
        lines.push(format!("{}: {}", program.display(), needs(&bundle.join(&program))?));
    }
    lines.push(String::new());
    Ok(lines.join("\n"))
}

/// Programs and tests of the bundle, relative to it.
fn programs(bundle: &Path) -> Result<Vec<PathBuf>> {
    let names = |folder: &str| -> Result<Vec<PathBuf>> {
        let full = bundle.join(folder);
        let entries = fs::read_dir(&full).with_context(|| format!("no {}", full.display()))?;
        let names = entries.map(|entry| Ok(Path::new(folder).join(entry?.file_name())));
        let mut names = names.collect::<Result<Vec<_>>>()?;
        names.sort();
        Ok(names)
    };
    let tests = names("crates")?.into_iter().map(|folder| folder.join("cuda"));
    Ok(names("bin")?.into_iter().chain(tests).collect())
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

    use serde_json::json;

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
    fn crates_with_tests_for_a_device() {
        let package = |name: &str, target: &str, feature: Value| {
            json!({
                "name": name,
                "features": feature,
                "targets": [{"kind": ["lib"], "name": name}, {"kind": ["test"], "name": target}],
            })
        };
        let found = TestCrates::of(&json!({"packages": [
            package("model", "cuda", json!({"cuda": ["candle-core/cuda", "dep:cudarc"]})),
            package("score", "cuda", json!({"cuda": ["dep:cudarc"]})),
            package("files", "files", json!({})),
            package("top", "cuda", json!({"cuda": ["model/cuda"]})),
        ]}));
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        let expected =
            TestCrates { driver_only: names(&["score"]), others: names(&["model", "top"]) };
        assert_eq!(found.unwrap(), expected);
        let without = json!({"packages": [package("new", "cuda", json!({}))]});
        let error = TestCrates::of(&without).unwrap_err();
        assert_eq!(error.to_string(), "new has no feature `cuda`");
    }

    #[test]
    fn every_crate_with_tests_for_a_device_is_packed() {
        let TestCrates { driver_only, others } = TestCrates::of(&metadata().unwrap()).unwrap();
        assert_eq!(driver_only, ["moeprune-score"]);
        assert!(others.contains(&"moeprune-model".to_owned()), "{others:?}");
    }

    #[test]
    fn programs_of_a_bundle() {
        let bundle = tempfile::tempdir().unwrap();
        for file in ["bin/moeprune-bench", "bin/moeprune", "crates/a/cuda"] {
            let path = bundle.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        }
        let expected = ["bin/moeprune", "bin/moeprune-bench", "crates/a/cuda"].map(PathBuf::from);
        assert_eq!(programs(bundle.path()).unwrap(), expected);
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
