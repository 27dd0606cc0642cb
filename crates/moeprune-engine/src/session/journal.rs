//! The journal: records appended to a file, each durable before anything builds on it.

use std::{
    fs::{File, OpenOptions},
    io::{Read, Write},
    path::{Path, PathBuf},
};

use super::{Record, RunIdentity};
use crate::Error;

/// An open journal.
#[derive(Debug)]
pub(crate) struct Journal {
    path: PathBuf,
    file: File,
    identity: RunIdentity,
    records: Vec<Record>,
}

impl Journal {
    pub(crate) const FILE: &'static str = "journal";

    /// Starts a journal with what is begun.
    pub(crate) fn create(path: &Path, identity: &RunIdentity) -> Result<Self, Error> {
        let file = File::create_new(path).map_err(|e| Error::io(path, "create", e))?;
        let (identity, records) = (identity.clone(), Vec::new());
        let mut journal = Self { path: path.to_owned(), file, identity, records };
        let begun = Record::Begun(Box::new(journal.identity.clone()));
        journal.write(&begun)?;
        Ok(journal)
    }

    /// Reads what an interrupted run left; `None` if it did not get as far as its first record.
    ///
    /// A last line without its end was being written when the run died: it counts for nothing and
    /// is cut off.
    pub(crate) fn open(path: &Path) -> Result<Option<Self>, Error> {
        let mut file = match OpenOptions::new().read(true).append(true).open(path) {
            Ok(file) => file,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(Error::io(path, "open", e)),
        };
        let mut text = Vec::new();
        file.read_to_end(&mut text).map_err(|e| Error::io(path, "read", e))?;
        let whole = text.iter().rposition(|&b| b == b'\n').map_or(0, |end| end + 1);
        if whole < text.len() {
            file.set_len(whole as u64).map_err(|e| Error::io(path, "shorten", e))?;
        }
        let mut records = Vec::new();
        for (number, line) in text[..whole].split(|&b| b == b'\n').enumerate() {
            if line.is_empty() {
                continue;
            }
            let record: Record = serde_json::from_slice(line).map_err(|e| {
                Error::Resume(format!(
                    "line {} of {} cannot be read ({e}); was it begun by another version? Delete \
                     the folder it is in to start over",
                    number + 1,
                    path.display()
                ))
            })?;
            records.push(record);
        }
        if records.is_empty() {
            return Ok(None);
        }
        let Record::Begun(identity) = records.remove(0) else {
            return Err(Error::Resume(format!(
                "{} does not say what was begun; delete the folder it is in to start over",
                path.display()
            )));
        };
        Ok(Some(Self { path: path.to_owned(), file, identity: *identity, records }))
    }

    /// What was begun.
    pub(crate) fn identity(&self) -> &RunIdentity {
        &self.identity
    }

    /// What is done, without the first line.
    pub(crate) fn records(&self) -> &[Record] {
        &self.records
    }

    /// Whether parts are being put together.
    pub(crate) fn is_joining(&self) -> bool {
        self.records.contains(&Record::Joining)
    }

    /// Adds a record and makes it durable.
    pub(crate) fn append(&mut self, record: Record) -> Result<(), Error> {
        self.write(&record)?;
        self.records.push(record);
        Ok(())
    }

    /// Whether what has the journal's name still says what this one does. Another process that no lock kept out may
    /// have begun a journal of its own.
    pub(crate) fn is_on_disk(&self) -> bool {
        let Ok(text) = std::fs::read(&self.path) else { return false };
        let lines = text.split(|&b| b == b'\n').filter(|line| !line.is_empty());
        let found = lines.map(serde_json::from_slice).collect::<Result<Vec<Record>, _>>();
        found.is_ok_and(|found| match found.split_first() {
            Some((Record::Begun(identity), records)) => {
                **identity == self.identity && records == self.records
            }
            _ => false,
        })
    }

    fn write(&mut self, record: &Record) -> Result<(), Error> {
        let mut line = serde_json::to_vec(record)
            .map_err(|e| Error::Resume(format!("the journal cannot be written: {e}")))?;
        line.push(b'\n');
        self.file.write_all(&line).map_err(|e| Error::io(&self.path, "write", e))?;
        moeprune_files::sync_bytes(&self.file)
            .map_err(|e| Error::io(&self.path, "write to disk", e))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity() -> RunIdentity {
        RunIdentity { command: "prune".into(), ..RunIdentity::default() }
    }

    fn done(layer: usize) -> Record {
        Record::Observed { layer }
    }

    #[test]
    fn what_was_appended_is_read_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(Journal::FILE);
        assert!(Journal::open(&path).unwrap().is_none());
        let mut journal = Journal::create(&path, &identity()).unwrap();
        journal.append(done(0)).unwrap();
        journal.append(Record::Measured { layer: 3, outlier_percent: 0.1 + 0.2 }).unwrap();
        drop(journal);
        let mut journal = Journal::open(&path).unwrap().unwrap();
        assert_eq!(journal.identity(), &identity());
        journal.append(done(1)).unwrap();
        let want = [done(0), Record::Measured { layer: 3, outlier_percent: 0.1 + 0.2 }, done(1)];
        assert_eq!(journal.records(), want);
        assert_eq!(Journal::open(&path).unwrap().unwrap().records(), want);
    }

    #[test]
    fn another_journal_of_the_same_name() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(Journal::FILE);
        let mut journal = Journal::create(&path, &identity()).unwrap();
        journal.append(done(0)).unwrap();
        assert!(journal.is_on_disk());
        let text = std::fs::read(&path).unwrap();
        std::fs::write(&path, &text[..text.len() - 2]).unwrap();
        assert!(!journal.is_on_disk());
        std::fs::remove_file(&path).unwrap();
        assert!(!journal.is_on_disk());
        let mut other = Journal::create(&path, &identity()).unwrap();
        assert!(other.is_on_disk() && !journal.is_on_disk());
        // What is durable is the same.
        other.append(done(0)).unwrap();
        assert!(journal.is_on_disk());
        other.append(done(1)).unwrap();
        assert!(!journal.is_on_disk());
    }

    /// To any length that the file is cut, all lines that are whole are there.
    #[test]
    fn a_line_cut_short_counts_for_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(Journal::FILE);
        let mut journal = Journal::create(&path, &identity()).unwrap();
        for layer in 0..3 {
            journal.append(done(layer)).unwrap();
        }
        let text = std::fs::read(&path).unwrap();
        for length in 0..=text.len() {
            std::fs::write(&path, &text[..length]).unwrap();
            let lines = text[..length].iter().filter(|&&b| b == b'\n').count();
            let journal = Journal::open(&path).unwrap();
            assert_eq!(
                journal.as_ref().map(|j| j.records().len() + 1),
                (lines > 0).then_some(lines)
            );
            if let Some(mut journal) = journal {
                journal.append(done(9)).unwrap();
                assert_eq!(Journal::open(&path).unwrap().unwrap().records().last(), Some(&done(9)));
            }
        }
    }

    #[test]
    fn a_line_that_is_no_record_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(Journal::FILE);
        for text in ["{}\n", "nonsense\n", "{\"observed\":{\"layer\":0}}\n", "\u{0}\u{0}\n"] {
            std::fs::write(&path, text).unwrap();
            let error = Journal::open(&path).unwrap_err().to_string();
            assert!(error.contains("start over"), "{error}");
        }
    }
}
