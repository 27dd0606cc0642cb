//! Answers kept in a file, also where the process is killed.

use std::{
    fs,
    path::Path,
    sync::atomic::{AtomicUsize, Ordering},
};

use moeprune_endpoint::{Journal, JournalError, Journaled, RunKey};
use moeprune_eval::{
    BoxError, Continuation, ContinuationScorer as _, Ending, Generator, LogLikelihood, Request,
    generate_each, score_each_continuation,
};
use proptest::prelude::*;

fn run() -> RunKey {
    RunKey::new().with("model", "m").with("task", "gsm8k")
}

fn requests(count: usize) -> Vec<Request> {
    (0..count).map(|n| Request::new(format!("Q {n}"), vec!["\n".into()], 16)).collect()
}

fn answer(request: &Request) -> String {
    format!("{} é\u{2028}\n\"", request.prompt)
}

/// Answers all, or as many as there are before the model fails; how many the model was asked.
fn ask(path: &Path, requests: &[Request], most: usize) -> (Result<Vec<String>, String>, usize) {
    let asked = AtomicUsize::new(0);
    let model = generate_each(|request| {
        if asked.fetch_add(1, Ordering::SeqCst) >= most {
            return Err("the model failed".into());
        }
        Ok(answer(request))
    });
    let mut journal = Journal::open(path, &run()).unwrap();
    let mut journaled = Journaled::new(model, Some(&mut journal));
    let mut found = Vec::new();
    for batch in requests.chunks(2) {
        match journaled.generate(batch) {
            Ok(texts) => found.extend(texts),
            Err(error) => return (Err(error.to_string()), asked.into_inner()),
        }
    }
    (Ok(found), asked.into_inner())
}

#[test]
fn only_what_is_missing_is_asked() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("j.jsonl");
    let requests = requests(8);
    let all: Vec<String> = requests.iter().map(answer).collect();
    assert!(ask(&path, &requests, 4).0.is_err());
    assert_eq!(ask(&path, &requests, 100), (Ok(all.clone()), 4));
    assert_eq!(ask(&path, &requests, 0), (Ok(all), 0));
    // Another number of tokens or other stop strings is another question.
    let other = [Request::new("Q 0", vec!["\n".into()], 17), Request::new("Q 0", vec![], 16)];
    assert_eq!(ask(&path, &other, 100).1, 2);
}

#[test]
fn a_journal_cut_anywhere_is_resumed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("j.jsonl");
    let requests = requests(3);
    let all: Vec<String> = requests.iter().map(answer).collect();
    ask(&path, &requests, 100).0.unwrap();
    let whole = fs::read(&path).unwrap();
    let lines_before = |cut: usize| whole[..cut].iter().filter(|&&byte| byte == b'\n').count();
    for cut in 0..=whole.len() {
        fs::write(&path, &whole[..cut]).unwrap();
        let kept = lines_before(cut).saturating_sub(1);
        assert_eq!(ask(&path, &requests, 100), (Ok(all.clone()), 3 - kept), "{cut}");
        assert_eq!(fs::read(&path).unwrap(), whole, "{cut}");
    }
    // Power that was lost leaves zeros, or a last line without its middle.
    for torn in [&b"\0\0\0\0"[..], b"\0\0\n", b"{\"of\":\"12\n", b"\xff\xfe"] {
        fs::write(&path, [&whole, torn].concat()).unwrap();
        assert_eq!(ask(&path, &requests, 0).0, Ok(all.clone()), "{torn:?}");
        assert_eq!(fs::read(&path).unwrap(), whole);
    }
}

#[test]
fn what_is_no_journal_of_this_run() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("j.jsonl");
    ask(&path, &requests(3), 100).0.unwrap();
    let own = fs::read(&path).unwrap();
    let check = |run: RunKey, expected: &[&str]| {
        let said = Journal::open(&path, &run).unwrap_err().to_string();
        for part in expected {
            assert!(said.contains(part), "{said}");
        }
        assert_eq!(fs::read(&path).unwrap(), own);
    };
    check(
        RunKey::new().with("model", "n").with("task", "gsm8k"),
        &["another run", "model is `m` there and `n` here", "--journal"],
    );
    check(RunKey::new().with("model", "m"), &["task is `gsm8k` there and not given here"]);
    check(run().with("data", "x"), &["data is not given there and `x` here"]);

    for foreign in
        ["my notes", "my notes\n", "{}\n", "[1]\n", "{\"moeprune_journal\":9,\"run\":{}}\n", "\n"]
    {
        fs::write(&path, foreign).unwrap();
        let error = Journal::open(&path, &run()).unwrap_err();
        assert!(matches!(error, JournalError::NotAJournal { .. }), "{foreign}: {error}");
        assert_eq!(fs::read_to_string(&path).unwrap(), foreign);
    }

    let text = String::from_utf8(own).unwrap();
    let mut lines: Vec<&str> = text.lines().collect();
    lines[2] = "{\"of\": 3}";
    fs::write(&path, lines.join("\n") + "\n").unwrap();
    let said = Journal::open(&path, &run()).unwrap_err().to_string();
    assert!(said.contains("line 3 of the journal") && said.contains("damaged"), "{said}");
}

#[test]
fn two_runs_do_not_write_one_journal() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("j.jsonl");
    let first = Journal::open(&path, &run()).unwrap();
    let error = Journal::open(&path, &run()).unwrap_err();
    assert!(matches!(error, JournalError::InUse { .. }), "{error}");
    first.remove().unwrap();
    assert!(!path.exists());
    let error = Journal::open(folder.path(), &run()).unwrap_err();
    assert!(matches!(error, JournalError::Io { .. } | JournalError::NotAJournal { .. }), "{error}");
}

#[test]
fn what_is_asked_twice_has_two_answers() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("j.jsonl");
    let twice = [requests(1), requests(1)].concat();
    assert_eq!(ask(&path, &twice, 100).1, 2);
    assert_eq!(ask(&path, &twice, 100).1, 0);
    assert_eq!(ask(&path, &[twice.clone(), twice].concat(), 100).1, 2);
}

/// Answers with the prompt, and says that it was cut off.
struct Cut(Vec<Ending>);

impl Generator for Cut {
    fn generate(&mut self, requests: &[Request]) -> Result<Vec<String>, BoxError> {
        self.0 = vec![Ending::Length; requests.len()];
        Ok(requests.iter().map(answer).collect())
    }

    fn endings(&self) -> Option<&[Ending]> {
        Some(&self.0)
    }
}

#[test]
fn how_answers_ended_is_kept_with_them() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("j.jsonl");
    let open = || Journal::open(&path, &run()).unwrap();
    for count in [2, 2, 5] {
        let mut journal = open();
        let mut journaled = Journaled::new(Cut(vec![]), Some(&mut journal));
        journaled.generate(&requests(count)).unwrap();
        assert_eq!(journaled.endings(), Some(&vec![Ending::Length; count][..]));
    }
    // One that is not known leaves all open.
    let mut journal = open();
    let silent = generate_each(|request| Ok(answer(request)));
    let mut journaled = Journaled::new(silent, Some(&mut journal));
    journaled.generate(&requests(5)).unwrap();
    assert!(journaled.endings().is_some());
    journaled.generate(&requests(6)).unwrap();
    assert!(journaled.endings().is_none());
}

#[test]
fn without_a_journal_nothing_is_kept() {
    let model = generate_each(|request| Ok(answer(request)));
    let mut journaled = Journaled::new(model, None);
    let mut noted = Vec::new();
    let mut note = |place, text: &str, _| {
        noted.push((place, text.to_owned()));
        Ok(())
    };
    let found = journaled.generate_noting(&requests(2), &mut note).unwrap();
    assert_eq!(noted, [(0, found[0].clone()), (1, found[1].clone())]);
}

proptest! {
    #[test]
    fn scores_come_back_to_the_bit(sums in prop::collection::vec(any::<f64>(), 1..6), greedy in any::<bool>()) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("j.jsonl");
        let pairs: Vec<Continuation> =
            (0..sums.len()).map(|n| Continuation::new("c", n.to_string())).collect();
        let score = |asked: &AtomicUsize| {
            let model = score_each_continuation(|pair: &Continuation| {
                asked.fetch_add(1, Ordering::SeqCst);
                Ok(LogLikelihood::new(sums[pair.text.parse::<usize>().unwrap()], 3, greedy))
            });
            let mut journal = Journal::open(&path, &run()).unwrap();
            Journaled::new(model, Some(&mut journal)).score(&pairs).unwrap()
        };
        let (first, second) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let (found, again) = (score(&first), score(&second));
        let bits = |scores: &[LogLikelihood]| scores.iter().map(|s| s.sum.to_bits()).collect::<Vec<_>>();
        prop_assert_eq!(bits(&found), bits(&again));
        prop_assert_eq!(first.into_inner(), sums.len());
        prop_assert_eq!(second.into_inner(), sums.iter().filter(|sum| !sum.is_finite()).count());
    }
}
