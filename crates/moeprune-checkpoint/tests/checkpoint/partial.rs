//! Hidden siblings: what they leave, what they take over, and what stops between two steps.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

use moeprune_checkpoint::OutputDirectory;
use moeprune_files::PartialOutput;
use tempfile::TempDir;

use crate::fixture::{Model, check_refused};

const SIBLING: &str = ".out.moeprune-partial";
const MARKER: &str = ".out.moeprune-partial/.moeprune-partial";

fn place() -> (TempDir, PathBuf) {
    let root = tempfile::tempdir().expect("temporary directory");
    let out = root.path().join("out");
    (root, out)
}

fn names(dir: &Path) -> Vec<String> {
    let name = |entry: std::io::Result<fs::DirEntry>| entry.expect("lists").file_name();
    let mut names: Vec<String> = fs::read_dir(dir)
        .expect("lists")
        .map(|entry| name(entry).into_string().expect("UTF-8"))
        .collect();
    names.sort();
    names
}

/// A leftover with a file in its state, and with a file as its content.
fn leave(out: &Path) {
    let mut partial = PartialOutput::open(out).expect("opens");
    assert!(!partial.is_leftover());
    fs::write(partial.state().join("journal"), "1").expect("writes");
    fs::write(partial.content(), "content").expect("writes");
    partial.set_keep(true);
}

#[test]
fn a_file_is_published() {
    let (root, out) = place();
    let partial = PartialOutput::open(&out).expect("opens");
    fs::write(partial.state().join("journal"), "1").expect("writes");
    fs::write(partial.content(), "content").expect("writes");
    assert!(!out.exists());
    partial.publish().expect("publishes");
    assert_eq!(fs::read_to_string(&out).expect("reads"), "content");
    assert_eq!(names(root.path()), ["out"]);
}

#[test]
fn a_directory_is_published() {
    let (root, out) = place();
    let out = out.join("new/parents/out");
    let partial = PartialOutput::open(&out).expect("opens");
    fs::create_dir_all(partial.content().join("a/b")).expect("creates");
    fs::write(partial.content().join("a/b/c"), "content").expect("writes");
    partial.publish().expect("publishes");
    assert_eq!(fs::read_to_string(out.join("a/b/c")).expect("reads"), "content");
    assert_eq!(names(&root.path().join("out/new/parents")), ["out"]);
}

#[test]
fn dropped_it_is_gone_unless_it_is_kept() {
    let (root, out) = place();
    let partial = PartialOutput::open(&out).expect("opens");
    fs::write(partial.content(), "content").expect("writes");
    drop(partial);
    assert!(names(root.path()).is_empty());
    leave(&out);
    assert_eq!(names(root.path()), [SIBLING]);
    assert_eq!(names(&root.path().join(SIBLING)), [".moeprune-partial", "output", "state"]);
}

#[test]
fn leftovers_are_taken_over() {
    let (root, out) = place();
    leave(&out);
    let partial = PartialOutput::open(&out).expect("opens");
    assert!(partial.is_leftover());
    assert_eq!(fs::read_to_string(partial.content()).expect("reads"), "content");
    assert_eq!(fs::read_to_string(partial.state().join("journal")).expect("reads"), "1");
    partial.publish().expect("publishes");
    assert_eq!(fs::read_to_string(&out).expect("reads"), "content");
    assert_eq!(names(root.path()), ["out"]);
}

#[test]
fn leftovers_can_be_cleared() {
    let (root, out) = place();
    leave(&out);
    let mut partial = PartialOutput::open(&out).expect("opens");
    partial.clear().expect("clears");
    assert!(!partial.is_leftover());
    assert!(names(partial.state()).is_empty());
    assert_eq!(names(&root.path().join(SIBLING)), [".moeprune-partial", "state"]);
    drop(partial);
    assert!(names(root.path()).is_empty());
}

#[test]
fn one_process_at_a_time() {
    let (root, out) = place();
    let first = PartialOutput::open(&out).expect("opens");
    let process = format!("another moeprune process (process {})", std::process::id());
    check_refused(PartialOutput::open(&out), &[SIBLING, &process, "wait for it"]);
    fs::write(root.path().join(MARKER), "no such line").expect("writes");
    check_refused(PartialOutput::open(&out), &["another moeprune process; wait for it"]);
    drop(first);
    PartialOutput::open(&out).expect("free again");
}

#[test]
fn nothing_to_publish() {
    let (root, out) = place();
    check_refused(PartialOutput::open(&out).expect("opens").publish(), &["cannot inspect"]);
    assert!(names(root.path()).is_empty());
}

#[test]
fn a_place_taken_meanwhile() {
    for keep in [false, true] {
        for taken in ["file", "directory", "link"] {
            let (root, out) = place();
            let mut partial = PartialOutput::open(&out).expect("opens");
            fs::write(partial.content(), "content").expect("writes");
            partial.set_keep(keep);
            match taken {
                "file" => fs::write(&out, "precious").expect("writes"),
                "directory" => fs::create_dir(&out).expect("creates"),
                _ => symlink("nowhere", &out).expect("links"),
            }
            check_refused(partial.publish(), &["has appeared while it was being written"]);
            let left: &[&str] = if keep { &[SIBLING, "out"] } else { &["out"] };
            assert_eq!(names(root.path()), left);
            if keep {
                check_refused(PartialOutput::open(&out), &["exists already"]);
                let content = root.path().join(SIBLING).join("output");
                assert_eq!(fs::read_to_string(content).expect("kept"), "content");
            }
        }
    }
}

/// Publishing renames `output`, deletes `state`, then the marker, then the directory. It may stop
/// anywhere.
#[test]
fn publishing_that_stopped() {
    let check = |stopped: fn(&Path), expected: &[&str]| {
        let (root, out) = place();
        leave(&out);
        fs::rename(root.path().join(SIBLING).join("output"), &out).expect("renames");
        stopped(&root.path().join(SIBLING));
        check_refused(PartialOutput::open(&out), &["exists already"]);
        assert_eq!(names(root.path()), expected);
        assert_eq!(fs::read_to_string(&out).expect("is complete"), "content");
        fs::remove_file(&out).expect("removes");
        let partial = PartialOutput::open(&out).expect("opens");
        assert!(!partial.is_leftover());
    };
    let remove_state = |sibling: &Path| fs::remove_dir_all(sibling.join("state")).expect("removes");
    check(|_| (), &["out"]);
    check(remove_state, &["out"]);
    check(
        |sibling| {
            fs::remove_dir_all(sibling).expect("removes");
            fs::create_dir(sibling).expect("creates");
        },
        &[SIBLING, "out"],
    );
    check(|sibling| fs::remove_dir_all(sibling).expect("removes"), &["out"]);
}

/// A process that has not made its content yet looks like one that has published it, but for the
/// lock.
#[test]
fn a_living_process_is_not_cleaned_up_after() {
    let (root, out) = place();
    let partial = PartialOutput::open(&out).expect("opens");
    fs::write(&out, "precious").expect("writes");
    check_refused(PartialOutput::open(&out), &["exists already"]);
    assert_eq!(names(root.path()), [SIBLING, "out"]);
    assert!(partial.state().is_dir());
}

#[test]
fn making_that_stopped() {
    let check = |made: fn(&Path), leftover: bool| {
        let (root, out) = place();
        made(&root.path().join(SIBLING));
        let partial = PartialOutput::open(&out).expect("opens");
        assert_eq!(partial.is_leftover(), leftover);
        assert!(partial.state().is_dir());
        if !leftover {
            assert_eq!(names(&root.path().join(SIBLING)), [".moeprune-partial", "state"]);
        }
    };
    let mark = |sibling: &Path| {
        fs::create_dir(sibling).expect("creates");
        fs::write(sibling.join(".moeprune-partial"), "").expect("writes");
    };
    check(|_| (), false);
    check(|sibling| fs::create_dir(sibling).expect("creates"), false);
    check(mark, false);
    check(
        |sibling| {
            fs::create_dir_all(sibling.join("state")).expect("creates");
            fs::write(sibling.join(".moeprune-partial"), "").expect("writes");
        },
        true,
    );
    // As versions before state and content were apart left it.
    check(
        |sibling| {
            fs::create_dir(sibling).expect("creates");
            fs::write(sibling.join(".moeprune-partial"), "text").expect("writes");
            fs::write(sibling.join("model.safetensors"), "half").expect("writes");
        },
        false,
    );
}

#[test]
fn what_is_not_ours_is_left_alone() {
    let check = |made: fn(&Path)| {
        let (root, out) = place();
        let sibling = root.path().join(SIBLING);
        made(&sibling);
        let before = (names(root.path()), sibling.is_dir().then(|| names(&sibling)));
        check_refused(PartialOutput::open(&out), &[SIBLING, "has no .moeprune-partial"]);
        let after = (names(root.path()), sibling.is_dir().then(|| names(&sibling)));
        assert_eq!(before, after);
    };
    check(|sibling| fs::write(sibling, "a file").expect("writes"));
    check(|sibling| {
        let elsewhere = sibling.with_file_name("elsewhere");
        fs::create_dir(&elsewhere).expect("creates");
        fs::write(elsewhere.join(".moeprune-partial"), "").expect("writes");
        symlink(elsewhere, sibling).expect("links");
    });
    check(|sibling| {
        fs::create_dir(sibling).expect("creates");
        fs::write(sibling.join("precious"), "p").expect("writes");
    });
    check(|sibling| {
        fs::create_dir(sibling).expect("creates");
        fs::write(sibling.join("precious"), "p").expect("writes");
        symlink("precious", sibling.join(".moeprune-partial")).expect("links");
    });
}

#[test]
fn directories_are_resumed() {
    let model = Model::copy_of("mixtral");
    fs::create_dir(model.path("sub")).expect("creates");
    fs::write(model.path("sub/notes.txt"), "notes").expect("writes");
    let mut permissions = fs::metadata(model.path("sub/notes.txt")).expect("is").permissions();
    permissions.set_readonly(true);
    fs::set_permissions(model.path("sub/notes.txt"), permissions).expect("sets");
    let source = model.open().expect("opens");
    let out = model.root.path().join("out");

    let mut first = OutputDirectory::open(&out, &source).expect("opens");
    assert!(!first.is_leftover());
    first.copy_auxiliary(&source).expect("copies");
    first.write("config.json", b"{}").expect("writes");
    first.write("config.json", b"{}").expect_err("is there");
    fs::write(first.path().join("model.safetensors"), "half").expect("writes");
    fs::write(first.state().join("journal"), "1").expect("writes");
    first.set_keep(true);
    drop(first);

    let second = OutputDirectory::open(&out, &source).expect("opens");
    assert!(second.is_leftover());
    assert_eq!(fs::read_to_string(second.state().join("journal")).expect("kept"), "1");
    assert_eq!(fs::read(second.path().join("model.safetensors")).expect("kept"), b"half");
    let copied = second.copy_auxiliary(&source).expect("copies again").copied;
    assert_eq!(copied, [Path::new("sub/notes.txt")]);
    second.write("config.json", b"{\"a\": 1}").expect("writes again");
    second.publish().expect("publishes");
    assert_eq!(names(&out), ["config.json", "model.safetensors", "sub"]);
    assert_eq!(fs::read(out.join("config.json")).expect("reads"), b"{\"a\": 1}");
    assert_eq!(fs::read(out.join("sub/notes.txt")).expect("reads"), b"notes");
    assert_eq!(names(model.root.path()), ["model", "out"]);
}

#[test]
fn directories_can_be_cleared() {
    let model = Model::copy_of("mixtral");
    let source = model.open().expect("opens");
    let out = model.root.path().join("out");
    let leave = || {
        let mut directory = OutputDirectory::open(&out, &source).expect("opens");
        fs::write(directory.path().join("a"), "a").expect("writes");
        fs::write(directory.state().join("b"), "b").expect("writes");
        directory.set_keep(true);
    };
    let check_empty = |directory: &OutputDirectory| {
        assert!(!directory.is_leftover());
        assert!(names(directory.path()).is_empty() && names(directory.state()).is_empty());
    };
    leave();
    let mut directory = OutputDirectory::open(&out, &source).expect("opens");
    assert!(directory.is_leftover());
    directory.clear().expect("clears");
    check_empty(&directory);
    drop(directory);
    leave();
    check_empty(&OutputDirectory::create(&out, &source).expect("creates"));
    assert_eq!(names(model.root.path()), ["model"]);
}

#[test]
fn room() {
    let model = Model::copy_of("mixtral");
    let source = model.open().expect("opens");
    let directory =
        OutputDirectory::create(&model.root.path().join("out"), &source).expect("creates");
    directory.check_room(0).expect("nothing fits anywhere");
    directory.check_room(1 << 20).expect("a megabyte fits");
    check_refused(
        directory.check_room(u64::MAX),
        &["out: needs 18446744.1 TB, but its file system has", "free", "choose another place"],
    );
}
