//! From documents to a report.

use crate::{Answer, Document, Ending, Error, EvalReport, Generator, Request, Task};

/// How much is evaluated, and how much at a time.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct EvaluateOptions {
    /// Only the first so many documents; all of them if none or if there are fewer.
    pub limit: Option<usize>,
    /// How many requests the generator receives at a time: 8 unless set.
    pub batch: usize,
}

impl Default for EvaluateOptions {
    fn default() -> Self {
        Self { limit: None, batch: 8 }
    }
}

impl EvaluateOptions {
    /// Evaluates the first `limit` documents alone.
    pub fn with_limit(mut self, limit: usize) -> Self {
        self.limit = Some(limit);
        self
    }

    /// Gives the generator `batch` requests at a time.
    pub fn with_batch(mut self, batch: usize) -> Self {
        self.batch = batch;
        self
    }

    /// A batch and a limit of at least 1.
    pub(crate) fn check(&self) -> Result<(), Error> {
        if self.batch == 0 {
            return Err(Error::Zero { what: "the batch size", hint: "" });
        }
        if self.limit == Some(0) {
            return Err(Error::Zero {
                what: "the limit",
                hint: ", or none to evaluate everything",
            });
        }
        Ok(())
    }
}

/// Asks a generator every question of a task and scores the answers.
///
/// Answers are cut at the request's stop strings before they are scored, each string in turn, as
/// the harness cuts them. The report depends on neither the batch size nor anything but the
/// documents and the generator's texts.
///
/// # Errors
///
/// If there are no documents, if the limit or the batch is 0, if the task or the generator fails,
/// or if either returns a wrong number of results.
pub fn evaluate(
    task: &dyn Task,
    documents: &[Document],
    generator: &mut dyn Generator,
    options: &EvaluateOptions,
) -> Result<EvalReport, Error> {
    let documents = limited(documents, options)?;
    let requests = requests(task, documents)?;
    let mut answers = Vec::with_capacity(documents.len());
    for batch in requests.chunks(options.batch) {
        let outputs = generate(generator, batch, answers.len())?;
        let endings = endings(generator, batch.len())?;
        for ((request, output), ending) in batch.iter().zip(outputs).zip(endings) {
            let index = answers.len();
            let written = output.len();
            let output = cut_at_stops(output, &request.stop);
            // What a generator wrote beyond a stop string is no part of the answer.
            let ended = if output.len() < written { Some(Ending::Stop) } else { ending };
            let scores = task.score(&documents[index], &output);
            answers.push(Answer { ended, ..Answer::new(index, output, scores) });
        }
    }
    Ok(EvalReport::new(task.name(), task.fewshot(), answers))
}

fn limited<'d>(
    documents: &'d [Document],
    options: &EvaluateOptions,
) -> Result<&'d [Document], Error> {
    if documents.is_empty() {
        return Err(Error::NoDocuments);
    }
    options.check()?;
    Ok(&documents[..options.limit.unwrap_or(usize::MAX).min(documents.len())])
}

fn requests(task: &dyn Task, documents: &[Document]) -> Result<Vec<Request>, Error> {
    let name = || task.name().to_owned();
    let requests =
        task.requests(documents).map_err(|source| Error::Task { task: name(), source })?;
    if requests.len() != documents.len() {
        let (documents, requests) = (documents.len(), requests.len());
        return Err(Error::RequestCount { task: name(), documents, requests });
    }
    Ok(requests)
}

fn generate(
    generator: &mut dyn Generator,
    batch: &[Request],
    first: usize,
) -> Result<Vec<String>, Error> {
    let last = first + batch.len() - 1;
    let outputs =
        generator.generate(batch).map_err(|source| Error::Generate { first, last, source })?;
    if outputs.len() != batch.len() {
        return Err(Error::OutputCount { requests: batch.len(), outputs: outputs.len() });
    }
    Ok(outputs)
}

/// How each text of the last batch ended, where it is known.
fn endings(generator: &dyn Generator, requests: usize) -> Result<Vec<Option<Ending>>, Error> {
    match generator.endings() {
        None => Ok(vec![None; requests]),
        Some(endings) if endings.len() == requests => {
            Ok(endings.iter().copied().map(Some).collect())
        }
        Some(endings) => Err(Error::EndingCount { requests, endings: endings.len() }),
    }
}

/// One stop string after the other: a later one is sought in what the earlier ones left.
fn cut_at_stops(mut text: String, stops: &[String]) -> String {
    for stop in stops.iter().filter(|stop| !stop.is_empty()) {
        if let Some(end) = text.find(stop.as_str()) {
            text.truncate(end);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, stops: &[&str], expected: &str) {
        let stops: Vec<String> = stops.iter().map(|&stop| stop.to_owned()).collect();
        assert_eq!(cut_at_stops(text.to_owned(), &stops), expected, "{text:?} at {stops:?}");
    }

    #[test]
    fn cuts_at_stop_strings() {
        check(" 18\n\nQ: next", &["Q:", "</s>"], " 18\n\n");
        check(" 18</s>Q: next", &["Q:", "</s>"], " 18");
        check("Q:", &["Q:"], "");
        check("a b a b", &["b"], "a ");
        check("18", &["Q:"], "18");
        check("18", &[], "18");
        check("18", &[""], "18");
        check("é·18", &["·"], "é");
        check("abc", &["bc", "ab"], "a"); // `ab` is gone once `bc` is cut
        check("abc", &["ab", "bc"], "");
    }
}
