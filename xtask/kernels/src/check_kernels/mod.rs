//! `cargo xtask check-kernels`: the CUDA kernels, compiled and assembled on a machine that need have no GPU.

mod assembler;
mod source;
mod toolkit;

use std::{fs, path::PathBuf};

use anyhow::{Context as _, Result, ensure};
use clap::Args;

use self::{
    assembler::Assembler,
    source::{Kernels, find},
    toolkit::Toolkit,
};

/// Check that the kernels compile, that the committed PTX is theirs, and that no register is spilled
///
/// NVRTC and ptxas are looked for in the folder or the Python given, in $CUDA_HOME, $CUDA_PATH and $LD_LIBRARY_PATH. What
/// is not found is skipped with a line that says so.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// A CUDA toolkit
    #[arg(long, value_name = "DIR")]
    toolkit: Option<PathBuf>,
    /// A Python that has NVIDIA's wheels
    #[arg(long, value_name = "PYTHON")]
    python: Option<PathBuf>,
    /// First make a Python environment in DIR and install the wheels there (0.5 GB)
    #[arg(long, value_name = "DIR", conflicts_with = "python")]
    install: Option<PathBuf>,
    /// Write the PTX and the registers instead of comparing them
    #[arg(long)]
    write: bool,
}

/// What is compiled and committed: PTX of the oldest device supported runs on all later ones.
const COMMITTED: &str = "compute_80";
/// Devices whose instructions the PTX is assembled to; source is compiled for them as well.
const ASSEMBLED: [&str; 2] = ["sm_80", "sm_90"];

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let python = match &arguments.install {
        Some(folder) => Some(toolkit::install(folder)?),
        None => arguments.python.clone(),
    };
    let toolkit = Toolkit::find(arguments.toolkit.as_deref(), python.as_deref())?;
    let all = find()?;
    match toolkit.compiler()? {
        Some(compiler) => {
            for kernels in &all {
                compare_ptx(kernels, &compiler, arguments.write)?;
            }
        }
        None => line!("skipped: kernels are not compiled, there is no NVRTC (try --install DIR)")?,
    }
    match toolkit.assembler() {
        Some(assembler) => compare_registers(&all, &assembler, arguments.write),
        None => {
            line!("skipped: registers are not counted, there is no ptxas (try --install DIR)")?;
            Ok(())
        }
    }
}

fn compare_ptx(kernels: &Kernels, compiler: &toolkit::Compiler, write: bool) -> Result<()> {
    for device in ASSEMBLED {
        compiler.compile(kernels, &device.replace("sm_", "compute_"))?;
    }
    let compiled = compiler.compile(kernels, COMMITTED)?;
    let path = kernels.ptx();
    if !compiled.pinned {
        line!("skipped: {} compiles, but not by NVRTC {}", kernels.name(), toolkit::VERSION)?;
    } else if write {
        fs::write(&path, compiled.ptx)
            .with_context(|| format!("cannot write {}", path.display()))?;
        line!("{}: written", path.display())?;
    } else {
        let committed = fs::read_to_string(&path).unwrap_or_default();
        ensure!(
            committed == compiled.ptx,
            "{} is not what NVRTC makes of {}; run `cargo xtask check-kernels --write`",
            path.display(),
            kernels.name()
        );
        line!("{}: compiles to the committed PTX", kernels.name())?;
    }
    Ok(())
}

/// Compares a line for each kernel and device with those committed beside the kernels of a crate.
fn compare_registers(all: &[Kernels], assembler: &Assembler, write: bool) -> Result<()> {
    for of_crate in all.chunk_by(|a, b| a.folder() == b.folder()) {
        let mut lines = String::new();
        for kernels in of_crate {
            for device in ASSEMBLED {
                lines += &assembler.registers(&kernels.ptx(), device)?;
            }
        }
        let path = of_crate[0].folder().join("registers.txt");
        if write {
            fs::write(&path, lines).with_context(|| format!("cannot write {}", path.display()))?;
            line!("{}: written", path.display())?;
        } else {
            let committed = fs::read_to_string(&path).unwrap_or_default();
            let changed = lines.lines().find(|line| !committed.lines().any(|old| old == *line));
            ensure!(
                committed == lines,
                "{} differs ({}); run `cargo xtask check-kernels --write` and look at what changed",
                path.display(),
                changed.unwrap_or("a kernel is gone or moved")
            );
            line!("{}: registers as committed, none spilled", path.display())?;
        }
    }
    Ok(())
}
