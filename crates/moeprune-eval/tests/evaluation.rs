//! The way from documents to a report, and every way it can end early.

use std::{collections::BTreeMap, error::Error as _};

use moeprune_eval::{
    BoxError, Document, Error, EvalReport, EvaluateOptions, Extraction, Generator, Gsm8k, Request,
    TASK_NAMES, Task, evaluate, generate_each, task_by_name,
};

fn documents() -> Vec<Document> {
    (1..=5).map(|i| Document::new(format!("How many are {i}?"), format!("#### {i}"))).collect()
}

/// Knows the first three numbers and never stops by itself.
fn counting() -> impl Generator {
    generate_each(|request| {
        let asked = request.prompt.chars().rfind(char::is_ascii_digit);
        let number = asked.filter(|&digit| digit <= '3').unwrap_or('0');
        Ok(format!(" That is {number}.\n#### {number}\n\nQuestion: How many are 9?"))
    })
}

fn report(options: &EvaluateOptions) -> EvalReport {
    evaluate(&Gsm8k::zero_shot(), &documents(), &mut counting(), options).unwrap()
}

#[test]
fn the_report_as_json() {
    let report = report(&EvaluateOptions::default().with_limit(4));
    let json = serde_json::to_string_pretty(&report).unwrap();
    insta::assert_snapshot!(json);
    assert_eq!(serde_json::from_str::<EvalReport>(&json).unwrap(), report);
}

#[test]
fn the_report_of_one_document_has_no_standard_error() {
    insta::assert_json_snapshot!(report(&EvaluateOptions::default().with_limit(1)));
}

#[test]
fn the_batch_size_does_not_matter() {
    let all = report(&EvaluateOptions::default());
    for batch in 1..=7 {
        assert_eq!(report(&EvaluateOptions::default().with_batch(batch)), all, "batch {batch}");
    }
}

#[test]
fn a_limit_keeps_the_first_documents() {
    let all = report(&EvaluateOptions::default());
    for limit in 1..=7 {
        let some = report(&EvaluateOptions::default().with_limit(limit));
        assert_eq!(some.answers, all.answers[..limit.min(5)], "limit {limit}");
        assert_eq!(some.n, limit.min(5));
    }
}

#[test]
fn batches_come_in_order() {
    struct Batches(Vec<Vec<String>>);
    impl Generator for Batches {
        fn generate(&mut self, requests: &[Request]) -> Result<Vec<String>, BoxError> {
            self.0.push(requests.iter().map(|request| request.prompt.clone()).collect());
            Ok(vec![String::new(); requests.len()])
        }
    }
    let mut batches = Batches(vec![]);
    let options = EvaluateOptions::default().with_batch(2);
    evaluate(&Gsm8k::zero_shot(), &documents(), &mut batches, &options).unwrap();
    let sizes: Vec<usize> = batches.0.iter().map(Vec::len).collect();
    assert_eq!(sizes, [2, 2, 1]);
    assert_eq!(batches.0[2], ["Question: How many are 5?\nAnswer:"]);
}

#[test]
fn unusable_options_are_refused() {
    let check = |options: EvaluateOptions, message: &str| {
        let found = evaluate(&Gsm8k::zero_shot(), &documents(), &mut counting(), &options);
        assert_eq!(found.unwrap_err().to_string(), message);
    };
    let options = EvaluateOptions::default;
    check(
        options().with_limit(0),
        "the limit is 0: give at least 1, or none to evaluate everything",
    );
    check(options().with_batch(0), "the batch size is 0: give at least 1");
    let none = evaluate(&Gsm8k::zero_shot(), &[], &mut counting(), &options());
    assert!(matches!(none, Err(Error::NoDocuments)));
}

#[test]
fn unusable_tasks_are_refused() {
    let check = |name, fewshot, train: &[Document], message: &str| {
        let error = task_by_name(name, fewshot, train).err().expect(name);
        assert_eq!(error.to_string(), message);
    };
    let few = |task: &str, shots: usize, given: usize| {
        format!(
            "`{task}` draws {shots} shots from the training documents and was given {given}: pass \
             all of GSM8K's train.jsonl, or ask for fewer shots"
        )
    };
    let many = |task: &str, shots: usize| {
        format!(
            "`{task}` has 8 fixed shots and was asked for {shots}: ask for fewer, or pass training \
             documents (--fewshot-data) to draw them from"
        )
    };
    let zero = |task: &str, shots: usize| {
        format!(
            "`{task}` has no shots of its own and was asked for {shots}: pass training documents \
             (--fewshot-data) to draw them from"
        )
    };
    let unused = |task: &str| {
        format!("--fewshot-data is not used by `{task}`, which has no shots; pass --fewshot N")
    };
    let train = &documents()[..];
    check("gsm8k", None, &[], &few("gsm8k", 5, 0));
    check("gsm8k", Some(6), train, &few("gsm8k", 6, 5));
    check("gsm8k_zeroshot", Some(6), train, &few("gsm8k_zeroshot", 6, 5));
    check("gsm8k_cot", None, train, &few("gsm8k_cot", 8, 5));
    check("gsm8k_cot_zeroshot", Some(usize::MAX), train, &few("gsm8k_cot_zeroshot", usize::MAX, 5));
    check("gsm8k_cot_llama", Some(9), train, &few("gsm8k_cot_llama", 9, 5));
    check("gsm8k_cot", Some(9), &[], &many("gsm8k_cot", 9));
    check("gsm8k_cot_llama", Some(usize::MAX), &[], &many("gsm8k_cot_llama", usize::MAX));
    check("gsm8k_zeroshot", Some(5), &[], &zero("gsm8k_zeroshot", 5));
    check("gsm8k_cot_zeroshot", Some(1), &[], &zero("gsm8k_cot_zeroshot", 1));
    check("gsm8k_zeroshot", None, train, &unused("gsm8k_zeroshot"));
    check("gsm8k_cot_zeroshot", None, train, &unused("gsm8k_cot_zeroshot"));
    check(
        "GSM8K",
        None,
        train,
        "no task is called `GSM8K`: choose one of gsm8k, gsm8k_zeroshot, gsm8k_cot, \
         gsm8k_cot_zeroshot, gsm8k_cot_llama",
    );
}

#[test]
fn every_listed_task_exists_under_its_name() {
    for name in TASK_NAMES {
        assert_eq!(task_by_name(name, Some(5), &documents()).unwrap().name(), name);
    }
}

#[test]
fn a_failing_generator_is_named_with_its_batch() {
    let mut left = 3;
    let mut failing = generate_each(|_| {
        left -= 1;
        if left < 0 { Err("out of memory".into()) } else { Ok(String::new()) }
    });
    let options = EvaluateOptions::default().with_batch(2);
    let error = evaluate(&Gsm8k::zero_shot(), &documents(), &mut failing, &options).unwrap_err();
    assert_eq!(error.to_string(), "generation failed on documents 2 to 3");
    assert_eq!(error.source().unwrap().to_string(), "out of memory");
}

#[test]
fn a_generator_must_answer_every_request() {
    struct Forgetful;
    impl Generator for Forgetful {
        fn generate(&mut self, _: &[Request]) -> Result<Vec<String>, BoxError> {
            Ok(vec![String::new()])
        }
    }
    let options = EvaluateOptions::default();
    let found = evaluate(&Gsm8k::zero_shot(), &documents(), &mut Forgetful, &options);
    let message = "the generator returned 1 texts for 5 requests: it must return one each";
    assert_eq!(found.unwrap_err().to_string(), message);
}

#[test]
fn a_task_must_ask_about_every_document() {
    struct Ask(Result<usize, &'static str>);
    impl Task for Ask {
        fn name(&self) -> &str {
            "ask"
        }
        fn requests(&self, _: &[Document]) -> Result<Vec<Request>, BoxError> {
            Ok(vec![Request::new("", vec![], 1); self.0?])
        }
        fn score(&self, _: &Document, _: &str) -> BTreeMap<String, Extraction> {
            BTreeMap::new()
        }
    }
    let check = |ask: Ask, message: &str| {
        let options = EvaluateOptions::default();
        let found = evaluate(&ask, &documents(), &mut counting(), &options);
        assert_eq!(found.err().map(|error| error.to_string()).as_deref(), Some(message));
    };
    check(Ask(Ok(4)), "`ask` made 4 prompts of 5 documents: it must make one of each");
    check(Ask(Ok(6)), "`ask` made 6 prompts of 5 documents: it must make one of each");
    check(Ask(Err("no")), "`ask` could not turn the documents into prompts");
}
