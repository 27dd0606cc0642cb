//! What holds of any text.

use moeprune_eval::{
    CHOICE_TASK_NAMES, ChoiceData, ChoiceTask, Document, EvaluateOptions, INVALID, PythonRandom,
    Record, Task, choice_task, evaluate, exact_match, generate_each, task_by_name,
};
use proptest::{collection::vec, prelude::*};
use serde_json::{Map, Value, json};

const TASKS: [&str; 4] = ["gsm8k_zeroshot", "gsm8k_cot", "gsm8k_cot_zeroshot", "gsm8k_cot_llama"];

fn tasks() -> impl Iterator<Item = Box<dyn Task>> {
    TASKS.into_iter().map(|name| task_by_name(name, None, &[]).unwrap())
}

/// Text made of what the filters look for, and some of anything.
fn model_output() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        Just("#### ".to_owned()),
        Just("The answer is ".to_owned()),
        Just("The final answer is ".to_owned()),
        "[-$0-9.,]{1,6}",
        "[ \n\u{1f}\u{a0}]{1,2}",
        any::<String>(),
    ];
    vec(piece, 0..8).prop_map(|pieces| pieces.concat())
}

/// A value of any kind, as deep as those of data sets.
fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        (-2_i64..6).prop_map(Value::from),
        any::<f64>().prop_map(|number| json!(number)),
        "[A-D1-4_ \\[\\]]{0,4}".prop_map(Value::from),
        any::<String>().prop_map(Value::from),
    ];
    leaf.prop_recursive(2, 12, 4, |inner| {
        let keys = prop_oneof![Just("text".to_owned()), Just("label".to_owned()), any::<String>()];
        prop_oneof![
            vec(inner.clone(), 0..5).prop_map(Value::from),
            vec((keys, inner), 0..3).prop_map(|fields| Value::Object(fields.into_iter().collect())),
        ]
    })
}

proptest! {
    /// A record is a question with a right choice, or an error that says where.
    #[test]
    fn any_record_is_a_question_or_named(values in vec(value(), 4), shots in 0_usize..3) {
        for name in CHOICE_TASK_NAMES {
            let task = choice_task(name).unwrap().unwrap();
            let fields = task.fields().map(str::to_owned).zip(values.iter().cycle().cloned());
            let record = Record::new(fields.collect::<Map<_, _>>(), "file line 3");
            let data = ChoiceData::new(vec![record.clone()], vec![record; 4]).of_subject("virology");
            match task.questions(&data, shots) {
                Ok(questions) => {
                    prop_assert!(questions[0].gold < questions[0].choices.len());
                    prop_assert_eq!(questions[0].pairs.len(), questions[0].choices.len());
                }
                Err(error) => {
                    let named = error.to_string();
                    prop_assert!(named.starts_with("file line 3: ") || named.contains("examples"), "{}", named);
                }
            }
        }
    }

    #[test]
    fn any_text_is_a_task_or_an_error(
        prompt in any::<String>(), choices in "[a-z(){}\\[\\].,'|~+*% -]{0,24}", rest in any::<String>(),
    ) {
        let quoted = |text: &str| toml::Value::from(text).to_string();
        let text = format!(
            "name = 'x'\nprompt = {}\nchoices = {}\nanswer = '0'\n", quoted(&prompt), quoted(&choices),
        );
        for text in [text.clone(), format!("{text}{rest}"), rest] {
            let record = Record::new(json!({"a": "b", "b": ["c", "d"]}).as_object().unwrap().clone(), "file");
            if let Ok(task) = ChoiceTask::from_toml(&text, "x.toml") {
                drop(task.questions(&ChoiceData::new(vec![record], vec![]), 0));
            }
        }
    }

    #[test]
    fn any_answer_to_any_document_is_scored(
        question in any::<String>(), answer in any::<String>(), output in model_output(),
    ) {
        let document = Document { question, answer };
        for task in tasks() {
            let scores = task.score(&document, &output);
            prop_assert_eq!(scores.len(), 2);
            for extraction in scores.values() {
                prop_assert!(extraction.score == 0.0 || extraction.score == 1.0);
                let text = &extraction.extracted;
                prop_assert!(text == INVALID || output.contains(text), "{} in {}", text, output);
            }
        }
    }

    #[test]
    fn extracting_from_an_extraction_changes_nothing(output in model_output()) {
        let task = task_by_name("gsm8k_zeroshot", None, &[]).unwrap();
        let extract = |text: &str| {
            task.score(&Document::new("", ""), text)["flexible-extract"].extracted.clone()
        };
        let once = extract(&output);
        prop_assert_eq!(extract(&once), once);
    }

    #[test]
    fn a_marked_number_is_found(before in "[a-z \n]*", number in 0..1_000_000_u32) {
        let document = Document::new("", format!("#### {number}"));
        let marked = [
            ("gsm8k_zeroshot", format!("{before}#### {number}")),
            ("gsm8k_cot", format!("{before}The answer is {number}.")),
            ("gsm8k_cot_zeroshot", format!("{before}The answer is {number}.")),
            ("gsm8k_cot_llama", format!("{before}The final answer is {number}")),
        ];
        for (name, output) in marked {
            let task = task_by_name(name, None, &[]).unwrap();
            for extraction in task.score(&document, &output).values() {
                prop_assert_eq!(extraction.score, 1.0, "{} on {:?}", name, output);
            }
        }
    }

    #[test]
    fn matching_is_an_equivalence(a in model_output(), b in model_output()) {
        prop_assert!(exact_match(&a, &a));
        prop_assert_eq!(exact_match(&a, &b), exact_match(&b, &a));
        let worked = format!("{a}#### {b}");
        prop_assert!(exact_match(&worked, &b));
    }

    #[test]
    fn reports_are_written_and_read_alike(outputs in vec(model_output(), 1..6)) {
        let documents = vec![Document::new("How many?", "#### 18"); outputs.len()];
        let mut next = outputs.iter().cloned();
        let mut model = generate_each(|_| next.next().ok_or_else(|| "no more".into()));
        let task = task_by_name("gsm8k_cot", Some(1), &[]).unwrap();
        let report = evaluate(&*task, &documents, &mut model, &EvaluateOptions::default()).unwrap();
        for answer in &report.answers {
            prop_assert!(outputs[answer.index].starts_with(&answer.output));
            prop_assert!(!answer.output.contains("Q:"));
        }
        let json = serde_json::to_string(&report).unwrap();
        prop_assert_eq!(serde_json::from_str::<moeprune_eval::EvalReport>(&json).unwrap(), report);
    }

    #[test]
    fn samples_are_distinct_and_within(seed: u64, population in 0..400_usize, count in 0..60_usize) {
        match PythonRandom::new(seed).sample(population, count) {
            None => prop_assert!(count > population),
            Some(mut sample) => {
                prop_assert!(sample.iter().all(|&drawn| drawn < population));
                sample.sort_unstable();
                sample.dedup();
                prop_assert_eq!(sample.len(), count);
            }
        }
    }
}
