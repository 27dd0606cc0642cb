//! Parts and joins that are killed at any moment, and run again.

use std::{fs, process::Command, thread, time::Duration};

use moeprune_files::FolderClaim;

use super::{STORED, by_stored_statistics, bytes_of, remove};
use crate::{
    command::Scratch,
    resume::{records_of, signal, spawn, wait_for_records},
};

fn random(state: &mut u64, below: u64) -> u64 {
    *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
    (*state >> 33) % below
}

/// Writes all of three parts.
fn write_parts(scratch: &Scratch) {
    for part in 1..=3 {
        scratch.ok(&format!("{} --part {part}/3", STORED.replace("OUT", &format!("part-{part}"))));
    }
}

const JOIN: &str = "join model part-1 part-2 part-3 -o joined";

#[test]
fn a_killed_part_is_resumed() {
    let scratch = by_stored_statistics("mixtral_sharded");
    scratch.ok(&STORED.replace("OUT", "whole"));
    let (mut state, mut killed) = (0x9e37_79b9_u64, Vec::new());
    // The outliers of 3 layers, survivors of up to 3, what belongs to no layer, and one layer.
    for after in 0..8 {
        for part in 1..=3 {
            let apply = format!("{} --part {part}/3", STORED.replace("OUT", "out"));
            let mut child = spawn(&scratch, &apply);
            let running = wait_for_records(&scratch, &mut child, after);
            thread::sleep(Duration::from_micros(random(&mut state, 4000)));
            child.kill().unwrap();
            child.wait().unwrap();
            if running && !scratch.path("out").exists() {
                let done = records_of(&scratch);
                assert!(done.len() >= after);
                killed.extend(done.last().cloned());
            }
            scratch.ok(&format!("{apply} --resume"));
            assert!(!scratch.names().iter().any(|name| name.ends_with("-partial")));
            fs::rename(scratch.path("out"), scratch.path(&format!("part-{part}"))).unwrap();
        }
        scratch.ok(JOIN);
        assert!(bytes_of(&scratch.path("joined")) == bytes_of(&scratch.path("whole")));
        remove(&scratch.path("joined"));
    }
    for stage in ["measured", "outside_written"] {
        assert!(
            killed.iter().any(|last| last.contains(stage)),
            "never killed after {stage}: {killed:?}"
        );
    }
}

#[test]
fn a_killed_join_is_continued() {
    let scratch = by_stored_statistics("mixtral_sharded");
    scratch.ok(&STORED.replace("OUT", "whole"));
    let whole = bytes_of(&scratch.path("whole"));
    let (mut state, mut killed) = (1_u64, 0);
    for _ in 0..6 {
        write_parts(&scratch);
        // Killed again and again before it is left to itself.
        for _ in 0..3 {
            let journal = scratch.path(".joined.moeprune-partial/state/journal");
            let resumed = journal.exists();
            let mut child = spawn(&scratch, JOIN);
            while !resumed && !journal.exists() && child.try_wait().unwrap().is_none() {
                thread::yield_now();
            }
            let moment = if resumed { 60_000 } else { 4000 };
            thread::sleep(Duration::from_micros(random(&mut state, moment)));
            child.kill().unwrap();
            child.wait().unwrap();
            killed += usize::from(journal.exists());
        }
        if scratch.path("joined").exists() {
            // Published by one that was killed when it removed the parts, or was quick.
            let again = scratch.run(JOIN);
            assert!(again.code == 1 && again.stderr.contains("exist"), "{}", again.stderr);
        } else {
            scratch.ok(JOIN);
        }
        assert!(bytes_of(&scratch.path("joined")) == whole);
        for name in scratch.names() {
            if name.starts_with("part-") || name.starts_with("joined") {
                remove(&scratch.path(&name));
            }
        }
    }
    assert!(killed > 0, "no join was killed at its work");
}

/// Each state that a join can leave, made by hand: so many files are moved, the others are not.
#[test]
fn a_join_is_continued_from_each_file() {
    let scratch = by_stored_statistics("mixtral_sharded");
    scratch.ok(&STORED.replace("OUT", "whole"));
    for moved in 0..=3 {
        write_parts(&scratch);
        // A file that cannot be opened in one of the parts, while the others are moved.
        let mut names: Vec<_> =
            (1..=3).map(|file| format!("model-0000{file}-of-00003.safetensors")).collect();
        names.truncate(3);
        let content = scratch.path(".joined.moeprune-partial/output");
        let stopped = stop_after(&scratch, moved, &names);
        assert!(stopped || moved == 3);
        if stopped {
            for name in &names[..moved] {
                assert!(content.join(name).exists(), "{name} was not moved");
            }
            // The parts count as finished, though some of their files are elsewhere.
            let again = scratch.ok(&format!("{} --part 1/3", STORED.replace("OUT", "part-1")));
            assert!(again.stdout.contains("finished already"), "{}", again.stdout);
            let ran = scratch.run("join model part-1 part-2 -o joined");
            assert!(ran.code == 1 && ran.stderr.contains("3/3"), "{}", ran.stderr);
            scratch.ok(JOIN);
        }
        assert!(bytes_of(&scratch.path("joined")) == bytes_of(&scratch.path("whole")));
        remove(&scratch.path("joined"));
    }
}

/// Joins, and has that fail when `moved` files are moved; whether it did.
fn stop_after(scratch: &Scratch, moved: usize, names: &[String]) -> bool {
    let Some(next) = names.get(moved) else {
        scratch.ok(JOIN);
        return false;
    };
    for _ in 0..100 {
        if let Some(failed) = put_in_the_way(scratch, next) {
            return failed;
        }
        // It was faster than this test.
        remove(&scratch.path("joined"));
        write_parts(scratch);
    }
    panic!("no join was still at its work");
}

/// Joins with a folder in the way where a file is to go; whether it failed, or `None` if it was past that.
fn put_in_the_way(scratch: &Scratch, next: &str) -> Option<bool> {
    let begun = scratch.path(".joined.moeprune-partial");
    let mut child = spawn(scratch, JOIN);
    while !begun.join("state/journal").exists() {
        if child.try_wait().unwrap().is_some() {
            return None;
        }
        thread::yield_now();
    }
    signal(&child, "-STOP");
    let way = begun.join("output").join(next);
    let free = begun.join("output").exists() && !way.exists();
    if free {
        fs::create_dir_all(&way).unwrap();
    }
    signal(&child, "-CONT");
    let failed = !child.wait().unwrap().success();
    if !free {
        return None;
    }
    assert!(failed, "a folder was no obstacle");
    fs::remove_dir(&way).unwrap();
    Some(failed)
}

#[test]
fn two_processes_do_not_write_one_part() {
    let scratch = by_stored_statistics("mixtral");
    let apply = format!("{} --part 2/2", STORED.replace("OUT", "out"));
    let mut first = spawn(&scratch, &apply);
    assert!(wait_for_records(&scratch, &mut first, 0));
    signal(&first, "-STOP");
    for second in [apply.clone(), format!("{apply} --resume")] {
        let ran = scratch.run(&second);
        assert!(ran.code == 1 && ran.stderr.contains("another moeprune process"), "{}", ran.stderr);
    }
    signal(&first, "-CONT");
    assert!(first.wait().unwrap().success());
}

/// Joins two parts to `joined`, and has that fail when the first file is moved: the second is longer than may be
/// written. Returns what it says.
fn fail_in_mid_move(scratch: &Scratch) -> String {
    for part in 1..=2 {
        scratch.ok(&format!("{} --part {part}/2", STORED.replace("OUT", &format!("part-{part}"))));
    }
    let program = env!("CARGO_BIN_EXE_moeprune");
    let join =
        format!("ulimit -f 12; trap '' XFSZ; exec {program} join model part-1 part-2 -o joined");
    let ran =
        Command::new("bash").args(["-c", &join]).current_dir(scratch.path("")).output().unwrap();
    let said = String::from_utf8(ran.stderr).unwrap();
    assert_eq!(ran.status.code(), Some(1), "{said}");
    let moved = scratch.path(".joined.moeprune-partial/output/model-00001-of-00003.safetensors");
    assert!(moved.exists(), "nothing was moved: {said}");
    said
}

#[test]
fn a_failed_join_says_what_its_folder_holds() {
    let scratch = by_stored_statistics("mixtral_sharded");
    scratch.ok(&STORED.replace("OUT", "whole"));
    let said = fail_in_mid_move(&scratch);
    for expected in
        [".joined.moeprune-partial holds weights moved out", "run the same command again"]
    {
        assert!(said.contains(expected), "{said}");
    }
    assert!(!said.contains("--resume") && !said.contains("delete"), "{said}");
    // Nothing else is to be had of these parts, or of that place.
    let ran = scratch.run("join model part-1 part-2 -o elsewhere");
    assert!(
        ran.code == 1 && ran.stderr.contains("is being joined to [DIR]/joined"),
        "{}",
        ran.stderr
    );
    let ran = scratch.run(&STORED.replace("OUT", "joined"));
    assert!(ran.code == 1 && ran.stderr.contains("run that join again"), "{}", ran.stderr);
    assert!(!scratch.names().iter().any(|name| name.contains("elsewhere")));
    scratch.ok("join model part-1 part-2 -o joined");
    assert!(bytes_of(&scratch.path("joined")) == bytes_of(&scratch.path("whole")));
    assert!(!scratch.path("part-1").exists());
}

/// Parts whose join was deleted are not taken for finished ones.
#[test]
fn a_join_that_is_gone_leaves_no_finished_part() {
    let scratch = by_stored_statistics("mixtral_sharded");
    scratch.ok(&STORED.replace("OUT", "whole"));
    fail_in_mid_move(&scratch);
    let apply = format!("{} --part 1/2", STORED.replace("OUT", "part-1"));
    assert!(scratch.ok(&apply).stdout.contains("finished already"));
    remove(&scratch.path(".joined.moeprune-partial"));
    for command in [&*apply, "join model part-1 part-2 -o elsewhere"] {
        let ran = scratch.run(command);
        assert_eq!(ran.code, 1, "{}", ran.stdout);
        assert!(
            ran.stderr.contains("remove the folder and write that part again"),
            "{}",
            ran.stderr
        );
    }
    remove(&scratch.path("part-1"));
    scratch.ok(&apply);
    // The share of the other part was not moved.
    scratch.ok("join model part-1 part-2 -o elsewhere");
    assert!(bytes_of(&scratch.path("elsewhere")) == bytes_of(&scratch.path("whole")));
}

#[test]
fn two_joins_do_not_work_on_one_part() {
    let scratch = by_stored_statistics("mixtral_sharded");
    write_parts(&scratch);
    let before = bytes_of(&scratch.path("part-1"));
    let other = FolderClaim::take(&scratch.path("part-2")).unwrap();
    let ran = scratch.run(JOIN);
    assert!(ran.code == 1 && ran.stderr.contains("another moeprune process"), "{}", ran.stderr);
    assert!(bytes_of(&scratch.path("part-1")) == before);
    drop(other);
    scratch.ok(JOIN);
}
