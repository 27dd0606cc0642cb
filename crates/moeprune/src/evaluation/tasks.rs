//! Tasks by name or file.

use std::{
    fs,
    path::{Path, PathBuf},
};

use moeprune_eval::{CHOICE_TASK_NAMES, ChoiceTask, TASK_NAMES, Task, choice_task, task_by_name};

use super::{Evaluation, PERPLEXITY, read_questions};
use crate::Error;

/// A task that was found.
#[expect(clippy::exhaustive_enums, reason = "the two ways in which a model answers")]
#[expect(missing_debug_implementations, reason = "tasks of other crates have none")]
pub enum FoundTask {
    /// The model writes its answers.
    Written(Box<dyn Task>),
    /// The model's likeliest choice is its answer.
    Choice(Box<ChoiceTask>),
}

/// The task that an evaluation names: a built-in one, or one in a TOML file; with its shots.
///
/// # Errors
/// If there is none of that name, its file cannot be read or describes none, or it cannot have such shots.
pub fn find_task(what: &Evaluation<'_>) -> Result<FoundTask, Error> {
    if TASK_NAMES.contains(&what.task) {
        let shots = match what.fewshot_data {
            Some(path) => read_questions(path)?,
            None => Vec::new(),
        };
        return Ok(FoundTask::Written(task_by_name(what.task, what.fewshot, &shots)?));
    }
    let task = choice(what.task)?;
    if what.fewshot_data.is_some() && what.fewshot.unwrap_or_else(|| task.shots()) == 0 {
        return Err(
            moeprune_eval::Error::UnusedTrainingDocuments { task: task.name().to_owned() }.into()
        );
    }
    Ok(FoundTask::Choice(Box::new(task)))
}

/// The tasks that a name stands for: itself, or each file of a folder that holds files of tasks, by name.
///
/// # Errors
/// If there is no task of that name, or no file in the folder.
pub fn named_tasks(name: &str) -> Result<Vec<String>, Error> {
    let path = Path::new(name);
    let is_known = name == PERPLEXITY || TASK_NAMES.contains(&name) || choice_task(name)?.is_some();
    if is_known {
        return Ok(vec![name.to_owned()]);
    }
    if !path.is_dir() {
        return choice(name).map(|_| vec![name.to_owned()]);
    }
    let io = |source| Error::Io { verb: "read", path: name.to_owned(), source };
    let entries = fs::read_dir(path).map_err(io)?.collect::<Result<Vec<_>, _>>().map_err(io)?;
    let mut files: Vec<PathBuf> = entries.into_iter().map(|entry| entry.path()).collect();
    files.retain(|file| file.extension().is_some_and(|end| end == "toml"));
    files.sort();
    if files.is_empty() {
        return Err(Error::Request(format!("{name} has no file of a task (NAME.toml)")));
    }
    files.iter().map(|file| from_file(file).map(|_| file.display().to_string())).collect()
}

/// The names of all tasks that are built in, perplexity among them, apart from groups and subjects.
#[must_use]
pub fn known_tasks() -> Vec<&'static str> {
    TASK_NAMES.into_iter().chain(CHOICE_TASK_NAMES).chain([PERPLEXITY]).collect()
}

/// The metric that counts where one is to be taken: of GSM8K the number found anywhere, of multiple choice the first that the task names.
///
/// # Errors
/// If there is no task of that name, or its file cannot be read.
pub fn default_metric(name: &str) -> Result<String, Error> {
    if TASK_NAMES.contains(&name) {
        return Ok("flexible-extract".to_owned());
    }
    Ok(choice(name)?.metrics()[0].name().to_owned())
}

/// The file that describes a task which is not built in: `FILE.toml`, also of `FILE.toml:SUBJECT`; nothing for other names.
#[must_use]
pub fn task_file(name: &str) -> Option<&Path> {
    let is_built_in = TASK_NAMES.contains(&name) || name == PERPLEXITY;
    let is_built_in = is_built_in || choice_task(name).ok().flatten().is_some();
    if is_built_in { None } else { file_and_part(name).map(|(file, _)| file) }
}

fn choice(name: &str) -> Result<ChoiceTask, Error> {
    if let Some(task) = choice_task(name)? {
        return Ok(task);
    }
    let (file, part) = file_and_part(name).ok_or_else(|| unknown(name))?;
    let task = from_file(file)?;
    let Some(part) = part else { return Ok(task) };
    task.part(&format!("{}_{part}", task.name())).ok_or_else(|| {
        let groups = task.groups().map(|(group, _)| group);
        let known: Vec<&str> = groups.chain(task.subjects()).collect();
        let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
        Error::Request(format!(
            "{} has no group and no subject `{part}`, only {known}",
            file.display()
        ))
    })
}

/// The file of a name, there or not, and the group or subject of it after a colon.
fn file_and_part(name: &str) -> Option<(&Path, Option<&str>)> {
    let is_file = |name: &str| {
        let path = Path::new(name);
        path.extension().is_some_and(|end| end == "toml") || path.is_file()
    };
    if is_file(name) {
        return Some((Path::new(name), None));
    }
    let (file, part) = name.rsplit_once(':')?;
    is_file(file).then(|| (Path::new(file), Some(part)))
}

fn from_file(path: &Path) -> Result<ChoiceTask, Error> {
    let io = |source| Error::Io { verb: "read", path: path.display().to_string(), source };
    let text = fs::read_to_string(path).map_err(io)?;
    Ok(ChoiceTask::from_toml(&text, &path.display().to_string())?)
}

fn unknown(name: &str) -> Error {
    let known = known_tasks();
    let near = |task: &str| strsim::jaro_winkler(task, name);
    let nearest = known.iter().copied().max_by(|a, b| near(a).total_cmp(&near(b)));
    let meant = nearest.filter(|task| near(task) > 0.8);
    let meant = meant.map_or_else(String::new, |task| format!("; did you mean `{task}`?"));
    let known = format!(
        "{}, mmlu_GROUP, mmlu_SUBJECT, a file that describes one (FILE.toml, FILE.toml:SUBJECT) or a folder of such \
         files{meant}",
        known.join(", ")
    );
    moeprune_eval::Error::UnknownTask { name: name.to_owned(), known }.into()
}
