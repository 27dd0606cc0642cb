//! Extraction and score of real and of awkward answers, as the harness gives them.

mod gsm8k_data;

use std::fs;

use gsm8k_data::{asset, recorded, test_documents};
use moeprune_eval::{Document, Gsm8k, Task, evaluate, generate_each, task_by_name};
use serde_json::Value;

/// `(extracted, score)` of `strict-match` and `flexible-extract`.
type Scores<'a> = [(&'a str, f64); 2];

fn check(task: &dyn Task, document: &Document, output: &str, expected: Scores<'_>) {
    let scores = task.score(document, output);
    let found = ["strict-match", "flexible-extract"]
        .map(|filter| (&*scores[filter].extracted, scores[filter].score));
    assert_eq!(found, expected, "{} on {output:?} for {:?}", task.name(), document.answer);
}

#[test]
fn edge_cases() {
    let documents = test_documents();
    let lines = recorded("edge_scores.jsonl");
    for line in lines.lines() {
        let case: Value = serde_json::from_str(line).unwrap();
        let name = match case["task"].as_str().unwrap() {
            "gsm8k" => "gsm8k_zeroshot", // scores alike and needs no shots
            name => name,
        };
        let task = task_by_name(name, None, &[]).unwrap();
        let document = &documents[case["doc"].as_u64().unwrap() as usize];
        let pair =
            |filter: &str| (case[filter][0].as_str().unwrap(), case[filter][1].as_f64().unwrap());
        let expected = [pair("strict-match"), pair("flexible-extract")];
        check(&*task, document, case["resp"].as_str().unwrap(), expected);
    }
    assert_eq!(lines.lines().count(), 136);
}

#[test]
fn answers_of_real_models() {
    let documents = test_documents();
    let solutions = fs::read_to_string(asset("example_model_solutions.jsonl")).unwrap();
    let recorded_scores = recorded("model_solution_scores.jsonl");
    let task = Gsm8k::zero_shot();
    let mut right = [0.0; 4];
    let mut answers = 0;
    for ((document, line), scores) in
        documents.iter().zip(solutions.lines()).zip(recorded_scores.lines())
    {
        let solutions: Value = serde_json::from_str(line).unwrap();
        let scores: [(String, f64); 4] = serde_json::from_str(scores).unwrap();
        for (model, (name, (extracted, score))) in MODELS.iter().zip(scores).enumerate() {
            let output = solutions[name]["solution"].as_str().unwrap();
            check(&task, document, output, [("[invalid]", 0.0), (&extracted, score)]);
            right[model] += score;
            answers += 1;
        }
    }
    assert_eq!((answers, right), (5276, [286.0, 515.0, 458.0, 742.0]));
}

const MODELS: [&str; 4] =
    ["6b_finetuning", "6b_verification", "175b_finetuning", "175b_verification"];

#[test]
fn a_whole_evaluation_of_a_real_model() {
    let solutions = fs::read_to_string(asset("example_model_solutions.jsonl")).unwrap();
    let mut outputs = solutions.lines().map(|line| {
        let solutions: Value = serde_json::from_str(line).unwrap();
        solutions["175b_verification"]["solution"].as_str().unwrap().to_owned()
    });
    let mut model = generate_each(|_| outputs.next().ok_or_else(|| "no more answers".into()));
    let task = Gsm8k::zero_shot();
    let report = evaluate(&task, &test_documents(), &mut model, &Default::default()).unwrap();
    let (p, n) = (742.0_f64 / 1319.0, 1319.0);
    let flexible = report.metrics["flexible-extract"];
    assert_eq!(flexible.mean, p);
    assert!((flexible.stderr.unwrap() - (p * (1.0 - p) / (n - 1.0)).sqrt()).abs() < 1e-12);
    assert_eq!(report.metrics["strict-match"].mean, 0.0);
    assert_eq!((report.n, report.fewshot, &*report.task), (1319, 0, "gsm8k_zeroshot"));
}

#[test]
fn the_llama_form_takes_the_last_final_answer() {
    let task = Gsm8k::chain_of_thought_llama(8).unwrap();
    let document = Document::new("", "9 * 2 = 18\n#### 18");
    let check = |output, expected| check(&task, &document, output, expected);
    check("The final answer is 18", [("18", 1.0), ("18", 1.0)]);
    check("The final answer is $18.", [("$18.", 1.0), ("$18.", 1.0)]);
    check("The final answer is 7. The final answer is 18", [("18", 1.0), ("18", 1.0)]);
    check("The final answer is 18, I gave 2", [("18,", 1.0), ("2", 0.0)]);
    check("The final answer is -18", [("-18", 0.0), ("-18", 0.0)]);
    check("The answer is 18", [("[invalid]", 0.0), ("18", 1.0)]);
    check("The final answer is 9", [("9", 0.0), ("9", 0.0)]);
}

#[test]
fn the_gold_answer_scores_full_marks() {
    let task = Gsm8k::zero_shot();
    for document in test_documents() {
        assert_eq!(task.score(&document, &document.answer)["strict-match"].score, 1.0);
    }
}

#[test]
fn the_chain_of_thought_gold_is_the_last_marked_number() {
    let task = Gsm8k::chain_of_thought(0).unwrap();
    let check = |answer, score| {
        let document = Document::new("", answer);
        let scores = task.score(&document, "The answer is 18.");
        assert_eq!(scores["strict-match"].score, score, "{answer:?}");
    };
    check("#### 18", 1.0);
    check("####18", 1.0);
    check("####\t18 \n", 1.0);
    check("#### 7 #### 18", 1.0);
    check("18", 1.0);
    check("#### 18 #### 7", 0.0);
    check("##### 18", 1.0);
    check("", 0.0);
}
