//! Which files of a folder are a part of a data set.
//!
//! Names are taken as words: `ARC-Easy-Test.jsonl` is `arc`, `easy`, `test`. A file is of a part only if its name says so, or if it
//! is the only one and its name says nothing: a part that was taken for another would be scored without a sign of it.

use std::{
    fs,
    path::{Path, PathBuf},
};

use moeprune_eval::{CHOICE_TASK_NAMES, ChoiceTask, choice_task};

/// What parts of data sets are called.
const SPLITS: [&str; 9] =
    ["train", "training", "test", "testing", "validation", "valid", "val", "dev", "development"];

/// A part that is looked for.
pub(super) struct Wanted<'a> {
    /// What it may be called, in the order in which it is looked for.
    splits: Vec<&'a str>,
    /// What names may begin with: those of the task, of its part of the data set, or of a subject.
    names: Vec<Vec<String>>,
    /// The words of the part of the data set (`winogrande_xl`), by which one of several forms of a part is chosen.
    config: Vec<String>,
}

impl<'a> Wanted<'a> {
    /// The part `split` of a task; its files may be named after it, or after `name`.
    pub(super) fn new(task: &ChoiceTask, split: &'a str, name: &str) -> Self {
        let splits = match split {
            "validation" => vec!["validation", "valid", "val", "dev", "development"],
            split => vec![split],
        };
        let names = [name, task.name(), task.config()].map(words);
        let names = names.into_iter().filter(|name| !name.is_empty()).collect();
        Self { splits, names, config: words(task.config()) }
    }

    /// The part `split` of one subject, whose files are named after it.
    pub(super) fn of_subject(task: &ChoiceTask, split: &'a str, subject: &str) -> Self {
        Self { names: vec![words(subject)], ..Self::new(task, split, subject) }
    }

    /// Files whose names begin with that of the part.
    pub(super) fn by_split(&self, folder: &Path) -> Vec<PathBuf> {
        self.of_one_form(folder, &|words| Some((Vec::new(), words.to_vec())))
    }

    /// Files whose names begin with a name of the task, and then say the part, or nothing more.
    pub(super) fn by_name(&self, folder: &Path) -> Vec<PathBuf> {
        let rests = |words: &[String]| -> Option<Vec<String>> {
            let rests = self.names.iter().filter_map(|name| words.strip_prefix(name.as_slice()));
            rests.min_by_key(|rest| rest.len()).map(<[String]>::to_vec)
        };
        let found = self.of_one_form(folder, &|words| Some((Vec::new(), rests(words)?)));
        if !found.is_empty() {
            return found;
        }
        let is_whole =
            |file: &PathBuf| rests(&words(&stem(file))).is_some_and(|rest| form(&rest).is_empty());
        listed(folder).into_iter().filter(is_whole).collect()
    }

    /// Files whose names have that of the part as a word after others, if these are the same for all and not those of another task.
    pub(super) fn by_word(&self, folder: &Path) -> Vec<PathBuf> {
        self.of_one_form(folder, &|words| {
            let at = words.iter().position(|word| SPLITS.contains(&word.as_str()))?;
            let (before, rest) = words.split_at(at);
            (!self.is_of_another(before)).then(|| (before.to_vec(), rest.to_vec()))
        })
    }

    /// The only file there is, whose name says neither a part nor another task.
    pub(super) fn only(&self, folder: &Path) -> Vec<PathBuf> {
        let files = listed(folder);
        let is_plain = |file: &PathBuf| {
            let words = words(&stem(file));
            !words.iter().any(|word| SPLITS.contains(&word.as_str())) && !self.is_of_another(&words)
        };
        if files.len() == 1 && is_plain(&files[0]) { files } else { Vec::new() }
    }

    /// The files of the part in the first of its names that is there. `read` takes a name's words apart: what stands before, which must
    /// be the same for all, and the rest, which begins with the part. Of several forms (`train_xl`) one is taken: the plain one, the
    /// one that the data set's part is called after, or the only one.
    fn of_one_form(&self, folder: &Path, read: Reading<'_>) -> Vec<PathBuf> {
        let said = |file: PathBuf| {
            let (before, rest) = read(&words(&stem(&file)))?;
            Said::of(file, before, &rest)
        };
        let mut said: Vec<Said> = listed(folder).into_iter().filter_map(said).collect();
        let is_there = |split: &&&str| said.iter().any(|said| said.split == **split);
        let Some(split) = self.splits.iter().find(is_there) else { return Vec::new() };
        said.retain(|said| said.split == *split);
        let of_config = |said: &&Said| !said.form.is_empty() && self.config.ends_with(&said.form);
        let plain = said.iter().find(|said| said.form.is_empty());
        let chosen = plain.or_else(|| said.iter().find(of_config));
        if let Some(form) = chosen.map(|said| said.form.clone()) {
            said.retain(|said| said.form == form);
        }
        let alike =
            |pair: &[Said]| (&pair[0].before, &pair[0].form) == (&pair[1].before, &pair[1].form);
        match said.windows(2).all(alike) {
            true => said.into_iter().map(|said| said.file).collect(),
            false => Vec::new(),
        }
    }

    /// Whether words are the name of a task that is built in and not this one, or of its part of a data set.
    fn is_of_another(&self, name: &[String]) -> bool {
        let begins = |known: &str| {
            let known = words(known);
            !known.is_empty() && name.starts_with(&known) && !self.names.contains(&known)
        };
        let is_own = self.names.iter().any(|own| name.starts_with(own));
        !is_own
            && CHOICE_TASK_NAMES.into_iter().any(|known| {
                let task = choice_task(known).ok().flatten();
                begins(known)
                    || task.is_some_and(|task| task.config() != "main" && begins(task.config()))
            })
    }
}

/// The words of a name, or some of them.
type Words = Vec<String>;

/// Takes a name's words apart: what stands before what says the part, and the rest.
type Reading<'a> = &'a dyn Fn(&[String]) -> Option<(Words, Words)>;

/// What the name of a file says.
struct Said {
    file: PathBuf,
    before: Words,
    split: String,
    form: Words,
}

impl Said {
    /// Nothing if `rest` does not begin with a part, or names two.
    fn of(file: PathBuf, before: Words, rest: &[String]) -> Option<Self> {
        let is_split = |word: &String| SPLITS.contains(&word.as_str());
        let (split, after) = rest.split_first()?;
        let is_clear = is_split(split) && !after.iter().any(is_split);
        is_clear.then(|| Self { file, before, split: split.clone(), form: form(after) })
    }
}

/// What a name says after that of a part, without the number of the file (`00000-of-00004`) and a checksum.
fn form(rest: &[String]) -> Vec<String> {
    let is_number = |word: &String| word.bytes().all(|b| b.is_ascii_digit());
    let is_checksum =
        |word: &String| word.len() >= 12 && word.bytes().all(|b| b.is_ascii_hexdigit());
    let says = |word: &&String| !is_number(word) && !is_checksum(word) && *word != "of";
    rest.iter().filter(says).cloned().collect()
}

/// The words of a name in small letters.
fn words(name: &str) -> Vec<String> {
    let words = name.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty());
    words.map(str::to_lowercase).collect()
}

/// A file's name up to what says its form.
fn stem(file: &Path) -> String {
    const ENDS: [&str; 10] =
        [".parquet", ".jsonl", ".json", ".ndjson", ".csv", ".tsv", ".gz", ".zst", ".tab", ".txt"];
    let mut name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
    while let Some(end) = ENDS.iter().find(|end| name.to_lowercase().ends_with(*end)) {
        name.truncate(name.len() - end.len());
    }
    name
}

/// The files in a folder, not those below it, by name; without what describes a data set on the Hub.
pub(super) fn listed(folder: &Path) -> Vec<PathBuf> {
    const DESCRIBE: [&str; 5] = [".md", ".py", ".toml", ".yaml", ".yml"];
    const NAMED: [&str; 3] = ["license", "dataset_infos.json", "dataset_info.json"];
    let entries = fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let describes = |path: &Path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
        name.starts_with('.')
            || NAMED.contains(&name.as_str())
            || DESCRIBE.iter().any(|end| name.ends_with(end))
    };
    let mut files: Vec<PathBuf> =
        entries.filter(|path| path.is_file() && !describes(path)).collect();
    files.sort();
    files
}
