//! A file that keeps answers as they come, so that an evaluation that was interrupted asks only what is missing.
//!
//! A line of JSON says which run it is of; each further line is an answer, under the hash of what was asked. Lines are
//! appended whole, so a process that dies leaves at most its last line torn, and that one is dropped.

use std::{
    collections::{HashMap, VecDeque},
    fs::{File, OpenOptions, TryLockError},
    io::{self, Read as _, Seek as _, SeekFrom, Write as _},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use moeprune_eval::{Ending, LogLikelihood};
use serde::{Deserialize, Serialize};

use crate::excerpt::excerpt;

/// The form of the file.
const VERSION: u32 = 1;
/// A machine that loses power loses at most the answers of this long.
const SYNC_EVERY: Duration = Duration::from_secs(1);

/// Why a journal cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JournalError {
    /// It could not be read or written.
    #[error("cannot {verb} the journal {}: {source}", path.display())]
    Io {
        /// What was tried.
        verb: &'static str,
        /// Which file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The file is something else.
    #[error(
        "{} is no journal of an evaluation ({reason}), and is not written over: name another file with --journal",
        path.display()
    )]
    NotAJournal {
        /// Which file.
        path: PathBuf,
        /// What it is taken for.
        reason: String,
    },
    /// The journal is of another run.
    #[error(
        "the journal {} is of another run: {differences}; name another file with --journal, or delete it to start over",
        path.display()
    )]
    OtherRun {
        /// Which file.
        path: PathBuf,
        /// What differs, with both values.
        differences: String,
    },
    /// A line in the middle is not what was written.
    #[error("line {line} of the journal {} is damaged ({reason}): delete that line, or the file to start over", path.display())]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// The line, counted from 1.
        line: usize,
        /// The parser's reason.
        reason: String,
    },
    /// Another process writes it.
    #[error("another run is writing the journal {}: wait for it, or name another file with --journal", path.display())]
    InUse {
        /// Which file.
        path: PathBuf,
    },
}

/// What makes two runs the same, by name: the model, the task, the hash of the data.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct RunKey(Vec<(String, String)>);

impl RunKey {
    /// A run of which nothing is said yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds what must be the same for answers to be used again.
    #[must_use]
    pub fn with(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.0.push((name.into(), value.into()));
        self
    }

    fn to_map(&self) -> serde_json::Map<String, serde_json::Value> {
        self.0.iter().map(|(name, value)| (name.clone(), value.clone().into())).collect()
    }
}

#[derive(Deserialize, Serialize)]
struct Header {
    moeprune_journal: u32,
    run: serde_json::Map<String, serde_json::Value>,
}

/// A line: what was asked, by its hash, and what came.
#[derive(Deserialize, Serialize)]
struct Line<'a> {
    of: std::borrow::Cow<'a, str>,
    #[serde(flatten)]
    kept: Kept,
}

/// What is kept of an answer.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(untagged)]
pub(crate) enum Kept {
    Text {
        text: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        ended: Option<Ending>,
    },
    Score {
        sum: f64,
        tokens: usize,
        greedy: bool,
    },
}

impl From<LogLikelihood> for Kept {
    fn from(score: LogLikelihood) -> Self {
        Self::Score { sum: score.sum, tokens: score.tokens, greedy: score.is_greedy }
    }
}

/// Answers kept in a file.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    file: File,
    /// Answers of earlier runs that are not used yet. What was asked twice has two.
    known: HashMap<String, VecDeque<Kept>>,
    found: usize,
    added: usize,
    reused: Arc<AtomicU64>,
    synced: Instant,
}

impl Journal {
    /// Opens the journal of a run: a new file, or the one that an earlier run of the same key left.
    ///
    /// # Errors
    /// If the file cannot be read or written, is no journal, is that of another run or of one that is not over, or is
    /// damaged before its last line.
    pub fn open(path: &Path, run: &RunKey) -> Result<Self, JournalError> {
        let io = |verb| move |source| JournalError::Io { verb, path: path.to_owned(), source };
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)
            .map_err(io("open"))?;
        if !file.metadata().map_err(io("look at"))?.is_file() {
            let reason = "not a regular file".to_owned();
            return Err(JournalError::NotAJournal { path: path.to_owned(), reason });
        }
        // File systems without locks have none to respect.
        if let Err(TryLockError::WouldBlock) = file.try_lock() {
            return Err(JournalError::InUse { path: path.to_owned() });
        }
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(io("read"))?;
        let (known, whole) = read(path, &bytes, run)?;
        let found = known.values().map(VecDeque::len).sum();
        file.set_len(whole as u64).map_err(io("shorten"))?;
        file.seek(SeekFrom::End(0)).map_err(io("write"))?;
        if whole == 0 {
            file.write_all(&header(run)).map_err(io("write"))?;
        }
        file.sync_data().map_err(io("write"))?;
        let (reused, synced) = (Arc::default(), Instant::now());
        Ok(Self { path: path.to_owned(), file, known, found, added: 0, reused, synced })
    }

    /// How many answers an earlier run left.
    #[must_use]
    pub fn found(&self) -> usize {
        self.found
    }

    /// How many of them were used so far: a count that goes on while the journal is written.
    #[must_use]
    pub fn reused(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.reused)
    }

    /// Whether it has no answer, of this run or an earlier one.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.found + self.added == 0
    }

    /// Which file it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Deletes the file: the evaluation is over and its result is kept elsewhere.
    ///
    /// # Errors
    /// If it cannot be deleted.
    pub fn remove(self) -> Result<(), JournalError> {
        let Self { path, file, .. } = self;
        drop(file);
        std::fs::remove_file(&path).map_err(|source| JournalError::Io {
            verb: "delete",
            path,
            source,
        })
    }

    /// Answers of an earlier run to the requests, once each.
    pub(crate) fn take(&mut self, of: &str) -> Option<Kept> {
        let kept = self.known.get_mut(of)?.pop_front()?;
        self.reused.fetch_add(1, Ordering::Relaxed);
        Some(kept)
    }

    /// Keeps an answer. A sum that is not finite, which JSON cannot say, is requested again instead.
    pub(crate) fn keep(&mut self, of: &str, kept: Kept) -> Result<(), JournalError> {
        if matches!(kept, Kept::Score { sum, .. } if !sum.is_finite()) {
            return Ok(());
        }
        let mut line = serde_json::to_vec(&Line { of: of.into(), kept })
            .map_err(|error| self.io(io::Error::other(error)))?;
        line.push(b'\n');
        // One write, so that a process that dies leaves all of it or none, as far as the system allows.
        self.file.write_all(&line).map_err(|error| self.io(error))?;
        self.added += 1;
        if self.synced.elapsed() >= SYNC_EVERY {
            self.file.sync_data().map_err(|error| self.io(error))?;
            self.synced = Instant::now();
        }
        Ok(())
    }

    fn io(&self, source: io::Error) -> JournalError {
        JournalError::Io { verb: "write", path: self.path.clone(), source }
    }
}

fn header(run: &RunKey) -> Vec<u8> {
    let header = Header { moeprune_journal: VERSION, run: run.to_map() };
    let mut line = serde_json::to_vec(&header).unwrap_or_default();
    line.push(b'\n');
    line
}

type Known = HashMap<String, VecDeque<Kept>>;

/// The answers in a journal of this run, and how many bytes of it are whole lines.
fn read(path: &Path, bytes: &[u8], run: &RunKey) -> Result<(Known, usize), JournalError> {
    let own = header(run);
    if own.starts_with(bytes) && bytes.len() < own.len() {
        // Nothing, or a header that was torn.
        return Ok((Known::new(), 0));
    }
    let mut lines: Vec<&[u8]> = bytes.split_inclusive(|&byte| byte == b'\n').collect();
    let first = lines.first().copied().unwrap_or_default();
    check_header(path, first, run)?;
    if lines.last().is_some_and(|last| !last.ends_with(b"\n")) {
        lines.pop();
    }
    let (mut known, mut whole) = (Known::new(), first.len());
    let count = lines.len();
    for (number, line) in lines.iter().enumerate().skip(1) {
        match serde_json::from_slice::<Line<'_>>(line) {
            Ok(Line { of, kept }) => known.entry(of.into_owned()).or_default().push_back(kept),
            // A line that lost its middle with the power ends as a whole one does.
            Err(_) if number + 1 == count => break,
            Err(error) => {
                let (line, reason) = (number + 1, error.to_string());
                return Err(JournalError::Damaged { path: path.to_owned(), line, reason });
            }
        }
        whole += line.len();
    }
    Ok((known, whole))
}

fn check_header(path: &Path, line: &[u8], run: &RunKey) -> Result<(), JournalError> {
    let other = |reason: String| JournalError::NotAJournal { path: path.to_owned(), reason };
    if !line.ends_with(b"\n") {
        return Err(other("it does not begin with a journal's first line".into()));
    }
    let header: Header = serde_json::from_slice(line)
        .map_err(|_| other("it does not begin with a journal's first line".into()))?;
    if header.moeprune_journal != VERSION {
        return Err(other(format!("its form {} is another version's", header.moeprune_journal)));
    }
    let here = run.to_map();
    let names = header.run.keys().chain(here.keys().filter(|name| !header.run.contains_key(*name)));
    let value = |map: &serde_json::Map<String, serde_json::Value>, name: &String| {
        map.get(name).map_or_else(
            || "not given".to_owned(),
            |value| {
                excerpt(
                    &value.as_str().map_or_else(|| value.to_string(), |text| format!("`{text}`")),
                    200,
                )
            },
        )
    };
    let differences: Vec<String> = names
        .filter(|name| header.run.get(*name) != here.get(*name))
        .map(|name| {
            format!("{name} is {} there and {} here", value(&header.run, name), value(&here, name))
        })
        .collect();
    if differences.is_empty() {
        return Ok(());
    }
    Err(JournalError::OtherRun { path: path.to_owned(), differences: differences.join(", ") })
}
