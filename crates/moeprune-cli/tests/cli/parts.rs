//! Observing in parts, and adding them up.

use std::{collections::BTreeMap, fs, thread, time::Duration};

use crate::{
    command::{CALIBRATION, Ran, Scratch},
    resume::{signal, spawn},
};

fn whole(scratch: &Scratch) -> Vec<u8> {
    scratch.ok(&format!("observe model {CALIBRATION} -o whole"));
    fs::read(scratch.path("whole")).unwrap()
}

#[test]
fn parts_are_merged_to_the_bytes_of_one_run() {
    let scratch = Scratch::new("mixtral");
    let whole = whole(&scratch);
    for part in [3, 1, 2] {
        let ran =
            scratch.ok(&format!("observe model {CALIBRATION} --part {part}/3 -o part-{part}"));
        assert!(ran.stdout.starts_with(&format!("observed part {part}/3")), "{}", ran.stdout);
    }
    let ran = scratch.ok("merge part-2 part-3 part-1 -o merged");
    assert_eq!(ran.stdout, "merged 3 parts, 128 tokens → merged\n");
    assert!(fs::read(scratch.path("merged")).unwrap() == whole);
    scratch.ok("plan model --observation merged -o plan.json");
}

/// As a job array does that is submitted again after some of its parts have failed.
#[test]
fn a_finished_part_is_not_observed_again() {
    let scratch = Scratch::new("mixtral");
    let observe = format!("observe model {CALIBRATION} --part 1/2 -o part --resume");
    scratch.ok(&observe);
    let before = fs::metadata(scratch.path("part")).unwrap().modified().unwrap();
    let again = scratch.ok(&observe);
    assert_eq!(again.stdout, "part 1/2 of tokens.jsonl was observed before → part\n");
    assert_eq!(fs::metadata(scratch.path("part")).unwrap().modified().unwrap(), before);
    let check = |arguments: &str| {
        let ran = scratch.run(arguments);
        assert!(
            ran.code == 1 && ran.stderr.contains("part is part 1/2 of tokens.jsonl"),
            "{}",
            ran.stderr
        );
    };
    check(&observe.replace("1/2", "2/2"));
    check(&observe.replace("1/2", "1/3"));
    check(&observe.replace("--samples 4", "--samples 3"));
    fs::write(scratch.path("part"), b"something else").unwrap();
    let ran = scratch.run(&observe);
    assert!(ran.code == 1 && ran.stderr.contains("part"), "{}", ran.stderr);
    assert_eq!(fs::read(scratch.path("part")).unwrap(), b"something else");
}

fn run_in(scratch: &Scratch, arguments: &str, environment: &[(&str, &str)]) -> Ran {
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_moeprune"))
        .args(arguments.split_whitespace())
        .current_dir(scratch.path("."))
        .envs(environment.iter().copied())
        .output()
        .unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Ran {
        code: output.status.code().unwrap(),
        stdout: text(output.stdout),
        stderr: text(output.stderr),
    }
}

#[test]
fn schedulers_say_which_part() {
    let scratch = Scratch::new("mixtral");
    let observe = format!("observe model {CALIBRATION} --part auto");
    let check = |environment: &[(&str, &str)], more: &str, expected: &str| {
        let ran = run_in(&scratch, &format!("{observe} {more} -o part"), environment);
        let said = if ran.code == 0 { &ran.stdout } else { &ran.stderr };
        assert!(said.contains(expected), "{environment:?} {more}: {said}");
        let _ = fs::remove_file(scratch.path("part"));
    };
    check(
        &[("SLURM_ARRAY_TASK_ID", "2"), ("SLURM_ARRAY_TASK_COUNT", "1")],
        "--parts 4",
        "observed part 2/4",
    );
    check(
        &[("SLURM_ARRAY_TASK_ID", "2"), ("SLURM_ARRAY_TASK_COUNT", "4")],
        "",
        "needs the number of parts",
    );
    check(&[("SLURM_ARRAY_TASK_ID", "0")], "--parts 4", "--array=1-4");
    check(&[("RANK", "1"), ("WORLD_SIZE", "2")], "", "observed part 2/2");
    check(&[("JOB_COMPLETION_INDEX", "1")], "--parts 2", "observed part 2/2");
    check(&[], "", "--part I/N");
}

#[test]
fn all_parts_on_one_machine_are_one_run() {
    let scratch = Scratch::new("mixtral");
    let whole = whole(&scratch);
    for more in ["--parts 3", "--devices cpu,cpu", "--parts 3 --devices cpu,cpu"] {
        let ran = scratch.ok(&format!("observe model {CALIBRATION} {more} -o parts"));
        assert!(fs::read(scratch.path("parts")).unwrap() == whole, "{more}");
        assert_eq!(
            ran.stderr.matches("observing in parts (128 tokens)").count(),
            1,
            "{}",
            ran.stderr
        );
        assert_eq!(ran.stderr.matches("needs up to").count(), 1, "{}", ran.stderr);
        fs::remove_file(scratch.path("parts")).unwrap();
    }
    let left: Vec<String> =
        scratch.names().into_iter().filter(|name| name.starts_with('.')).collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn killed_runs_in_parts_are_resumed() {
    let scratch = Scratch::new("mixtral");
    let whole = whole(&scratch);
    let observe = format!("observe model {CALIBRATION} --parts 4 -o parts");
    let (mut stopped, mut finished) = (BTreeMap::new(), 0);
    for delay in (0..160).step_by(8) {
        let mut child = spawn(&scratch, &observe);
        thread::sleep(Duration::from_millis(delay));
        let how = if delay % 16 == 0 { "-KILL" } else { "-INT" };
        if child.try_wait().unwrap().is_none() {
            signal(&child, how);
        }
        child.wait().unwrap();
        if !scratch.path("parts").exists() {
            let kept = scratch.path(".parts.moeprune-partial").exists();
            *stopped.entry((how, kept)).or_insert(0) += 1;
            scratch.ok(&format!("{observe} --resume"));
        } else {
            finished += 1;
        }
        assert!(fs::read(scratch.path("parts")).unwrap() == whole, "after {delay} ms");
        fs::remove_file(scratch.path("parts")).unwrap();
        assert!(!scratch.path(".parts.moeprune-partial").exists(), "left after {delay} ms");
    }
    assert!(!stopped.is_empty(), "none was killed, {finished} finished");
}

#[test]
fn another_number_of_parts_does_not_resume() {
    let scratch = Scratch::new("mixtral");
    // The first part is kept when the second finds no place.
    let observe = format!("observe model {CALIBRATION} -o parts");
    for delay in 0..400 {
        let mut child = spawn(&scratch, &format!("{observe} --parts 4"));
        thread::sleep(Duration::from_millis(delay));
        child.kill().unwrap();
        child.wait().unwrap();
        let journal = scratch.path(".parts.moeprune-partial/state/journal");
        if fs::read_to_string(journal).is_ok_and(|text| text.lines().count() >= 2) {
            let ran = scratch.run(&format!("{observe} --parts 3 --resume"));
            assert!(
                ran.code == 1 && ran.stderr.contains("the part was all of 4, and is all of 3 now"),
                "{}",
                ran.stderr
            );
            return;
        }
        let _ = fs::remove_file(scratch.path("parts"));
    }
    panic!("no run was killed between its beginning and its end");
}

#[test]
fn wrong_options_are_refused() {
    let scratch = Scratch::new("mixtral");
    let check = |more: &str, code: i32, expected: &str| {
        let ran = scratch.run(&format!("observe model {CALIBRATION} {more} -o out"));
        assert!(ran.code == code && ran.stderr.contains(expected), "{more}: {}", ran.stderr);
        assert!(!scratch.path("out").exists());
    };
    check("--part 0/4", 2, "I/N");
    check("--part 5/4", 2, "I/N");
    check("--part 1", 2, "I/N");
    check("--parts 0", 2, "number of parts");
    check("--part 1/4 --parts 3", 1, "contradict");
    check("--part 1/4 --devices cpu", 2, "cannot be used with");
    check("--part 1/4 --domain-from file", 2, "cannot be used with");
    check("--devices cpu,gpu", 2, "gpu");
}
