//! Every prompt of every task, byte for byte as the harness forms it.

mod gsm8k_data;

use gsm8k_data::{recorded, test_documents, train_documents};
use moeprune_eval::{Document, PythonRandom, Request, task_by_name};
use sha2::{Digest, Sha256};

fn check(task: &str) {
    let requests = requests(task, None, &test_documents());
    let hashes: Vec<String> = requests.iter().map(|request| sha256(&request.prompt)).collect();
    let recorded_hashes = recorded(&format!("{task}.sha256"));
    let expected: Vec<&str> = recorded_hashes.lines().collect();
    assert_eq!(expected.len(), 1319);
    for (i, request) in requests[..3].iter().enumerate() {
        assert_eq!(request.prompt, recorded(&format!("{task}.prompt{i}.txt")), "{task} {i}");
    }
    assert_eq!(hashes, expected, "{task}");
}

fn requests(task: &str, fewshot: Option<usize>, documents: &[Document]) -> Vec<Request> {
    let train = if task == "gsm8k" { train_documents() } else { vec![] };
    task_by_name(task, fewshot, &train).unwrap().requests(documents).unwrap()
}

fn sha256(text: &str) -> String {
    Sha256::digest(text).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn gsm8k() {
    check("gsm8k");
}

#[test]
fn gsm8k_cot() {
    check("gsm8k_cot");
}

#[test]
fn gsm8k_cot_zeroshot() {
    check("gsm8k_cot_zeroshot");
}

#[test]
fn gsm8k_cot_llama() {
    check("gsm8k_cot_llama");
}

#[test]
fn shots_are_the_harness_s() {
    let mut random = PythonRandom::new(1234);
    for (i, line) in recorded("gsm8k.shots").lines().enumerate() {
        let expected: Vec<usize> = line.split(' ').map(|shot| shot.parse().unwrap()).collect();
        assert_eq!(random.sample(7473, 5), Some(expected), "document {i}");
    }
}

#[test]
fn prompts_without_shots() {
    let documents = [Document::new("Why?", "#### 1")];
    let check = |task, expected: &str| {
        assert_eq!(requests(task, Some(0), &documents)[0].prompt, expected, "{task}");
    };
    check("gsm8k", "Question: Why?\nAnswer:");
    check("gsm8k_zeroshot", "Question: Why?\nAnswer:");
    check("gsm8k_cot", "Q: Why?\nA:");
    check("gsm8k_cot_zeroshot", "Q: Why?\nA: Let's think step by step.");
}

#[test]
fn fewer_fixed_shots_are_the_first() {
    let documents = &test_documents()[..1];
    let all = &requests("gsm8k_cot", None, documents)[0].prompt;
    let two = &requests("gsm8k_cot", Some(2), documents)[0].prompt;
    let sections = |prompt: &str| prompt.split("\n\n").map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(sections(two)[..2], sections(all)[..2]);
    assert_eq!(sections(two)[2], sections(all)[8]);
}

#[test]
fn fewer_documents_have_the_same_prompts() {
    let documents = test_documents();
    let some = requests("gsm8k", Some(3), &documents[..10]);
    assert_eq!(some, requests("gsm8k", Some(3), &documents)[..10]);
}

#[test]
fn answers_end_where_the_harness_ends_them() {
    let check = |task, expected: &[&str]| {
        let requests = requests(task, None, &[Document::new("", "")]);
        assert_eq!(requests[0].stop, expected, "{task}");
        assert_eq!(requests[0].max_new_tokens, 256, "{task}");
    };
    check("gsm8k", &["Question:", "</s>", "<|im_end|>"]);
    check("gsm8k_zeroshot", &["Question:", "</s>", "<|im_end|>"]);
    check("gsm8k_cot", &["Q:", "</s>", "<|im_end|>"]);
    check("gsm8k_cot_zeroshot", &["Q:", "</s>", "<|im_end|>"]);
    let user = "<|start_header_id|>user<|end_header_id|>";
    check("gsm8k_cot_llama", &["<|eot_id|>", user, "Q:", "</s>", "<|im_end|>"]);
}
