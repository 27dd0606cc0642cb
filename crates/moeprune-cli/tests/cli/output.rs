//! What commands print and write, as snapshots.

use std::fs;

use serde_json::Value;

use crate::command::{CALIBRATION, Scratch};

fn json(scratch: &Scratch, name: &str) -> Value {
    serde_json::from_slice(&fs::read(scratch.path(name)).unwrap()).unwrap()
}

#[test]
fn inspect_is_readable() {
    insta::assert_snapshot!(Scratch::new("arctic").ok("inspect model").stdout);
    insta::assert_snapshot!(Scratch::new("mixtral_sharded").ok("inspect model --json").stdout);
}

#[test]
fn help_has_examples() {
    let scratch = Scratch::new("arctic");
    insta::assert_snapshot!("help", scratch.ok("--help").stdout);
    for command in ["inspect", "observe", "plan", "apply", "prune", "eval", "verify"] {
        let help = scratch.ok(&format!("{command} --help")).stdout;
        assert!(help.contains("Example"), "{command} has no example");
    }
    insta::assert_snapshot!("help_prune", scratch.ok("prune --help").stdout);
}

#[test]
fn plans_are_readable_and_repeatable() {
    let scratch = Scratch::new("arctic");
    let arguments = "plan model --expert-sparsity 0.5 --sparsity 0.6 --budget global";
    scratch.ok(&format!("{arguments} -o plan.json"));
    scratch.ok(&format!("{arguments} -o again.json"));
    let plan = fs::read_to_string(scratch.path("plan.json")).unwrap();
    assert_eq!(plan, fs::read_to_string(scratch.path("again.json")).unwrap());
    insta::assert_snapshot!(plan);
    scratch.ok(&format!("{arguments} --read-experts -o chosen.json"));
    insta::assert_snapshot!(
        "plan_with_experts_read",
        fs::read_to_string(scratch.path("chosen.json")).unwrap()
    );
}

#[test]
fn survivors_are_the_same_whenever_they_are_chosen() {
    let scratch = Scratch::new("arctic");
    scratch.ok(&format!("observe model {CALIBRATION} -o model.obs"));
    let shares = "--expert-sparsity 0.5 --sparsity 0.5 --budget global";
    for (name, more) in [("open", ""), ("chosen", "--read-experts")] {
        let plan = format!("plan model {shares} --observation model.obs {more} -o {name}.json");
        let says = scratch.ok(&plan).stdout;
        assert_eq!(says.contains("--read-experts"), more.is_empty(), "{says}");
        scratch.ok(&format!("apply model {name} --plan {name}.json"));
        scratch.ok(&format!("verify {name} --source model --plan {name}.json"));
    }
    let (open, chosen) = (json(&scratch, "open.json"), json(&scratch, "chosen.json"));
    for l in 0..3 {
        let (open, chosen) = (&open["layers"][l], &chosen["layers"][l]);
        assert_eq!(open["clusters"], chosen["clusters"]);
        assert_eq!(open["survivors"].as_array().unwrap().len(), 0);
        assert_eq!(open["tokens"].as_array().unwrap().len(), 8);
        assert!(chosen["tokens"].is_null());
    }
    let weights = |name: &str| fs::read(scratch.path(name).join("model.safetensors")).unwrap();
    assert!(weights("open") == weights("chosen"));
}

#[test]
fn verify_refuses_a_choice_that_the_plan_does_not_allow() {
    let scratch = Scratch::new("arctic");
    let shares = "--expert-sparsity 0.5 --sparsity 0.5";
    scratch.ok(&format!("plan model {shares} -o plan.json"));
    scratch.ok("apply model out --plan plan.json");
    let report = json(&scratch, "out/moeprune-report.json");
    let kept: Vec<u64> = serde_json::from_value(report["layers"][0]["kept"].clone()).unwrap();
    let gone: Vec<u64> = (0..8).filter(|expert| !kept.contains(expert)).collect();
    let mut clusters = vec![vec![kept[0], kept[1]], vec![kept[2]], vec![kept[3]], gone];
    clusters.sort();
    let mut plan = json(&scratch, "plan.json");
    plan["layers"][0]["clusters"] = serde_json::json!(clusters);
    plan["layers"][0]["survivors"] = serde_json::json!([]);
    fs::write(scratch.path("other.json"), plan.to_string()).unwrap();
    scratch.ok("verify out --source model --plan plan.json");
    let ran = scratch.run("verify out --source model --plan other.json");
    assert_eq!(ran.code, 1, "{}{}", ran.stdout, ran.stderr);
    assert!(ran.stdout.contains("several experts of the plan's cluster"), "{}", ran.stdout);
}

#[test]
fn prune_reports_what_it_did() {
    let scratch = Scratch::new("mixtral");
    let ran = scratch.ok(&format!("prune model out {CALIBRATION} --json report.json --quiet"));
    assert_eq!(ran.stderr, "");
    let table = ran.stdout.lines().filter(|line| !line.starts_with("time"));
    insta::assert_snapshot!("prune_table", table.collect::<Vec<_>>().join("\n"));

    let mut report = json(&scratch, "report.json");
    assert_eq!(report, json(&scratch, "out/moeprune-report.json"));
    let achieved = report["sparsity"]["achieved"]["linears"].as_f64().unwrap();
    assert!((achieved - 0.4).abs() < 5e-4, "{achieved}");
    for stage in report["stages"].as_array_mut().unwrap() {
        assert!(stage["seconds"].as_f64().unwrap() >= 0.0);
        stage["seconds"] = "[seconds]".into();
        stage["peak_rss_bytes"] = "[bytes]".into();
    }
    insta::assert_snapshot!("report", serde_json::to_string_pretty(&report).unwrap());
}

#[test]
fn cost_and_serving_are_said_before_a_run() {
    let scratch = Scratch::new("mixtral");
    let rates = "--disk-rate 2 --compute-rate 100";
    for command in [
        format!("observe model {CALIBRATION} -o model.obs {rates}"),
        format!("prune model out {CALIBRATION} {rates}"),
    ] {
        let ran = scratch.ok(&command);
        let expected = "of disk and 1 s at 2 GB/s and 100 GFLOP/s";
        assert!(ran.stderr.contains(expected), "{command}: {}", ran.stderr);
    }
    let ran = scratch.ok("plan model --expert-sparsity 0.25 --sparsity 0.25 -o plan.json");
    for expected in [
        "weights on disk and in memory: ",
        "Engines that load it: transformers",
        "once converted to GGUF.",
        "6 experts per layer divide evenly over these usual numbers of devices: 2 (expert parallel)",
    ] {
        assert!(ran.stdout.contains(expected), "{expected}: {}", ran.stdout);
    }
    assert_eq!(scratch.run("inspect model --disk-rate 0").code, 2);
}

#[test]
fn four_verbs_in_a_row_do_what_prune_does() {
    let scratch = Scratch::new("arctic");
    scratch.ok(&format!("observe model {CALIBRATION} -o seen.obs.safetensors"));
    let sampling = "--samples 4 --seq-len 32";
    scratch.ok(&format!("plan model --observation seen.obs.safetensors {sampling} -o plan.json"));
    scratch.ok(&format!("apply model out --plan plan.json {CALIBRATION}"));
    scratch.ok(&format!("prune model whole {CALIBRATION} --recipe arctic"));
    let weights = |out: &str| fs::read(scratch.path(out).join("model.safetensors")).unwrap();
    assert!(weights("out") == weights("whole"));
    let verified = scratch.ok("verify out --source model --plan plan.json");
    assert!(verified.stdout.contains("ok"), "{}", verified.stdout);
}

#[test]
fn verify_understands_every_output_without_its_plan() {
    for (model, options) in [
        ("arctic", "--sparsity 0.25 --expert-sparsity 0.25"),
        ("arctic", "--sparsity 0.5 --allocation uniform"),
        ("mixtral", "--sparsity 0.8 --expert-sparsity 0.75"),
        ("mixtral", "--sparsity 0.75 --expert-sparsity 0.75"),
        ("mixtral", "--recipe REFERENCE"),
    ] {
        let scratch = Scratch::new(model);
        let options = options.replace(
            "REFERENCE",
            concat!(env!("CARGO_MANIFEST_DIR"), "/../moeprune/recipes/reference.toml"),
        );
        scratch.ok(&format!("prune model out {CALIBRATION} {options}"));
        scratch.ok("verify out --source model");
    }
}

#[test]
fn a_pruned_model_can_be_pruned_again() {
    let scratch = Scratch::new("arctic");
    scratch.ok(&format!("prune model once {CALIBRATION} --sparsity 0.25 --expert-sparsity 0.25"));
    scratch.ok(&format!("prune once twice {CALIBRATION} --sparsity 0.5 --expert-sparsity 0.34"));
    scratch.ok("verify twice --source once");
    let report = json(&scratch, "twice/moeprune-report.json");
    assert_eq!(report["layers"][0]["experts_before"], 6);
}

#[test]
fn verify_sees_a_flipped_bit() {
    let scratch = Scratch::new("arctic");
    let arguments = "plan model --sparsity 0.25 --expert-sparsity 0.25 -o plan.json";
    scratch.ok(arguments);
    scratch.ok("apply model out --plan plan.json");
    scratch.ok("verify out --source model --plan plan.json");
    let path = scratch.path("out/model.safetensors");
    let mut bytes = fs::read(&path).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    fs::write(path, bytes).unwrap();
    let ran = scratch.run("verify out --source model --plan plan.json");
    assert_eq!(ran.code, 1, "{}", ran.stdout);
    assert!(ran.stdout.contains("FAILED"), "{}", ran.stdout);
}

#[test]
fn perplexity_of_tokens() {
    let scratch = Scratch::new("arctic");
    let ran =
        scratch.ok("eval model --task perplexity --data tokens.jsonl --seq-len 32 --json out.json");
    assert!(ran.stdout.starts_with("perplexity"), "{}", ran.stdout);
    let out = json(&scratch, "out.json");
    assert_eq!(out["tokens"], 4 * 31);
    let (nll, perplexity) = (out["nll"].as_f64().unwrap(), out["perplexity"].as_f64().unwrap());
    assert!((nll.exp() - perplexity).abs() < 1e-9 * perplexity);
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let scratch = Scratch::new("arctic");
    let mut child = std::process::Command::new(env!("CARGO_BIN_EXE_moeprune"))
        .args(["inspect", "model"])
        .current_dir(scratch.path("."))
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    assert!(output.status.success());
}

#[test]
fn unknown_tasks_are_answered_with_the_known_ones() {
    let scratch = Scratch::new("arctic");
    let ran = scratch.run("eval model --task gsm9k --data tokens.jsonl");
    assert_eq!(ran.code, 2);
    assert!(ran.stderr.contains("gsm8k_cot"), "{}", ran.stderr);
}

#[test]
fn blocks_longer_than_the_model_allows_are_noted() {
    let scratch = Scratch::new("arctic");
    for command in [
        "observe model --calibration tokens.jsonl --samples 2 --seq-len 4096 -o obs",
        "plan model --criterion exhaustive --calibration tokens.jsonl --samples 2 --seq-len 4096 -o plan.json",
        "prune model out --calibration tokens.jsonl --samples 2 --seq-len 4096",
        "eval model --task perplexity --data tokens.jsonl --seq-len 4096",
    ] {
        let ran = scratch.run(command);
        let expected = "note: blocks have 128 tokens, not the 4096 that were asked for";
        assert!(ran.stderr.contains(expected), "{command}: {}", ran.stderr);
    }
}
