//! What an evaluation found.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{Ending, Extraction};

/// The outcome of [`evaluate`](crate::evaluate), ready to be written as JSON.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[non_exhaustive]
pub struct EvalReport {
    /// The task's name.
    pub task: String,
    /// How many solved examples preceded each question.
    pub fewshot: usize,
    /// How many documents were scored.
    pub n: usize,
    /// The accuracy under each of the task's filters, by the filter's name.
    pub metrics: BTreeMap<String, Estimate>,
    /// The same by subject, in order of their names, of a task that has subjects.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub subjects: Vec<Part>,
    /// The same by group of subjects, in order of their names, each subject weighted by its number of documents.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<Part>,
    /// Every answer, in the order of the documents.
    pub answers: Vec<Answer>,
}

impl EvalReport {
    pub(crate) fn new(task: &str, fewshot: usize, answers: Vec<Answer>) -> Self {
        let mut scores = BTreeMap::<&str, Vec<f64>>::new();
        for (filter, extraction) in answers.iter().flat_map(|answer| &answer.scores) {
            scores.entry(filter).or_default().push(extraction.score);
        }
        let metrics = scores
            .into_iter()
            .filter_map(|(filter, scores)| Some((filter.to_owned(), Estimate::of(&scores)?)))
            .collect();
        Self::of_answers(task, fewshot, metrics, answers)
    }

    pub(crate) fn of_answers(
        task: &str,
        fewshot: usize,
        metrics: BTreeMap<String, Estimate>,
        answers: Vec<Answer>,
    ) -> Self {
        let (n, subjects, groups) = (answers.len(), Vec::new(), Vec::new());
        Self { task: task.to_owned(), fewshot, n, metrics, subjects, groups, answers }
    }
}

/// A subject of a task, or several of them.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Part {
    /// Its name.
    pub name: String,
    /// How many documents it has.
    pub n: usize,
    /// The accuracy under each of the task's metrics, by the metric's name.
    pub metrics: BTreeMap<String, Estimate>,
}

impl Part {
    pub(crate) fn new(name: &str, n: usize, metrics: BTreeMap<String, Estimate>) -> Self {
        Self { name: name.to_owned(), n, metrics }
    }
}

/// One document's answer.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Answer {
    /// The document, counted from 0.
    pub index: usize,
    /// What the model wrote, cut at the stop strings; of multiple choice the text of the choice that the first metric takes.
    pub output: String,
    /// How it ended, if that is known and it was written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<Ending>,
    /// What each filter read in it and what that is worth, by the filter's name; of multiple choice the choice of each metric.
    pub scores: BTreeMap<String, Extraction>,
    /// The subject, of a task that has subjects.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    /// Which choice is right, counted from 0, of multiple choice.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gold: Option<usize>,
    /// How likely each choice is, of multiple choice.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub choices: Vec<ScoredChoice>,
}

impl Answer {
    pub(crate) fn new(index: usize, output: String, scores: BTreeMap<String, Extraction>) -> Self {
        Self { index, output, ended: None, scores, subject: None, gold: None, choices: Vec::new() }
    }
}

/// How likely a model finds a choice.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Serialize)]
#[non_exhaustive]
pub struct ScoredChoice {
    /// The natural logarithm of its probability after the prompt, summed over its tokens.
    pub log_likelihood: f64,
    /// Its number of tokens.
    pub tokens: usize,
    /// Whether greedy decoding would write it.
    pub is_greedy: bool,
}

/// A mean over documents and how far to trust it.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Estimate {
    /// The mean, between 0 and 1.
    pub mean: f64,
    /// The standard error of the mean, the documents being a sample of all one could ask: sample
    /// standard deviation over √n, which is √(p(1 − p) / (n − 1)) where every score is 0 or 1.
    /// None of a single document.
    pub stderr: Option<f64>,
}

impl Estimate {
    pub(crate) fn new(mean: f64, stderr: Option<f64>) -> Self {
        Self { mean, stderr }
    }

    /// The mean of some scores and its standard error; nothing if there are no scores.
    ///
    /// ```
    /// # use moeprune_eval::Estimate;
    /// let estimate = Estimate::of(&[1.0, 0.0, 0.0, 1.0, 0.0]).unwrap();
    /// assert_eq!(estimate.mean, 0.4);
    /// assert!((estimate.stderr.unwrap() - (0.4_f64 * 0.6 / 4.0).sqrt()).abs() < 1e-15);
    /// ```
    pub fn of(scores: &[f64]) -> Option<Self> {
        if scores.is_empty() {
            return None;
        }
        let n = scores.len() as f64;
        let mean = scores.iter().sum::<f64>() / n;
        let squares: f64 = scores.iter().map(|score| (score - mean).powi(2)).sum();
        let stderr = (scores.len() > 1).then(|| (squares / (n - 1.0)).sqrt() / n.sqrt());
        Some(Self { mean, stderr })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(right: usize, n: usize, mean: f64, stderr: Option<f64>) {
        let scores: Vec<f64> = (0..n).map(|i| f64::from(u8::from(i < right))).collect();
        let found = Estimate::of(&scores).unwrap();
        assert!((found.mean - mean).abs() < 1e-12, "{right} of {n}: {found:?}");
        match (found.stderr, stderr) {
            (Some(found), Some(expected)) => {
                assert!((found - expected).abs() < 1e-12, "{right} of {n}: {found}");
            }
            (found, expected) => assert_eq!(found, expected, "{right} of {n}"),
        }
    }

    #[test]
    fn estimates_mean_and_standard_error() {
        check(0, 1, 0.0, None);
        check(1, 1, 1.0, None);
        check(1, 2, 0.5, Some(0.5));
        check(3, 3, 1.0, Some(0.0));
        let p = 742.0 / 1319.0;
        check(742, 1319, p, Some((p * (1.0 - p) / 1318.0_f64).sqrt()));
        assert_eq!(Estimate::of(&[]), None);
    }
}
