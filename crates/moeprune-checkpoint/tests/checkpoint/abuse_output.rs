//! Places that must not be written to.

use std::{
    fs::{self, File},
    os::unix::fs::symlink,
    path::Path,
};

use moeprune_checkpoint::OutputDirectory;

use crate::fixture::{Model, check_refused};

#[track_caller]
fn check(
    prepare: impl FnOnce(&Model),
    out: impl FnOnce(&Path) -> std::path::PathBuf,
    expected: &[&str],
) {
    let model = Model::copy_of("mixtral");
    prepare(&model);
    let source = model.open().expect("opens");
    let before = listing(model.root.path());
    check_refused(OutputDirectory::create(&out(model.root.path()), &source), expected);
    assert_eq!(before, listing(model.root.path()), "something was written");
}

fn listing(dir: &Path) -> Vec<String> {
    let mut names = Vec::new();
    for entry in fs::read_dir(dir).expect("lists") {
        let entry = entry.expect("lists");
        names.push(entry.path().display().to_string());
        if entry.file_type().expect("is there").is_dir() {
            names.extend(listing(&entry.path()));
        }
    }
    names.sort();
    names
}

#[test]
fn what_exists_is_not_touched() {
    let exists = ["exists already; remove it or choose another place"];
    check(
        |m| fs::create_dir_all(m.root.path().join("o/precious")).expect("creates"),
        |r| r.join("o"),
        &["exists already and is not empty: it holds precious"],
    );
    check(|m| fs::write(m.root.path().join("o"), "").expect("writes"), |r| r.join("o"), &exists);
    check(|m| symlink("gone", m.root.path().join("o")).expect("links"), |r| r.join("o"), &exists);
}

#[test]
fn output_inside_of_the_model() {
    let inside = ["is inside of the model"];
    check(|_| (), |root| root.join("model"), &inside);
    check(|_| (), |root| root.join("model/out"), &inside);
    check(|_| (), |root| root.join("model/a/b/c"), &inside);
    check(|_| (), |root| root.join("model/../model/out"), &inside);
    check(
        |model| symlink("model", model.root.path().join("alias")).expect("links"),
        |root| root.join("alias/out"),
        &inside,
    );
}

#[test]
fn model_inside_of_the_output() {
    check(|_| (), Path::to_path_buf, &["contains the model"]);
    check(|_| (), |root| root.join("model/.."), &["contains the model"]);
}

#[test]
fn parents_that_cannot_be() {
    check(
        |model| fs::write(model.root.path().join("file"), "").expect("writes"),
        |root| root.join("file/out"),
        &["file/out"],
    );
    check(|_| (), |root| root.join("nothing/../out"), &["write it without `..`"]);
}

#[test]
fn leftovers_of_others_are_not_removed() {
    let partial = ".out.moeprune-partial";
    check(
        |model| {
            fs::create_dir(model.root.path().join(partial)).expect("creates");
            fs::write(model.root.path().join(partial).join("precious"), "p").expect("writes");
        },
        |root| root.join("out"),
        &[partial, "is in the way and has no .moeprune-partial"],
    );
}

#[test]
fn leftovers_of_a_killed_run_are_removed() {
    let model = Model::copy_of("mixtral");
    let source = model.open().expect("opens");
    let partial = model.root.path().join(".out.moeprune-partial");
    fs::create_dir(&partial).expect("creates");
    fs::write(partial.join(".moeprune-partial"), "").expect("writes");
    fs::write(partial.join("model.safetensors"), "half").expect("writes");
    let out = model.root.path().join("out");
    let directory = OutputDirectory::create(&out, &source).expect("creates");
    assert!(!directory.path().join("model.safetensors").exists());
}

#[test]
fn two_runs_to_one_place() {
    let model = Model::copy_of("mixtral");
    let source = model.open().expect("opens");
    let out = model.root.path().join("out");
    let first = OutputDirectory::create(&out, &source).expect("creates");
    check_refused(
        OutputDirectory::create(&out, &source),
        &["is being written by another moeprune process"],
    );
    drop(first);
    OutputDirectory::create(&out, &source).expect("free again");
}

#[test]
fn a_place_taken_meanwhile() {
    let model = Model::copy_of("mixtral");
    let source = model.open().expect("opens");
    let out = model.root.path().join("out");
    let directory = OutputDirectory::create(&out, &source).expect("creates");
    fs::create_dir(&out).expect("creates");
    File::create(out.join("precious")).expect("creates");
    check_refused(directory.publish(), &["has appeared while it was being written"]);
    assert!(out.join("precious").exists());
    assert!(!model.root.path().join(".out.moeprune-partial").exists());
}

#[test]
fn auxiliary_links_out_of_the_model() {
    let model = Model::copy_of("mixtral");
    fs::write(model.root.path().join("secret"), "s").expect("writes");
    symlink("../secret", model.path("tokenizer.json")).expect("links");
    let source = model.open().expect("opens");
    check_refused(
        OutputDirectory::create(&model.root.path().join("out"), &source),
        &["tokenizer.json is a link to", "outside of the model directory", "no use without it"],
    );
    fs::remove_file(model.path("tokenizer.json")).expect("removes");
    symlink("../secret", model.path("notes.txt")).expect("links");
    let directory =
        OutputDirectory::create(&model.root.path().join("out"), &source).expect("creates");
    let files = directory.copy_auxiliary(&source).expect("copies");
    let (file, why) = &files.left_out[0];
    assert!(file == Path::new("notes.txt") && why.starts_with("is a link to"), "{why}");
}
