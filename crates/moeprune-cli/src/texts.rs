//! Calibration text that is named on the command line.

use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use moeprune::{ChatOptions, Error, TextFiles};
use moeprune_files::{RunFiles, StandIn};
use serde_json::Value;

/// What conversations in calibration text are given.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Calibration")]
#[non_exhaustive]
pub struct ChatArgs {
    /// System message for conversations in the calibration text that have none
    #[arg(long, value_name = "TEXT")]
    pub system: Option<String>,
    /// Tools (a JSON array, as transformers' `tools`) for conversations that name none; the model's chat template
    /// has to take them
    #[arg(long, value_name = "FILE")]
    pub tools: Option<PathBuf>,
}

/// What makes a domain of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[non_exhaustive]
pub enum DomainFrom {
    /// Each file, under its name without endings
    File,
}

/// Calibration text of a command.
#[derive(Debug)]
pub(crate) struct Texts<'a> {
    paths: &'a [PathBuf],
    system: Option<&'a str>,
    tools: Option<Value>,
}

impl ChatArgs {
    /// The text at `paths`, `None` of none. Its files are recognised, and declared as what the run reads.
    ///
    /// # Errors
    /// If a file cannot be read or is not text, the tools are none, or something is given for conversations that
    /// there are none of.
    pub(crate) fn texts<'a>(
        &'a self,
        paths: &'a [PathBuf],
        files: &mut RunFiles,
    ) -> Result<Option<Texts<'a>>, Error> {
        if paths.is_empty() {
            return match self {
                Self { system: None, tools: None } => Ok(None),
                _ => Err(Error::Request(
                    "--system and --tools are for conversations in calibration text: pass --calibration FILE".into(),
                )),
            };
        }
        files.reads_all(&self.tools);
        let tools = self.tools.as_deref().map(read_tools).transpose()?;
        let texts = Texts { paths, system: self.system.as_deref(), tools };
        let found = texts.files().find()?;
        found.notes().iter().for_each(|note| crate::log::say(&format!("note: {note}")));
        files.reads_all(found.files().iter().map(|file| file.path()));
        Ok(Some(texts))
    }
}

impl Texts<'_> {
    /// The text as one.
    pub(crate) fn files(&self) -> TextFiles<'_> {
        TextFiles::new(self.paths).with_chat(self.chat()).stopping(crate::interrupt::asked)
    }

    /// Each file by itself, the name of its domain, and where in `folder`, which is made if it is not there, its
    /// observation goes.
    ///
    /// # Errors
    /// If two files have the same name without endings, or the folder cannot be made.
    pub(crate) fn by_file(&self, folder: &Path) -> Result<Vec<Domain>, Error> {
        let domains = self.files().domains()?;
        std::fs::create_dir_all(folder).map_err(|e| Error::io(folder, "make", e))?;
        let place = |(name, file)| {
            let output = folder.join(format!("{name}.obs.safetensors"));
            Domain { name, file, output }
        };
        Ok(domains.into_iter().map(place).collect())
    }

    /// What conversations are given.
    pub(crate) fn chat(&self) -> ChatOptions<'_> {
        ChatOptions { system: self.system, tools: self.tools.as_ref() }
    }
}

/// Declares texts as what a run reads: files, and the files of folders and patterns. What is wrong with one is said
/// where it is read.
pub(crate) fn reads_texts<'a>(files: &mut RunFiles, paths: impl IntoIterator<Item = &'a PathBuf>) {
    for path in paths {
        if path.is_file() || !path.exists() {
            files.reads(path);
        }
        if let (false, Ok(found)) = (path.is_file(), TextFiles::from(path).find()) {
            files.reads_all(found.files().iter().map(|file| file.path()));
        }
    }
}

/// A file that is a domain of its own.
#[derive(Debug)]
pub(crate) struct Domain {
    /// Its name.
    pub(crate) name: String,
    /// Where its text is.
    pub(crate) file: PathBuf,
    /// Where its observation goes.
    pub(crate) output: PathBuf,
}

/// Reads tools that a chat template is handed.
fn read_tools(path: &Path) -> Result<Value, Error> {
    let text = std::fs::read_to_string(path).map_err(|e| Error::io(path, "read", e))?;
    let bad = |what: String| {
        Error::Request(format!("{}: expected a JSON array of tools, got {what}", path.display()))
    };
    if let Some(stand_in) = StandIn::pointer(text.as_bytes()) {
        return Err(Error::Request(format!("{} {stand_in}", path.display())));
    }
    match serde_json::from_str(text.trim_start_matches('\u{feff}')) {
        Ok(Value::Array(tools)) if tools.iter().all(Value::is_object) => Ok(Value::Array(tools)),
        Ok(Value::Array(_)) => Err(bad("one of something else than objects".into())),
        Ok(Value::Object(_)) => Err(bad("an object; put it in brackets".into())),
        Ok(_) => Err(bad("a value of another kind".into())),
        Err(error) => Err(bad(format!("what is not JSON: {error}"))),
    }
}
