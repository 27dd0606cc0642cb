//! Question and answer pairs, and the JSON lines they are kept in.

use std::{
    fs::File,
    io::{BufRead, BufReader},
    path::Path,
};

use serde::{Deserialize, Serialize};

use crate::Error;

/// One item of a data set. In GSM8K the answer is the whole worked solution, ending `#### 18`.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Document {
    /// The question.
    pub question: String,
    /// The reference answer, worked steps included.
    pub answer: String,
}

impl Document {
    /// A document of a question and its reference answer.
    pub fn new(question: impl Into<String>, answer: impl Into<String>) -> Self {
        Self { question: question.into(), answer: answer.into() }
    }
}

/// Reads documents from a file of JSON lines, such as GSM8K's `test.jsonl`.
///
/// # Errors
///
/// If the file cannot be opened, or as [`read_documents`], whose error is then the source of one
/// that names the file.
pub fn load_documents(path: impl AsRef<Path>) -> Result<Vec<Document>, Error> {
    let path = path.as_ref();
    let file = File::open(path).map_err(|source| Error::Open { path: path.to_owned(), source })?;
    read_documents(BufReader::new(file))
        .map_err(|error| Error::File { path: path.to_owned(), source: Box::new(error) })
}

/// Reads documents, one JSON object per line. Blank lines and further keys are ignored.
///
/// ```
/// # use moeprune_eval::read_documents;
/// let documents = read_documents("{\"question\": \"1 + 1?\", \"answer\": \"#### 2\"}\n".as_bytes())?;
/// assert_eq!(documents[0].answer, "#### 2");
///
/// let error = read_documents("{\"question\": \"1 + 1?\"}".as_bytes()).unwrap_err();
/// assert!(error.to_string().ends_with("missing field `answer`"));
/// # Ok::<(), moeprune_eval::Error>(())
/// ```
///
/// # Errors
///
/// If reading fails, if a line is not UTF-8 or not such an object (the error names the line), or
/// if there is no document at all.
pub fn read_documents(reader: impl BufRead) -> Result<Vec<Document>, Error> {
    let mut documents = Vec::new();
    for (index, text) in reader.lines().enumerate() {
        let line = index + 1;
        let text = text.map_err(|source| Error::Read { line, source })?;
        if !text.trim().is_empty() {
            documents.push(parse_document(&text, line)?);
        }
    }
    if documents.is_empty() { Err(Error::NoDocuments) } else { Ok(documents) }
}

fn parse_document(text: &str, line: usize) -> Result<Document, Error> {
    serde_json::from_str(text).map_err(|error| {
        // The parser sees one line at a time, so its own position always says line 1.
        let message = error.to_string();
        let position = format!(" at line {} column {}", error.line(), error.column());
        let problem = message.strip_suffix(&position).unwrap_or(&message).to_owned();
        Error::Line { line, column: error.column(), problem }
    })
}

#[cfg(test)]
mod tests {
    use std::error::Error as _;

    use super::*;

    fn check(text: &str, expected: Result<usize, &str>) {
        let found = read_documents(text.as_bytes());
        match (found, expected) {
            (Ok(documents), Ok(count)) => assert_eq!(documents.len(), count, "{text:?}"),
            (Err(error), Err(message)) => assert_eq!(error.to_string(), message, "{text:?}"),
            (found, _) => panic!("{text:?} gave {found:?}"),
        }
    }

    const NONE: &str = "no documents: expected at least one JSON line with `question` and `answer`";

    #[test]
    fn reads_json_lines() {
        check("{\"question\":\"a\",\"answer\":\"b\"}", Ok(1));
        check("{\"question\":\"a\",\"answer\":\"b\"}\n", Ok(1));
        check(
            "{\"question\":\"a\",\"answer\":\"b\"}\r\n{\"answer\":\"\",\"question\":\"\"}\r\n",
            Ok(2),
        );
        check("\n{\"question\":\"a\",\"answer\":\"b\",\"id\":7}\n\n", Ok(1));
    }

    #[test]
    fn names_the_line_that_is_wrong() {
        check("", Err(NONE));
        check("\n \n", Err(NONE));
        let expected = "expected {\"question\": \"…\", \"answer\": \"…\"}: ";
        let good = "{\"question\":\"a\",\"answer\":\"b\"}\n";
        let bad = |line: &str, position: &str, problem: &str| {
            check(
                &format!("{good}{line}\n"),
                Err(&format!("line 2, {position}: {expected}{problem}")),
            );
        };
        bad("{\"question\":\"a\"}", "column 16", "missing field `answer`");
        bad("{\"answer\":\"a\"}", "column 14", "missing field `question`");
        bad("{\"question\":\"a\",", "column 16", "EOF while parsing a value");
        bad(
            "{\"question\":1,\"answer\":\"\"}",
            "column 13",
            "invalid type: integer `1`, expected a string",
        );
        bad("7", "column 1", "invalid type: integer `7`, expected struct Document");
        bad(&good.trim_end().repeat(2), "column 30", "trailing characters");
        bad("question: a", "column 1", "expected value");
    }

    #[test]
    fn names_the_line_that_is_not_utf8() {
        let bytes: &[u8] = b"{\"question\":\"a\",\"answer\":\"b\"}\n\xff\n";
        let error = read_documents(bytes).unwrap_err();
        assert_eq!(error.to_string(), "cannot read line 2 as UTF-8 text");
    }

    #[test]
    fn names_the_file() {
        let error = load_documents("no/such/test.jsonl").unwrap_err();
        assert!(
            error.to_string().starts_with("cannot open no/such/test.jsonl: expected JSON lines")
        );
        let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml");
        let error = load_documents(manifest).unwrap_err();
        assert!(error.to_string().ends_with("Cargo.toml"), "{error}");
        let cause = error.source().unwrap().to_string();
        assert!(cause.starts_with("line 1, column "), "{cause}");
    }
}
