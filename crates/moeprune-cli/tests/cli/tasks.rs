//! Multiple choice from the command line: names, files and folders of tasks, and of their data.

use std::{fs, path::Path};

use serde_json::{Value, json};

use crate::command::Scratch;

/// A small model with a tokenizer in `model`, and data of all built-in tasks in `data`.
fn scratch() -> Scratch {
    let scratch = Scratch::new("mixtral");
    let assets = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../assets/tasks");
    fs::remove_dir_all(scratch.path("model")).unwrap();
    for folder in ["model", "data"] {
        copy(&assets.join(folder), &scratch.path(folder));
    }
    scratch
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let to = to.join(entry.file_name());
        match entry.path().is_dir() {
            true => copy(&entry.path(), &to),
            false => drop(fs::copy(entry.path(), to).unwrap()),
        }
    }
}

fn json_of(scratch: &Scratch, name: &str) -> Value {
    serde_json::from_slice(&fs::read(scratch.path(name)).unwrap()).unwrap()
}

/// A refusal: its exit code, and parts of what it says.
fn refused(scratch: &Scratch, arguments: &str, code: i32, parts: &[&str]) {
    let ran = scratch.run(arguments);
    assert_eq!(ran.code, code, "{arguments}\n{}{}", ran.stdout, ran.stderr);
    assert_eq!(ran.stdout, "", "{arguments}");
    for part in parts {
        assert!(ran.stderr.contains(part), "{arguments}\n{}\nexpected {part}", ran.stderr);
    }
}

const MINE: &str = "name = \"mine\"\nprompt = \"Q: {{ q }}\\nA:\"\nchoices = \"options\"\nanswer = \"right\"\n\
                    metrics = [\"acc_norm\", \"acc\"]\n[fewshot]\nshots = 1\ndraw = \"first\"\n";

fn mine(scratch: &Scratch) {
    fs::write(scratch.path("mine.toml"), MINE).unwrap();
    let row = |q: &str, right: usize| {
        json!({"q": q, "options": ["yes", "no"], "right": right}).to_string() + "\n"
    };
    fs::write(scratch.path("mine.jsonl"), row("is it", 0) + &row("was it", 1)).unwrap();
    fs::write(scratch.path("shots.jsonl"), row("will it be", 1)).unwrap();
}

#[test]
fn tasks_are_listed() {
    insta::assert_snapshot!(scratch().ok("eval --list-tasks").stdout);
}

#[test]
fn several_tasks_find_their_data_in_a_folder() {
    let scratch = scratch();
    let ran =
        scratch.ok("eval model --task arc_easy,boolq,piqa --data data --limit 5 --json out.json");
    insta::assert_snapshot!(ran.stdout);
    let out = json_of(&scratch, "out.json");
    let tasks = out["evaluations"].as_array().unwrap();
    let names: Vec<&str> = tasks.iter().map(|task| task["task"].as_str().unwrap()).collect();
    assert_eq!(names, ["arc_easy", "boolq", "piqa"]);
    // One by one, from files, they are the same; an earlier output is replaced.
    for (task, file) in [
        ("arc_easy", "data/arc_easy/test.jsonl"),
        ("boolq", "data/boolq/validation-00000-of-00001.parquet"),
        ("piqa", "data/piqa_validation.jsonl"),
    ] {
        scratch.ok(&format!(
            "eval model --task {task} --data {file} --limit 5 --batch 2 --json out.json"
        ));
        let expected = tasks.iter().find(|found| found["task"] == task).unwrap();
        assert_eq!(json_of(&scratch, "out.json"), *expected, "{task}");
    }
    let paired = "eval model --task arc_easy --data data/arc_easy/test.jsonl --task piqa --data data --limit 5 --json two.json";
    scratch.ok(paired);
    assert_eq!(json_of(&scratch, "two.json")["evaluations"][1], tasks[2]);
    scratch.ok(&format!(
        "{} --limit 5 --json two.json",
        "eval model --task piqa,arc_easy --data data"
    ));
}

#[test]
fn mmlu_has_subjects_and_groups() {
    let scratch = scratch();
    let ran =
        scratch.ok("eval model --task mmlu --data data --fewshot 2 --limit 1 --json out.json");
    assert!(ran.stdout.starts_with("mmlu on 57 questions, 2 shots\n  acc "), "{}", ran.stdout);
    for part in [
        "subject",
        "\nhumanities",
        "\nsocial_sciences",
        "\nabstract_algebra ",
        "\nworld_religions ",
    ] {
        assert!(ran.stdout.contains(part), "{part} in\n{}", ran.stdout);
    }
    let out = json_of(&scratch, "out.json");
    assert_eq!(
        (out["subjects"].as_array().unwrap().len(), out["groups"].as_array().unwrap().len()),
        (57, 4)
    );
    let ran =
        scratch.ok("eval model --task mmlu_anatomy,mmlu_stem --data data/mmlu --json parts.json");
    assert!(
        ran.stdout.starts_with("mmlu_anatomy on 3 questions, 0 shots\n  acc "),
        "{}",
        ran.stdout
    );
    let parts = json_of(&scratch, "parts.json");
    assert_eq!(parts["evaluations"][1]["subjects"].as_array().unwrap().len(), 19);
    let anatomy = &parts["evaluations"][0]["answers"][0]["choices"];
    assert_eq!(
        *anatomy,
        parts["evaluations"][1]["answers"]
            .as_array()
            .unwrap()
            .iter()
            .find(|answer| answer["subject"] == "anatomy")
            .unwrap()["choices"]
    );
}

/// A folder for each subject, as on the Hub, or a file named after it, is what one file with a field `subject` is.
#[test]
fn mmlu_in_a_folder_for_each_subject() {
    let scratch = scratch();
    let row = |subject: &str, n: usize| {
        json!({"question": format!("{subject} {n}?"), "subject": subject, "choices": ["a", "b", "c", "d"], "answer": n % 4})
            .to_string() + "\n"
    };
    let subjects = [
        "econometrics",
        "high_school_geography",
        "high_school_government_and_politics",
        "high_school_macroeconomics",
        "high_school_microeconomics",
        "high_school_psychology",
        "human_sexuality",
        "professional_psychology",
        "public_relations",
        "security_studies",
        "sociology",
        "us_foreign_policy",
    ];
    for folder in ["one", "folders", "files"] {
        fs::create_dir(scratch.path(folder)).unwrap();
    }
    let (mut all, mut all_dev) = (String::new(), String::new());
    for subject in subjects {
        let test = row(subject, 0) + &row(subject, 1);
        let dev = row(subject, 2) + &row(subject, 3);
        let own = scratch.path("folders").join(subject);
        fs::create_dir(&own).unwrap();
        fs::write(own.join("test-00000-of-00001.jsonl"), &test).unwrap();
        fs::write(own.join("dev-00000-of-00001.jsonl"), &dev).unwrap();
        fs::write(own.join("validation-00000-of-00001.jsonl"), row(subject, 5)).unwrap();
        fs::write(scratch.path("files").join(format!("{subject}_test.jsonl")), &test).unwrap();
        fs::write(scratch.path("files").join(format!("{subject}_dev.jsonl")), &dev).unwrap();
        (all, all_dev) = (all + &test, all_dev + &dev);
    }
    fs::write(scratch.path("one/test.jsonl"), all).unwrap();
    fs::write(scratch.path("one/dev.jsonl"), all_dev).unwrap();
    let run = |data: &str| {
        scratch.ok(&format!(
            "eval model --task mmlu_social_sciences --fewshot 2 --data {data} --json {data}.json"
        ));
        json_of(&scratch, &format!("{data}.json"))
    };
    let expected = run("one");
    assert_eq!(expected["n"], 24);
    assert_eq!(run("folders"), expected);
    assert_eq!(run("files"), expected);
    fs::remove_dir_all(scratch.path("folders/sociology")).unwrap();
    let command = "eval model --task mmlu_social_sciences --data folders";
    let said = ["has no questions of 1 of the 12 subjects of mmlu_social_sciences: sociology"];
    refused(&scratch, command, 1, &said);
}

#[test]
fn a_task_in_a_file_or_a_folder() {
    let scratch = scratch();
    mine(&scratch);
    let command =
        "eval model --task mine.toml --data mine.jsonl --fewshot-data shots.jsonl --json out.json";
    let ran = scratch.ok(command);
    assert!(ran.stdout.starts_with("mine on 2 questions, 1 shot\n  acc "), "{}", ran.stdout);
    fs::create_dir(scratch.path("tasks")).unwrap();
    fs::rename(scratch.path("mine.toml"), scratch.path("tasks/mine.toml")).unwrap();
    let expected = json_of(&scratch, "out.json");
    scratch.ok(&command.replace("mine.toml", "tasks"));
    assert_eq!(json_of(&scratch, "out.json"), expected);
    // A task's file is read and not written to.
    let ran = scratch.run(
        &command.replace("mine.toml", "tasks/mine.toml").replace("out.json", "tasks/mine.toml"),
    );
    assert_eq!(ran.code, 1, "{}", ran.stderr);
    assert_eq!(fs::read_to_string(scratch.path("tasks/mine.toml")).unwrap(), MINE);
}

#[test]
fn what_cannot_be_evaluated() {
    let scratch = scratch();
    mine(&scratch);
    let check = |arguments: &str, code: i32, parts: &[&str]| {
        refused(&scratch, &format!("eval model {arguments}"), code, parts);
    };
    check(
        "--task boolk --data data",
        2,
        &["no task is called `boolk`", "did you mean `boolq`?", "arc_easy, boolq"],
    );
    check(
        "--task mmlu_cooking --data data",
        2,
        &["no task is called `mmlu_cooking`", "mmlu_SUBJECT"],
    );
    check("--task nowhere.toml --data data", 1, &["cannot read nowhere.toml"]);
    fs::write(scratch.path("bad.toml"), format!("promt = 'x'\n{MINE}")).unwrap();
    check(
        "--task bad.toml --data data",
        2,
        &["bad.toml describes no task", "unknown field `promt`"],
    );
    check("--task arc_easy", 2, &["--data"]);
    check(
        "--task arc_easy,boolq,rte --data data --data data",
        1,
        &["--data is given 2 times for 3 tasks"],
    );
    check(
        "--task boolq --data data/arc_easy/test.jsonl",
        1,
        &[
            "line 1: `boolq` reads the fields `label`, `passage`, `question`, and this record has `id`, `question`, \
           `choices`, `answerKey`",
            "aps/super_glue",
        ],
    );
    check(
        "--task arc_easy --data data/arc_easy --fewshot 50",
        1,
        &["needs examples for its shots, 50 at least, and was given 12"],
    );
    check(
        "--task mine.toml --data mine.jsonl",
        1,
        &["needs examples for its shots, 1 at least, and was given 0", "--fewshot-data"],
    );
    check(
        "--task arc_easy --data data/arc_easy --fewshot-data data",
        1,
        &["--fewshot-data is not used by `arc_easy`, which has no shots; pass --fewshot N"],
    );
    check("--task openbookqa --data data/arc_easy/train.jsonl", 1, &["`question_stem`"]);
    fs::create_dir(scratch.path("empty")).unwrap();
    check(
        "--task arc_easy --data empty",
        1,
        &["empty has no file of arc_easy that is its part `test`", "nothing"],
    );
    fs::write(scratch.path("empty/train.jsonl"), "{}\n").unwrap();
    check("--task arc_easy --data empty", 1, &["it has train.jsonl"]);
    fs::write(scratch.path("none.jsonl"), "").unwrap();
    check("--task arc_easy --data none.jsonl", 1, &["none.jsonl", "nothing"]);
    check("--task arc_easy,perplexity --data data --fewshot 2", 1, &[]);
    check("--task mmlu --data data/arc_easy/test.jsonl", 1, &["mmlu has subjects", "no `subject`"]);
}

#[test]
fn one_subject_of_a_file() {
    let scratch = scratch();
    mine(&scratch);
    let subjects = "[groups]\nscience = [\"physics\", \"chemistry\"]\narts = [\"music\"]\n";
    fs::write(scratch.path("mine.toml"), format!("{MINE}{subjects}")).unwrap();
    fs::create_dir(scratch.path("subjects")).unwrap();
    for subject in ["physics", "music"] {
        fs::copy(scratch.path("mine.jsonl"), scratch.path(&format!("subjects/{subject}.jsonl")))
            .unwrap();
    }
    let run = |task: &str| format!("eval model --task {task} --data subjects --fewshot 0");
    refused(
        &scratch,
        &run("mine.toml"),
        1,
        &["1 of the 3 subjects of mine: chemistry", "--task FILE.toml:chemistry"],
    );
    for (part, name) in [("physics", "mine_physics"), ("arts", "mine_arts")] {
        let ran = scratch.ok(&run(&format!("mine.toml:{part}")));
        assert!(ran.stdout.starts_with(&format!("{name} on 2 questions")), "{}", ran.stdout);
    }
    refused(
        &scratch,
        &run("mine.toml:cooking"),
        1,
        &[
            "mine.toml has no group and no subject `cooking`, only arts, science, chemistry, music, physics",
        ],
    );
}

#[test]
fn compare_takes_choices() {
    let scratch = scratch();
    mine(&scratch);
    let compare = "compare model --cuts 0.25 --criteria stun --task";
    scratch.ok(&format!("{compare} arc_easy --data data --limit 6 --json a.json"));
    let found = json_of(&scratch, "a.json");
    assert_eq!(
        (&found["task"], &found["metric"], &found["documents"]),
        (&json!("arc_easy"), &json!("acc"), &json!(6))
    );
    assert!(found["cuts"][1]["accuracy"]["mean"].is_number());
    scratch.ok(&format!("{compare} mine.toml --data mine.jsonl --fewshot 0 --json b.json"));
    assert_eq!(json_of(&scratch, "b.json")["metric"], "acc_norm");
    fs::create_dir(scratch.path("tasks")).unwrap();
    fs::rename(scratch.path("mine.toml"), scratch.path("tasks/mine.toml")).unwrap();
    let folder = format!("{compare} tasks --data mine.jsonl --fewshot 0");
    scratch.ok(&format!("{folder} --json c.json"));
    let [b, c] =
        ["b.json", "c.json"].map(|name| json_of(&scratch, name)["cuts"][0]["accuracy"].clone());
    assert_eq!(b, c);
    // A task's file is read and not written to.
    assert_eq!(scratch.run(&format!("{folder} --json tasks/mine.toml")).code, 1);
    assert_eq!(fs::read_to_string(scratch.path("tasks/mine.toml")).unwrap(), MINE);
    fs::copy(scratch.path("tasks/mine.toml"), scratch.path("tasks/other.toml")).unwrap();
    refused(
        &scratch,
        &folder,
        1,
        &["tasks is 2 tasks (tasks/mine.toml, tasks/other.toml)", "measures one"],
    );
    refused(&scratch, &format!("{compare} boolk --data data"), 2, &["did you mean `boolq`?"]);
    let ran = scratch.run(&format!("{compare} boolq --data data --metric acc_norm --limit 2"));
    assert!(ran.stderr.contains("boolq has no metric acc_norm; it has acc"), "{}", ran.stderr);
}
