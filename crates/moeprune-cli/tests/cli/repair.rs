//! The repair of the experts that stay as a user meets it.

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use serde_json::Value;

use crate::command::{CALIBRATION, Scratch};

/// Of 54 blocks 48 are fitted, and six are held out.
const HELD_OUT: &str = "--calibration many.jsonl --samples 48 --seq-len 32";
const CUT: &str = "--criterion reap --sparsity 0.5 --expert-sparsity 0.5";

fn scratch(model: &str) -> Scratch {
    let scratch = Scratch::new(model);
    let id = |block: u32, i: u32| (block * 97 + i * i * 31 + i) % 256;
    let block = |block| (0..32).map(|i| id(block, i)).collect::<Vec<u32>>();
    let lines: Vec<String> =
        (0..54).map(|n| serde_json::json!({ "tokens": block(n) }).to_string()).collect();
    fs::write(scratch.path("many.jsonl"), lines.join("\n")).unwrap();
    scratch
}

fn json(scratch: &Scratch, name: &str) -> Value {
    serde_json::from_slice(&fs::read(scratch.path(name)).unwrap()).unwrap()
}

fn report(scratch: &Scratch, out: &str) -> Value {
    json(scratch, &format!("{out}/moeprune-report.json"))
}

fn weights(scratch: &Scratch, out: &str) -> Vec<u8> {
    fs::read(scratch.path(out).join("model.safetensors")).unwrap()
}

#[track_caller]
fn refused(scratch: &Scratch, arguments: &str, expected: &str) {
    let ran = scratch.run(arguments);
    assert_ne!(ran.code, 0, "moeprune {arguments}: {}", ran.stdout);
    assert!(ran.stderr.contains(expected), "no `{expected}` in: {}", ran.stderr);
}

/// Refused as wrong usage, before anything is left behind.
#[track_caller]
fn wrong_usage(scratch: &Scratch, arguments: &str, expected: &str) {
    let ran = scratch.run(arguments);
    assert_eq!(ran.code, 2, "moeprune {arguments}: {}", ran.stderr);
    assert!(ran.stderr.contains(expected), "no `{expected}` in: {}", ran.stderr);
    let partial = |entry: std::io::Result<fs::DirEntry>| {
        entry.unwrap().file_name().to_string_lossy().contains("moeprune-partial")
    };
    assert!(!fs::read_dir(scratch.path(".")).unwrap().any(partial), "{arguments}");
}

#[test]
fn prune_repairs_by_default_where_that_was_measured() {
    let scratch = scratch("arctic");
    let ran = scratch.ok(&format!("prune model out {HELD_OUT} {CUT}"));
    assert!(ran.stderr.contains("the experts that stay are repaired"), "{}", ran.stderr);
    assert!(ran.stdout.contains("held out, many.jsonl"), "{}", ran.stdout);
    let found = report(&scratch, "out");
    assert_eq!(found["recipe"]["repair"]["name"], "refit");
    let [text] = found["repair"]["texts"].as_array().unwrap().as_slice() else { panic!() };
    assert_eq!((&text["fitted"], &text["held_out"]), (&48.into(), &6.into()));
    assert_eq!(text["corpus"]["samples"], 54);
    let fitted = &found["repair"]["summary"]["fitted"];
    assert!(fitted["after"].as_f64().unwrap() < fitted["before"].as_f64().unwrap(), "{fitted}");
    let markdown = fs::read_to_string(scratch.path("out/moeprune-report.md")).unwrap();
    assert!(markdown.contains("## Repair"), "{markdown}");
    scratch.ok("verify out --source model");

    scratch.ok(&format!("prune model none {HELD_OUT} {CUT} --repair none"));
    scratch.ok(&format!("prune model arctic {HELD_OUT} {CUT} --recipe arctic"));
    assert!(weights(&scratch, "none") == weights(&scratch, "arctic"));
    assert!(weights(&scratch, "none") != weights(&scratch, "out"));
    assert!(report(&scratch, "none").get("repair").is_none());

    let other = self::scratch("mixtral");
    let ran = other.ok(&format!("prune model out {HELD_OUT} {CUT}"));
    assert!(ran.stderr.contains("was not measured"), "{}", ran.stderr);
    assert_eq!(report(&other, "out")["recipe"]["repair"], "none");
}

#[test]
fn steps_do_what_prune_does() {
    let scratch = scratch("mixtral");
    scratch.ok(&format!("prune model out {HELD_OUT} {CUT} --repair refit:sweeps=2"));
    scratch.ok(&format!("observe model {HELD_OUT} -o a.obs"));
    let plan = format!("plan model --observation a.obs {CUT}");
    scratch.ok(&format!("{plan} -o none.json"));
    assert!(json(&scratch, "none.json").get("repairs").is_none());
    let sampling = "--samples 48 --seq-len 32";
    scratch.ok(&format!("{plan} {sampling} --repair refit:sweeps=2 -o plan.json"));
    assert_eq!(json(&scratch, "plan.json")["repairs"], true);
    let ran = scratch.ok(&format!("{plan} {sampling} --repair refit:sweeps=2 -o again.json"));
    assert!(ran.stdout.contains("`moeprune apply` needs --calibration"), "{}", ran.stdout);
    let apply = "apply model applied --plan plan.json";
    wrong_usage(&scratch, apply, "--calibration");
    wrong_usage(&scratch, &format!("{apply} --observation a.obs"), "--calibration");
    let apply = format!("{apply} --calibration many.jsonl");
    refused(&scratch, &format!("{apply} --repair none"), "the plan has repair = `refit:");
    refused(&scratch, &format!("{apply} --repair refit"), "make the plan again");
    scratch.ok(&format!("{apply} --repair refit:sweeps=2"));
    assert!(weights(&scratch, "applied") == weights(&scratch, "out"));
    scratch.ok("verify applied --source model --plan plan.json");
    let ran = scratch.run("verify applied --source model --plan none.json");
    assert!(ran.stdout.contains("FAILED  experts"), "{}", ran.stdout);
}

#[test]
fn too_few_tokens_are_said_and_do_no_harm() {
    let scratch = scratch("arctic");
    let three = CALIBRATION.replace("--samples 4", "--samples 3");
    let ran = scratch.ok(&format!("prune model out {three} {CUT}"));
    assert!(ran.stdout.contains("1.0 per column"), "{}", ran.stdout);
    assert!(ran.stdout.contains("12 calibration blocks (384 tokens) give 4"), "{}", ran.stdout);
    let of_text = &report(&scratch, "out")["repair"]["summary"]["held_out"][0];
    assert!(of_text["after"].as_f64() <= of_text["before"].as_f64(), "{of_text}");
    // No block is left that could be held out.
    let ran = scratch.ok(&format!("prune model all {CALIBRATION} {CUT}"));
    assert!(ran.stderr.contains("all 4 of them are fitted"), "{}", ran.stderr);
    assert_eq!(report(&scratch, "all")["repair"]["texts"][0]["held_out"], 0);

    let documents: String =
        (0..3).map(|n| format!("{{\"tokens\": {:?}}}\n", vec![n; 20])).collect();
    fs::write(scratch.path("short.jsonl"), documents).unwrap();
    let short = "--calibration short.jsonl --samples 8 --seq-len 32";
    let ran = scratch.ok(&format!("prune model short {short} {CUT}"));
    assert!(
        ran.stderr.contains("short.jsonl is too short for blocks apart from the 8"),
        "{}",
        ran.stderr
    );
}

#[test]
fn other_texts_are_fitted_or_measured() {
    let scratch = scratch("arctic");
    let tokens = fs::read_to_string(scratch.path("many.jsonl")).unwrap();
    for (name, other) in [("code.jsonl", "3,"), ("prose.jsonl", "4,")] {
        fs::write(scratch.path(name), tokens.replace("1,", other)).unwrap();
    }
    let texts = "--repair-text code.jsonl=0.5 --repair-text prose.jsonl=0";
    scratch.ok(&format!("prune model out {HELD_OUT} {CUT} {texts}"));
    let repair = &report(&scratch, "out")["repair"];
    let blocks: Vec<_> = repair["texts"].as_array().unwrap().iter().collect();
    let blocks = blocks.iter().map(|text| (text["fitted"].as_u64(), text["held_out"].as_u64()));
    let expected = [(48, 6), (24, 6), (0, 6)].map(|(fitted, apart)| (Some(fitted), Some(apart)));
    assert_eq!(blocks.collect::<Vec<_>>(), expected);
    assert_eq!(repair["summary"]["held_out"].as_array().unwrap().len(), 3);
    fs::copy(scratch.path("code.jsonl"), scratch.path("copy.jsonl")).unwrap();
    let twice = |texts: &str, expected| {
        let texts = texts.replace("TEXT", "--repair-text");
        refused(&scratch, &format!("prune model x {HELD_OUT} {CUT} {texts}"), expected);
    };
    twice("TEXT many.jsonl=0.5", "many.jsonl has the content of many.jsonl");
    twice("TEXT code.jsonl TEXT copy.jsonl=0", "copy.jsonl has the content of code.jsonl");
    let prune = format!("prune model x {HELD_OUT} {CUT} --repair none");
    wrong_usage(&scratch, &format!("{prune} --repair-text code.jsonl"), "texts for a repair");
    refused(&scratch, &format!("{prune} --repair-text code.jsonl=2"), "FILE=SHARE");
}

#[test]
fn what_cannot_be_repaired() {
    let scratch = scratch("arctic");
    fs::write(scratch.path("keep.json"), "[0, 2, 3]").unwrap();
    let ran = scratch.ok("prune model kept --keep keep.json");
    assert!(ran.stderr.contains("a repair needs calibration text"), "{}", ran.stderr);
    wrong_usage(
        &scratch,
        "prune model x --keep keep.json --repair refit",
        "pass --calibration FILE",
    );
    scratch.ok(&format!("prune model listed {HELD_OUT} --keep keep.json"));
    assert!(report(&scratch, "listed").get("repair").is_some());

    let stored = format!("prune model stored {CALIBRATION} --statistics stored");
    let ran = scratch.ok(&stored);
    assert!(ran.stderr.contains("statistics are those of the unpruned model"), "{}", ran.stderr);
    refused(&scratch, &format!("{stored}2 --repair refit"), "invalid value");
    let stored = format!("prune model x {CALIBRATION} --statistics stored --repair refit");
    wrong_usage(&scratch, &stored, "use statistics = \"sequential\"");
    // Where no weight is zeroed, no statistics are needed.
    scratch.ok(&format!("prune model whole {CALIBRATION} {CUT} --statistics stored"));
    assert_eq!(report(&scratch, "whole")["recipe"]["repair"]["name"], "refit");
    scratch
        .ok(&format!("prune model named {CALIBRATION} {CUT} --statistics stored --repair refit"));
    assert!(weights(&scratch, "whole") == weights(&scratch, "named"));
    fs::write(scratch.path("mine.toml"), "sparsity = 0.3\n").unwrap();
    let ran = scratch.ok(&format!("prune model mine {CALIBRATION} --recipe mine.toml"));
    assert!(ran.stderr.contains("the recipe does not say whether"), "{}", ran.stderr);
    let wrong = format!("prune model x {CALIBRATION} --repair");
    refused(&scratch, &format!("{wrong} refti"), "did you mean `refit`?");
    refused(&scratch, &format!("{wrong} refit:ridge=-1"), "ridge is -1");
    assert!(!scratch.path("x").exists());
}

#[test]
fn comparisons_and_searches_repair_what_they_measure() {
    let scratch = scratch("arctic");
    scratch.ok(&format!("observe model {CALIBRATION} -o a.obs"));
    let compare = "compare model --observation a.obs --cuts 0.5 --criteria reap --text tokens.jsonl \
                   --samples 4 --seq-len 32";
    let perplexity = |options: &str| {
        scratch.ok(&format!("{compare} {options} --json table.json"));
        let table = json(&scratch, "table.json");
        let cut = &table["cuts"][1];
        (cut["criterion"].as_str().unwrap().to_owned(), cut["perplexity"].as_f64().unwrap())
    };
    let (plain, before) = perplexity("");
    let (repaired, after) = perplexity("--repair refit --calibration tokens.jsonl");
    assert_eq!((plain.as_str(), repaired.as_str()), ("reap", "reap + refit"));
    assert!((before - after).abs() > 1e-6, "{before} {after}");
    wrong_usage(&scratch, &format!("{compare} --repair refit"), "pass --calibration FILE");
    let refit = "--refit refit:keep_zeros=true";
    wrong_usage(&scratch, &format!("{compare} {refit}"), "a comparison writes no checkpoint");
    let greedy = compare.replace("--criteria reap", "--criteria reconstruction");
    wrong_usage(&scratch, &greedy, "pass --calibration FILE");
    refused(&scratch, &format!("{compare} --calibration tokens.jsonl"), "is for --repair");

    let auto = "--sparsity 0.4 --expert-sparsity auto --repair refit:sweeps=1";
    scratch.ok(&format!("prune model out {CALIBRATION} {auto}"));
    let found = report(&scratch, "out");
    assert!(found["search"]["candidates"].as_array().unwrap().len() > 4);
    assert_eq!(found["recipe"]["repair"]["name"], "refit");
}

/// What a killed comparison leaves among temporary files goes with the next.
#[test]
fn temporary_weights_do_not_outlive_the_next_comparison() {
    let scratch = scratch("arctic");
    scratch.ok(&format!("observe model {HELD_OUT} -o a.obs"));
    let temporary = scratch.path("temporary");
    fs::create_dir(&temporary).unwrap();
    let spawn = || {
        Command::new(env!("CARGO_BIN_EXE_moeprune"))
            .args("compare model --observation a.obs --cuts 0.5 --criteria reap".split(' '))
            .args("--text tokens.jsonl --repair refit".split(' '))
            .args(HELD_OUT.split(' '))
            .current_dir(scratch.path("."))
            .env("TMPDIR", &temporary)
            .env("TMP", &temporary)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap()
    };
    // Layers without experts have no file.
    let has_parts =
        |folder: &Path| (0..4).any(|layer| folder.join(format!("repaired-{layer:04}")).exists());
    let parts = || {
        let folders = fs::read_dir(&temporary).unwrap().map(|entry| entry.unwrap().path());
        folders.filter(|folder| has_parts(folder)).count()
    };
    let mut child = spawn();
    while parts() == 0 && child.try_wait().unwrap().is_none() {
        thread::sleep(Duration::from_millis(1));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(parts(), 1, "it was killed too late");
    assert!(spawn().wait().unwrap().success());
    assert_eq!(fs::read_dir(&temporary).unwrap().count(), 0);
}
