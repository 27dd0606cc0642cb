//! SIGTERM and SIGHUP stop a run as Ctrl-C does.
#![cfg(unix)]

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _},
    path::Path,
    process::{Child, Command, Stdio},
};

use crate::{
    command::Scratch,
    resume::{contents, records_of, signal, spawn, wait_for_records},
};

/// Enough tokens that a layer takes longer than the signal does to arrive.
const CALIBRATION: &str = "--calibration nano/data/calibration.jsonl --samples 64 --seq-len 128";

/// A folder with the embedded model in `nano`.
fn nano() -> Scratch {
    let scratch = Scratch::new("arctic");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../assets/nano");
    std::os::unix::fs::symlink(source.canonicalize().unwrap(), scratch.path("nano")).unwrap();
    scratch
}

/// Runs a command that makes `OUT`, sends a signal as soon as a layer is finished, goes on with
/// `--resume`, and expects the bytes of a run that nothing stopped.
fn check(command: &str, name: &str, code: i32) {
    let scratch = nano();
    scratch.ok(&command.replace("OUT", "whole"));
    let command = command.replace("OUT", "out");
    let mut stopped = false;
    for _ in 0..30 {
        let steps = records_of(&scratch).len() + 1;
        let mut child = spawn_listening(&scratch, &format!("{command} --resume"));
        if wait_for_records(&scratch, &mut child, steps) {
            signal(&child, name);
        }
        let ended = child.wait_with_output().unwrap();
        let stderr = String::from_utf8(ended.stderr).unwrap();
        if ended.status.code() == Some(0) {
            // It was faster.
            remove(&scratch);
            continue;
        }
        assert_eq!(ended.status.code(), Some(code), "{command} {name}: {stderr}");
        assert!(stderr.contains("stopping at the next safe point"), "{stderr}");
        assert!(stderr.contains("run the same command with --resume"), "{stderr}");
        assert!(!scratch.path("out").exists());
        stopped = true;
        break;
    }
    assert!(stopped, "{command} {name} was never stopped");
    scratch.ok(&format!("{command} --resume"));
    assert!(contents(&scratch.path("out")) == contents(&scratch.path("whole")), "{command} {name}");
}

/// Starts a command with no signal ignored: under `nohup`, tests inherit that SIGHUP is.
fn spawn_listening(scratch: &Scratch, command: &str) -> Child {
    let listening = ["--default-signal=HUP,INT,TERM"];
    let understood = Command::new("env").args(listening).arg("true").output();
    if !understood.is_ok_and(|ran| ran.status.success()) {
        return spawn(scratch, command);
    }
    Command::new("env")
        .args(listening)
        .arg(env!("CARGO_BIN_EXE_moeprune"))
        .args(command.split_whitespace())
        .current_dir(scratch.path("."))
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

fn remove(scratch: &Scratch) {
    let out = scratch.path("out");
    if out.is_dir() { fs::remove_dir_all(out).unwrap() } else { fs::remove_file(out).unwrap() }
}

#[test]
fn a_stopped_run_says_so_by_its_exit_code_and_can_be_gone_on_with() {
    let observe = format!("observe nano {CALIBRATION} -o OUT");
    let prune = format!("prune nano OUT {CALIBRATION}");
    for (command, name, code) in [
        (&observe, "-TERM", 143),
        (&observe, "-HUP", 129),
        (&prune, "-TERM", 143),
        (&prune, "-HUP", 129),
    ] {
        check(command, name, code);
    }
}

/// Starts a command by a shell that ignores a signal.
fn spawn_ignoring(scratch: &Scratch, name: &str, command: &str) -> Child {
    Command::new("sh")
        .args(["-c", &format!("trap '' {name}; exec \"$0\" {command}")])
        .arg(env!("CARGO_BIN_EXE_moeprune"))
        .current_dir(scratch.path("."))
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

#[cfg(target_os = "linux")]
#[test]
fn a_signal_that_was_ignored_stays_ignored() {
    let scratch = nano();
    let prune = format!("prune nano out {CALIBRATION}");
    let mut child = spawn_ignoring(&scratch, "HUP", &prune);
    assert!(wait_for_records(&scratch, &mut child, 1));
    signal(&child, "-HUP");
    let ended = child.wait_with_output().unwrap();
    let stderr = String::from_utf8(ended.stderr).unwrap();
    assert_eq!(ended.status.code(), Some(0), "{stderr}");
    assert!(!stderr.contains("stopping") && scratch.path("out").exists(), "{stderr}");
}

#[test]
fn an_evaluation_stops_and_writes_nothing() {
    let scratch = nano();
    let eval = "eval nano --task gsm8k_zeroshot --data nano/data/test.jsonl --json scores.json";
    let mut child = spawn(&scratch, eval);
    let mut stderr = BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    while !line.contains("asking") {
        line.clear();
        assert!(stderr.read_line(&mut line).unwrap() > 0, "it ended");
    }
    signal(&child, "-TERM");
    let mut rest = String::new();
    stderr.read_to_string(&mut rest).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(143), "{rest}");
    assert!(rest.contains("stopped before the end"), "{rest}");
    assert!(!scratch.path("scores.json").exists());
}

/// A FIFO that no reader opens does not keep a finished run from being stopped by one signal.
#[test]
fn waiting_for_a_reader_can_be_stopped() {
    let scratch = nano();
    assert!(Command::new("mkfifo").arg(scratch.path("fifo")).status().unwrap().success());
    let command = "eval nano --task perplexity --data nano/data/heldout.txt --seq-len 64 --limit 2 --json fifo";
    let mut child = Command::new(env!("CARGO_BIN_EXE_moeprune"))
        .args(command.split_whitespace())
        .current_dir(scratch.path("."))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut out = String::new();
    // The scores are printed before they are delivered.
    let mut lines = BufReader::new(child.stdout.take().unwrap());
    lines.read_line(&mut out).unwrap();
    assert!(out.contains("perplexity"), "{out}");
    std::thread::sleep(std::time::Duration::from_millis(300));
    signal(&child, "-TERM");
    let ended = child.wait_with_output().unwrap();
    assert_eq!(ended.status.code(), Some(143));
}
