//! A CUDA driver that runs kernels on the CPU, for tests on machines without a GPU.
//!
//! `emulator/` is a `libcuda.so.1` in C++ and a header that lets a C++ compiler read kernel sources. [`build`] compiles
//! both at test time into a folder for `LD_LIBRARY_PATH`; the README tells what is emulated and what is not.

#![cfg(target_os = "linux")]

mod kernel_source;

use std::{
    collections::BTreeMap,
    env, fs,
    hash::{DefaultHasher, Hash, Hasher},
    io,
    os::unix::fs::{PermissionsExt as _, symlink},
    path::{Path, PathBuf},
    process::Command,
    sync::{Mutex, PoisonError},
};

const DRIVER: &str = "libcuda.so.1";
/// The libraries beside the driver, by what linkers call them: version, and whether the emulator has a source for them.
const LIBRARIES: [(&str, u32, bool); 5] = [
    ("cublas", 13, true),
    ("curand", 10, true),
    ("cudart", 13, true),
    // Linked by candle and never called.
    ("cublasLt", 13, false),
    ("nvrtc", 13, false),
];
const FLAGS: [&str; 8] = [
    "-std=gnu++17",
    "-O2",
    "-g1",
    "-fPIC",
    // A multiplication and an addition in a kernel round twice unless the kernel says fma.
    "-ffp-contract=off",
    // Kernels read memory as types that it was not written as.
    "-fno-strict-aliasing",
    "-Wall",
    "-Wno-unknown-pragmas",
];

/// What to build.
#[derive(Clone, Debug)]
pub struct Build {
    /// Kernel sources (`.cu`), each with all it needs in it. No two of their kernels may share a name.
    pub kernels: Vec<PathBuf>,
    /// Check every access of a kernel with AddressSanitizer. Programs then need its library preloaded, see
    /// [`preload`].
    pub sanitize: bool,
    /// Where to build. What is there and current is kept.
    pub folder: PathBuf,
}

/// Why the emulator was not built.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The C++ compiler refused a source.
    #[error("{source_file}: the C++ compiler failed; correct the source:\n{log}", source_file = source_file.display())]
    Compile {
        /// The first source of the command.
        source_file: PathBuf,
        /// What the compiler printed.
        log: String,
    },
    /// A file could not be read or written.
    #[error("{path}: {source}", path = path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// Builds the driver and the kernels and returns the folder for `LD_LIBRARY_PATH`, or `None`, with a line on standard
/// error, where there is no C++ compiler.
///
/// # Errors
/// If a source does not compile or a file cannot be read or written.
pub fn build(wanted: &Build) -> Result<Option<PathBuf>, Error> {
    // Tests of one process wait for the first; processes may build the same twice, under different names.
    static BUILDING: Mutex<()> = Mutex::new(());
    let _building = BUILDING.lock().unwrap_or_else(PoisonError::into_inner);
    let Some(compiler) = Compiler::find(wanted) else {
        print_skipped("no C++ compiler (tried $CXX and c++)");
        return Ok(None);
    };
    let mut libraries = BTreeMap::from([(PathBuf::from(DRIVER), compiler.driver()?)]);
    for (name, version, _) in LIBRARIES {
        let library = compiler.library(name, version, &libraries[Path::new(DRIVER)])?;
        libraries.insert(format!("lib{name}.so.{version}").into(), library);
    }
    for kernels in &wanted.kernels {
        let library = compiler.kernels(kernels, &libraries[Path::new(DRIVER)])?;
        let name = library.file_name().expect("libraries of kernels are files");
        libraries.insert(Path::new("kernels").join(name), library);
    }

    // A folder for this set of libraries alone: a running test keeps its own when sources change.
    let mut names = DefaultHasher::new();
    libraries.hash(&mut names);
    let set = wanted.folder.join(format!("set-{:016x}", names.finish()));
    create(&set.join("kernels"))?;
    for (name, library) in &libraries {
        replace(&set.join(name), |path| fs::copy(library, path).map(drop))?;
    }
    // Programs that dlopen ask for names without a version first; linkers ask for no other.
    link("libcuda.so.1", &set.join("libcuda.so"))?;
    for (name, version, _) in LIBRARIES {
        link(&format!("lib{name}.so.{version}"), &set.join(format!("lib{name}.so")))?;
    }
    Ok(Some(set))
}

/// Makes a folder that passes for a CUDA toolkit where candle's `cuda` feature is built for the emulation, and returns
/// it: for `CUDA_HOME`, with `bin/nvcc` in it for `NVCC`. What is built with it runs on the emulation only.
///
/// # Errors
/// If a file cannot be written.
pub fn toolkit(folder: &Path, libraries: &Path) -> Result<PathBuf, Error> {
    let toolkit = folder.join("toolkit");
    create(&toolkit.join("bin"))?;
    let nvcc = toolkit.join("bin/nvcc");
    let script = include_str!("../emulator/nvcc.sh");
    let written = |path: &Path| {
        fs::write(path, script)?;
        fs::set_permissions(path, fs::Permissions::from_mode(0o755))
    };
    if fs::read_to_string(&nvcc).is_ok_and(|there| there != script) {
        fs::remove_file(&nvcc).map_err(|source| Error::Io { path: nvcc.clone(), source })?;
    }
    replace(&nvcc, written)?;
    let lib = toolkit.join("lib64");
    if fs::read_link(&lib).is_ok_and(|there| there != libraries) {
        fs::remove_file(&lib).map_err(|source| Error::Io { path: lib.clone(), source })?;
    }
    replace(&lib, |path| symlink(libraries, path))?;
    Ok(toolkit)
}

/// What `LD_PRELOAD` has to name for programs that run on a driver built with [`Build::sanitize`].
#[must_use]
pub fn preload() -> Option<PathBuf> {
    let printed = Command::new(compiler_name()).arg("-print-file-name=libasan.so").output().ok()?;
    let path = PathBuf::from(String::from_utf8(printed.stdout).ok()?.trim());
    path.is_absolute().then_some(path)
}

/// The folder that tests of this workspace build in: `cuda-on-cpu` in Cargo's target folder.
#[must_use]
pub fn default_folder() -> PathBuf {
    let target = env::var_os("CARGO_TARGET_DIR").map(PathBuf::from);
    let target =
        target.unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target"));
    target.join("cuda-on-cpu")
}

#[expect(clippy::print_stderr, reason = "a skipped test must be seen")]
fn print_skipped(why: &str) {
    eprintln!("SKIPPED: CUDA on the CPU: {why}");
}

fn compiler_name() -> String {
    env::var("CXX").unwrap_or_else(|_| "c++".to_owned())
}

struct Compiler {
    name: String,
    version: Vec<u8>,
    sources: PathBuf,
    flags: Vec<&'static str>,
    folder: PathBuf,
}

impl Compiler {
    fn find(wanted: &Build) -> Option<Self> {
        let name = compiler_name();
        let version = Command::new(&name).arg("--version").output().ok()?.stdout;
        let mut flags = FLAGS.to_vec();
        if wanted.sanitize {
            flags.push("-fsanitize=address");
        }
        let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("emulator");
        Some(Self { name, version, sources, flags, folder: wanted.folder.clone() })
    }

    /// Builds `libcuda.so.1`, unless it is there for these very sources, and returns its path.
    fn driver(&self) -> Result<PathBuf, Error> {
        let sources = files(&self.sources, "cpp")?;
        let mut hasher = self.hasher_with_headers()?;
        for source in &sources {
            read(source)?.hash(&mut hasher);
        }
        self.cached("driver", hasher.finish(), |library| {
            let mut command = self.command();
            command
                .args(["-shared", "-Wl,-soname,libcuda.so.1", "-o"])
                .arg(library)
                .args(&sources)
                .arg("-ldl");
            run(command, &sources[0]).map(drop)
        })
    }

    /// Builds a library beside the driver, of nothing if there is no source, and returns its path.
    fn library(&self, name: &str, version: u32, driver: &Path) -> Result<PathBuf, Error> {
        let source = self.sources.join("libraries").join(name).with_extension("cpp");
        let has_source = LIBRARIES.iter().any(|&(of, _, has_source)| of == name && has_source);
        let mut hasher = self.hasher_with_headers()?;
        let text = if has_source { read(&source)? } else { Vec::new() };
        (version, driver, text).hash(&mut hasher);
        self.cached(name, hasher.finish(), |library| {
            let mut command = self.command();
            command.args(["-shared", "-o"]).arg(library);
            command.arg(format!("-Wl,-soname,lib{name}.so.{version}"));
            match has_source {
                true => command.arg(&source).arg(driver),
                false => command.args(["-x", "c++", "/dev/null"]),
            };
            run(command, &source).map(drop)
        })
    }

    /// Builds a source of kernels as a library, unless it is there for this very source, and returns its path.
    fn kernels(&self, source: &Path, driver: &Path) -> Result<PathBuf, Error> {
        let mut preprocess = self.command();
        preprocess
            .args(["-E", "-x", "c++", "-include"])
            .arg(self.sources.join("device.h"))
            .arg(source);
        let text = kernel_source::to_cpp(&run(preprocess, source)?);
        let mut hasher = self.hasher();
        text.hash(&mut hasher);
        let stem = source.file_stem().unwrap_or_default().to_string_lossy();
        self.cached(&stem, hasher.finish(), |library| {
            let cpp = library.with_extension("ii");
            fs::write(&cpp, &text).map_err(|source| Error::Io { path: cpp.clone(), source })?;
            let mut command = self.command();
            command.arg("-shared").arg(&cpp).arg("-o").arg(library).arg(driver);
            run(command, source).map(drop)
        })
    }

    /// What every library depends on.
    fn hasher(&self) -> DefaultHasher {
        let mut hasher = DefaultHasher::new();
        (&self.version, &self.flags).hash(&mut hasher);
        hasher
    }

    /// The same and the headers, for what is not preprocessed first.
    fn hasher_with_headers(&self) -> Result<DefaultHasher, Error> {
        let mut hasher = self.hasher();
        for (folder, extension) in [("", "h"), ("", "inc"), ("include", "h")] {
            for header in files(&self.sources.join(folder), extension)? {
                read(&header)?.hash(&mut hasher);
            }
        }
        Ok(hasher)
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.name);
        command.args(&self.flags).arg("-I").arg(self.sources.join("include"));
        command
    }

    fn cached(
        &self,
        stem: &str,
        hash: u64,
        make: impl FnOnce(&Path) -> Result<(), Error>,
    ) -> Result<PathBuf, Error> {
        let library = self.folder.join(format!("{stem}-{hash:016x}.so"));
        if !library.exists() {
            create(&self.folder)?;
            let unfinished = beside(&library);
            make(&unfinished)?;
            fs::rename(&unfinished, &library)
                .map_err(|source| Error::Io { path: library.clone(), source })?;
        }
        Ok(library)
    }
}

fn run(mut command: Command, source_file: &Path) -> Result<String, Error> {
    let output =
        command.output().map_err(|source| Error::Io { path: source_file.to_owned(), source })?;
    match output.status.success() {
        true => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
        false => Err(Error::Compile {
            source_file: source_file.to_owned(),
            log: String::from_utf8_lossy(&output.stderr).into_owned(),
        }),
    }
}

/// The files of a folder with this extension, sorted.
fn files(folder: &Path, extension: &str) -> Result<Vec<PathBuf>, Error> {
    let failed = |source| Error::Io { path: folder.to_owned(), source };
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if path.extension().is_some_and(|found| found == extension) {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

fn read(path: &Path) -> Result<Vec<u8>, Error> {
    fs::read(path).map_err(|source| Error::Io { path: path.to_owned(), source })
}

fn create(folder: &Path) -> Result<(), Error> {
    fs::create_dir_all(folder).map_err(|source| Error::Io { path: folder.to_owned(), source })
}

/// Makes a file under another name and moves it into place, so that no other process sees half of it.
fn replace(path: &Path, make: impl FnOnce(&Path) -> io::Result<()>) -> Result<(), Error> {
    if path.exists() {
        return Ok(());
    }
    let unfinished = beside(path);
    make(&unfinished)
        .and_then(|()| fs::rename(&unfinished, path))
        .map_err(|source| Error::Io { path: path.to_owned(), source })
}

fn link(target: &str, path: &Path) -> Result<(), Error> {
    replace(path, |path| symlink(target, path))
}

fn beside(path: &Path) -> PathBuf {
    let mut name = path.file_name().expect("a path of ours names a file").to_owned();
    name.push(format!(".{}", std::process::id()));
    path.with_file_name(name)
}
