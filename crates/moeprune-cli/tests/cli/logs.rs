//! `--log-format json`: each line on standard error is an object.

use serde_json::Value;

use crate::command::{CALIBRATION, Ran, Scratch};

/// The objects of a run's standard error.
fn entries(ran: &Ran) -> Vec<Value> {
    let entry = |line: &str| -> Value {
        let value: Value = serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"));
        assert!(value["time"].as_f64().is_some_and(|time| time > 0.0), "{line}");
        value
    };
    ran.stderr.lines().map(entry).collect()
}

fn kinds(entries: &[Value]) -> Vec<&str> {
    entries.iter().map(|entry| entry["kind"].as_str().unwrap()).collect()
}

#[test]
fn a_run_is_told_in_objects() {
    let scratch = Scratch::new("arctic");
    let ran = scratch.ok(&format!("prune model out {CALIBRATION} --log-format json"));
    assert!(ran.stdout.contains("wrote out"), "{}", ran.stdout);
    let entries = entries(&ran);
    let kinds = kinds(&entries);
    assert!(kinds.contains(&"note"), "{kinds:?}");
    let mut open = None;
    let mut steps = 0;
    for (entry, kind) in entries.iter().zip(&kinds) {
        match *kind {
            "begin" => {
                assert_eq!(open, None, "{entry}");
                assert!(entry["total"].is_u64() && entry["unit"].is_string(), "{entry}");
                open = entry["step"].as_str();
            }
            "update" => assert_eq!(open, entry["step"].as_str(), "{entry}"),
            "end" => {
                assert_eq!(open.take(), entry["step"].as_str(), "{entry}");
                assert_eq!(entry["done"], entry["total"], "{entry}");
                assert!(entry["seconds"].as_f64().is_some(), "{entry}");
                assert_eq!(entry["seconds_left"].as_f64(), Some(0.0), "{entry}");
                steps += 1;
            }
            "note" | "warning" => assert!(entry["message"].is_string(), "{entry}"),
            other => panic!("{other}: {entry}"),
        }
    }
    assert!(open.is_none() && steps > 1, "{kinds:?}");
}

#[test]
fn standard_output_stays_as_it_is() {
    let scratch = Scratch::new("arctic");
    for command in [
        "inspect model",
        "recipe stages",
        "eval model --task perplexity --data tokens.jsonl --seq-len 32",
    ] {
        let text = scratch.ok(command).stdout;
        assert_eq!(scratch.ok(&format!("--log-format json {command}")).stdout, text, "{command}");
    }
}

/// Runs what fails, and expects one error last, with a part of its message.
fn check(arguments: &str, variables: &[(&str, &str)], code: i32, expected: &str) {
    let scratch = Scratch::new("arctic");
    let ran = scratch.run_in(arguments, variables);
    assert_eq!(ran.code, code, "{arguments}: {}", ran.stderr);
    let entries = entries(&ran);
    let last = entries.last().unwrap();
    assert_eq!(last["kind"], "error", "{arguments}: {last}");
    let message = last["message"].as_str().unwrap();
    assert!(message.contains(expected) && !message.starts_with("error"), "{arguments}: {message}");
}

#[test]
fn errors_are_objects_too() {
    let json = ("MOEPRUNE_LOG_FORMAT", "json");
    check("inspect none --log-format json", &[], 1, "cannot open the model directory none");
    check("inspect none", &[json], 1, "cannot open the model directory none");
    check("inspect none --quiet", &[json], 1, "cannot open the model directory none");
    check("frobnicate --log-format json", &[], 2, "unrecognized subcommand");
    check("frobnicate --log-format=json", &[], 2, "unrecognized subcommand");
    check("frobnicate", &[json], 2, "unrecognized subcommand");
    check("inspect model", &[json, ("MOEPRUNE_DISK_RATE", "x")], 2, "MOEPRUNE_DISK_RATE");
    check("plan model -o p.json --sparsity 2", &[json], 2, "--sparsity");
    check("apply model out --plan tokens.jsonl", &[json], 1, "tokens.jsonl");
}

#[test]
fn quiet_leaves_errors() {
    let scratch = Scratch::new("arctic");
    let eval =
        "eval model --task perplexity --data tokens.jsonl --seq-len 32 --quiet --log-format json";
    assert_eq!(scratch.ok(eval).stderr, "");
}

#[test]
fn help_is_no_log() {
    let scratch = Scratch::new("arctic");
    let ran = scratch.ok("--help --log-format json");
    assert!(ran.stdout.contains("Usage:") && ran.stderr.is_empty(), "{}", ran.stderr);
}
