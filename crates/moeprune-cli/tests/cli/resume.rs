//! Runs that are killed, stopped, or run out of disk, and are continued.
#![cfg(unix)]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use crate::command::{CALIBRATION, Scratch};

const JOURNAL: &str = ".out.moeprune-partial/state/journal";

/// Every file below `path` and its bytes. Of reports, what is left without seconds and memory.
pub(crate) fn contents(path: &Path) -> BTreeMap<String, Vec<u8>> {
    if path.is_file() {
        return BTreeMap::from([(String::new(), fs::read(path).unwrap())]);
    }
    if !path.is_dir() {
        return BTreeMap::from([(String::new(), Vec::new())]); // a FIFO, or a link to nothing
    }
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(path).unwrap().map(Result::unwrap) {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name == "moeprune-report.md" {
            continue;
        }
        for (below, mut bytes) in contents(&entry.path()) {
            if name == "moeprune-report.json" {
                let mut report: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
                report.as_object_mut().unwrap().remove("stages");
                bytes = report.to_string().into_bytes();
            }
            found.insert(format!("{name}/{below}"), bytes);
        }
    }
    found
}

pub(crate) fn spawn(scratch: &Scratch, arguments: &str) -> Child {
    Command::new(env!("CARGO_BIN_EXE_moeprune"))
        .args(arguments.split_whitespace())
        .current_dir(scratch.path("."))
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

pub(crate) fn signal(child: &Child, signal: &str) {
    let sent = Command::new("kill").args([signal, &child.id().to_string()]).status().unwrap();
    assert!(sent.success());
}

/// What the journal says was done, by kind of record, without a last line that is not whole.
pub(crate) fn records_of(scratch: &Scratch) -> Vec<String> {
    let text = fs::read_to_string(scratch.path(JOURNAL)).unwrap_or_default();
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    let kind = |line: &str| line.split('"').nth(1).unwrap_or_default().to_owned();
    whole.lines().map(kind).filter(|kind| kind != "begun").collect()
}

/// Waits until so much is done, or the process has ended, which is `false`.
pub(crate) fn wait_for_records(scratch: &Scratch, child: &mut Child, done: usize) -> bool {
    let began = Instant::now();
    loop {
        if records_of(scratch).len() >= done && scratch.path(JOURNAL).exists() {
            return true;
        }
        if child.try_wait().unwrap().is_some() {
            return false;
        }
        assert!(began.elapsed() < Duration::from_secs(60), "nothing happens");
        thread::sleep(Duration::from_micros(100));
    }
}

/// How many decoder layers the model has, as its config says.
fn layers_of(scratch: &Scratch) -> String {
    let config = fs::read_to_string(scratch.path("model/config.json")).unwrap();
    let (_, count) = config.split_once("\"num_hidden_layers\": ").unwrap();
    count.chars().take_while(char::is_ascii_digit).collect()
}

/// Kills a run of `arguments` after each number of finished steps, a random while later, and
/// continues it. Returns what was done last when it was killed.
fn kill_and_resume(scratch: &Scratch, arguments: &str, steps: usize) -> Vec<String> {
    let (whole, layers) = (scratch.path("whole"), layers_of(scratch));
    scratch.ok(&arguments.replace("OUT", "whole"));
    let (arguments, out) = (arguments.replace("OUT", "out"), scratch.path("out"));
    let mut random = 0x9e37_79b9_u64;
    let mut killed = Vec::new();
    for after in 0..=steps {
        let mut child = spawn(scratch, &arguments);
        let running = wait_for_records(scratch, &mut child, after);
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        thread::sleep(Duration::from_micros((random >> 33) % 4000));
        child.kill().unwrap();
        let ended = child.wait().unwrap();
        if out.exists() {
            // It was complete; who was killed tidying up is tidied up after by the next.
            let next = scratch.run(&format!("{arguments} --resume"));
            assert!(next.code == 1 && next.stderr.contains("exist"), "{}", next.stderr);
        } else {
            assert!(running && !ended.success());
            let done = records_of(scratch);
            assert!(done.len() >= after);
            killed.push(done.last().cloned().unwrap_or_default());
            let again = scratch.ok(&format!("{arguments} --resume"));
            // No finished layer is done again.
            let written = done.iter().filter(|kind| *kind == "written").count();
            if written > 0 {
                let note = format!("{written} of {layers} layers done already");
                assert!(again.stderr.contains(&note), "{note}: {}", again.stderr);
            }
        }
        assert!(contents(&out) == contents(&whole), "killed after {after} steps");
        let names = scratch.names();
        assert!(!names.iter().any(|name| name.ends_with("-partial")), "left behind: {names:?}");
        if out.is_dir() {
            fs::remove_dir_all(&out).unwrap()
        } else {
            fs::remove_file(&out).unwrap()
        }
    }
    if whole.is_dir() {
        fs::remove_dir_all(&whole).unwrap()
    } else {
        fs::remove_file(&whole).unwrap()
    }
    killed
}

/// Observe 3 layers, choose the experts of 3, measure 3, write what belongs to none, write 3.
const PRUNE_STEPS: usize = 13;

#[test]
fn a_killed_run_gives_the_same_bytes_when_resumed() {
    let prune = format!("prune model OUT {CALIBRATION}");
    let mut killed = Vec::new();
    for model in ["arctic", "mixtral", "mixtral_sharded"] {
        killed.extend(kill_and_resume(&Scratch::new(model), &prune, PRUNE_STEPS));
    }
    let averaging = format!("{prune} --sparsity 0.7 --expert-sparsity 0.5 --budget global");
    killed.extend(kill_and_resume(&Scratch::new("mixtral"), &averaging, PRUNE_STEPS));
    assert!(killed.len() >= 25, "only {} runs were still there to be killed", killed.len());
    let stages: BTreeSet<&str> = killed.iter().map(String::as_str).collect();
    for stage in ["observed", "measured", "written"] {
        assert!(stages.contains(stage), "never killed after `{stage}`: {stages:?}");
    }
}

#[test]
fn killed_single_steps_give_the_same_bytes_when_resumed() {
    let scratch = Scratch::new("mixtral");
    kill_and_resume(&scratch, &format!("observe model {CALIBRATION} -o OUT"), 3);
    scratch.ok(&format!("observe model {CALIBRATION} -o obs"));
    scratch.ok("plan model --observation obs -o plan.json");
    scratch.ok("plan model --sparsity 0.25 --expert-sparsity 0.25 -o experts.json");
    kill_and_resume(&scratch, "apply model OUT --plan plan.json --observation obs", 7);
    kill_and_resume(&scratch, &format!("apply model OUT --plan plan.json {CALIBRATION}"), 7);
    kill_and_resume(&scratch, "apply model OUT --plan experts.json", 4);
}

/// A layer that was repaired is not repaired again.
#[test]
fn killed_runs_with_a_repair_give_the_same_bytes_when_resumed() {
    let prune = format!("prune model OUT {CALIBRATION} --repair refit --expert-sparsity 0.25");
    let scratch = Scratch::new("mixtral");
    // Three layers are repaired.
    let killed = kill_and_resume(&scratch, &prune, PRUNE_STEPS + 3);
    assert!(killed.iter().any(|stage| stage == "repaired"), "{killed:?}");
}

/// What was observed of a layer decides it again, and the run goes on with the layer's outputs without what it lost.
#[test]
fn killed_runs_that_choose_experts_in_turn_give_the_same_bytes_when_resumed() {
    for (model, criterion) in [("mixtral", "reap"), ("arctic", "stun --survivor average")] {
        let sequential = format!("--criterion {criterion} --expert-statistics sequential");
        let share = "--sparsity 0.5 --expert-sparsity 0.5";
        let prune = format!("prune model OUT {CALIBRATION} {share} {sequential}");
        // Three layers are observed and decided, and written without a look at their weights.
        let killed = kill_and_resume(&Scratch::new(model), &prune, 7);
        assert!(killed.iter().any(|stage| stage == "observed"), "{killed:?}");
    }
}

/// Layers behind the decoder's, in a file of their own, are written with what belongs to no layer.
#[test]
fn killed_runs_of_models_with_extra_layers() {
    let scratch = Scratch::new("glm4_moe");
    scratch.ok("plan model --sparsity 0.3 --expert-sparsity 0.3 -o experts.json");
    kill_and_resume(&scratch, "apply model OUT --plan experts.json", 5);
    assert!(scratch.path("model/mtp.safetensors").exists());
}

/// So are those with names of their own, whose experts may be stored otherwise than the decoder's.
#[test]
fn killed_runs_of_models_whose_extra_layers_have_a_prefix() {
    for (model, mtp) in [("qwen3_next", "prune"), ("qwen3_5_moe", "prune"), ("qwen3_next", "drop")]
    {
        let scratch = Scratch::new(model);
        let share = "--sparsity 0.25 --expert-sparsity 0.25";
        scratch.ok(&format!("plan model {share} --mtp {mtp} -o experts.json"));
        kill_and_resume(&scratch, "apply model OUT --plan experts.json", 6);
    }
}

/// A run that is killed again and again makes progress all the same.
#[test]
fn a_run_that_never_lives_long_ends_at_last() {
    let scratch = Scratch::new("arctic");
    scratch.ok(&format!("prune model whole {CALIBRATION}"));
    let resume = format!("prune model out {CALIBRATION} --resume");
    let (mut kills, mut done) = (0, 0);
    loop {
        let mut child = spawn(&scratch, &resume);
        let running = wait_for_records(&scratch, &mut child, done + 1);
        child.kill().unwrap();
        if child.wait().unwrap().success() || !running {
            break;
        }
        let now = records_of(&scratch).len();
        assert!(now > done, "nothing was gained");
        (kills, done) = (kills + 1, now);
    }
    if !scratch.path("out").exists() {
        scratch.ok(&resume);
    }
    assert!(kills >= 3, "{kills}");
    assert!(contents(&scratch.path("out")) == contents(&scratch.path("whole")));
}

/// Leaves a run behind that was killed after so many steps.
fn killed(scratch: &Scratch, steps: usize) {
    let mut child = spawn(scratch, &format!("prune model out {CALIBRATION}"));
    assert!(wait_for_records(scratch, &mut child, steps));
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn what_changed_is_named() {
    let scratch = Scratch::new("arctic");
    killed(&scratch, 1);
    let before = records_of(&scratch);
    let check = |arguments: &str, expected: &str| {
        let ran = scratch.run(arguments);
        assert_eq!(ran.code, 1, "{arguments}: {}", ran.stderr);
        assert!(ran.stderr.contains(expected), "{expected}: {}", ran.stderr);
        assert_eq!(records_of(&scratch), before, "work was lost");
    };
    let prune = format!("prune model out {CALIBRATION}");
    check(&prune, "run with --resume to continue it, or delete that folder");
    check(
        &format!("{prune} --resume --sparsity 0.5"),
        "the recipe's sparsity was 0.4, and is 0.5 now",
    );
    check(
        "prune model out --calibration tokens.jsonl --samples 3 --seq-len 32 --resume",
        "calibration.samples was 4, and is 3 now",
    );
    let tokens = fs::read_to_string(scratch.path("tokens.jsonl")).unwrap();
    fs::write(scratch.path("tokens.jsonl"), format!("{tokens}{tokens}")).unwrap();
    check(&format!("{prune} --resume"), "the calibration file's SHA-256 was");
    fs::write(scratch.path("tokens.jsonl"), tokens).unwrap();

    let family = include_str!("../../../moeprune-checkpoint/families/arctic.toml");
    let other =
        family.replace("[\"rms_norm_eps\"], default = 0.00001", "[\"no\"], default = 0.001");
    assert_ne!(other, family);
    fs::write(scratch.path("other.toml"), other).unwrap();
    check(
        &format!("{prune} --resume --family other.toml"),
        "what config.json and the family descriptor say (SHA-256) was",
    );

    for name in ["model.safetensors", "config.json"] {
        let file = scratch.path("model").join(name);
        let bytes = fs::read(&file).unwrap();
        let mut other = bytes.clone();
        let middle = other.len() / 2;
        let at = (middle..).find(|&at| name != "config.json" || other[at] == b' ').unwrap();
        other[at] = if name == "config.json" { b'\n' } else { other[at] ^ 1 };
        let time = fs::metadata(&file).unwrap().modified().unwrap();
        fs::write(&file, other).unwrap();
        check(&format!("{prune} --resume"), &format!("the model's {name} has other bytes now"));
        // Also if the time is the same.
        fs::File::options().write(true).open(&file).unwrap().set_modified(time).unwrap();
        check(&format!("{prune} --resume"), &format!("the model's {name} has other bytes now"));
        fs::write(&file, bytes).unwrap();
    }
    // A copy is the same model, and so is one elsewhere.
    let kept = scratch.path("kept");
    fs::rename(scratch.path("model"), &kept).unwrap();
    fs::create_dir(scratch.path("model")).unwrap();
    for entry in fs::read_dir(&kept).unwrap().map(Result::unwrap) {
        fs::copy(entry.path(), scratch.path("model").join(entry.file_name())).unwrap();
    }
    check(&format!("{prune} --resume --sparsity 0.5"), "the recipe's sparsity was");
    let prune = format!("{prune} --rehash");
    scratch.ok(&format!("{prune} --resume"));
}

#[test]
fn state_that_cannot_be_read_says_what_to_delete() {
    let scratch = Scratch::new("arctic");
    killed(&scratch, 1);
    let state = scratch.path(".out.moeprune-partial/state/observed-0000.safetensors");
    let bytes = fs::read(&state).unwrap();
    fs::write(&state, &bytes[..bytes.len() / 2]).unwrap();
    let ran = scratch.run(&format!("prune model out {CALIBRATION} --resume"));
    assert_eq!(ran.code, 1);
    for expected in
        ["observed-0000", "delete the unfinished folder", ".out.moeprune-partial to start"]
    {
        assert!(ran.stderr.contains(expected), "{expected}: {}", ran.stderr);
    }
}

#[test]
fn two_runs_do_not_share_a_place() {
    let scratch = Scratch::new("arctic");
    let prune = format!("prune model out {CALIBRATION}");
    let mut first = spawn(&scratch, &prune);
    assert!(wait_for_records(&scratch, &mut first, 0));
    signal(&first, "-STOP");
    for second in [prune.clone(), format!("{prune} --resume")] {
        let ran = scratch.run(&second);
        assert_eq!(ran.code, 1);
        assert!(ran.stderr.contains("another moeprune process"), "{}", ran.stderr);
    }
    signal(&first, "-CONT");
    assert!(first.wait().unwrap().success());
}

/// Whether this process was started to ignore a signal, as background jobs of scripts are.
fn is_ignored(signal: u32) -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.is_some_and(|mask| mask >> (signal - 1) & 1 == 1)
}

#[test]
fn ctrl_c_says_how_to_go_on() {
    if is_ignored(2) {
        return eprintln!("skipped: Ctrl-C is ignored here, and then by what is started from here");
    }
    let scratch = Scratch::new("arctic");
    scratch.ok(&format!("prune model whole {CALIBRATION}"));
    let prune = format!("prune model out {CALIBRATION} --resume");
    let mut stopped = 0;
    for _ in 0..6 {
        // One more step than before, so that the process is certainly at work.
        let steps = records_of(&scratch).len() + 1;
        let mut child = spawn(&scratch, &prune);
        if wait_for_records(&scratch, &mut child, steps) {
            signal(&child, "-INT");
        }
        let ended = child.wait_with_output().unwrap();
        let stderr = String::from_utf8(ended.stderr).unwrap();
        match ended.status.code() {
            Some(130) => {
                stopped += 1;
                assert!(stderr.contains("stopping at the next safe point"), "{stderr}");
                assert!(stderr.contains("run the same command with --resume"), "{stderr}");
            }
            // It was faster.
            Some(0) => {
                fs::remove_dir_all(scratch.path("out")).unwrap();
                continue;
            }
            other => panic!("{other:?}: {stderr}"),
        }
        assert!(!scratch.path("out").exists());
    }
    assert!(stopped > 0, "never stopped");
    scratch.ok(&prune);
    assert!(contents(&scratch.path("out")) == contents(&scratch.path("whole")));
}

#[test]
fn resuming_nothing_starts_anew() {
    let scratch = Scratch::new("arctic");
    scratch.ok(&format!("prune model out {CALIBRATION} --resume"));
    let ran = scratch.run(&format!("prune model out {CALIBRATION} --resume"));
    assert!(ran.code == 1 && ran.stderr.contains("exists already"), "{}", ran.stderr);
}
