//! `moeprune-bench arctic-layer` on a layer that takes a moment.
#![cfg(target_os = "linux")]

use std::{
    fs,
    path::PathBuf,
    process::{Command, Output},
};

use serde_json::Value;
use tempfile::TempDir;

/// A folder to work in.
struct Scratch(TempDir);

/// What a run printed.
struct Ran {
    code: i32,
    stdout: String,
    stderr: String,
}

impl Scratch {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Runs `moeprune-bench` in the folder; arguments are separated by spaces.
    fn run(&self, arguments: &str) -> Ran {
        let mut bench = Command::new(env!("CARGO_BIN_EXE_moeprune-bench"));
        let Output { status, stdout, stderr } =
            bench.args(arguments.split_whitespace()).current_dir(&self.0).output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Ran { code: status.code().unwrap(), stdout: text(stdout), stderr: text(stderr) }
    }

    /// Runs `moeprune-bench` and expects success.
    fn ok(&self, arguments: &str) -> Ran {
        let ran = self.run(arguments);
        assert_eq!(ran.code, 0, "{arguments}\n{}{}", ran.stdout, ran.stderr);
        ran
    }
}

const TINY: &str = "arctic-layer --experts 8 --scale 128 --samples 2 --seq-len 32 --quiet";

#[test]
fn every_part_is_measured_and_written() {
    let scratch = Scratch::new();
    let ran =
        scratch.ok(&format!("{TINY} --dir there --json numbers.json --python no-such-python"));
    let text = fs::read_to_string(scratch.path("numbers.json")).unwrap();
    let numbers: Value = serde_json::from_str(&text).unwrap();
    let names = |list: &Value, key: &str| -> Vec<String> {
        let entries = list.as_array().unwrap().iter();
        entries.map(|entry| entry[key].as_str().unwrap().to_owned()).collect()
    };
    let parts = names(&numbers["parts"], "name");
    assert_eq!(
        parts,
        ["read", "widen to f32", "forward: trunk", "forward: experts", "capture", "masks", "write"]
    );
    for part in numbers["parts"].as_array().unwrap() {
        for how in ["alone", "overlapped"] {
            for key in ["work", "seconds", "rate"] {
                assert!(part[how][key].as_f64().unwrap() > 0.0, "{part}");
            }
        }
        let name = part["name"].as_str().unwrap();
        assert!(ran.stdout.contains(name), "{name}\n{}", ran.stdout);
    }
    for ceiling in ["copy", "disk_read", "disk_write"] {
        assert!(numbers["ceilings"][ceiling]["rate"].as_f64().unwrap() > 0.0, "{ceiling}");
    }
    assert_eq!(numbers["ceilings"]["products"].as_array().unwrap().len(), 6);
    let steps = names(&numbers["whole"]["steps"], "name");
    for step in ["observing", "measuring outliers", "pruning and writing"] {
        assert!(steps.iter().any(|name| name == step), "{steps:?}");
    }
    assert!(numbers["targets"].as_array().unwrap().len() >= 2);
    assert_eq!(numbers["layer"]["is_true_size"], false);
    assert!(numbers["peer"]["skipped"].as_str().unwrap().contains("--python"));
    assert_eq!(numbers["projection"]["layers"], 35);
    assert!(numbers["projection"]["label"].as_str().unwrap().starts_with("a projection"));
    for said in ["a projection", "PyTorch: skipped", "The layer is a reduced one"] {
        assert!(ran.stdout.contains(said), "{said}\n{}", ran.stdout);
    }
    assert_eq!(ran.stderr, "");

    // The layer is kept and used again; nothing else is left.
    let entries = || {
        let entries = fs::read_dir(scratch.path("there")).unwrap();
        let mut names: Vec<_> = entries.map(|e| e.unwrap().file_name()).collect();
        names.sort();
        names
    };
    assert_eq!(entries(), ["layer", "tokens-2x32.jsonl"]);
    let made = fs::metadata(scratch.path("there/layer")).unwrap().modified().unwrap();
    scratch.ok(&format!("{TINY} --dir there --allocation uniform --memory-dir nowhere"));
    assert_eq!(fs::metadata(scratch.path("there/layer")).unwrap().modified().unwrap(), made);
    assert_eq!(entries().len(), 2);

    // Another size is not taken for it.
    let other = TINY.replace("--experts 8", "--experts 9");
    let ran = scratch.run(&format!("{other} --dir there"));
    assert_eq!(ran.code, 1);
    assert!(ran.stderr.contains("holds a layer of another size"), "{}", ran.stderr);
}

#[test]
fn what_cannot_be_is_refused_before_any_work() {
    let scratch = Scratch::new();
    let check = |arguments: &str, code: i32, says: &str| {
        let ran = scratch.run(&format!("arctic-layer --dir there {arguments}"));
        assert_eq!(ran.code, code, "{arguments}\n{}", ran.stderr);
        assert!(ran.stderr.contains(says), "{arguments}\n{}", ran.stderr);
        assert!(!scratch.path("there/layer").exists(), "{arguments}");
    };
    check("--experts 0", 2, "not a positive whole number");
    check("--experts 1", 1, "1 experts: there must be at least 2");
    check("--scale 3", 1, "these do: 1, 2, 4");
    check("--samples no", 2, "--samples");
    check("--device gpu", 2, "cuda:N");
    check("--json no/such/file.json", 1, "there is no folder");
    check("--experts 20000", 1, "name a larger disk with --dir");
    #[cfg(not(feature = "cuda"))]
    check("--device cuda", 1, "--features cuda");
    assert_eq!(scratch.run("").code, 2);
}

#[test]
fn help_has_examples() {
    let scratch = Scratch::new();
    let help = scratch.ok("arctic-layer --help").stdout;
    for said in ["Examples:", "--device cuda", "--experts 4", "--json", "--python"] {
        assert!(help.contains(said), "{said}\n{help}");
    }
}

#[test]
fn a_layer_and_its_tokens_are_not_replaced() {
    let scratch = Scratch::new();
    fs::create_dir_all(scratch.path("dir/layer")).unwrap();
    let inputs = ["dir/layer/config.json", "dir/tokens-4x64.jsonl"];
    for name in inputs.into_iter().chain(["other"]) {
        fs::write(scratch.path(name), name).unwrap();
    }
    let check = |name: &str, says: &str| {
        let ran =
            scratch.run(&format!("arctic-layer --samples 4 --seq-len 64 --dir dir --json {name}"));
        assert_eq!(ran.code, 1, "{name}\n{}", ran.stderr);
        assert!(ran.stderr.contains(says), "{name}\n{}", ran.stderr);
    };
    for name in inputs {
        check(name, "it is an input of this run");
        assert_eq!(fs::read_to_string(scratch.path(name)).unwrap(), name);
    }
    check("other", "it exists and is not an earlier result of `bench`");
    fs::remove_file(scratch.path("dir/tokens-4x64.jsonl")).unwrap();
    check("dir/tokens-4x64.jsonl", "this run makes");
}
