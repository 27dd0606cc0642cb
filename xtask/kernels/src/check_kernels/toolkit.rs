//! Where NVRTC and ptxas are.

use std::{
    env, fs,
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail, ensure};
use cudarc::nvrtc::{CompileError, CompileOptions, compile_ptx_with_opts};

use super::{assembler::Assembler, source::Kernels};

/// The compiler that the committed PTX is by.
pub(super) const VERSION: &str = "13.0.88";

const LIBRARY_PATH: &str = "LD_LIBRARY_PATH";

/// Folders that may hold libraries or programs of CUDA, the most wanted first.
pub(super) struct Toolkit {
    folders: Vec<PathBuf>,
}

/// NVRTC, ready to be called.
pub(super) struct Compiler(());

/// What a source was made into.
pub(super) struct Compiled {
    /// As it is committed.
    pub(super) ptx: String,
    /// Whether the compiler is the one that committed PTX is by.
    pub(super) pinned: bool,
}

/// Installs the compilers' wheels; the Python that has them.
pub(super) fn install(folder: &Path) -> Result<PathBuf> {
    let python = folder.join("bin/python3");
    let run = |command: &mut Command| -> Result<()> {
        let status = command.status().context("cannot start Python")?;
        ensure!(status.success(), "cannot install the compilers in {}", folder.display());
        Ok(())
    };
    if !python.exists() {
        run(Command::new("python3").args(["-m", "venv"]).arg(folder))?;
    }
    let wheels = ["nvrtc", "nvcc"].map(|name| format!("nvidia-cuda-{name}=={VERSION}"));
    run(Command::new(&python).args(["-m", "pip", "install", "--quiet"]).args(wheels))?;
    Ok(python)
}

impl Toolkit {
    pub(super) fn find(toolkit: Option<&Path>, python: Option<&Path>) -> Result<Self> {
        let mut folders = Vec::new();
        let variables = ["CUDA_HOME", "CUDA_PATH"].into_iter().filter_map(env::var_os);
        let wheels = python.map(wheels).transpose()?;
        let roots = toolkit.map(Path::to_owned).into_iter().chain(wheels);
        for root in roots.chain(variables.map(PathBuf::from)) {
            folders.extend(["lib64", "lib", "bin"].map(|part| root.join(part)));
        }
        for variable in [LIBRARY_PATH, "PATH"] {
            let value = env::var_os(variable).unwrap_or_default();
            folders.extend(env::split_paths(&value).filter(|path| path.is_absolute()));
        }
        Ok(Self { folders })
    }

    /// NVRTC, if it is there.
    ///
    /// It is called in this process: unlike nvcc, it needs neither a host compiler nor CUDA's headers, and makes the same
    /// PTX everywhere. The loader looks at its path once, when a process starts: so this process starts again if NVRTC is
    /// elsewhere.
    pub(super) fn compiler(&self) -> Result<Option<Compiler>> {
        if loads() {
            return Ok(Some(Compiler(())));
        }
        let is_nvrtc = |name: &str| name.starts_with("libnvrtc.so");
        let holds = |folder: &&PathBuf| {
            fs::read_dir(folder).is_ok_and(|mut files| {
                files.any(|file| file.is_ok_and(|f| f.file_name().to_str().is_some_and(is_nvrtc)))
            })
        };
        let Some(folder) = self.folders.iter().find(holds) else { return Ok(None) };
        let before = env::var_os(LIBRARY_PATH).unwrap_or_default();
        let before: Vec<_> = env::split_paths(&before).filter(|path| path.is_absolute()).collect();
        if before.contains(folder) {
            bail!("NVRTC in {} cannot be loaded", folder.display());
        }
        let path = env::join_paths([folder].into_iter().chain(&before))?;
        let error = Command::new(env::current_exe()?)
            .args(env::args_os().skip(1))
            .env(LIBRARY_PATH, path)
            .exec();
        Err(error).context("cannot start again with NVRTC's folder in the library path")
    }

    pub(super) fn assembler(&self) -> Option<Assembler> {
        self.folders.iter().map(|folder| folder.join("ptxas")).find(|p| p.is_file()).map(Assembler)
    }
}

#[expect(unsafe_code, reason = "asks whether there is a library without loading it for good")]
fn loads() -> bool {
    // SAFETY: it opens NVRTC and closes it again.
    unsafe { cudarc::nvrtc::sys::is_culib_present() }
}

/// The folder of CUDA 13's wheels in a Python.
fn wheels(python: &Path) -> Result<PathBuf> {
    let code = "import nvidia; print(list(nvidia.__path__)[0])";
    let output = Command::new(python).args(["-c", code]).output().context("cannot start Python")?;
    ensure!(output.status.success(), "{} has no wheels of NVIDIA's", python.display());
    Ok(Path::new(String::from_utf8(output.stdout)?.trim()).join("cu13"))
}

impl Compiler {
    pub(super) fn compile(&self, kernels: &Kernels, device: &str) -> Result<Compiled> {
        let options = CompileOptions {
            options: vec![format!("--gpu-architecture={device}"), "--std=c++17".to_owned()],
            include_paths: vec![kernels.folder().display().to_string()],
            ..CompileOptions::default()
        };
        let compiled =
            compile_ptx_with_opts(&kernels.text, options).map_err(|error| match error {
                CompileError::CompileError { log, .. } => {
                    anyhow::anyhow!("{} for {device}:\n{}", kernels.name(), log.to_string_lossy())
                }
                error => anyhow::anyhow!("{} for {device}: {error:?}", kernels.name()),
            })?;
        let source = compiled.to_src();
        let pinned = source.contains(&format!("V{VERSION}\n"));
        Ok(Compiled { ptx: kernels.committed(&source), pinned })
    }
}
