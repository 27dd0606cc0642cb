//! Questions with their answers, in any form that they are kept in.

use std::path::Path;

use moeprune_engine::Error as EngineError;
use moeprune_eval::Document;
use moeprune_text::{Content, ReadOptions, TextSet};

use crate::Error;

/// Reads questions with their answers: JSON lines, an array, CSV or Parquet rows of `question` and `answer`, packed or
/// not.
///
/// # Errors
/// If a file cannot be read, holds something else, or there is no question at all.
pub fn read_questions(path: &Path) -> Result<Vec<Document>, Error> {
    let mut documents = Vec::new();
    let set = TextSet::find_with(&[path.to_owned()], &ReadOptions::questions());
    for file in set.map_err(EngineError::from)?.files() {
        for record in file.records().map_err(EngineError::from)? {
            let record = record.map_err(EngineError::from)?;
            let Content::Question { question, answer } = record.content else {
                return Err(Error::Request(format!(
                    "{} {}: expected a question with its answer",
                    file.path().display(),
                    record.place
                )));
            };
            documents.push(Document { question, answer });
        }
    }
    if documents.is_empty() { Err(moeprune_eval::Error::NoDocuments.into()) } else { Ok(documents) }
}
