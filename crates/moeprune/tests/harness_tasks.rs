//! Multiple choice on a small model, held to lm-evaluation-harness 0.4.13: `scripts/harness-tasks.py` wrote the references.

use std::{collections::BTreeMap, fs, path::PathBuf};

use moeprune::{
    Error, Evaluation, Execution, Silent,
    checkpoint::Checkpoint,
    eval::{ChoiceTask, EvalReport, Question, choice_task},
    evaluate_all,
    evaluation::{Score, read_choice_data},
};
use serde::Deserialize;
use sha2::{Digest, Sha256};

#[derive(Deserialize)]
struct Reference {
    task: String,
    shots: usize,
    results: BTreeMap<String, f64>,
    #[serde(default)]
    groups: BTreeMap<String, BTreeMap<String, f64>>,
    #[serde(default)]
    subjects: BTreeMap<String, BTreeMap<String, f64>>,
    first: Vec<(String, String)>,
    questions: Vec<Answered>,
}

/// What the harness made of a question.
#[derive(Deserialize)]
struct Answered {
    sha: String,
    ll: Vec<f64>,
    greedy: Vec<bool>,
    acc: f64,
    acc_norm: Option<f64>,
}

fn assets() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../assets/tasks")
}

fn references() -> Vec<Reference> {
    let mut files: Vec<PathBuf> = fs::read_dir(assets().join("reference"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();
    assert_eq!(files.len(), 18);
    files.iter().map(|file| serde_json::from_slice(&fs::read(file).unwrap()).unwrap()).collect()
}

fn questions(task: &ChoiceTask, shots: usize) -> Vec<Question> {
    let data = read_choice_data(task, &assets().join("data"), None, shots).unwrap();
    data.iter().flat_map(|part| task.questions(part, shots).unwrap()).collect()
}

fn hash(question: &Question) -> String {
    let mut hash = Sha256::new();
    for pair in &question.pairs {
        hash.update(format!("{}\0{}\0", pair.context, pair.text));
    }
    format!("{:x}", hash.finalize())[..16].to_owned()
}

#[test]
fn prompts_are_the_harness_s() {
    for Reference { task: name, shots, first, questions: expected, .. } in references() {
        let task = choice_task(&name).unwrap().expect("built in");
        let found = questions(&task, shots);
        let pairs: Vec<(String, String)> =
            found[0].pairs.iter().map(|pair| (pair.context.clone(), pair.text.clone())).collect();
        assert_eq!(pairs, first, "{name} with {shots} shots");
        let hashes: Vec<String> = found.iter().map(hash).collect();
        let expected: Vec<&str> = expected.iter().map(|question| question.sha.as_str()).collect();
        assert_eq!(hashes, expected, "{name} with {shots} shots");
    }
}

/// Log-likelihoods within 1e-4, and the very same accuracies and standard errors.
#[test]
fn scores_are_the_harness_s() {
    let references = references();
    let data = assets().join("data");
    let evaluations: Vec<Evaluation<'_>> = references
        .iter()
        .map(|reference| evaluation(&reference.task, &data, reference.shots))
        .collect();
    let scores = evaluate(&evaluations).unwrap();
    for (reference, score) in references.iter().zip(scores) {
        let Score::Answers(report) = score else { panic!("answers") };
        check(reference, &report);
    }
}

fn evaluation<'a>(task: &'a str, data: &'a std::path::Path, shots: usize) -> Evaluation<'a> {
    Evaluation {
        task,
        data,
        limit: None,
        fewshot: Some(shots),
        fewshot_data: None,
        batch: 5,
        sequence_len: None,
    }
}

fn evaluate(evaluations: &[Evaluation<'_>]) -> Result<Vec<Score>, Error> {
    let checkpoint = Checkpoint::open(&assets().join("model")).unwrap();
    evaluate_all(&checkpoint, evaluations, &Execution::cpu(), &mut Silent)
}

fn check(reference: &Reference, report: &EvalReport) {
    let name = format!("{} with {} shots", reference.task, reference.shots);
    assert_eq!((&report.task, report.fewshot), (&reference.task, reference.shots));
    assert_eq!(report.answers.len(), reference.questions.len(), "{name}");
    for (answer, expected) in report.answers.iter().zip(&reference.questions) {
        let name = format!("{name}, question {}", answer.index);
        assert_eq!(answer.choices.len(), expected.ll.len(), "{name}");
        for (choice, (ll, greedy)) in
            answer.choices.iter().zip(expected.ll.iter().zip(&expected.greedy))
        {
            let off = (choice.log_likelihood - ll).abs();
            assert!(off < 1e-4, "{name}: {} and not {ll}", choice.log_likelihood);
            assert_eq!(choice.is_greedy, *greedy, "{name}");
        }
        assert_eq!(answer.scores["acc"].score, expected.acc, "{name}");
        assert_eq!(answer.scores.get("acc_norm").map(|s| s.score), expected.acc_norm, "{name}");
    }
    let parts = |parts: &[moeprune::eval::Part]| -> BTreeMap<String, BTreeMap<String, f64>> {
        parts.iter().map(|part| (part.name.clone(), flat(&part.metrics))).collect()
    };
    close(&flat(&report.metrics), &reference.results, &name);
    for (found, expected) in
        [(parts(&report.groups), &reference.groups), (parts(&report.subjects), &reference.subjects)]
    {
        assert!(found.keys().eq(expected.keys()), "{name}: {:?}", found.keys());
        for (part, expected) in expected {
            close(&found[part], expected, &format!("{name}, {part}"));
        }
    }
}

/// Metrics with their errors under the harness's names.
fn flat(metrics: &BTreeMap<String, moeprune::eval::Estimate>) -> BTreeMap<String, f64> {
    let of = |(name, estimate): (&String, &moeprune::eval::Estimate)| {
        [(name.clone(), estimate.mean), (format!("{name}_stderr"), estimate.stderr.unwrap())]
    };
    metrics.iter().flat_map(of).collect()
}

fn close(found: &BTreeMap<String, f64>, expected: &BTreeMap<String, f64>, name: &str) {
    assert!(found.keys().eq(expected.keys()), "{name}: {found:?}");
    for (metric, value) in expected {
        assert!(
            (found[metric] - value).abs() < 1e-12,
            "{name}: {metric} is {}, not {value}",
            found[metric]
        );
    }
}

/// The batch changes no log-likelihood, and a limit takes the first questions.
#[test]
fn batches_and_limits_change_nothing() {
    let data = assets().join("data");
    let one = Evaluation { batch: 1, ..evaluation("arc_easy", &data, 3) };
    let all = Evaluation { batch: 100, ..one.clone() };
    let first = Evaluation { limit: Some(7), batch: 3, ..one.clone() };
    let scores = evaluate(&[one, all, first]).unwrap();
    let reports: Vec<&EvalReport> = scores
        .iter()
        .map(|score| match score {
            Score::Answers(report) => report,
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(reports[0], reports[1]);
    assert_eq!(reports[2].answers, reports[0].answers[..7]);
}
