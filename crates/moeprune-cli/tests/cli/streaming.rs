//! Models that are asked questions with experts that are read when they are needed.

use std::{fs, path::Path};

use serde_json::{Value, json};

use crate::command::Scratch;

/// A small model in `model`, questions of GSM8K's form in `asked.jsonl`, of multiple choice in `mine.jsonl`.
fn scratch() -> Scratch {
    let scratch = Scratch::new("mixtral");
    let nano = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../assets/nano");
    for file in ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"] {
        fs::copy(nano.join(file), scratch.path("model").join(file)).unwrap();
    }
    let questions = fs::read_to_string(nano.join("data/test.jsonl")).unwrap();
    let first: Vec<&str> = questions.lines().take(5).collect();
    fs::write(scratch.path("asked.jsonl"), first.join("\n")).unwrap();
    fs::copy(nano.join("data/heldout.txt"), scratch.path("text.txt")).unwrap();
    let task = "name = \"mine\"\nprompt = \"{{ q }}\"\nchoices = \"options\"\nanswer = \"right\"\n";
    fs::write(scratch.path("mine.toml"), task).unwrap();
    let row = |q: &str, right: usize| {
        json!({"q": q, "options": ["yes it is", "no"], "right": right}).to_string() + "\n"
    };
    fs::write(scratch.path("mine.jsonl"), row("is it", 0) + &row("was it", 1)).unwrap();
    scratch
}

/// The result without what it was expected to take, and that.
fn result(scratch: &Scratch, name: &str) -> (Value, Value) {
    let mut json: Value = serde_json::from_slice(&fs::read(scratch.path(name)).unwrap()).unwrap();
    let estimate = json.as_object_mut().unwrap().remove("estimate").unwrap_or(Value::Null);
    (json, estimate)
}

/// The same scores and answers as from memory; says before how long it will take.
fn check(scratch: &Scratch, asked: &str, passes: std::ops::RangeInclusive<u64>) {
    scratch.ok(&format!("eval model {asked} --json held.json"));
    let (held, none) = result(scratch, "held.json");
    assert_eq!(none, Value::Null, "{asked}");
    for limits in ["--stream-experts", "--stream-experts --max-memory 318MB"] {
        let ran = scratch.ok(&format!("eval model {asked} {limits} --disk-rate 2 --json out.json"));
        let (streamed, estimate) = result(scratch, "out.json");
        assert_eq!(streamed, held, "{asked} {limits}");
        assert!(ran.stderr.contains("experts are read when they are needed"), "{}", ran.stderr);
        assert!(ran.stderr.contains("tokens/s at 2 GB/s"), "{}", ran.stderr);
        let of = |key: &str| estimate[key].as_u64().unwrap_or_else(|| panic!("{key}: {estimate}"));
        assert!(of("fewest_passes") <= of("most_passes"), "{estimate}");
        assert!(passes.contains(&of("most_passes")), "{asked}: {estimate}");
        assert!(estimate["most_seconds"].as_f64().unwrap() > 0.0, "{estimate}");
    }
}

#[test]
fn written_answers() {
    check(&scratch(), "--task gsm8k_zeroshot --data asked.jsonl", 256..=256 * 5);
}

#[test]
fn multiple_choice() {
    check(&scratch(), "--task mine.toml --data mine.jsonl", 2..=8);
}

#[test]
fn perplexity() {
    check(&scratch(), "--task perplexity --data text.txt --seq-len 32 --limit 100", 1..=20);
}

/// A limit between what is needed in any case and what the whole takes is enough by itself.
#[test]
fn what_does_not_fit_is_streamed_and_what_cannot_fit_is_refused() {
    let scratch = scratch();
    let asked = "--task gsm8k_zeroshot --data asked.jsonl --limit 1 --json out.json";
    scratch.ok(&format!("eval model {asked} --max-memory 8GB"));
    let (held, none) = result(&scratch, "out.json");
    assert_eq!(none, Value::Null);
    let ran = scratch.ok(&format!("eval model {asked} --max-memory 318MB"));
    assert!(ran.stderr.contains("experts are read when they are needed"), "{}", ran.stderr);
    let (streamed, estimate) = result(&scratch, "out.json");
    assert_eq!(streamed, held);
    assert!(estimate["memory_bytes"].as_u64().unwrap() <= 318_000_000, "{estimate}");
    let refused = scratch.run(&format!("eval model {asked} --max-memory 100MB"));
    assert_ne!(refused.code, 0);
    assert!(refused.stderr.contains("--max-memory has 100.0 MB left"), "{}", refused.stderr);
}

/// `compare` asks its variants in the same way.
#[test]
fn compared_models() {
    let scratch = scratch();
    let compare = "compare model --cuts 0.25 --criteria random --task gsm8k_zeroshot --data asked.jsonl --limit 2";
    scratch.ok(&format!("{compare} --json held.json"));
    let ran = scratch.ok(&format!("{compare} --stream-experts --json out.json"));
    assert!(ran.stderr.contains("experts are read when they are needed"), "{}", ran.stderr);
    let accuracies = |name: &str| {
        let (json, _) = result(&scratch, name);
        let cuts = json["cuts"].as_array().unwrap().clone();
        cuts.iter().map(|cut| (cut["accuracy"].clone(), cut["texts"].clone())).collect::<Vec<_>>()
    };
    assert_eq!(accuracies("out.json"), accuracies("held.json"));
    assert_eq!(accuracies("out.json").len(), 2);
}
