//! Output directories: resumed, cleared, and refused where the disk has no room.

use std::{fs, path::Path};

use moeprune_checkpoint::OutputDirectory;

use crate::fixture::{Model, check_refused};

fn names(dir: &Path) -> Vec<String> {
    let name = |entry: std::io::Result<fs::DirEntry>| entry.expect("lists").file_name();
    let mut names: Vec<String> = fs::read_dir(dir)
        .expect("lists")
        .map(|entry| name(entry).into_string().expect("UTF-8"))
        .collect();
    names.sort();
    names
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
