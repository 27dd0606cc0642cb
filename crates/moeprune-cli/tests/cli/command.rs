//! Running the binary on copies of small checkpoints.

use std::{
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use tempfile::TempDir;

/// A folder to work in, with a copy of a model in `model` and a token file `tokens.jsonl`.
pub(crate) struct Scratch {
    directory: TempDir,
}

/// What a run printed, with the folder's path replaced by `[DIR]`.
pub(crate) struct Ran {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Scratch {
    pub(crate) fn new(model: &str) -> Self {
        let scratch = Self { directory: tempfile::tempdir().unwrap() };
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../assets/parity").join(model);
        fs::create_dir(scratch.path("model")).unwrap();
        for entry in fs::read_dir(source).unwrap().map(Result::unwrap) {
            let name = entry.file_name();
            if entry.file_type().unwrap().is_file() && name != "ref.safetensors" {
                fs::copy(entry.path(), scratch.path("model").join(name)).unwrap();
            }
        }
        let mut tokens = String::new();
        for block in 0..4u32 {
            let ids: Vec<u32> = (0..32u32).map(|i| (block * 97 + i * i * 31 + i) % 256).collect();
            writeln!(tokens, "{{\"tokens\":{ids:?}}}").unwrap();
        }
        fs::write(scratch.path("tokens.jsonl"), tokens).unwrap();
        scratch
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Runs `moeprune` in the folder; arguments are separated by spaces.
    pub(crate) fn run(&self, arguments: &str) -> Ran {
        self.run_in(arguments, &[])
    }

    /// The same with variables of the environment.
    pub(crate) fn run_in(&self, arguments: &str, variables: &[(&str, &str)]) -> Ran {
        let output = Command::new(env!("CARGO_BIN_EXE_moeprune"))
            .args(arguments.split_whitespace())
            .current_dir(self.directory.path())
            .env("RUST_BACKTRACE", "0")
            .env_remove("CLICOLOR_FORCE")
            .env_remove("NO_COLOR")
            .envs(variables.iter().copied())
            .stdin(std::process::Stdio::null())
            .output()
            .unwrap();
        let real = self.directory.path().canonicalize().unwrap();
        let text = |bytes: Vec<u8>| {
            String::from_utf8(bytes).unwrap().replace(real.to_str().unwrap(), "[DIR]")
        };
        Ran {
            code: output.status.code().unwrap(),
            stdout: text(output.stdout),
            stderr: text(output.stderr),
        }
    }

    /// Runs `moeprune` and expects success.
    pub(crate) fn ok(&self, arguments: &str) -> Ran {
        let ran = self.run(arguments);
        assert_eq!(ran.code, 0, "moeprune {arguments}\n{}{}", ran.stdout, ran.stderr);
        ran
    }

    /// Names in the folder, sorted.
    pub(crate) fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(self.directory.path()).unwrap();
        let mut names: Vec<String> =
            entries.map(|e| e.unwrap().file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }
}

/// How calibration is given in these tests.
pub(crate) const CALIBRATION: &str = "--calibration tokens.jsonl --samples 4 --seq-len 32";
