//! Where results go: nothing that exists is replaced by mistake.
#![cfg(unix)]

use std::{
    fs,
    os::unix::fs::{MetadataExt as _, symlink},
    process::Command,
    thread,
    time::{Duration, Instant},
};

use crate::{
    command::{CALIBRATION, Scratch},
    resume::contents,
};

/// A command line that writes to `OUTPUT`, and the files that it reads.
const COMMANDS: [(&str, &[&str]); 8] = [
    (
        "eval model --task gsm8k --data data --fewshot-data shots --family family --json OUTPUT",
        &["data", "shots", "family"],
    ),
    ("eval model --task perplexity --data data --json OUTPUT", &["data"]),
    (
        "compare model --observation a.obs --observation b.obs=2 --cuts 0.25 --task gsm8k \
         --data data --fewshot-data shots --text text --recipe recipe --family family --json OUTPUT",
        &["a.obs", "b.obs", "data", "shots", "text", "recipe", "family"],
    ),
    ("compare model --observation a.obs --cuts 0.25 --text text --html OUTPUT", &["a.obs", "text"]),
    (
        "prune model out --calibration data --recipe recipe --family family --json OUTPUT",
        &["data", "recipe", "family"],
    ),
    (
        "apply model out --plan plan --observation b.obs=2 --family family --json OUTPUT",
        &["plan", "b.obs", "family"],
    ),
    (
        "plan model --observation a.obs --calibration data --recipe recipe --family family -o OUTPUT",
        &["a.obs", "data", "recipe", "family"],
    ),
    ("observe model --calibration data --family family -o OUTPUT", &["data", "family"]),
];

/// No file is read before the places are judged, so anything will do.
fn made_up() -> Scratch {
    let scratch = Scratch::new("arctic");
    for name in
        ["data", "shots", "family", "recipe", "text", "plan", "a.obs", "b.obs", "other", "blob"]
    {
        fs::write(scratch.path(name), name).unwrap();
    }
    fs::write(scratch.path("model/moeprune-report.json"), REPORT).unwrap();
    fs::write(scratch.path("empty"), "").unwrap();
    fs::create_dir(scratch.path("folder")).unwrap();
    symlink("../blob", scratch.path("model/linked")).unwrap();
    symlink("model/config.json", scratch.path("link")).unwrap();
    symlink("nowhere", scratch.path("dangling")).unwrap();
    fs::hard_link(scratch.path("model/model.safetensors"), scratch.path("hard")).unwrap();
    scratch
}

const REPORT: &str = r#"{"format":1,"tool":"moeprune 0.1.0","model":{},"sparsity":{},"layers":[],"stages":[],"recipe":{}}"#;

/// The command is refused with these words before any work, and nothing changes.
#[track_caller]
fn refused(scratch: &Scratch, command: &str, output: &str, expected: &str) {
    let arguments = command.replace("OUTPUT", output);
    let before = contents(&scratch.path("."));
    let ran = scratch.run(&arguments);
    assert_eq!((ran.code, ran.stdout.as_str()), (1, ""), "{arguments}: {}", ran.stderr);
    assert!(ran.stderr.contains(expected), "{arguments}\n`{expected}` is not in: {}", ran.stderr);
    assert!(contents(&scratch.path(".")) == before, "{arguments} changed something");
}

#[test]
fn no_command_replaces_what_it_reads_or_what_is_not_its_own() {
    let scratch = made_up();
    for (command, inputs) in COMMANDS {
        let input = "it is an input of this run; choose another name for -";
        for name in inputs {
            refused(&scratch, command, name, input);
        }
        let of_the_model =
            ["model/config.json", "model/../model/model.safetensors", "link", "hard", "blob"];
        for name in of_the_model.into_iter().chain(["model/moeprune-report.json"]) {
            refused(&scratch, command, name, input);
        }
        for name in ["other", "empty"] {
            refused(&scratch, command, name, "it exists");
        }
        refused(&scratch, command, "dangling", "a link to");
        refused(&scratch, command, "folder", "it is a folder");
        refused(&scratch, command, "nowhere/output", "make it first");
        if command.contains(" out ") {
            refused(&scratch, command, "out", "something that this run makes");
        }
    }
    let blend = "blend a.obs=0.5 b.obs -o OUTPUT";
    for name in ["a.obs", "b.obs"] {
        refused(&scratch, blend, name, "it is an input of this run");
    }
    refused(&scratch, blend, "model/config.json", "it exists");
    let both = "compare model --observation a.obs --cuts 0.25 --text text --json x --html OUTPUT";
    refused(&scratch, both, "x", "--json goes there too");
    refused(&scratch, both, "folder/../x", "--json goes there too");
}

#[test]
fn a_folder_to_be_made_replaces_nothing() {
    let scratch = made_up();
    mkfifo(&scratch, "fifo");
    fs::write(scratch.path("folder/precious"), "").unwrap();
    for out in ["dangling", "dangling/", "fifo", "other", "folder", "link"] {
        let arguments = format!("prune model {out} {CALIBRATION}");
        let before = contents(&scratch.path("."));
        let ran = scratch.run(&arguments);
        assert_eq!(ran.code, 1, "{arguments}: {}", ran.stderr);
        assert!(contents(&scratch.path(".")) == before, "{arguments} changed something");
    }
}

/// Real inputs: observations, a plan and scores are made of them.
fn real() -> Scratch {
    let scratch = Scratch::new("arctic");
    scratch.ok(&format!("observe model {CALIBRATION} -o a.obs"));
    scratch
}

const EVAL: &str = "eval model --task perplexity --data tokens.jsonl --seq-len 32 --json";
const COMPARE: &str = "compare model --observation a.obs --cuts 0.25 --criteria random \
                       --text tokens.jsonl --seq-len 32";

#[test]
fn a_command_that_is_run_again_replaces_what_it_wrote() {
    let scratch = real();
    symlink("scores.json", scratch.path("link")).unwrap();
    for name in ["scores.json", "scores.json", "link", "model/scores.json", "model/scores.json"] {
        scratch.ok(&format!("{EVAL} {name}"));
    }
    assert!(scratch.path("link").symlink_metadata().unwrap().is_symlink());
    for _ in 0..2 {
        scratch.ok(&format!("{COMPARE} --json model/c.json --html c.html"));
    }
    refused(&scratch, &format!("{EVAL} OUTPUT"), "model/c.json", "an input of this run");
    refused(&scratch, &format!("{EVAL} OUTPUT"), "c.html", "is not an earlier evaluation");
    fs::remove_file(scratch.path("model/c.json")).unwrap();
    for out in ["out", "other"] {
        scratch.ok(&format!("prune model {out} {CALIBRATION} --json report.json"));
    }
    scratch.ok("plan model --sparsity 0.25 --expert-sparsity 0.25 -o plan.json");
    scratch.ok("apply model third --plan plan.json --json report.json");
    refused(&scratch, "plan model -o OUTPUT", "plan.json", "it exists; remove it");
}

fn mkfifo(scratch: &Scratch, name: &str) {
    assert!(Command::new("mkfifo").arg(scratch.path(name)).status().unwrap().success());
}

#[test]
fn a_fifo_is_written_into() {
    let scratch = real();
    mkfifo(&scratch, "fifo");
    let inode = scratch.path("fifo").metadata().unwrap().ino();
    scratch.ok("blend a.obs=2 -o blend.obs");
    scratch.ok("plan model --observation a.obs -o plan.json");
    scratch.ok(&format!("{EVAL} scores.json"));
    for (command, file) in [
        (format!("observe model {CALIBRATION} -o fifo"), "a.obs"),
        ("blend a.obs=2 -o fifo".to_owned(), "blend.obs"),
        ("plan model --observation a.obs -o fifo".to_owned(), "plan.json"),
        (format!("{EVAL} fifo"), "scores.json"),
    ] {
        let fifo = scratch.path("fifo");
        let reader = thread::spawn(move || fs::read(fifo).unwrap());
        scratch.ok(&command);
        assert!(reader.join().unwrap() == fs::read(scratch.path(file)).unwrap(), "{command}");
        assert_eq!(scratch.path("fifo").metadata().unwrap().ino(), inode);
    }
}

/// Runs a script of bash in the folder, with the binary as `$0`.
fn bash(scratch: &Scratch, script: &str) -> bool {
    let ran = Command::new("bash")
        .args(["-c", script, env!("CARGO_BIN_EXE_moeprune")])
        .current_dir(scratch.path("."))
        .output();
    let Ok(ran) = ran else {
        eprintln!("skipped: there is no bash");
        return false;
    };
    assert!(ran.status.success(), "{script}: {}", String::from_utf8_lossy(&ran.stderr));
    true
}

#[test]
fn descriptors_are_written_into() {
    let scratch = real();
    scratch.ok(&format!("{EVAL} scores.json"));
    let expected = fs::read(scratch.path("scores.json")).unwrap();
    if !bash(&scratch, &format!("\"$0\" {EVAL} >(cat > got; mv got finished)")) {
        return;
    }
    let began = Instant::now();
    while !scratch.path("finished").exists() {
        assert!(began.elapsed() < Duration::from_secs(10), "nothing came");
        thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(fs::read(scratch.path("finished")).unwrap(), expected);
    // A link in this folder: were it replaced, no device would be lost.
    symlink("/dev/fd/1", scratch.path("out")).unwrap();
    bash(&scratch, &format!("\"$0\" {EVAL} out > both && \"$0\" {EVAL} out | cat > piped"));
    for name in ["both", "piped"] {
        let both = fs::read_to_string(scratch.path(name)).unwrap();
        assert!(both.starts_with("perplexity"), "{both}");
        assert!(both.ends_with(str::from_utf8(&expected).unwrap()), "{both}");
    }
    assert!(scratch.path("out").symlink_metadata().unwrap().is_symlink());
    bash(&scratch, &format!("! \"$0\" {EVAL} out >> model/config.json"));
    bash(&scratch, &format!("! \"$0\" {EVAL} /dev/fd/5 5< model/config.json"));
    scratch.ok("inspect model");
}
