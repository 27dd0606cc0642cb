//! The generated problems: right arithmetic, separate sets, the same for the same seed.

use nano::corpus::Corpus;
use nano::problem::{Problem, final_number};
use nano::story::Kind;
use std::collections::HashSet;

#[test]
fn every_annotation_is_right_and_the_last_is_the_answer() {
    let corpus = Corpus::new(7);
    for problem in corpus.training().take(20_000) {
        let results = annotations(&problem);
        assert!((1..=4).contains(&results.len()), "{problem:?}");
        let last = results.last().map(u32::to_string);
        assert_eq!(problem.result(), last.as_deref(), "{problem:?}");
        let end = problem.answer.lines().last();
        assert_eq!(end, last.map(|last| format!("#### {last}")).as_deref());
    }
}

#[test]
fn numbers_stay_small() {
    let corpus = Corpus::new(8);
    for problem in corpus.training().take(20_000) {
        for result in annotations(&problem) {
            assert!(result <= 200, "{problem:?}");
        }
    }
}

#[test]
fn problems_take_one_to_four_steps() {
    let corpus = Corpus::new(9);
    let mut counts = [0; 5];
    for problem in corpus.training().take(5000) {
        counts[annotations(&problem).len()] += 1;
    }
    assert!(counts[1..].iter().all(|&count| count > 250), "{counts:?}");
}

#[test]
fn no_question_is_in_two_sets() {
    let corpus = Corpus::new(1);
    let mut reserved = HashSet::new();
    for problem in corpus.test.iter().chain(&corpus.calibration).chain(&corpus.held_out) {
        assert!(reserved.insert(&problem.question), "{problem:?} twice");
    }
    for problem in corpus.training().take(50_000) {
        assert!(!reserved.contains(&problem.question), "{problem:?} is reserved");
    }
}

#[test]
fn a_seed_always_gives_the_same_problems() {
    let (one, two, other) = (Corpus::new(3), Corpus::new(3), Corpus::new(4));
    assert_eq!(one.test, two.test);
    assert_eq!(one.held_out_text(), two.held_out_text());
    assert!(one.training().take(1000).eq(two.training().take(1000)));
    assert_ne!(one.test, other.test);
}

#[test]
fn the_number_after_the_mark_ends_at_the_first_other_sign() {
    assert_eq!(final_number("so\n#### 12\n\nQuestion: 3"), Some("12"));
    assert_eq!(final_number("#### none"), None);
    assert_eq!(final_number("12"), None);
}

/// The results of all annotations, after checking each against its own arithmetic and against the
/// text around it.
fn annotations(problem: &Problem) -> Vec<u32> {
    let mut results = Vec::new();
    let mut rest = problem.answer.as_str();
    while let Some((before, after)) = rest.split_once("<<") {
        let (inside, behind) = after.split_once(">>").expect("annotations are closed");
        let (sum, result) = inside.split_once('=').expect("an annotation has a result");
        assert!(before.ends_with(&format!("{sum}=")), "{problem:?}");
        assert!(behind.starts_with(result), "{problem:?}");
        let result = result.parse().expect("results are numbers");
        assert_eq!(evaluate(sum), result, "{problem:?}");
        results.push(result);
        rest = behind;
    }
    results
}

fn evaluate(sum: &str) -> u32 {
    let at = sum.find(['+', '-', '*', '/']).expect("a sum has a sign");
    let number = |text: &str| text.parse::<u32>().expect("a sum has two numbers");
    let (left, right) = (number(&sum[..at]), number(&sum[at + 1..]));
    match &sum[at..=at] {
        "+" => left + right,
        "-" => left - right,
        "*" => left * right,
        _ => {
            assert_eq!(left % right, 0, "{sum}");
            left / right
        }
    }
}

#[test]
fn kinds_of_problems_have_nothing_in_common() {
    let corpus = Corpus::new(1);
    for set in [&corpus.calibration, &corpus.held_out] {
        let of = |kind| corpus.of_kind(set, kind);
        let (earning, having) = (of(Kind::Earning), of(Kind::Having));
        assert_eq!(earning.len() + having.len(), set.len());
        assert!(earning.len().min(having.len()) * 3 > set.len());
        assert!(earning.iter().all(|problem| !having.contains(problem)));
    }
}
