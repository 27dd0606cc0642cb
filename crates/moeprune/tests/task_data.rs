//! Which files of a folder a task takes for its questions and examples.

use std::{fs, path::Path};

use moeprune::{
    eval::{ChoiceData, ChoiceTask, choice_task},
    evaluation::read_choice_data,
};
use serde_json::json;
use tempfile::TempDir;

/// A folder with files of one record each, which says the file.
fn folder(files: &[&str]) -> TempDir {
    let folder = TempDir::new().unwrap();
    for file in files {
        let path = folder.path().join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, json!({"file": file}).to_string() + "\n").unwrap();
    }
    folder
}

fn task(name: &str) -> ChoiceTask {
    choice_task(name).unwrap().unwrap()
}

fn read(task: &ChoiceTask, data: &Path, shots: usize) -> Result<Vec<ChoiceData>, String> {
    read_choice_data(task, data, None, shots).map_err(|error| error.to_string())
}

/// What a task takes of these files, separated by spaces, for questions and for examples.
#[track_caller]
fn check(name: &str, files: &[&str], questions: &str, examples: &str) {
    let folder = folder(files);
    let names = |records: &[moeprune::eval::Record]| -> String {
        let names = records.iter().map(|record| record.fields["file"].as_str().unwrap());
        names.collect::<Vec<_>>().join(" ")
    };
    let shots = usize::from(!examples.is_empty());
    let data = read(&task(name), folder.path(), shots).unwrap();
    assert_eq!(names(&data[0].questions), questions, "questions of {files:?}");
    assert_eq!(names(&data[0].examples), examples, "examples of {files:?}");
}

/// None of these files are questions of the task.
#[track_caller]
fn refused(name: &str, files: &[&str]) {
    let folder = folder(files);
    let error = read(&task(name), folder.path(), 0).unwrap_err();
    for part in ["that is its part `", "give the file itself", files[0]] {
        assert!(error.contains(part), "{error}\nexpected {part}");
    }
}

#[test]
fn parts_are_words_of_names() {
    check(
        "piqa",
        &["piqa_validation.jsonl", "piqa_train.jsonl"],
        "piqa_validation.jsonl",
        "piqa_train.jsonl",
    );
    check("arc_easy", &["ARC-Easy-Test.jsonl", "ARC-Easy-Dev.jsonl"], "ARC-Easy-Test.jsonl", "");
    check(
        "piqa",
        &["mine_test.jsonl", "mine_train.jsonl", "mine_dev.jsonl"],
        "mine_dev.jsonl",
        "mine_train.jsonl",
    );
    check("arc_easy", &["physics-test.jsonl", "README.md"], "physics-test.jsonl", "");
    let shards =
        ["test-00000-of-00002.jsonl", "test-00001-of-00002-0123456789abcdef.jsonl", "train.jsonl"];
    check("arc_easy", &shards, &shards[..2].join(" "), "train.jsonl");
    check(
        "openbookqa",
        &["main/test.jsonl", "main/train.jsonl"],
        "main/test.jsonl",
        "main/train.jsonl",
    );
    check(
        "piqa",
        &["validation.jsonl", "dev.jsonl", "train.jsonl"],
        "validation.jsonl",
        "train.jsonl",
    );
}

#[test]
fn what_says_no_part_is_taken_if_it_is_alone() {
    check("piqa", &["questions.jsonl", "README.md", ".hidden"], "questions.jsonl", "");
    check("piqa", &["piqa.jsonl", "boolq.jsonl"], "piqa.jsonl", "");
    refused("piqa", &["examples.jsonl", "questions.jsonl"]);
    refused("piqa", &["boolq.jsonl"]);
}

#[test]
fn no_other_part_is_taken() {
    refused("piqa", &["piqa_train.jsonl"]);
    refused("piqa", &["piqa_test.jsonl", "piqa_train.jsonl"]);
    refused("arc_easy", &["train.jsonl"]);
    refused("arc_easy", &["arc_easy_train_test.jsonl"]);
    refused("arc_easy", &["train-00000-of-00001.jsonl", "data/train.jsonl"]);
}

#[test]
fn no_other_tasks_files_are_taken() {
    refused("arc_easy", &["arc_challenge_test.jsonl"]);
    refused("arc_easy", &["ARC-Challenge-Test.jsonl"]);
    refused("arc_easy", &["one_test.jsonl", "two_test.jsonl"]);
}

#[test]
fn one_form_of_a_part_is_taken() {
    let forms = ["train_xs.jsonl", "train_s.jsonl", "train_xl.jsonl", "dev.jsonl"];
    check("winogrande", &forms, "dev.jsonl", "train_xl.jsonl");
    check(
        "winogrande",
        &["dev.jsonl", "train_xs.jsonl", "train.jsonl"],
        "dev.jsonl",
        "train.jsonl",
    );
    check("winogrande", &["dev.jsonl", "train_s.jsonl"], "dev.jsonl", "train_s.jsonl");
    let folder = folder(&["dev.jsonl", "train_s.jsonl", "train_m.jsonl"]);
    let error = read(&task("winogrande"), folder.path(), 1).unwrap_err();
    assert!(error.contains("part `train`") && error.contains("train_m.jsonl"), "{error}");
}
