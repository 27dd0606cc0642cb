//! Finding and reading the data of tasks.

mod layout;

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use moeprune_engine::Error as EngineError;
use moeprune_eval::{ChoiceData, ChoiceTask, Record, choice_task};
use moeprune_text::{Content, ReadOptions, TextSet};

use self::layout::Wanted;
use crate::Error;

/// The field of a row that says its subject, where all subjects are in one file.
const SUBJECT: &str = "subject";

/// Reads the questions of a task, and what examples are taken from, from a file or a folder.
///
/// A folder is one as on the Hugging Face Hub: files named after their part (`test-00000-of-00001.parquet`, `validation.jsonl`), in it or in
/// a folder `data`, one with the name of the task or one with the name of the data set's part; a file named after the task; one whose name has the
/// part as a word (`mine_test.jsonl`); or the only file, if its name says no part. What is of another part is never taken. Of a task
/// with subjects each has a folder, or a file named after it, or a field `subject` says which one a row belongs to. Examples are those of
/// `fewshot_data`, or in the same folder.
///
/// # Errors
/// If nothing is found, a file cannot be read or is no data set, or subjects are missing.
pub fn read_choice_data(
    task: &ChoiceTask,
    data: &Path,
    fewshot_data: Option<&Path>,
    shots: usize,
) -> Result<Vec<ChoiceData>, Error> {
    let questions = Part { task, split: task.split() }.read(data)?;
    let split = Part { task, split: task.fewshot_split() };
    let mut examples = match (shots, fewshot_data) {
        (0, _) => BTreeMap::new(),
        (_, Some(path)) => split.read(path)?,
        (_, None) if data.is_dir() && task.fewshot_split().is_some() => split.read(data)?,
        (_, None) => BTreeMap::new(),
    };
    let data = questions.into_iter().map(|(subject, questions)| {
        let data = ChoiceData::new(questions, examples.remove(&subject).unwrap_or_default());
        match subject {
            Some(subject) => data.of_subject(subject),
            None => data,
        }
    });
    Ok(data.collect())
}

/// Records by subject; under nothing those of a task without subjects.
type Records = BTreeMap<Option<String>, Vec<Record>>;

/// One of the parts that a task's data has.
struct Part<'a> {
    task: &'a ChoiceTask,
    split: Option<&'a str>,
}

impl Part<'_> {
    fn read(&self, path: &Path) -> Result<Records, Error> {
        let suite = path.join(self.task.suite());
        let path =
            if suite.is_dir() && !self.task.subjects().is_empty() { suite.as_path() } else { path };
        let subjects = self.task.subjects();
        if subjects.is_empty() {
            return Ok([(None, records(&self.files(path, self.task.name())?)?)].into());
        }
        let has_own = |subject: &&str| path.is_dir() && !self.of_subject(path, subject).is_empty();
        let (own, missing): (Vec<&str>, Vec<&str>) =
            subjects.iter().partition(|subject| has_own(subject));
        if own.is_empty() {
            return self.by_field(path, &subjects);
        }
        self.check_subjects(path, &missing)?;
        let read = |subject: &str| {
            Ok((Some(subject.to_owned()), records(&self.of_subject(path, subject))?))
        };
        own.into_iter().map(read).collect()
    }

    /// All subjects from one file, told apart by a field.
    fn by_field(&self, path: &Path, subjects: &[&str]) -> Result<Records, Error> {
        let mut found = Records::new();
        for record in records(&self.files(path, "all")?)? {
            let subject = match (
                record.fields.get(SUBJECT).and_then(|value| value.as_str()),
                subjects,
            ) {
                (Some(subject), _) => subject,
                (None, [one]) => one,
                (None, _) => {
                    let fields: Vec<String> =
                        record.fields.keys().take(12).map(|name| format!("`{name}`")).collect();
                    return Err(Error::Request(format!(
                        "{}: {} has subjects, and this record has no `{SUBJECT}`, only {}; give a folder with a folder \
                         or a file for each subject",
                        record.place,
                        self.task.name(),
                        fields.join(", ")
                    )));
                }
            };
            if subjects.contains(&subject) {
                found.entry(Some(subject.to_owned())).or_default().push(record);
            }
        }
        let missing: Vec<&str> = subjects
            .iter()
            .copied()
            .filter(|&subject| !found.contains_key(&Some(subject.to_owned())))
            .collect();
        self.check_subjects(path, &missing)?;
        Ok(found)
    }

    fn check_subjects(&self, path: &Path, missing: &[&str]) -> Result<(), Error> {
        const SHOWN: usize = 8;
        let Some(first) = missing.first() else { return Ok(()) };
        let single = match choice_task(self.task.name()) {
            Ok(Some(_)) => format!("{}_{first}", self.task.name()),
            _ => format!("FILE.toml:{first}"),
        };
        let (name, shown) = (self.task.name(), missing[..SHOWN.min(missing.len())].join(", "));
        let more = match missing.len() - SHOWN.min(missing.len()) {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        Err(Error::Request(format!(
            "{} has no questions of {} of the {} subjects of {name}: {shown}{more}; give all, or evaluate single ones \
             (--task {single})",
            path.display(),
            missing.len(),
            self.task.subjects().len()
        )))
    }

    fn split(&self) -> &str {
        self.split.unwrap_or("test")
    }

    /// The files of a subject that has its own.
    fn of_subject(&self, folder: &Path, subject: &str) -> Vec<PathBuf> {
        let wanted = Wanted::of_subject(self.task, self.split(), subject);
        let own = folder.join(subject);
        if !own.is_dir() {
            return wanted.by_name(folder);
        }
        let kinds = [Wanted::by_split, Wanted::by_name, Wanted::by_word, Wanted::only];
        let found = kinds.iter().map(|of| of(&wanted, &own)).find(|files| !files.is_empty());
        found.unwrap_or_default()
    }

    /// The files of the part. `name` is what files and folders are called beside those of other tasks.
    fn files(&self, path: &Path, name: &str) -> Result<Vec<PathBuf>, Error> {
        if !path.is_dir() {
            return Ok(vec![path.to_owned()]);
        }
        let within = [name, self.task.name(), self.task.config(), "data"];
        let folders = [path.to_owned()].into_iter();
        let folders = folders
            .chain(within.iter().filter(|name| !name.is_empty()).map(|name| path.join(name)));
        let mut folders: Vec<PathBuf> = folders.filter(|folder| folder.is_dir()).collect();
        let deeper: Vec<PathBuf> = folders[1..]
            .iter()
            .flat_map(|folder| [folder.join(self.task.config()), folder.join("data")])
            .collect();
        folders.extend(deeper.into_iter().filter(|folder| folder.is_dir()));
        let wanted = Wanted::new(self.task, self.split(), name);
        let kinds = [Wanted::by_split, Wanted::by_name, Wanted::by_word, Wanted::only];
        let found = kinds.iter().flat_map(|of| folders.iter().map(|folder| of(&wanted, folder)));
        found.into_iter().find(|files| !files.is_empty()).ok_or_else(|| self.nothing(path))
    }

    fn nothing(&self, path: &Path) -> Error {
        let entries = fs::read_dir(path).into_iter().flatten().flatten();
        let mut names: Vec<String> =
            entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names.truncate(10);
        let (split, task) = (self.split(), self.task.name());
        Error::Request(format!(
            "{} has no file of {task} that is its part `{split}`: expected one whose name begins with `{split}`, or with \
             a name and `{split}` (`{task}_{split}.jsonl`), or a single file that names no part; it has {}; give the \
             file itself, or a folder as on the Hugging Face Hub",
            path.display(),
            if names.is_empty() { "nothing".to_owned() } else { names.join(", ") }
        ))
    }
}

/// The rows of files, one after another.
fn records(files: &[PathBuf]) -> Result<Vec<Record>, Error> {
    let set = TextSet::find_with(files, &ReadOptions::rows()).map_err(EngineError::from)?;
    let mut found = Vec::new();
    for file in set.files() {
        for record in file.records().map_err(EngineError::from)? {
            let record = record.map_err(EngineError::from)?;
            let place = format!("{} {}", file.path().display(), record.place);
            let Content::Row(fields) = record.content else {
                return Err(Error::Request(format!("{place}: expected an object")));
            };
            found.push(Record::new(fields, place));
        }
    }
    Ok(found)
}
