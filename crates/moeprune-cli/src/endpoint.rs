//! Options of commands that can ask a server in place of running a model.

use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use clap::Args;
use moeprune::{
    Error, Progress,
    endpoint::{Endpoint, EndpointOptions, Error as EndpointError, Journal, RunKey},
};
use moeprune_core::plural;
use moeprune_files::RunFiles;

use crate::{options::positive, terminal::Terminal};

/// Where the server's key is read.
const KEY: &str = "OPENAI_API_KEY";

/// How often it is looked whether a server is there.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// How a server is asked.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Endpoint")]
#[non_exhaustive]
pub struct CallArgs {
    /// The model's name there, if the server serves several
    #[arg(long, value_name = "NAME")]
    pub endpoint_model: Option<String>,
    /// Calls made at a time [default: 8]
    #[arg(long, value_name = "N", value_parser = positive)]
    pub concurrency: Option<usize>,
    /// Seconds after which a call is given up and made again [default: 300]
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub timeout: Option<u64>,
    /// How often a call is made again where the server is overloaded or the connection cut [default: 8]
    #[arg(long, value_name = "N")]
    pub retries: Option<u32>,
}

/// A server that is asked in place of running the model.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Endpoint")]
#[non_exhaustive]
pub struct EndpointArgs {
    /// Ask the model that is served here, over the completions API of OpenAI (vLLM, SGLang, llama.cpp and others), for
    /// example http://localhost:8000/v1. MODEL, if it is given, is for its tokenizer. The key, if one is needed, is read
    /// from the variable OPENAI_API_KEY
    #[arg(long, value_name = "URL", conflicts_with = "against")]
    pub endpoint: Option<String>,
    /// Keep answers here as they come, so that the same command asks only what is missing after an interruption
    /// [default: with --endpoint the file of --json with .journal added, until that is written]
    #[arg(long, value_name = "FILE", conflicts_with = "against")]
    pub journal: Option<PathBuf>,
    /// How calls to it are made.
    #[command(flatten)]
    pub calls: CallArgs,
}

/// A served model on a command line that compares several: its checkpoint, unless it is the command's own model, and
/// where it is served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ServedPlace {
    pub(crate) directory: Option<PathBuf>,
    pub(crate) url: String,
}

impl std::str::FromStr for ServedPlace {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let place = |directory: Option<&str>, url: &str| match url.contains("://") {
            true => Ok(Self { directory: directory.map(PathBuf::from), url: url.to_owned() }),
            false => Err(format!("`{text}` is neither URL nor DIR=URL")),
        };
        match text.split_once('=') {
            Some(("", _)) => Err(format!("`{text}` names no directory before the =")),
            Some((directory, url)) if !directory.contains("://") => place(Some(directory), url),
            _ => place(None, text),
        }
    }
}

impl CallArgs {
    /// Finds the server and the model.
    ///
    /// # Errors
    /// As [`Endpoint::connect_unless`].
    pub fn connect(&self, url: &str, progress: &dyn Progress) -> Result<Endpoint, Error> {
        let mut options = EndpointOptions::default();
        options.model.clone_from(&self.endpoint_model);
        options.key = match std::env::var(KEY) {
            Ok(key) => Some(key),
            Err(std::env::VarError::NotPresent) => None,
            Err(std::env::VarError::NotUnicode(_)) => return Err(EndpointError::Key.into()),
        };
        options.concurrency = self.concurrency.unwrap_or(options.concurrency);
        options.retries = self.retries.unwrap_or(options.retries);
        if let Some(seconds) = self.timeout {
            options.timeout = Duration::from_secs(seconds);
        }
        Ok(Endpoint::connect_unless(url, options, &|| progress.should_stop())?)
    }

    /// As [`connect`](Self::connect), of a server that is started meanwhile: waits until it is there, and says so.
    ///
    /// # Errors
    /// As [`connect`](Self::connect), but if nothing answers there yet; if it is asked to stop.
    pub fn connect_once_served(
        &self,
        url: &str,
        model: &Path,
        terminal: &mut Terminal,
    ) -> Result<Endpoint, Error> {
        let mut is_first = true;
        loop {
            match self.connect(url, terminal) {
                Err(Error::Endpoint(error)) if error.is_not_there() => {}
                found => return found,
            }
            if std::mem::take(&mut is_first) {
                terminal.note(&format!(
                    "waiting for a server at {url}: serve {} there",
                    model.display()
                ));
            }
            let until = Instant::now() + LOOK_EVERY;
            while Instant::now() < until {
                if terminal.should_stop() {
                    return Err(EndpointError::Stopped.into());
                }
                std::thread::sleep(Duration::from_millis(50));
            }
        }
    }

    /// Refuses options of calls where none is made.
    ///
    /// # Errors
    /// If one is given.
    pub fn check_unused(&self) -> Result<(), Error> {
        let given = [
            ("--endpoint-model", self.endpoint_model.is_some()),
            ("--concurrency", self.concurrency.is_some()),
            ("--timeout", self.timeout.is_some()),
            ("--retries", self.retries.is_some()),
        ];
        match given.iter().find(|(_, given)| *given) {
            None => Ok(()),
            Some((option, _)) => {
                Err(Error::Request(format!("{option} is for a served model: pass --endpoint URL")))
            }
        }
    }
}

/// Where answers are kept: the file that was asked for, or one beside the result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct JournalPlace {
    path: PathBuf,
    /// Whether it goes once the result is written.
    is_for_result: bool,
}

impl JournalPlace {
    /// The file of --journal; for a served model otherwise one beside `json`, unless that is no file.
    pub(crate) fn find(
        args: &EndpointArgs,
        json: Option<&Path>,
        files: &mut RunFiles,
    ) -> Option<Self> {
        let place = match (&args.journal, json) {
            (Some(path), _) => Self { path: path.clone(), is_for_result: false },
            (None, Some(json)) if args.endpoint.is_some() && (!json.exists() || json.is_file()) => {
                let mut path = json.as_os_str().to_owned();
                path.push(".journal");
                Self { path: path.into(), is_for_result: true }
            }
            _ => return None,
        };
        files.makes(&place.path);
        Some(place)
    }

    /// Opens the journal of a run, and says what an earlier run left in it.
    pub(crate) fn open(self, run: &RunKey, terminal: &mut Terminal) -> Result<KeptJournal, Error> {
        let journal = Journal::open(&self.path, run)?;
        let found = journal.found();
        if found > 0 {
            terminal.note(&format!(
                "resuming: {} {} in {}",
                plural(found, "answer"),
                if found == 1 { "is" } else { "are" },
                self.path.display()
            ));
        }
        Ok(KeptJournal { journal, is_for_result: self.is_for_result })
    }
}

/// The journal of a run that is under way.
#[derive(Debug)]
pub(crate) struct KeptJournal {
    journal: Journal,
    is_for_result: bool,
}

impl KeptJournal {
    pub(crate) fn journal(&mut self) -> &mut Journal {
        &mut self.journal
    }

    /// Says where the answers of an evaluation that ended early are. One that has none is not left beside the result.
    pub(crate) fn leave(self, terminal: &mut Terminal) {
        if self.journal.is_empty() {
            return self.finish(terminal);
        }
        terminal.note(&format!(
            "answers are kept in {}: the same command asks only what is missing",
            self.journal.path().display()
        ));
    }

    /// The result is written: a journal that was kept for it alone goes.
    pub(crate) fn finish(self, terminal: &mut Terminal) {
        if self.is_for_result
            && let Err(error) = self.journal.remove()
        {
            terminal.note(&format!("note: {error}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_of_served_models() {
        let check = |text: &str, expected: Option<(Option<&str>, &str)>| {
            let expected = expected.map(|(dir, url)| ServedPlace {
                directory: dir.map(PathBuf::from),
                url: url.to_owned(),
            });
            assert_eq!(text.parse().ok(), expected, "{text}");
        };
        check("http://a:1/v1", Some((None, "http://a:1/v1")));
        check("cut=http://a:1/v1", Some((Some("cut"), "http://a:1/v1")));
        check("http://a/v1?x=1", Some((None, "http://a/v1?x=1")));
        check("cut", None);
        check("cut=", None);
        check("=http://a", None);
        check("", None);
    }

    #[test]
    fn journals_are_beside_files() {
        let folder = tempfile::tempdir().unwrap();
        let json = folder.path().join("out.json");
        let find = |url: Option<&str>, journal: Option<&str>, json: Option<&Path>| {
            let args = EndpointArgs {
                endpoint: url.map(str::to_owned),
                journal: journal.map(PathBuf::from),
                ..EndpointArgs::default()
            };
            let place = JournalPlace::find(&args, json, &mut RunFiles::new());
            place.map(|place| (place.path, place.is_for_result))
        };
        let url = Some("http://x");
        let beside = folder.path().join("out.json.journal");
        assert_eq!(find(url, None, None), None);
        assert_eq!(find(url, None, Some(&json)), Some((beside, true)));
        assert_eq!(find(url, Some("j"), Some(&json)), Some(("j".into(), false)));
        // A model that is run here has one only with --journal.
        assert_eq!(find(None, None, Some(&json)), None);
        assert_eq!(find(None, Some("j"), None), Some(("j".into(), false)));
        // A folder stands for all that is no file.
        assert_eq!(find(url, None, Some(folder.path())), None);
    }
}
