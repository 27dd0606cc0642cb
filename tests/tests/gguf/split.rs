//! Models in several files.

use std::fs;

use moeprune::checkpoint::{Checkpoint, verify};

use crate::{builder::Builder, cut::keep};

const KEPT: &[usize] = &[1, 2, 4];

#[test]
fn stay_in_as_many() {
    let scratch = tempfile::tempdir().unwrap();
    let source = scratch.path().join("in");
    let out = scratch.path().join("out");
    let expected = scratch.path().join("expected");
    [&source, &expected].iter().for_each(|folder| fs::create_dir(folder).unwrap());
    let model = Builder::mixture(2, 6);
    let names = model.split(&source, "model-q8", 5);
    fs::write(source.join("other.gguf"), "not of the model").unwrap();
    model.cut(6, KEPT).split(&expected, "model-q8", 5);
    keep(&source.join(&names[0]), &out, &[(0, KEPT), (1, KEPT)]).unwrap();
    for name in &names {
        let (got, expected) = (fs::read(out.join(name)), fs::read(expected.join(name)));
        assert!(got.unwrap() == expected.unwrap(), "{name}");
    }
    assert_eq!(fs::read_dir(&out).unwrap().count(), names.len() + 3, "two reports and a card");
    let card = fs::read_to_string(out.join("README.md")).unwrap();
    assert!(card.contains("\n- gguf\n") && !card.contains("library_name"), "{card}");
    let opened = Checkpoint::open(&source.join(&names[0])).unwrap();
    for path in [out.clone(), out.join(&names[0])] {
        let report = verify(&path, &opened, None).unwrap();
        assert!(report.passed(), "{:?}", report.failures().collect::<Vec<_>>());
    }
}

/// A file of a set may have metadata and no tensors, as llama.cpp's own tool makes the first.
#[test]
fn files_without_tensors_stay() {
    let scratch = tempfile::tempdir().unwrap();
    let [source, expected] = ["in", "expected"].map(|name| scratch.path().join(name));
    [&source, &expected].iter().for_each(|folder| fs::create_dir(folder).unwrap());
    let model = Builder::mixture(2, 6);
    let names = model.split_from(&source, "m", 8, 1);
    model.cut(6, KEPT).split_from(&expected, "m", 8, 1);
    let out = scratch.path().join("out");
    keep(&source.join(&names[0]), &out, &[(0, KEPT), (1, KEPT)]).unwrap();
    for name in &names {
        let (got, expected) = (fs::read(out.join(name)), fs::read(expected.join(name)));
        assert!(got.unwrap() == expected.unwrap(), "{name}");
    }
    let opened = Checkpoint::open(&source.join(&names[0])).unwrap();
    let report = verify(&out, &opened, None).unwrap();
    assert!(report.passed(), "{:?}", report.failures().collect::<Vec<_>>());
}

#[track_caller]
fn check_refused(change: impl Fn(&std::path::Path, &[String]) -> usize, expected: &str) {
    let scratch = tempfile::tempdir().unwrap();
    let names = Builder::mixture(1, 4).split(scratch.path(), "model", 6);
    let opened = change(scratch.path(), &names);
    let error = Checkpoint::open(&scratch.path().join(&names[opened])).unwrap_err().to_string();
    assert!(error.contains(expected), "{error}");
}

#[test]
fn sets_that_contradict_themselves() {
    check_refused(|_, _| 1, "is file 2 of 2; name the first, model-00001-of-00002.gguf");
    check_refused(
        |folder, names| {
            fs::remove_file(folder.join(&names[1])).unwrap();
            0
        },
        "model-00002-of-00002.gguf is missing, file 2 of 2; download it again",
    );
    check_refused(
        |folder, names| {
            fs::copy(folder.join(&names[0]), folder.join(&names[1])).unwrap();
            0
        },
        "says split.no 0",
    );
}
