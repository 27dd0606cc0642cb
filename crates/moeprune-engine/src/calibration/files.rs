//! Which files are read as one text.

use std::path::{Path, PathBuf};

use moeprune_text::{Shape, TextFile, TextSet};
use serde_json::Value;

use crate::Error;

/// Files that are read as one text, in the order in which they are given. A path is one by itself.
#[derive(Debug, Clone, Copy)]
pub struct TextFiles<'a> {
    paths: Paths<'a>,
    chat: ChatOptions<'a>,
    should_stop: fn() -> bool,
}

#[derive(Debug, Clone, Copy)]
enum Paths<'a> {
    One(&'a Path),
    Several(&'a [PathBuf]),
}

/// What conversations are given that have none of their own.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
#[expect(clippy::exhaustive_structs, reason = "plain data")]
pub struct ChatOptions<'a> {
    /// A system message.
    pub system: Option<&'a str>,
    /// Tools, a JSON array, which the model's chat template has to take.
    pub tools: Option<&'a Value>,
}

impl<'a> TextFiles<'a> {
    /// Files, folders of files, and patterns such as `*.jsonl`.
    #[must_use]
    pub fn new(paths: &'a [PathBuf]) -> Self {
        Self::of(Paths::Several(paths))
    }

    /// The same, with this for conversations.
    #[must_use]
    pub fn with_chat(self, chat: ChatOptions<'a>) -> Self {
        Self { chat, ..self }
    }

    fn of(paths: Paths<'a>) -> Self {
        Self { paths, chat: ChatOptions::default(), should_stop: || false }
    }

    /// The same, of which reading ends with [`Error::Stopped`] once this says so: large texts take minutes.
    #[must_use]
    pub fn stopping(self, should_stop: fn() -> bool) -> Self {
        Self { should_stop, ..self }
    }

    /// What says whether to stop.
    pub(super) fn should_stop(&self) -> fn() -> bool {
        self.should_stop
    }

    /// What conversations are given.
    #[must_use]
    pub fn chat(&self) -> ChatOptions<'a> {
        self.chat
    }

    /// Each file as a domain of its own: its name without endings, and where it is.
    ///
    /// # Errors
    /// As [`find`](Self::find), and if two files have the same name without endings.
    pub fn domains(&self) -> Result<Vec<(String, PathBuf)>, Error> {
        let mut domains: Vec<(String, PathBuf)> = Vec::new();
        for path in self.find()?.files().iter().map(TextFile::path) {
            let name = name_without_endings(path);
            if let Some((_, other)) = domains.iter().find(|(known, _)| *known == name) {
                return Err(Error::Request(format!(
                    "{} and {} are both called {name} without endings, and would be one domain; rename one of them",
                    other.display(),
                    path.display()
                )));
            }
            domains.push((name, path.to_owned()));
        }
        Ok(domains)
    }

    /// The files, recognised by their beginnings.
    ///
    /// # Errors
    /// If there are none, one cannot be read or is not text, or something is given for conversations that there are
    /// none of.
    pub fn find(&self) -> Result<TextSet, Error> {
        let set = self.set()?;
        let chats = set.files().iter().any(|file| is_conversation(&file.format().shape));
        if self.chat != ChatOptions::default() && !chats {
            return Err(Error::Request(format!(
                "--system and --tools are for conversations, and {} holds none: {}; leave them out",
                name_of(&set),
                format_of(&set)
            )));
        }
        Ok(set)
    }

    /// The files, whether what is given for conversations is needed or not.
    pub(super) fn set(&self) -> Result<TextSet, Error> {
        Ok(match self.paths {
            Paths::One(path) => TextSet::find(&[path.to_owned()]),
            Paths::Several(paths) => TextSet::find(paths),
        }?)
    }
}

impl<'a> From<&'a Path> for TextFiles<'a> {
    fn from(path: &'a Path) -> Self {
        Self::of(Paths::One(path))
    }
}

impl<'a> From<&'a PathBuf> for TextFiles<'a> {
    fn from(path: &'a PathBuf) -> Self {
        path.as_path().into()
    }
}

pub(super) fn is_conversation(shape: &Shape) -> bool {
    matches!(shape, Shape::Messages | Shape::ShareGpt | Shape::Alpaca | Shape::PromptCompletion)
}

/// What people call the text.
pub(super) fn name_of(set: &TextSet) -> String {
    let name = |file: &TextFile| {
        let path = file.path();
        path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned()
    };
    match set.files() {
        [] => "no file".to_owned(),
        [file] => name(file),
        [first, second] => format!("{} and {}", name(first), name(second)),
        [first, others @ ..] => format!("{} and {} other files", name(first), others.len()),
    }
}

/// What files were recognised as; each form once.
pub(super) fn format_of(set: &TextSet) -> String {
    let mut formats: Vec<String> = Vec::new();
    for file in set.files() {
        let format = file.format().to_string();
        if !formats.contains(&format) {
            formats.push(format);
        }
    }
    formats.join("; ")
}

/// The name of a file without what it is packed with and what its form is: `code` of `code.jsonl.gz`.
fn name_without_endings(path: &Path) -> String {
    const PACKED: [&str; 4] = ["gz", "gzip", "zst", "zstd"];
    let mut name = Path::new(path.file_name().unwrap_or(path.as_os_str()));
    if name.extension().is_some_and(|ending| PACKED.iter().any(|packed| ending == *packed)) {
        name = name.file_stem().map_or(name, Path::new);
    }
    name.file_stem().unwrap_or(name.as_os_str()).to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_without_endings() {
        let check = |path: &str, expected: &str| {
            assert_eq!(name_without_endings(Path::new(path)), expected);
        };
        check("a/code.jsonl.gz", "code");
        check("code.txt", "code");
        check("wiki.v2.jsonl.zst", "wiki.v2");
        check("plain", "plain");
        check("data.gz", "data");
        check(".hidden", ".hidden");
    }
}
