//! How many shots each task has, where they come from, and how drawn ones read.

mod gsm8k_data;

use gsm8k_data::{test_documents, train_documents};
use moeprune_eval::{Document, task_by_name};
use sha2::{Digest, Sha256};

/// Eleven alike, so that any draw of them reads the same.
fn train() -> Vec<Document> {
    vec![Document::new("2 + 3?", "2 + 3 = <<2+3=5>>5\n#### 5"); 11]
}

/// The prompt for `Why?`, and the number of shots that the task reports.
fn prompt(name: &str, fewshot: Option<usize>, train: &[Document]) -> (String, usize) {
    let task = task_by_name(name, fewshot, train).unwrap();
    let mut requests = task.requests(&[Document::new("Why?", "#### 1")]).unwrap();
    (requests.remove(0).prompt, task.fewshot())
}

#[test]
fn shots_are_drawn_where_there_are_training_documents() {
    let check = |name, fewshot, shots, drawn| {
        let (prompt, reported) = prompt(name, fewshot, &train());
        assert_eq!(reported, shots, "{name} {fewshot:?}");
        assert_eq!(prompt.matches("2 + 3?").count(), drawn, "{name} {fewshot:?}");
    };
    check("gsm8k", None, 5, 5);
    check("gsm8k", Some(10), 10, 10);
    check("gsm8k", Some(0), 0, 0);
    check("gsm8k_zeroshot", Some(5), 5, 5);
    check("gsm8k_zeroshot", Some(0), 0, 0);
    check("gsm8k_cot", None, 8, 8);
    check("gsm8k_cot", Some(3), 3, 3);
    check("gsm8k_cot", Some(10), 10, 10);
    check("gsm8k_cot", Some(11), 11, 11);
    check("gsm8k_cot", Some(0), 0, 0);
    check("gsm8k_cot_zeroshot", Some(5), 5, 5);
    check("gsm8k_cot_zeroshot", Some(0), 0, 0);
    check("gsm8k_cot_llama", None, 8, 8);
    check("gsm8k_cot_llama", Some(10), 10, 10);
    check("gsm8k_cot_llama", Some(0), 0, 0);
}

#[test]
fn without_training_documents_shots_are_the_fixed_ones() {
    let check = |name, fewshot, shots| {
        let (prompt, reported) = prompt(name, fewshot, &[]);
        assert_eq!(reported, shots, "{name} {fewshot:?}");
        assert_eq!(prompt.matches("\n\n").count(), shots, "{name} {fewshot:?}");
        assert_eq!(prompt.contains("There are 15 trees"), shots > 0, "{name} {fewshot:?}");
    };
    check("gsm8k", Some(0), 0);
    check("gsm8k_zeroshot", None, 0);
    check("gsm8k_zeroshot", Some(0), 0);
    check("gsm8k_cot", None, 8);
    check("gsm8k_cot", Some(8), 8);
    check("gsm8k_cot", Some(3), 3);
    check("gsm8k_cot_zeroshot", None, 0);
    check("gsm8k_cot_llama", None, 8);
    check("gsm8k_cot_llama", Some(1), 1);
}

#[test]
fn a_drawn_shot_has_the_form_of_the_task() {
    let check = |name, expected: &str| assert_eq!(prompt(name, Some(1), &train()).0, expected);
    let verbatim =
        "Question: 2 + 3?\nAnswer: 2 + 3 = <<2+3=5>>5\n#### 5\n\nQuestion: Why?\nAnswer:";
    check("gsm8k", verbatim);
    check("gsm8k_zeroshot", verbatim);
    check("gsm8k_cot", "Q: 2 + 3?\nA: 2 + 3 = 5\nThe answer is 5.\n\nQ: Why?\nA:");
    check(
        "gsm8k_cot_zeroshot",
        "Q: 2 + 3?\nA: Let's think step by step. 2 + 3 = 5\nThe answer is 5.\n\n\
         Q: Why?\nA: Let's think step by step.",
    );
    let before = "Given the following problem, reason and give a final answer to the problem.\n";
    let after = "Your response should end with \"The final answer is [answer]\" where [answer] is \
                 the response to the problem.\n";
    let shot = format!("{before}Problem: 2 + 3?\n{after}2 + 3 = 5\nThe final answer is 5\n\n");
    check("gsm8k_cot_llama", &format!("{shot}{before}Problem: Why?\n{after}"));
}

/// The hashes are of all 1,319 prompts one after another, formed by CPython 3 with
/// `random.Random(1234).sample(train, shots)` once per document and a regular expression for the
/// rewording.
#[test]
fn drawn_prompts_are_those_that_cpython_forms() {
    let (train, documents) = (train_documents(), test_documents());
    let check = |name, shots, expected: &str| {
        let task = task_by_name(name, Some(shots), &train).unwrap();
        let mut hash = Sha256::new();
        for request in task.requests(&documents).unwrap() {
            hash.update(request.prompt);
        }
        let found: String = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(found, expected, "{name} {shots}");
    };
    check("gsm8k", 10, "7526ae126e488836cca8fdb21c657bfbbe25af66f078992401297e20eadd62ad");
    check("gsm8k_zeroshot", 10, "7526ae126e488836cca8fdb21c657bfbbe25af66f078992401297e20eadd62ad");
    check("gsm8k_cot", 2, "c931bc9ae6663190ccc4bda9296d5b6e2e6c39c992e2c0d1639b3b8cbc529b1b");
    check("gsm8k_cot", 10, "3ee54fc0165666c8286674280610cc5a1a8b079c654cd280423e6792d9059a81");
    check(
        "gsm8k_cot_zeroshot",
        10,
        "7f01368b2e538ff3f158f9f6c71d30bca5b116d0329fe2beb35ab722603c802b",
    );
    check(
        "gsm8k_cot_llama",
        10,
        "e38ca03f4a68a9ea53e426c54b256c17e0d3614e2411436c517fa2821a507638",
    );
}
