//! Output directories and the files that come along.

use std::{fs, os::unix::fs::symlink, path::PathBuf};

use moeprune_checkpoint::OutputDirectory;

use crate::fixture::Model;

#[test]
fn nothing_bears_the_name_before_it_is_published() {
    let model = Model::copy_of("mixtral");
    let source = model.open().expect("opens");
    let out = model.root.path().join("new/parents/out");
    let directory = OutputDirectory::create(&out, &source).expect("creates");
    directory.write("config.json", b"{}").expect("writes");
    assert!(!out.exists());
    assert!(directory.path().ends_with(".out.moeprune-partial/output"));
    directory.write("config.json", b"{}").expect_err("exists");
    directory.publish().expect("publishes");
    let entries: Vec<_> =
        fs::read_dir(&out).expect("lists").map(|e| e.expect("lists").file_name()).collect();
    assert_eq!(entries, ["config.json"], "the marker is gone");
    assert_eq!(fs::read_dir(out.parent().expect("has one")).expect("lists").count(), 1);
}

#[test]
fn dropped_unpublished_it_is_gone() {
    let model = Model::copy_of("mixtral");
    let source = model.open().expect("opens");
    let out = model.root.path().join("out");
    let directory = OutputDirectory::create(&out, &source).expect("creates");
    directory.write("a", b"b").expect("writes");
    let partial = directory.path().to_owned();
    drop(directory);
    assert!(!out.exists() && !partial.exists());
}

#[test]
fn what_comes_along() {
    let model = Model::copy_of("mixtral_sharded");
    for folder in ["sub/deep", ".git", ".cache", "original"] {
        fs::create_dir_all(model.path(folder)).expect("creates");
    }
    for (file, text) in [
        ("tokenizer.json", "{}"),
        ("tokenizer.model", "\0\u{1}binary"),
        ("modeling_arctic.py", "class A: pass"),
        ("sub/deep/notes.txt", "notes"),
        ("sub/config.json", "not the model's"),
        (".git/config", "hidden"),
        (".gitattributes", "hidden"),
        ("pytorch_model.bin.index.json", "{}"),
        ("pytorch_model-00001-of-00001.bin", "old"),
        ("consolidated.safetensors", "old"),
        ("original/consolidated.00.pth", "old"),
        ("model-00001-of-00009.safetensors", "stale"),
    ] {
        fs::write(model.path(file), text).expect("writes");
    }
    symlink("tokenizer.json", model.path("alias.json")).expect("links");
    symlink("sub", model.path("folder_link")).expect("links");
    let source = model.open().expect("opens");
    let out = model.root.path().join("out");
    let directory = OutputDirectory::create(&out, &source).expect("creates");
    let files = directory.copy_auxiliary(&source).expect("copies");
    directory.publish().expect("publishes");
    let copied = [
        "alias.json",
        "generation_config.json",
        "modeling_arctic.py",
        "sub/config.json",
        "sub/deep/notes.txt",
        "tokenizer.json",
        "tokenizer.model",
    ];
    assert_eq!(files.copied, copied.map(PathBuf::from));
    for file in copied {
        let (from, to) = (fs::read(model.path(file)), fs::read(out.join(file)));
        assert_eq!(from.expect("reads"), to.expect("reads"));
        assert!(out.join(file).symlink_metadata().expect("is there").is_file());
    }
    let left_out: Vec<(&str, &str)> = files
        .left_out
        .iter()
        .map(|(path, why)| (path.to_str().expect("UTF-8"), why.as_str()))
        .collect();
    let weights = "weights of the unpruned model";
    assert_eq!(
        left_out,
        [
            (".cache", "hidden"),
            (".git", "hidden"),
            (".gitattributes", "hidden"),
            ("consolidated.safetensors", weights),
            ("folder_link", "a link to a folder"),
            ("model-00001-of-00009.safetensors", weights),
            ("original/consolidated.00.pth", weights),
            ("pytorch_model-00001-of-00001.bin", weights),
            ("pytorch_model.bin.index.json", weights),
        ]
    );
}

#[test]
fn read_only_sources_can_be_copied() {
    let model = Model::copy_of("mixtral");
    fs::write(model.path("tokenizer.json"), "{}").expect("writes");
    let mut permissions = fs::metadata(model.path("tokenizer.json")).expect("is").permissions();
    permissions.set_readonly(true);
    fs::set_permissions(model.path("tokenizer.json"), permissions).expect("sets");
    let source = model.open().expect("opens");
    let directory =
        OutputDirectory::create(&model.root.path().join("out"), &source).expect("creates");
    directory.copy_auxiliary(&source).expect("copies");
    directory.publish().expect("publishes");
}
