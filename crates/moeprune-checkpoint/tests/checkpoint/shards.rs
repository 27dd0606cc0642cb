//! Weight files without an index, and files that stand in for others.

use std::fs;

use moeprune_checkpoint::{Checkpoint, OutputDirectory, verify};

use crate::{
    fixture::{Model, apply, check_refused, parity, plan_keeping},
    pruned::{as_it_is, check_passes},
};

const INDEX: &str = "model.safetensors.index.json";
const POINTER: &str = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 7\n";
const PAGE: &str = "<!DOCTYPE html>\n<html><body>Sign in</body></html>";

fn shards(model: &Model) -> Vec<String> {
    let entries = fs::read_dir(&model.dir).expect("lists");
    let names =
        entries.map(|entry| entry.expect("lists").file_name().into_string().expect("UTF-8"));
    let mut names: Vec<String> = names.filter(|name| name.ends_with(".safetensors")).collect();
    names.sort();
    names
}

fn without_index() -> Model {
    let model = Model::copy_of("mixtral_sharded");
    fs::remove_file(model.path(INDEX)).expect("removes");
    model
}

/// Opens, prunes and verifies a model whose tensors are those of the parity model.
fn check_whole(model: &Model, note: &str) {
    let source = model.open().expect("opens");
    let notes: Vec<&str> = source.notes().collect();
    assert!(
        note.is_empty() && notes.is_empty() || notes.iter().any(|n| n.contains(note)),
        "{notes:?}"
    );
    let expected = Checkpoint::open(&parity("mixtral_sharded")).expect("opens");
    let names = |checkpoint: &Checkpoint| {
        let mut names: Vec<String> = checkpoint.tensors().map(|t| t.name.clone()).collect();
        names.sort();
        names
    };
    assert_eq!(names(&source), names(&expected));
    assert_eq!(source.fingerprint().expect("reads"), expected.fingerprint().expect("reads"));
    let out = model.root.path().join("out");
    let plan = plan_keeping(&source, &[0, 2, 3, 5]);
    apply(&source, &plan, &out, as_it_is);
    check_passes(&verify(&out, &source, Some(&plan)).expect("verifies"));
    let several = Checkpoint::open(&out).expect("opens").shard_files().count() > 1;
    assert_eq!(out.join(INDEX).exists(), several);
}

#[test]
fn shards_without_an_index() {
    check_whole(
        &without_index(),
        "there is no model.safetensors.index.json; the weights are model-0",
    );
}

#[test]
fn files_of_any_names() {
    let model = without_index();
    for (i, name) in shards(&model).iter().enumerate() {
        fs::rename(model.path(name), model.path(&format!("part-{i}.safetensors")))
            .expect("renames");
    }
    check_whole(&model, "the weights are part-0.safetensors, part-1.safetensors");
}

#[test]
fn one_file_of_another_name() {
    let model = Model::copy_of("mixtral");
    fs::rename(model.path("model.safetensors"), model.path("weights.safetensors"))
        .expect("renames");
    assert_eq!(
        model.open().expect("opens").shard_files().collect::<Vec<_>>(),
        ["weights.safetensors"]
    );
}

#[test]
fn shards_that_are_missing() {
    let model = without_index();
    let names = shards(&model);
    fs::remove_file(model.path(&names[1])).expect("removes");
    check_refused(model.open(), &["has no index", &names[0], "shard 2 is missing", "download it"]);
    let model = Model::copy_of("mixtral_sharded");
    for name in &names[1..] {
        fs::remove_file(model.path(name)).expect("removes");
    }
    let all = names.len();
    let missing = format!("({} of {all} shards are missing)", all - 1);
    check_refused(model.open(), &[&names[1], "is missing, but", INDEX, &missing]);
}

#[test]
fn shards_that_overlap() {
    let model = without_index();
    let names = shards(&model);
    for name in &names {
        fs::rename(model.path(name), model.path(&name.replace("-of-", "."))).expect("renames");
    }
    let first = names[0].replace("-of-", ".");
    fs::copy(model.path(&first), model.path("another.safetensors")).expect("copies");
    check_refused(model.open(), &["is also in another.safetensors"]);
}

#[test]
fn files_that_are_not_the_model() {
    let model = without_index();
    let names = shards(&model);
    fs::copy(model.path(&names[0]), model.path("model.safetensors")).expect("copies");
    check_refused(model.open(), &["has both model.safetensors and shards", &names[0]]);
    let model = Model::copy_of("mixtral_sharded");
    fs::copy(model.path(&names[0]), model.path("consolidated.safetensors")).expect("copies");
    fs::copy(model.path(&names[0]), model.path("model-00001-of-00099.safetensors"))
        .expect("copies");
    check_whole(
        &model,
        "consolidated.safetensors, model-00001-of-00099.safetensors is not named by \
         model.safetensors.index.json",
    );
    let model = without_index();
    fs::copy(model.path(&names[0]), model.path("consolidated.safetensors")).expect("copies");
    check_whole(&model, "consolidated.safetensors is not read beside the others");
}

#[test]
fn what_stands_in_for_a_file() {
    let files = [names_of("mixtral_sharded"), vec![INDEX.into(), "config.json".into()]].concat();
    for (bytes, expected) in
        [(POINTER, "is a git-lfs pointer"), (PAGE, "is a web page"), ("", "is empty (0 bytes)")]
    {
        for file in &files {
            let model = Model::copy_of("mixtral_sharded");
            fs::write(model.path(file), bytes).expect("writes");
            check_refused(model.open(), &[file, expected]);
        }
    }
    let model = Model::copy_of("mixtral");
    fs::write(model.path("tokenizer.json"), POINTER).expect("writes");
    let read = model.open().expect("opens").read_file("tokenizer.json".as_ref(), 1 << 20);
    check_refused(read, &["tokenizer.json", "is a git-lfs pointer", "git lfs pull"]);
    let model = Model::copy_of("mixtral");
    fs::write(model.path("generation_config.json"), POINTER).expect("writes");
    let ids = model.open().expect("opens").eos_token_ids();
    check_refused(ids, &["generation_config.json", "is a git-lfs pointer"]);
}

#[test]
fn pointers_beside_the_weights() {
    let model = Model::copy_of("mixtral");
    fs::write(model.path("README.md"), POINTER).expect("writes");
    fs::write(model.path("empty.txt"), "").expect("writes");
    let source = model.open().expect("opens");
    let directory =
        OutputDirectory::create(&model.root.path().join("out"), &source).expect("creates");
    let files = directory.copy_auxiliary(&source).expect("copies");
    let [(path, why)] = &files.left_out[..] else { panic!("{files:?}") };
    assert_eq!(path.to_str(), Some("README.md"));
    assert!(why.contains("is a git-lfs pointer"), "{why}");
    assert!(files.copied.iter().any(|file| file.to_str() == Some("empty.txt")));
}

fn names_of(name: &str) -> Vec<String> {
    shards(&Model::copy_of(name))
}

#[test]
fn metadata_that_says_nothing() {
    for (metadata, is_read) in [
        ("null", true),
        ("{}", true),
        (r#"{"format":"pt","any":"thing"}"#, true),
        (r#"{"format":1}"#, false),
        (r#"{"format":null}"#, false),
        ("[]", false),
        (r#"{"format":"pt","format":"pt"}"#, false),
    ] {
        let model = Model::copy_of("mixtral");
        model.edit_tensors("model.safetensors", |_| ());
        model.edit_weights("model.safetensors", |header, _| {
            header.insert_str(1, &format!("\"__metadata__\":{metadata},"));
        });
        match is_read {
            true => drop(model.open().unwrap_or_else(|error| panic!("{metadata}: {error}"))),
            false => check_refused(model.open(), &["`__metadata__` must map strings to strings"]),
        }
    }
}
