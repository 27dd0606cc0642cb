//! Outputs that fill a folder that is there.
#![cfg(unix)] // makes symbolic links

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

use moeprune_files::PartialOutput;
use tempfile::TempDir;

const WORK: &str = ".moeprune-unfinished";
const CONTENT: [&str; 4] = ["config.json", "model.safetensors", "sub", "tokenizer.json"];

fn place() -> (TempDir, PathBuf) {
    let root = tempfile::tempdir().unwrap();
    let out = root.path().join("out");
    fs::create_dir(&out).unwrap();
    (root, out)
}

fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).unwrap();
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn open(out: &Path) -> Result<PartialOutput, String> {
    PartialOutput::open_folder(out, None).map_err(|e| e.to_string())
}

fn fill(partial: &PartialOutput) {
    fs::create_dir(partial.content()).unwrap();
    for name in CONTENT {
        let path = partial.content().join(name);
        match name {
            "sub" => {
                fs::create_dir(&path).unwrap();
                fs::write(path.join("file"), name).unwrap();
            }
            _ => fs::write(path, name).unwrap(),
        }
    }
    fs::write(partial.state().join("journal"), "1").unwrap();
}

/// As a process leaves it that was killed before it published.
fn leave(out: &Path) {
    let mut partial = open(out).unwrap();
    fill(&partial);
    partial.set_keep(true);
}

#[track_caller]
fn check_refused(out: &Path, expected: &[&str]) {
    let before = names(out);
    let error = open(out).unwrap_err();
    for part in expected {
        assert!(error.contains(part), "no `{part}` in: {error}");
    }
    assert_eq!(names(out), before);
}

#[test]
fn an_empty_folder_is_filled() {
    let (root, out) = place();
    let partial = open(&out).unwrap();
    fill(&partial);
    assert_eq!(names(&out), [WORK]);
    partial.publish_with(Some("config.json")).unwrap();
    assert_eq!(names(&out), CONTENT);
    assert_eq!(names(root.path()), ["out"]);
    assert_eq!(fs::read_to_string(out.join("sub/file")).unwrap(), "sub");
}

#[test]
fn a_link_to_an_empty_folder() {
    let (root, out) = place();
    let link = root.path().join("link");
    symlink(&out, &link).unwrap();
    let partial = open(&link).unwrap();
    fill(&partial);
    partial.publish().unwrap();
    assert_eq!(names(&out), CONTENT);
    assert!(link.is_symlink());
}

#[test]
fn a_folder_that_is_missing_is_made() {
    let root = tempfile::tempdir().unwrap();
    let out = root.path().join("new/out");
    let partial = open(&out).unwrap();
    fill(&partial);
    assert!(!out.exists());
    partial.publish_with(Some("config.json")).unwrap();
    assert_eq!(names(&out), CONTENT);
}

#[test]
fn dropped_the_folder_is_empty_again() {
    let (_root, out) = place();
    let partial = open(&out).unwrap();
    fill(&partial);
    drop(partial);
    assert!(names(&out).is_empty());
    leave(&out);
    assert_eq!(names(&out), [WORK]);
    assert!(open(&out).unwrap().is_leftover());
    assert!(names(&out).is_empty());
}

#[test]
fn a_folder_with_anything_in_it() {
    let (_root, out) = place();
    for name in ["precious", ".hidden", "lost+found"] {
        fs::create_dir(out.join(name)).unwrap();
        check_refused(&out, &["exists already and is not empty", name]);
        fs::remove_dir(out.join(name)).unwrap();
    }
    for name in ["a", "b", "c", "d", "e"] {
        fs::write(out.join(name), "").unwrap();
    }
    check_refused(&out, &["a, b, c and 2 more"]);
}

#[test]
fn what_is_beside_unfinished_work_is_named() {
    let (_root, out) = place();
    leave(&out);
    fs::write(out.join("precious"), "").unwrap();
    check_refused(&out, &["it holds precious", "beside unfinished work of moeprune", WORK]);
    fs::remove_file(out.join("precious")).unwrap();
    assert!(open(&out).unwrap().is_leftover());
}

#[test]
fn what_is_no_work_of_ours() {
    let (_root, out) = place();
    let work = out.join(WORK);
    fs::write(&work, "a file").unwrap();
    check_refused(&out, &[WORK, "has no .moeprune-partial"]);
    fs::remove_file(&work).unwrap();
    fs::create_dir(&work).unwrap();
    fs::write(work.join("precious"), "").unwrap();
    check_refused(&out, &[WORK, "has no .moeprune-partial"]);
}

#[test]
fn work_beside_the_place_is_not_forgotten() {
    let (root, out) = place();
    fs::remove_dir(&out).unwrap();
    leave(&out);
    fs::create_dir(&out).unwrap();
    check_refused(&out, &[".out.moeprune-partial", "remove the empty folder"]);
    fs::remove_dir(&out).unwrap();
    assert!(open(&out).unwrap().is_leftover());
    assert!(names(root.path()).is_empty());
}

#[test]
fn one_process_at_a_time() {
    let (_root, out) = place();
    let first = open(&out).unwrap();
    check_refused(&out, &[WORK, "another moeprune process"]);
    drop(first);
    open(&out).unwrap();
}

#[test]
fn a_name_that_appeared_meanwhile() {
    let (_root, out) = place();
    let mut partial = open(&out).unwrap();
    fill(&partial);
    partial.set_keep(true);
    fs::write(out.join("tokenizer.json"), "precious").unwrap();
    fs::write(out.join("other"), "precious").unwrap();
    let error = partial.publish_with(Some("config.json")).unwrap_err().to_string();
    assert!(error.contains("tokenizer.json") && error.contains("has appeared"), "{error}");
    assert_eq!(names(&out), [WORK, "other", "tokenizer.json"]);
    assert_eq!(names(&out.join(WORK).join("output")), CONTENT);
}

/// Publishing writes the list of names, moves them, and removes the content, the state, the list, the marker
/// and the folder. It may stop between any two of these.
#[test]
fn publishing_that_stopped() {
    let list: Vec<u8> = CONTENT.iter().flat_map(|name| [name.as_bytes(), b"\0"].concat()).collect();
    let order = ["model.safetensors", "sub", "tokenizer.json", "config.json"];
    for moved in 0..=order.len() {
        let (_root, out) = place();
        leave(&out);
        let work = out.join(WORK);
        fs::write(work.join(".moeprune-publishing"), &list).unwrap();
        for name in &order[..moved] {
            fs::rename(work.join("output").join(name), out.join(name)).unwrap();
        }
        assert_eq!(out.join("config.json").exists(), moved == order.len());
        if moved == order.len() {
            assert!(open(&out).unwrap_err().contains("exists already"));
            assert_eq!(names(&out), CONTENT);
            continue;
        }
        let partial = open(&out).unwrap();
        assert!(partial.is_leftover());
        assert_eq!(names(&out), [WORK]);
        assert_eq!(names(&partial.content()), CONTENT);
        partial.publish_with(Some("config.json")).unwrap();
        assert_eq!(names(&out), CONTENT);
    }
}

#[test]
fn cleaning_up_that_stopped() {
    for steps in 0..=3 {
        let (_root, out) = place();
        leave(&out);
        let work = out.join(WORK);
        let list: Vec<u8> =
            CONTENT.iter().flat_map(|name| [name.as_bytes(), b"\0"].concat()).collect();
        fs::write(work.join(".moeprune-publishing"), &list).unwrap();
        for name in CONTENT {
            fs::rename(work.join("output").join(name), out.join(name)).unwrap();
        }
        for step in ["output", "state", ".moeprune-publishing"].iter().take(steps) {
            let path = work.join(step);
            if path.is_dir() {
                fs::remove_dir_all(path).unwrap();
            } else {
                fs::remove_file(path).unwrap();
            }
        }
        assert!(open(&out).unwrap_err().contains("exists already"));
        assert_eq!(names(&out), CONTENT, "{steps}");
    }
}
