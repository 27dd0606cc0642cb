//! Calibration text in all forms: what is read, what is said of it, several files, conversations.

use std::fs;

use serde_json::{Value, json};

use crate::command::{Ran, Scratch};

/// A model with a tokenizer of one token per letter, more or less.
fn scratch() -> Scratch {
    Scratch::new("../gguf/mix32")
}

const SENTENCE: &str = "the old fox sat by the quiet lake and read a small brown book about dogs";

fn words(i: usize) -> String {
    let words: Vec<&str> = SENTENCE.split(' ').collect();
    (0..40).map(|j| words[(i * 7 + j * j) % words.len()]).collect::<Vec<_>>().join(" ")
}

const DRAW: &str = "--samples 4 --seq-len 32 --sparsity 0.25 --expert-sparsity 0.25 --repair none";

fn prune(scratch: &Scratch, text: &str) -> (Ran, Value) {
    let ran = scratch.ok(&format!("prune model out {text} {DRAW}"));
    let report = fs::read_to_string(scratch.path("out/moeprune-report.json")).unwrap();
    (ran, serde_json::from_str(&report).unwrap())
}

#[test]
fn few_tokens_are_a_warning_on_the_terminal_and_in_the_report() {
    let scratch = scratch();
    fs::write(scratch.path("c.txt"), words(1)).unwrap();
    let ran = scratch.ok(&format!(
        "prune model out --calibration c.txt {}",
        DRAW.replace("--samples 4", "--samples 64")
    ));
    let line = |text: &str| {
        let line =
            text.lines().find(|line| line.contains("64 blocks of 32 tokens were drawn from"));
        line.unwrap_or_else(|| panic!("{text}")).to_owned()
    };
    let said = line(&ran.stderr);
    assert!(said.starts_with("warning: ") && said.contains("use more text or lower --samples"));
    let markdown = fs::read_to_string(scratch.path("out/moeprune-report.md")).unwrap();
    assert!(line(&markdown).contains(&said));
    assert!(markdown.contains("- c.txt: plain text; 1 document, "), "{markdown}");
    let report = fs::read_to_string(scratch.path("out/moeprune-report.json")).unwrap();
    let report: Value = serde_json::from_str(&report).unwrap();
    assert_eq!(report["text_warnings"], json!([said]));
    assert_eq!(report["corpora"][0]["read"]["documents"], 1);
    // Enough text is no warning.
    let text: String = (0..200).map(words).collect();
    fs::write(scratch.path("c.txt"), text).unwrap();
    let ran = scratch.ok("observe model --calibration c.txt --samples 4 --seq-len 32 -o c.obs");
    assert!(!ran.stderr.contains("warning"), "{}", ran.stderr);
    assert!(ran.stderr.contains("c.txt: plain text; 1 document, "), "{}", ran.stderr);
    // Less than a block is an error.
    fs::write(scratch.path("c.txt"), "a").unwrap();
    let ran = scratch.run("observe model --calibration c.txt --seq-len 32 -o d.obs");
    assert_eq!(ran.code, 1);
    assert!(ran.stderr.contains("calibration text too short"), "{}", ran.stderr);
}

#[test]
fn blocks_longer_than_the_model_takes_are_said_everywhere() {
    let scratch = scratch();
    let text: String = (0..100).map(words).collect();
    fs::write(scratch.path("c.txt"), text).unwrap();
    let long = "--samples 2 --seq-len 5000";
    let said = "tokens, not the 5000 that were asked for: the model has no more positions";
    let check = |arguments: &str| {
        let ran = scratch.ok(&format!("{arguments} {long}"));
        assert!(ran.stderr.contains(said), "{arguments}\n{}", ran.stderr);
    };
    check("observe model --calibration c.txt -o c.obs");
    check("plan model --criterion reconstruction --calibration c.txt -o plan.json");
    check("apply model applied --plan plan.json --calibration c.txt");
    check("prune model out --calibration c.txt --repair none");
    let report = fs::read_to_string(scratch.path("out/moeprune-report.md")).unwrap();
    assert!(report.contains(said), "{report}");
    let compared = scratch.ok("compare model --observation c.obs --cuts 0.25 --criteria random --text c.txt --text-blocks 1 --seq-len 5000");
    assert!(compared.stderr.contains(said), "{}", compared.stderr);
    let asked = scratch.ok("eval model --task perplexity --data c.txt --limit 1 --seq-len 5000");
    assert!(asked.stderr.contains(said), "{}", asked.stderr);
}

/// What the terminal says of a text.
fn read_as(scratch: &Scratch, name: &str, bytes: &[u8]) -> String {
    fs::write(scratch.path(name), bytes).unwrap();
    let (ran, _) = prune(scratch, &format!("--calibration {name}"));
    fs::remove_dir_all(scratch.path("out")).unwrap();
    let line = ran.stderr.lines().find(|line| line.starts_with(&format!("{name}: ")));
    line.unwrap_or_else(|| panic!("{}", ran.stderr)).to_owned()
}

#[test]
fn the_recognised_form_is_said() {
    let scratch = scratch();
    let texts: Vec<String> = (0..8).map(words).collect();
    let lines = |line: &dyn Fn(&String) -> String| texts.iter().map(line).collect::<String>();
    let check = |name: &str, text: String, expected: &str| {
        let said = read_as(&scratch, name, text.as_bytes());
        assert!(said.starts_with(&format!("{name}: {expected}; 8 documents, ")), "{said}");
    };
    check("a.json", json!(texts).to_string(), "a JSON array of strings");
    check(
        "nan.jsonl",
        lines(&|text| format!("{{\"text\": {}, \"score\": NaN}}\n", json!(text))),
        "JSON lines of `text`",
    );
    check(
        "counts.jsonl",
        lines(&|text| json!({ "text": text, "tokens": text.len() }).to_string() + "\n"),
        "JSON lines of `text`",
    );
    check(
        "chats.jsonl",
        lines(&|text| {
            let messages = json!([{ "role": "user", "content": text }]);
            json!({ "messages": messages }).to_string() + "\n"
        }),
        "JSON lines of `messages`, put plainly",
    );
}

#[test]
fn questions_are_read_in_the_forms_of_calibration_text() {
    let scratch = scratch();
    let question = json!({ "question": "1 + 1?", "answer": "2\n#### 2" });
    let check = |name: &str, text: String| {
        fs::write(scratch.path(name), text).unwrap();
        let ran = scratch.ok(&format!("eval model --task gsm8k_zeroshot --data {name}"));
        assert!(ran.stdout.contains("on 2 questions, 0 shots"), "{}", ran.stdout);
    };
    check("bom.jsonl", format!("\u{feff}{question}\n{question}\n"));
    check("array.json", json!([question, question]).to_string());
    fs::write(scratch.path("text.jsonl"), "{\"text\": \"1 + 1?\"}\n").unwrap();
    let ran = scratch.run("eval model --task gsm8k_zeroshot --data text.jsonl");
    assert_eq!(ran.code, 1);
    assert!(ran.stderr.contains("text.jsonl line 1: expected"), "{}", ran.stderr);
}

#[test]
fn several_files_are_one_text_or_a_domain_each() {
    let scratch = scratch();
    fs::create_dir(scratch.path("texts")).unwrap();
    for (name, from) in [("code.jsonl", 0), ("prose.jsonl", 50)] {
        let line = |i| json!({ "text": words(i) }).to_string() + "\n";
        let lines: String = (from..from + 20).map(line).collect();
        fs::write(scratch.path("texts").join(name), lines).unwrap();
    }
    let both = "--calibration texts/code.jsonl --calibration texts/prose.jsonl";
    let (ran, report) = prune(&scratch, both);
    assert!(
        ran.stderr
            .contains("code.jsonl and prose.jsonl: 2 files, JSON lines of `text`; 40 documents")
    );
    assert_eq!(report["corpora"][0]["read"]["files"], 2);
    fs::remove_dir_all(scratch.path("out")).unwrap();
    let (_, of_folder) = prune(&scratch, "--calibration texts");
    assert_eq!(of_folder["corpora"], report["corpora"]);
    fs::remove_dir_all(scratch.path("out")).unwrap();

    let observe =
        format!("observe model {both} --domain-from file --samples 4 --seq-len 32 -o domains");
    scratch.ok(&observe);
    let observed: Vec<String> =
        ["code", "prose"].map(|d| format!("domains/{d}.obs.safetensors")).into();
    assert!(observed.iter().all(|path| scratch.path(path).is_file()));
    let again = scratch.run(&observe);
    assert_eq!(again.code, 1, "{}", again.stderr);
    let again = scratch.ok(&format!("{observe} --resume"));
    assert!(again.stdout.contains("code was observed before"), "{}", again.stdout);

    prune(&scratch, &format!("--observation {} --observation {}", observed[0], observed[1]));
    fs::rename(scratch.path("out"), scratch.path("of_observations")).unwrap();
    let (_, by_file) = prune(&scratch, &format!("{both} --domain-from file"));
    let names: Vec<&Value> =
        by_file["corpora"].as_array().unwrap().iter().map(|corpus| &corpus["name"]).collect();
    assert_eq!(names, ["code", "prose"]);
    let weights = |folder: &str| fs::read(scratch.path(folder).join("model.safetensors")).unwrap();
    assert!(weights("out") == weights("of_observations"));
}

#[test]
fn options_of_conversations_are_refused_where_they_do_nothing() {
    let scratch = scratch();
    let check = |arguments: &str, expected: &str| {
        let ran = scratch.run(arguments);
        assert_eq!(ran.code, 1, "{}", ran.stderr);
        assert!(ran.stderr.contains(expected), "{}", ran.stderr);
    };
    let observe = "observe model --calibration tokens.jsonl -o a.obs";
    check(&format!("{observe} --system brief"), "tokens.jsonl holds none: JSON lines of `tokens`");
    check("plan model --system brief -o plan.json", "pass --calibration FILE");
    fs::write(scratch.path("tools.json"), "{\"name\": \"add\"}").unwrap();
    check(&format!("{observe} --tools tools.json"), "an object; put it in brackets");
    fs::write(scratch.path("tools.json"), "[{\"name\": \"add\"}]").unwrap();
    let chat = json!({ "messages": [{ "role": "user", "content": words(1) }] }).to_string();
    fs::write(scratch.path("chat.jsonl"), chat).unwrap();
    let observe = "observe model --calibration chat.jsonl --seq-len 8 -o a.obs";
    check(&format!("{observe} --tools tools.json"), "is missing");
}

#[test]
fn a_template_and_a_system_message_are_used() {
    let scratch = scratch();
    let config = scratch.path("model/tokenizer_config.json");
    let mut json: Value = serde_json::from_str(&fs::read_to_string(&config).unwrap()).unwrap();
    json["chat_template"] =
        "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}".into();
    fs::write(config, json.to_string()).unwrap();
    let lines: String = (0..8)
        .map(|i| {
            json!({ "messages": [{ "role": "user", "content": words(i) }] }).to_string() + "\n"
        })
        .collect();
    fs::write(scratch.path("c.jsonl"), lines).unwrap();
    let observe = "observe model --calibration c.jsonl --samples 4 --seq-len 16";
    let ran = scratch.ok(&format!("{observe} -o a.obs"));
    assert!(ran.stderr.contains("put by the model's chat template"), "{}", ran.stderr);
    scratch.ok(&format!("{observe} --system brief -o b.obs"));
    let read = |name: &str| fs::read(scratch.path(name)).unwrap();
    assert!(read("a.obs") != read("b.obs"));
}
