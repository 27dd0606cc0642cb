//! From records to a report.

use std::collections::BTreeMap;

use super::{ChoiceData, ChoiceTask, question::Question};
use crate::{
    Answer, ContinuationScorer, Error, Estimate, EvalReport, EvaluateOptions, Extraction,
    LogLikelihood, Part, ScoredChoice,
};

/// Scores the choices of every question and takes the likeliest: [`AskedQuestions::new`], then [`AskedQuestions::evaluate`].
///
/// # Errors
/// As these.
pub fn evaluate_choices(
    task: &ChoiceTask,
    shots: Option<usize>,
    data: &[ChoiceData],
    scorer: &mut dyn ContinuationScorer,
    options: &EvaluateOptions,
) -> Result<EvalReport, Error> {
    AskedQuestions::new(task, shots, data, options)?.evaluate(scorer)
}

/// The questions of a task, ready to be scored.
#[derive(Clone, Debug)]
pub struct AskedQuestions<'a> {
    task: &'a ChoiceTask,
    shots: usize,
    batch: usize,
    questions: Vec<(Option<&'a str>, Question)>,
}

impl<'a> AskedQuestions<'a> {
    /// Makes questions of records. A limit is one of each subject, as the harness's is; a batch is questions whose choices are scored
    /// together. `shots` are as many as the task says unless given.
    ///
    /// # Errors
    /// If there are no questions, the limit or the batch is 0, or a record does not fit the task ([`ChoiceTask::questions`]).
    pub fn new(
        task: &'a ChoiceTask,
        shots: Option<usize>,
        data: &'a [ChoiceData],
        options: &EvaluateOptions,
    ) -> Result<Self, Error> {
        options.check()?;
        let shots = shots.unwrap_or(task.fewshot.shots);
        let mut questions = Vec::new();
        for part in data {
            let limit = options.limit.unwrap_or(usize::MAX).min(part.questions.len());
            let asked = task.first_questions(part, limit, shots)?;
            questions.extend(asked.into_iter().map(|question| (part.subject.as_deref(), question)));
        }
        match questions.is_empty() {
            true => Err(Error::NoDocuments),
            false => Ok(Self { task, shots, batch: options.batch, questions }),
        }
    }

    /// How many they are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.questions.len()
    }

    /// How many choices they have together.
    #[must_use]
    pub fn choices(&self) -> usize {
        self.questions.iter().map(|(_, question)| question.pairs.len()).sum()
    }

    /// Whether there are none, which [`new`](Self::new) refuses.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.questions.is_empty()
    }

    /// Scores all choices and takes the likeliest. The report depends neither on the batch size nor on the order of subjects.
    ///
    /// # Errors
    /// If the scorer fails, returns a wrong number of results or something that is no log-likelihood.
    pub fn evaluate(&self, scorer: &mut dyn ContinuationScorer) -> Result<EvalReport, Error> {
        let mut answers = Vec::with_capacity(self.questions.len());
        for batch in self.questions.chunks(self.batch) {
            let scores = score(batch, answers.len(), scorer)?;
            let mut scores = scores.into_iter();
            for (subject, question) in batch {
                let own: Vec<LogLikelihood> = scores.by_ref().take(question.pairs.len()).collect();
                answers.push(answer(self.task, answers.len(), *subject, question, &own));
            }
        }
        Ok(report(self.task, self.shots, answers))
    }
}

fn score(
    batch: &[(Option<&str>, Question)],
    first: usize,
    scorer: &mut dyn ContinuationScorer,
) -> Result<Vec<LogLikelihood>, Error> {
    let last = first + batch.len() - 1;
    let pairs: Vec<_> = batch.iter().flat_map(|(_, question)| &question.pairs).cloned().collect();
    let scores =
        scorer.score(&pairs).map_err(|source| Error::ScoreChoices { first, last, source })?;
    if scores.len() != pairs.len() {
        return Err(Error::ScoreCount { pairs: pairs.len(), scores: scores.len() });
    }
    match scores.iter().find(|score| score.sum.is_nan() || score.sum == f64::INFINITY) {
        Some(score) => Err(Error::NoLogLikelihood { first, last, value: score.sum }),
        None => Ok(scores),
    }
}

fn answer(
    task: &ChoiceTask,
    index: usize,
    subject: Option<&str>,
    question: &Question,
    scores: &[LogLikelihood],
) -> Answer {
    let judged = task.metrics.iter().map(|metric| {
        let chosen = metric.chosen(&question.choices, scores);
        let right = if chosen == question.gold { 1.0 } else { 0.0 };
        (metric.name().to_owned(), Extraction::new(&*question.choices[chosen], right))
    });
    let scored = |score: &LogLikelihood| ScoredChoice {
        log_likelihood: score.sum,
        tokens: score.tokens,
        is_greedy: score.is_greedy,
    };
    let chosen = task.metrics[0].chosen(&question.choices, scores);
    let mut answer = Answer::new(index, question.choices[chosen].clone(), judged.collect());
    answer.subject = subject.map(str::to_owned);
    answer.gold = Some(question.gold);
    answer.choices = scores.iter().map(scored).collect();
    answer
}

/// Means by subject and group where there are subjects.
fn report(task: &ChoiceTask, shots: usize, answers: Vec<Answer>) -> EvalReport {
    let mut by_subject = BTreeMap::<&str, Vec<&Answer>>::new();
    for answer in &answers {
        if let Some(subject) = &answer.subject {
            by_subject.entry(subject).or_default().push(answer);
        }
    }
    let subjects: Vec<Part> = by_subject
        .iter()
        .map(|(subject, answers)| Part::new(subject, answers.len(), means(task, answers)))
        .collect();
    let of = |named: &[String]| -> Vec<&Part> {
        subjects.iter().filter(|part| named.contains(&part.name)).collect()
    };
    let groups = task
        .groups()
        .map(|(group, named)| (group, of(named)))
        .filter(|(_, parts)| !parts.is_empty());
    let groups: Vec<Part> = groups.map(|(group, parts)| pooled(task, group, &parts)).collect();
    let metrics = match subjects.is_empty() {
        true => means(task, &answers.iter().collect::<Vec<_>>()),
        false => pooled(task, task.name(), &subjects.iter().collect::<Vec<_>>()).metrics,
    };
    let mut report = EvalReport::of_answers(task.name(), shots, metrics, answers);
    (report.subjects, report.groups) = (subjects, groups);
    report
}

fn means(task: &ChoiceTask, answers: &[&Answer]) -> BTreeMap<String, Estimate> {
    let mean = |name: &str| {
        let scores: Vec<f64> =
            answers.iter().filter_map(|answer| Some(answer.scores.get(name)?.score)).collect();
        Estimate::of(&scores)
    };
    let names = task.metrics.iter().map(|metric| metric.name());
    names.filter_map(|name| Some((name.to_owned(), mean(name)?))).collect()
}

/// The harness's mean over subjects, each weighted by its number of questions, with the pooled standard error.
fn pooled(task: &ChoiceTask, name: &str, parts: &[&Part]) -> Part {
    let n: usize = parts.iter().map(|part| part.n).sum();
    let estimate = |metric: &str| {
        let of = |part: &&Part| part.metrics.get(metric).map(|estimate| (part.n as f64, *estimate));
        let parts: Vec<(f64, Estimate)> = parts.iter().filter_map(of).collect();
        let mean = parts.iter().map(|(n, estimate)| estimate.mean * n).sum::<f64>() / n as f64;
        let squares =
            parts.iter().map(|(n, estimate)| Some((n - 1.0) * estimate.stderr?.powi(2) * n));
        let squares: Option<f64> = squares.sum();
        let stderr = squares.map(|squares| (squares / (n - parts.len()) as f64 / n as f64).sqrt());
        Estimate::new(mean, stderr)
    };
    let names = task.metrics.iter().map(|metric| metric.name());
    Part::new(name, n, names.map(|name| (name.to_owned(), estimate(name))).collect())
}
