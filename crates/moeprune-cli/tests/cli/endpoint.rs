//! Asking a served model: a server of a few lines answers.
#![cfg(unix)]

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Mutex},
    time::Duration,
};

use serde_json::{Value, json};

use crate::{
    command::Scratch,
    resume::{signal, spawn},
};

/// A completions API that answers each prompt as a closure says; none is an answer that never comes.
struct Server {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<Value>>>,
}

type Answer = dyn Fn(&Value, usize) -> Option<Value> + Send + Sync;

impl Server {
    /// Writes texts, of prompts that are text.
    fn new(answer: impl Fn(&str, usize) -> Option<String> + Send + Sync + 'static) -> Self {
        Self::with(move |body, number| {
            let prompts = body["prompt"]
                .as_array()
                .map_or_else(|| vec![&body["prompt"]], |all| all.iter().collect());
            let texts: Option<Vec<Value>> = prompts
                .iter()
                .map(|prompt| Some(json!({"text": answer(prompt.as_str().unwrap(), number)?})))
                .collect();
            Some(json!({"choices": texts?}))
        })
    }

    /// Says how likely texts are: a token is a byte, and the likelier the larger it is.
    fn scoring() -> Self {
        Self::with(|body, _| {
            let of = |(index, prompt): (usize, &Value)| {
                let bytes = prompt.as_str().unwrap().bytes().chain([0]);
                let values: Vec<Value> = [Value::Null]
                    .into_iter()
                    .chain(bytes.map(|byte| json!(f64::from(byte) / 256.0 - 1.0)))
                    .collect();
                let top: Vec<Value> = values.iter().map(|value| json!({"x": value})).collect();
                json!({"index": index, "text": "", "logprobs": {"token_logprobs": values, "top_logprobs": top}})
            };
            let choices: Vec<Value> =
                body["prompt"].as_array()?.iter().enumerate().map(of).collect();
            Some(json!({"choices": choices}))
        })
    }

    fn with(answer: impl Fn(&Value, usize) -> Option<Value> + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (asked, answer): (_, Arc<Answer>) =
            (Arc::new(Mutex::new(Vec::new())), Arc::new(answer));
        let log = Arc::clone(&asked);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (stream, log, answer) =
                    (stream.unwrap(), Arc::clone(&log), Arc::clone(&answer));
                std::thread::spawn(move || serve(stream, &log, &*answer));
            }
        });
        Self { address, asked }
    }

    fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// How many answers were asked for.
    fn count(&self) -> usize {
        self.asked.lock().unwrap().len()
    }
}

fn serve(mut stream: TcpStream, log: &Mutex<Vec<Value>>, answer: &Answer) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    loop {
        let (mut first, mut length) = (String::new(), 0);
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line).unwrap_or(0) == 0 {
                return;
            }
            if line.trim().is_empty() {
                break;
            }
            let lower = line.to_ascii_lowercase();
            if let Some(value) = lower.strip_prefix("content-length:") {
                length = value.trim().parse().unwrap();
            }
            if first.is_empty() {
                first = line;
            }
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body).unwrap();
        let reply = if first.starts_with("GET") {
            json!({"data": [{"id": "served"}]})
        } else {
            let body: Value = serde_json::from_slice(&body).unwrap();
            if body["prompt"][0].is_array() {
                // Token ids are not taken.
                let refusal = "HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n";
                stream.write_all(refusal.as_bytes()).unwrap();
                continue;
            }
            let number = {
                let mut log = log.lock().unwrap();
                log.push(body.clone());
                log.len() - 1
            };
            let Some(reply) = answer(&body, number) else {
                std::thread::sleep(Duration::from_secs(600));
                return;
            };
            reply
        };
        let reply = reply.to_string();
        let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", reply.len());
        if stream.write_all((head + &reply).as_bytes()).is_err() {
            return;
        }
    }
}

/// A folder with the embedded model in `nano`.
fn nano() -> Scratch {
    let scratch = Scratch::new("arctic");
    let source = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../assets/nano");
    std::os::unix::fs::symlink(source.canonicalize().unwrap(), scratch.path("nano")).unwrap();
    scratch
}

const TASK: &str = "--task gsm8k_zeroshot --data nano/data/test.jsonl --limit 12";

/// An answer that is right for one question of the data, and depends on the prompt alone.
fn answer(prompt: &str) -> String {
    format!(
        " Some.\n#### {}",
        if prompt.contains("Rosa has 2 small boxes") { 42 } else { prompt.len() }
    )
}

#[test]
fn a_served_model_is_asked_without_one_here() {
    let (scratch, server) = (nano(), Server::new(|prompt, _| Some(answer(prompt))));
    let ran = scratch.ok(&format!("eval --endpoint {} {TASK} --json out.json", server.url()));
    assert!(ran.stdout.contains("gsm8k_zeroshot on 12 questions"), "{}", ran.stdout);
    assert!(ran.stderr.contains("asking the model `served` at http://127.0.0.1"), "{}", ran.stderr);
    let found: Value =
        serde_json::from_slice(&fs::read(scratch.path("out.json")).unwrap()).unwrap();
    assert_eq!(found["answers"].as_array().unwrap().len(), 12);
    assert_eq!(found["answers"][0]["output"], json!(" Some.\n#### 42"));
    assert_eq!(found["answers"][0]["scores"]["strict-match"]["score"], json!(1.0));
    assert_eq!(server.count(), 12);
    assert!(!scratch.names().contains(&"out.json.journal".to_owned()), "{:?}", scratch.names());
    // With the model's tokenizer, which this server does not take ids of, the answers are the same.
    let with_model = format!("eval nano --endpoint {} {TASK} --json with.json", server.url());
    let ran = scratch.ok(&with_model);
    assert!(ran.stderr.contains("takes prompts as text only"), "{}", ran.stderr);
    assert_eq!(
        fs::read(scratch.path("with.json")).unwrap(),
        fs::read(scratch.path("out.json")).unwrap()
    );
}

#[test]
fn a_killed_evaluation_asks_only_what_is_missing() {
    let scratch = nano();
    let whole = Server::new(|prompt, _| Some(answer(prompt)));
    scratch.ok(&format!("eval --endpoint {} {TASK} --json whole.json", whole.url()));

    let server = Server::new(|prompt, number| (!(5..7).contains(&number)).then(|| answer(prompt)));
    let command =
        format!("eval --endpoint {} {TASK} --concurrency 2 --json out.json", server.url());
    let child = spawn(&scratch, &command);
    let journal = scratch.path("out.json.journal");
    // Five answers came, and two calls hang.
    let lines = || fs::read_to_string(&journal).unwrap_or_default().lines().count();
    while server.count() < 7 || lines() < 6 {
        std::thread::sleep(Duration::from_millis(10));
    }
    signal(&child, "-KILL");
    child.wait_with_output().unwrap();
    assert!(!scratch.path("out.json").exists());

    let ran = scratch.ok(&command);
    assert!(ran.stderr.contains("resuming: 5 answers are in out.json.journal"), "{}", ran.stderr);
    assert_eq!(server.count(), 7 + 12 - 5);
    assert_eq!(
        fs::read(scratch.path("out.json")).unwrap(),
        fs::read(scratch.path("whole.json")).unwrap()
    );
    assert!(!journal.exists());
}

#[test]
fn a_stopped_evaluation_says_where_its_answers_are() {
    let scratch = nano();
    let server = Server::new(|prompt, number| (number < 3).then(|| answer(prompt)));
    let command = format!("eval --endpoint {} {TASK} --concurrency 1 --journal kept", server.url());
    let child = spawn(&scratch, &command);
    while server.count() < 4 {
        std::thread::sleep(Duration::from_millis(10));
    }
    signal(&child, "-TERM");
    let ended = child.wait_with_output().unwrap();
    let stderr = String::from_utf8(ended.stderr).unwrap();
    assert_eq!(ended.status.code(), Some(143), "{stderr}");
    assert!(
        stderr.contains("answers are kept in kept: the same command asks only what is missing"),
        "{stderr}"
    );
}

#[test]
fn a_journal_that_is_named_stays_and_is_of_one_run() {
    let (scratch, server) = (nano(), Server::new(|prompt, _| Some(answer(prompt))));
    let command = format!("eval --endpoint {} {TASK} --journal kept", server.url());
    scratch.ok(&command);
    let kept = fs::read(scratch.path("kept")).unwrap();
    scratch.ok(&command);
    assert_eq!(server.count(), 12);
    assert_eq!(fs::read(scratch.path("kept")).unwrap(), kept);
    // A larger limit goes on with the same answers.
    scratch.ok(&command.replace("--limit 12", "--limit 14"));
    assert_eq!(server.count(), 14);
    let check = |command: &str, expected: &str| {
        let ran = scratch.run(command);
        assert_eq!(ran.code, 1, "{}", ran.stderr);
        assert!(
            ran.stderr.contains("is of another run") && ran.stderr.contains(expected),
            "{}",
            ran.stderr
        );
    };
    check(
        &command.replace("gsm8k_zeroshot", "gsm8k_cot"),
        "task is `gsm8k_zeroshot` there and `gsm8k_cot` here",
    );
    let other = Server::new(|prompt, _| Some(answer(prompt)));
    check(&command.replace(&server.url(), &other.url()), "endpoint is");
    fs::write(scratch.path("notes"), "mine").unwrap();
    let ran = scratch.run(&command.replace("--journal kept", "--journal notes"));
    assert_eq!(ran.code, 1);
    assert!(ran.stderr.contains("notes is no journal"), "{}", ran.stderr);
    assert_eq!(fs::read_to_string(scratch.path("notes")).unwrap(), "mine");
    let ran = scratch.run(&command.replace("--journal kept", "--journal nano/data/test.jsonl"));
    assert_ne!(ran.code, 0);
}

#[test]
fn what_cannot_be_asked() {
    let (scratch, server) = (nano(), Server::new(|prompt, _| Some(answer(prompt))));
    let url = server.url();
    let check = |command: &str, code: i32, expected: &str| {
        let ran = scratch.run(command);
        assert_eq!(ran.code, code, "{command}: {}", ran.stderr);
        assert!(ran.stderr.contains(expected), "{command}: {}", ran.stderr);
        assert_eq!(ran.stdout, "", "{command}");
    };
    check(&format!("eval {TASK}"), 2, "<MODEL>");
    check(&format!("eval nano {TASK} --concurrency 2"), 1, "--concurrency is for a served model");
    check(
        &format!("eval --endpoint {url} {TASK} --concurrency 0"),
        2,
        "not a positive whole number",
    );
    check(
        &format!("eval --endpoint {url} --task perplexity --data nano/data/heldout.txt"),
        1,
        "leave --endpoint out",
    );
    check(
        &format!("eval --endpoint {url} {TASK} --endpoint-model x"),
        1,
        "no model `x`; it serves served",
    );
    check(&format!("eval --endpoint localhost:1 {TASK}"), 1, "does not begin with http");
    check(&format!("eval --endpoint http://127.0.0.1:1 {TASK}"), 1, "is it running");
    if cfg!(not(feature = "https")) {
        check(&format!("eval --endpoint https://127.0.0.1:1 {TASK}"), 1, "--features https");
    }
    assert_eq!(server.count(), 0);
}

/// Two questions, the second of which the scoring server gets wrong.
const CHOICES: &str = r#"{"id": "1", "question": "Z?", "choices": {"text": ["a", "z"], "label": ["A", "B"]}, "answerKey": "B"}
{"id": "2", "question": "A?", "choices": {"text": ["a", "z"], "label": ["A", "B"]}, "answerKey": "A"}
"#;

#[test]
fn choices_are_scored_by_a_server_that_can() {
    let (scratch, server) = (nano(), Server::scoring());
    fs::write(scratch.path("choices.jsonl"), CHOICES).unwrap();
    let ask = |url: &str| format!("eval --endpoint {url} --task arc_easy --data choices.jsonl");
    let ran = scratch.ok(&format!("{} --json out.json --journal kept", ask(&server.url())));
    assert!(ran.stdout.contains("acc                0.5000"), "{}", ran.stdout);
    let found: Value =
        serde_json::from_slice(&fs::read(scratch.path("out.json")).unwrap()).unwrap();
    let z = f64::from(b' ') / 256.0 - 1.0 + f64::from(b'z') / 256.0 - 1.0;
    assert_eq!(found["answers"][0]["choices"][1]["log_likelihood"], json!(z));
    assert_eq!(found["answers"][0]["choices"][1]["tokens"], json!(2));
    // A second run asks nothing but whether the server still can.
    let before = server.count();
    scratch.ok(&format!("{} --json again.json --journal kept", ask(&server.url())));
    assert_eq!(server.count(), before + 1);
    assert_eq!(
        fs::read(scratch.path("again.json")).unwrap(),
        fs::read(scratch.path("out.json")).unwrap()
    );

    let writes = Server::new(|_, _| Some("a".into()));
    let ran = scratch.run(&ask(&writes.url()));
    assert_eq!(ran.code, 1, "{}", ran.stdout);
    assert!(ran.stderr.contains("does not say how likely a prompt's tokens are"), "{}", ran.stderr);
    assert!(ran.stderr.contains("vLLM and SGLang do; llama.cpp's server"), "{}", ran.stderr);
}

#[test]
fn a_model_that_is_run_here_keeps_its_answers_too() {
    let scratch = nano();
    let command = "eval nano --task gsm8k_zeroshot --data nano/data/test.jsonl";
    scratch.ok(&format!("{command} --limit 4 --json whole.json"));
    scratch.ok(&format!("{command} --limit 2 --batch 1 --journal kept"));
    let lines = || fs::read_to_string(scratch.path("kept")).unwrap().lines().count();
    assert_eq!(lines(), 3);
    let ran = scratch.ok(&format!("{command} --limit 4 --journal kept --json out.json"));
    assert!(ran.stderr.contains("resuming: 2 answers are in kept"), "{}", ran.stderr);
    assert_eq!(lines(), 5);
    assert_eq!(
        fs::read(scratch.path("out.json")).unwrap(),
        fs::read(scratch.path("whole.json")).unwrap()
    );
    let ran =
        scratch.run("eval model --task gsm8k_zeroshot --data nano/data/test.jsonl --journal kept");
    assert!(ran.code == 1 && ran.stderr.contains("model is `"), "{}", ran.stderr);
}

#[test]
fn served_models_are_compared() {
    let scratch = nano();
    scratch.ok("plan nano --expert-sparsity 0.25 --sparsity 0.25 --output plan.json");
    scratch.ok("apply nano cut --plan plan.json");
    let whole = Server::new(|prompt, _| Some(answer(prompt)));
    let cut = Server::new(|_, _| Some(" I do not know.".into()));
    let ran = scratch.ok(&format!(
        "compare nano --endpoint cut={} --endpoint {} {TASK} --metric strict-match --json out.json",
        cut.url(),
        whole.url()
    ));
    let found: Value =
        serde_json::from_slice(&fs::read(scratch.path("out.json")).unwrap()).unwrap();
    let cuts = found["cuts"].as_array().unwrap();
    let row = |cut: &Value| {
        let mean = cut["accuracy"]["mean"].as_f64().unwrap();
        (
            cut["criterion"].as_str().unwrap().to_owned(),
            cut["experts_kept"].clone(),
            cut["expert_share"].clone(),
            mean > 0.0,
        )
    };
    assert_eq!(cuts.len(), 2);
    assert_eq!(row(&cuts[0]), ("none".into(), json!(128), json!(0.0), true));
    assert_eq!(row(&cuts[1]), ("cut".into(), json!(96), json!(0.25), false));
    assert!(cuts[1]["bytes"].as_u64() < cuts[0]["bytes"].as_u64());
    assert!(cuts[1]["parameters"].as_u64() < cuts[0]["parameters"].as_u64());
    assert!(ran.stdout.contains("unpruned") && ran.stdout.contains("cut"), "{}", ran.stdout);
    fs::copy(scratch.path("nano/tokenizer.json"), scratch.path("model/tokenizer.json")).unwrap();
    let foreign = format!("compare nano --endpoint model={} {TASK}", cut.url());
    let ran = scratch.run(&foreign);
    assert!(ran.code == 1 && ran.stderr.contains("was not cut from"), "{}", ran.stderr);
    let ran = scratch.run(&format!("compare nano {TASK}"));
    assert_eq!(ran.code, 2, "{}", ran.stderr);
}
