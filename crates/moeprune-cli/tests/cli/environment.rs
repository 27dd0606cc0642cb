//! Variables that stand for options.

use crate::command::Scratch;

const EVAL: &str = "eval model --task perplexity --data tokens.jsonl --seq-len 32";

#[test]
fn variables_stand_for_options() {
    let scratch = Scratch::new("mixtral");
    let check = |arguments: &str, variables: &[(&str, &str)], code: i32, expected: &str| {
        let ran = scratch.run_in(arguments, variables);
        assert_eq!(ran.code, code, "{arguments} {variables:?}: {}", ran.stderr);
        let printed = ran.stdout + &ran.stderr;
        assert!(printed.contains(expected), "{arguments} {variables:?}: {printed}");
    };
    let device = ("MOEPRUNE_DEVICE", "cuda:7");
    check(EVAL, &[device], 1, "cannot run on a CUDA device");
    check(&format!("{EVAL} --device cpu"), &[device], 0, "perplexity");
    // A variable contradicts nothing, and wrong ones count where they are needed.
    check("eval --list-tasks", &[device], 0, "arc_easy");
    check(EVAL, &[("MOEPRUNE_DEVICE", "gpu")], 2, "MOEPRUNE_DEVICE has no value that it can have");
    check("inspect model", &[("MOEPRUNE_DEVICE", "gpu")], 0, "family");
    let observe = "observe model --calibration tokens.jsonl --samples 4 --seq-len 32 -o";
    let memory = ("MOEPRUNE_MAX_MEMORY", "1M");
    check(&format!("{observe} a.obs"), &[memory], 1, "--max-memory allows");
    check(&format!("{observe} b.obs --max-memory 8G"), &[memory], 0, "observed 128 tokens");
    check("inspect model", &[("MOEPRUNE_DISK_RATE", "7")], 0, "at 7 GB/s");
    check("inspect model", &[("MOEPRUNE_COMPUTE_RATE", "0")], 2, "MOEPRUNE_COMPUTE_RATE");
    check("inspect model", &[("MOEPRUNE_LOG_FORMAT", "xml")], 2, "neither text nor json");
}

#[test]
fn quiet_is_a_switch() {
    let scratch = Scratch::new("mixtral");
    let stderr = |value: &str| scratch.run_in(EVAL, &[("MOEPRUNE_QUIET", value)]).stderr;
    assert_eq!(stderr("1"), "");
    for loud in ["0", "", "no"] {
        assert_ne!(stderr(loud), "", "{loud}");
    }
}

#[test]
fn help_names_them() {
    let scratch = Scratch::new("mixtral");
    for (command, names) in [
        (
            "prune",
            &["DEVICE", "MAX_MEMORY", "DISK_RATE", "COMPUTE_RATE", "LOG_FORMAT", "QUIET"][..],
        ),
        ("inspect", &["DISK_RATE", "QUIET"]),
    ] {
        let help = scratch.ok(&format!("{command} --help")).stdout;
        let help = help.split_whitespace().collect::<Vec<_>>().join(" ");
        for name in names {
            assert!(help.contains(&format!("[env: MOEPRUNE_{name}]")), "{command}: {name}");
        }
    }
}
