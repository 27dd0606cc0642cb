//! A result that could not be written is a failure; one whose reader has gone away is not.
#![cfg(target_os = "linux")]

use std::{
    fs::File,
    process::{Command, Stdio},
};

use crate::command::{CALIBRATION, Scratch};

const COMMANDS: [&str; 12] = [
    "inspect model",
    "inspect model --json",
    "verify out --source model",
    "verify out --source model --json",
    "eval model --task perplexity --data tokens.jsonl --seq-len 32",
    "recipe show arctic",
    "recipe stages",
    "recipe check arctic",
    "recipe schema",
    "--help",
    "prune --help",
    "--version",
];

/// Runs a command with a given standard output.
fn run(scratch: &Scratch, arguments: &str, stdout: impl Into<Stdio>) -> (Option<i32>, String) {
    let ran = Command::new(env!("CARGO_BIN_EXE_moeprune"))
        .args(arguments.split_whitespace())
        .current_dir(scratch.path("."))
        .stdout(stdout)
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
        .wait_with_output()
        .unwrap();
    (ran.status.code(), String::from_utf8(ran.stderr).unwrap())
}

fn with_a_pruned_model() -> Scratch {
    let scratch = Scratch::new("arctic");
    scratch.ok("plan model --sparsity 0.25 --expert-sparsity 0.25 -o plan.json");
    scratch.ok("apply model out --plan plan.json");
    scratch
}

#[test]
fn a_full_disk_behind_standard_output_is_an_error() {
    let scratch = with_a_pruned_model();
    let plan = "plan model -o other.json";
    let observe = format!("observe model {CALIBRATION} -o a.obs");
    for command in COMMANDS.into_iter().chain([plan, &observe]) {
        let full = File::options().write(true).open("/dev/full").unwrap();
        let (code, stderr) = run(&scratch, command, full);
        assert_eq!(code, Some(1), "{command}: {stderr}");
        let expected = "error: cannot write to standard output: No space left on device";
        assert!(stderr.contains(expected), "{command}: {stderr}");
    }
    // What goes to files is there all the same.
    for name in ["other.json", "a.obs"] {
        assert!(scratch.path(name).exists(), "{name}");
    }
}

#[test]
fn a_closed_pipe_is_quiet() {
    let scratch = with_a_pruned_model();
    for command in COMMANDS {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let (code, stderr) = run(&scratch, command, writer);
        assert_eq!(code, Some(0), "{command}: {stderr}");
        assert!(!stderr.contains("error"), "{command}: {stderr}");
    }
}

#[test]
fn wrong_usage_exits_with_2_whatever_becomes_of_the_message() {
    let scratch = Scratch::new("arctic");
    let full = || File::options().write(true).open("/dev/full").unwrap();
    let ran = Command::new(env!("CARGO_BIN_EXE_moeprune"))
        .arg("frobnicate")
        .current_dir(scratch.path("."))
        .stdout(full())
        .stderr(full())
        .status()
        .unwrap();
    assert_eq!(ran.code(), Some(2));
}
