//! `--device` and `--micro-batch`.

use crate::command::Scratch;

const PRUNE: &str = "prune model out --calibration tokens.jsonl --samples 4 --seq-len 32";

#[test]
fn a_device_that_is_not_there_is_refused_before_any_work() {
    let scratch = Scratch::new("mixtral");
    for command in [
        PRUNE,
        "observe model --calibration tokens.jsonl -o o.safetensors",
        "eval model --task perplexity --data tokens.jsonl",
    ] {
        // A build with CUDA says what the driver said.
        let ran = scratch.run(&format!("{command} --device cuda:7"));
        assert_eq!(ran.code, 1, "{}", ran.stderr);
        assert!(ran.stderr.contains("cannot run on a CUDA device"), "{}", ran.stderr);
        if cfg!(not(feature = "cuda")) {
            assert!(ran.stderr.contains("build with `--features cuda`"), "{}", ran.stderr);
        }
    }
    assert_eq!(scratch.names(), ["model", "tokens.jsonl"]);
}

#[test]
fn words_that_are_no_device_are_wrong_usage() {
    let scratch = Scratch::new("mixtral");
    for (option, want) in [
        ("--device gpu", "none of auto, cpu, cuda, cuda:N"),
        ("--device cuda:x", "none of auto, cpu, cuda, cuda:N"),
        ("--micro-batch 0", "not a positive whole number"),
    ] {
        let ran = scratch.run(&format!("{PRUNE} {option}"));
        assert_eq!(ran.code, 2, "{option}: {}", ran.stderr);
        assert!(ran.stderr.contains(want), "{option}: {}", ran.stderr);
    }
}

#[test]
#[cfg(not(feature = "cuda"))]
fn auto_is_the_cpu_and_micro_batches_change_no_byte_there() {
    let scratch = Scratch::new("arctic");
    scratch.ok(PRUNE);
    scratch.ok(&format!("{} --device auto", PRUNE.replace(" out ", " auto ")));
    let together = PRUNE.replace(" out ", " together ");
    scratch.ok(&format!("{together} --device auto --micro-batch 3"));
    let weights = |out: &str| std::fs::read(scratch.path(out).join("model.safetensors")).unwrap();
    assert!(weights("out") == weights("auto"));
    assert!(weights("out") == weights("together"));
    let report = std::fs::read_to_string(scratch.path("together/moeprune-report.json")).unwrap();
    assert!(report.contains("\"device\": \"cpu f32\""), "{report}");
}
