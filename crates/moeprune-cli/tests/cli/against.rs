//! Measures beside accuracy as a user meets them: models held against each other, and answers as texts.

use std::{fs, path::Path};

use serde_json::Value;

use crate::command::{CALIBRATION, Scratch};

const CUT: &str = "--criterion reap --sparsity 0.5 --expert-sparsity 0.5 --repair none";
const HELD: &str = "--data tokens.jsonl --seq-len 32";

fn json(scratch: &Scratch, name: &str) -> Value {
    serde_json::from_slice(&fs::read(scratch.path(name)).unwrap()).unwrap()
}

/// A model, and a pruned twin in `out`.
fn pruned(model: &str) -> Scratch {
    let scratch = Scratch::new(model);
    scratch.ok(&format!("prune model out {CALIBRATION} {CUT}"));
    scratch
}

#[track_caller]
fn refused(scratch: &Scratch, arguments: &str, expected: &str) {
    let ran = scratch.run(arguments);
    assert!(ran.code == 1 || ran.code == 2, "moeprune {arguments}: {}", ran.stdout);
    assert!(ran.stderr.contains(expected), "no `{expected}` in: {}", ran.stderr);
    assert!(!ran.stderr.contains("panicked"), "{}", ran.stderr);
}

/// Copies the embedded model, which has a tokenizer.
fn nano(scratch: &Scratch, name: &str) {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../assets/nano");
    fs::create_dir(scratch.path(name)).unwrap();
    for entry in fs::read_dir(source).unwrap().map(Result::unwrap) {
        if entry.file_type().unwrap().is_file() {
            fs::copy(entry.path(), scratch.path(name).join(entry.file_name())).unwrap();
        }
    }
}

#[test]
fn a_pruned_model_against_its_source() {
    let scratch = pruned("mixtral");
    let ran = scratch.ok(&format!("eval out --against model {HELD} --json found.json --quiet"));
    assert_eq!(ran.stderr, "");
    // Other processors round otherwise.
    let decimals = |line: &str| match line.split_once('.') {
        Some((before, after)) => {
            before.to_owned() + "." + &after.replace(|c: char| c.is_ascii_digit(), "#")
        }
        None => line.to_owned(),
    };
    let layout: Vec<String> = ran.stdout.lines().map(decimals).collect();
    insta::assert_snapshot!("against", layout.join("\n"));
    let found = json(&scratch, "found.json");
    assert_eq!((&found["task"], &found["blocks"]), (&"perplexity".into(), &4.into()));
    assert_eq!(found["tokens"], 4 * 31);
    assert!(found["kl"].as_f64().unwrap() > 0.0 && found["kl_stderr"].as_f64().unwrap() > 0.0);

    // The perplexities are those that each has by itself.
    for (model, key) in [("out", "perplexity"), ("model", "reference_perplexity")] {
        scratch.ok(&format!("eval {model} --task perplexity {HELD} --json alone.json"));
        let alone = json(&scratch, "alone.json")["perplexity"].as_f64().unwrap();
        let off = (found[key].as_f64().unwrap() / alone - 1.0).abs();
        assert!(off < 1e-6, "{key}: {} and {alone}", found[key]);
    }

    // Neither micro-batches nor the number of threads change a bit, and the task may be said.
    let again = format!("eval out --against model --task perplexity {HELD} --micro-batch 3");
    scratch.ok(&format!("{again} --json again.json"));
    assert_eq!(json(&scratch, "again.json"), found);

    let ran = scratch.ok(&format!("eval out --against model {HELD} --limit 2"));
    assert!(ran.stdout.starts_with("62 tokens predicted in 2 blocks"), "{}", ran.stdout);
    assert!(ran.stderr.contains("for the hidden states of both models"), "{}", ran.stderr);
}

#[test]
fn a_model_against_itself() {
    let scratch = Scratch::new("arctic");
    scratch.ok(&format!("eval model --against model {HELD} --json found.json"));
    let found = json(&scratch, "found.json");
    for (key, expected) in [("kl", 0.0), ("kl_p99", 0.0), ("kl_max", 0.0), ("agreement", 1.0)] {
        assert_eq!(found[key], expected, "{key}");
    }
    assert_eq!(found["nll"], found["reference_nll"]);
}

#[test]
fn what_cannot_be_held_against_each_other() {
    let scratch = pruned("mixtral");
    let against = format!("eval out --against model {HELD}");
    refused(
        &scratch,
        &format!("{against} --task gsm8k"),
        "--against compares predictions of a text",
    );
    refused(&scratch, &format!("{against} --fewshot 2"), "leave --fewshot out");
    refused(&scratch, &format!("{against} --max-memory 1M"), "--max-memory allows 1.0 MB");
    refused(&scratch, &format!("eval out --against nothing {HELD}"), "nothing");
    refused(&scratch, "eval out --data tokens.jsonl", "--task");
    refused(&scratch, "eval out --against model", "--data");
    refused(&scratch, &format!("{against} --json model/config.json"), "model/config.json");

    nano(&scratch, "other");
    let error = "their predictions do not compare";
    refused(&scratch, &format!("eval out --against other {HELD}"), error);
    fs::write(scratch.path("broken.jsonl"), "{\"tokens\": [1, 2").unwrap();
    refused(&scratch, "eval out --against model --data broken.jsonl", "broken.jsonl");
    fs::write(scratch.path("beyond.jsonl"), "{\"tokens\": [1, 2, 999999]}").unwrap();
    refused(&scratch, "eval out --against model --data beyond.jsonl --seq-len 2", "999999");

    let gguf = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../assets/gguf/mix32-MX.gguf");
    fs::copy(gguf, scratch.path("file.gguf")).unwrap();
    let error = "which is cut and not run";
    refused(&scratch, &format!("eval file.gguf --against model {HELD}"), error);
    refused(&scratch, &format!("eval out --against file.gguf {HELD}"), error);
}

#[test]
fn tokenizers_are_held_against_each_other() {
    let scratch = Scratch::new("mixtral");
    nano(&scratch, "a");
    nano(&scratch, "b");
    let text = "He has 3 apples and buys 4 more. How many apples does he have? ".repeat(40);
    fs::write(scratch.path("text.txt"), text).unwrap();
    let against = "eval a --against b --data text.txt --seq-len 32";
    let same = scratch.ok(against).stdout;

    // Other spaces in the file are no other tokenizer.
    let file = "b/tokenizer.json";
    let whole = fs::read_to_string(scratch.path(file)).unwrap();
    let parsed: Value = serde_json::from_str(&whole).unwrap();
    fs::write(scratch.path(file), serde_json::to_string(&parsed).unwrap() + "\n").unwrap();
    assert_eq!(scratch.ok(against).stdout, same);

    // One model may lack a tokenizer.
    fs::remove_file(scratch.path(file)).unwrap();
    assert_eq!(scratch.ok(against).stdout, same);
    assert_eq!(scratch.ok("eval b --against a --data text.txt --seq-len 32").stdout, same);

    // Two tokens have changed places.
    let mut swapped = parsed.clone();
    let vocabulary = swapped["model"]["vocab"].as_object_mut().unwrap();
    let mut tokens: Vec<(String, u64)> =
        vocabulary.iter().map(|(token, id)| (token.clone(), id.as_u64().unwrap())).collect();
    tokens.sort_by_key(|(_, id)| *id);
    let [(a, one), (b, other)] = &tokens[tokens.len() - 2..] else { panic!() };
    vocabulary.insert(a.clone(), (*other).into());
    vocabulary.insert(b.clone(), (*one).into());
    fs::write(scratch.path(file), swapped.to_string()).unwrap();
    refused(&scratch, against, "the tokenizers of a and b differ");
    refused(&scratch, against, &format!("is token {one} in one and {other} in the other"));

    // The same tokens, and another way to cut a text into them.
    let mut other = parsed;
    other["normalizer"] = serde_json::json!({"type": "Lowercase"});
    fs::write(scratch.path(file), other.to_string()).unwrap();
    refused(&scratch, against, "make different tokens of text.txt, from token 2 on");
}

#[test]
fn answers_are_measured_as_texts() {
    let scratch = Scratch::new("mixtral");
    nano(&scratch, "nano");
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../assets/nano/data/test.jsonl");
    let questions: Vec<String> =
        fs::read_to_string(data).unwrap().lines().take(6).map(str::to_owned).collect();
    fs::write(scratch.path("test.jsonl"), questions.join("\n")).unwrap();
    let eval = "eval nano --task gsm8k_zeroshot --data test.jsonl";
    let ran = scratch.ok(&format!("{eval} --json found.json --quiet"));
    insta::assert_snapshot!("answers_as_texts", ran.stdout);
    let found = json(&scratch, "found.json");
    assert_eq!(found["degradation"]["n"], 6);
    let endings = ["stop", "end_of_text", "length"];
    let answers = found["answers"].as_array().unwrap();
    let by_itself = answers.iter().filter(|answer| {
        let ended = answer["ended"].as_str().unwrap();
        assert!(endings.contains(&ended), "{ended}");
        ended != "length"
    });
    let share = by_itself.count() as f64 / 6.0;
    assert!((found["degradation"]["ended"]["mean"].as_f64().unwrap() - share).abs() < 1e-12);
    scratch.ok(&format!("{eval} --batch 1 --json alone.json"));
    assert_eq!(json(&scratch, "alone.json"), found);
}

#[test]
fn comparisons_have_a_column_for_each() {
    let scratch = Scratch::new("mixtral");
    nano(&scratch, "nano");
    let nano = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../assets/nano/data");
    let lines: Vec<String> = fs::read_to_string(nano.join("test.jsonl"))
        .unwrap()
        .lines()
        .take(4)
        .map(str::to_owned)
        .collect();
    fs::write(scratch.path("test.jsonl"), lines.join("\n")).unwrap();
    fs::copy(nano.join("heldout.txt"), scratch.path("text.txt")).unwrap();
    let compare =
        "compare nano --cuts 0.25 --criteria random --text text.txt --seq-len 64 --text-blocks 3";
    let titles =
        |stdout: &str| stdout.lines().find(|l| l.contains("criterion")).unwrap().to_owned();
    let text = scratch.ok(&format!("{compare} --json text.json"));
    let title = titles(&text.stdout);
    assert!(title.contains("KL  same top") && !title.contains("loops"), "{title}");
    let both = scratch.ok(&format!(
        "{compare} --task gsm8k_zeroshot --data test.jsonl --json both.json --html both.html"
    ));
    let title = titles(&both.stdout);
    assert!(title.contains("ended") && title.contains("loops  distinct-4"), "{title}");
    let found = json(&scratch, "both.json");
    assert!(found["cuts"][0].get("divergence").is_none(), "{found}");
    assert!(found["cuts"][1]["divergence"]["kl"].as_f64().unwrap() > 0.0);
    for cut in 0..2 {
        assert!(found["cuts"][cut]["texts"]["looping"].is_number(), "{found}");
    }
    assert!(json(&scratch, "text.json")["cuts"][1].get("texts").is_none());
}
