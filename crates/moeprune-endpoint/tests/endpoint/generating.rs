//! Answers over HTTP, in order.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use moeprune_endpoint::{EndpointGenerator, Error, Vocabulary};
use moeprune_eval::{BoxError, Ending, Generator as _, Request};
use serde_json::json;

use crate::mock::{Asked, Mock, Reply, options, text};

/// What the tests' model answers: the prompt backwards.
fn backwards(asked: &Asked) -> Reply {
    let prompt = asked.body["prompt"].as_str().unwrap();
    text(&prompt.chars().rev().collect::<String>())
}

fn requests(count: usize) -> Vec<Request> {
    (0..count)
        .map(|n| Request::new(format!("Q {n}"), vec!["\n".into(), String::new()], 16))
        .collect()
}

fn answers(count: usize) -> Vec<String> {
    requests(count).iter().map(|request| request.prompt.chars().rev().collect()).collect()
}

/// A tokenizer that makes a token of each byte, after one that begins the text.
pub(crate) fn bytes(text: &str) -> Result<Vec<u32>, BoxError> {
    Ok(std::iter::once(256).chain(text.bytes().map(u32::from)).collect())
}

#[test]
fn a_call_asks_for_a_greedy_answer() {
    let mock = Mock::new(backwards);
    let mut generator = EndpointGenerator::new(mock.endpoint(), None).unwrap();
    assert_eq!(generator.generate(&requests(1)).unwrap(), ["0 Q"]);
    let asked = &mock.asked()[0];
    let expected = json!({
        "model": "m", "prompt": "Q 0", "max_tokens": 16, "temperature": 0, "seed": 0, "stop": ["\n"],
    });
    assert_eq!(asked.body, expected);
    assert_eq!(asked.line, "POST /v1/completions HTTP/1.1");
    assert_eq!(asked.header("content-type"), Some("application/json"));
    assert_eq!(generator.generate(&[]).unwrap(), Vec::<String>::new());
}

#[test]
fn answers_are_in_order_at_any_concurrency() {
    for concurrency in [1, 2, 7, 64] {
        let mock = Mock::new(|asked| {
            let wait = Duration::from_millis((asked.number * 37 % 11) as u64);
            Reply::After(wait, Box::new(backwards(asked)))
        });
        let mut options = options();
        options.concurrency = concurrency;
        let mut generator = EndpointGenerator::new(mock.endpoint_with(options), None).unwrap();
        let (mut noted, requests) = (vec![None; 20], requests(20));
        let mut note = |place: usize, text: &str, ended: Option<Ending>| {
            assert_eq!(ended, Some(Ending::Stop));
            assert_eq!(noted[place].replace(text.to_owned()), None);
            Ok(())
        };
        let found = generator.generate_noting(&requests, &mut note).unwrap();
        assert_eq!(found, answers(20));
        assert_eq!(generator.endings(), Some(&[Ending::Stop; 20][..]));
        let noted: Vec<String> = noted.into_iter().flatten().collect();
        assert_eq!(noted, answers(20));
        assert_eq!(mock.asked().len(), 20);
    }
}

#[test]
fn no_more_calls_at_a_time_than_allowed() {
    let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let seen = Arc::clone(&most);
    let mock = Mock::new(move |asked| {
        let at_once = now.fetch_add(1, Ordering::SeqCst) + 1;
        most.fetch_max(at_once, Ordering::SeqCst);
        std::thread::sleep(Duration::from_millis(3));
        now.fetch_sub(1, Ordering::SeqCst);
        backwards(asked)
    });
    let mut options = options();
    options.concurrency = 3;
    let mut generator = EndpointGenerator::new(mock.endpoint_with(options), None).unwrap();
    assert_eq!(generator.generate(&requests(24)).unwrap(), answers(24));
    assert!(seen.load(Ordering::SeqCst) <= 3, "{seen:?}");
}

#[test]
fn token_ids_are_sent_where_they_are_taken() {
    let mock = Mock::new(|asked| match asked.body["prompt"][0].as_array() {
        Some(ids) => Reply::Json(json!({
            "choices": [{"index": 0, "text": format!("{} tokens", ids.len())}],
            "usage": {"prompt_tokens": ids.len()},
        })),
        None => Reply::Status(400, "", "text is not taken".into()),
    });
    let vocabulary = Vocabulary::new(bytes);
    let mut generator = EndpointGenerator::new(mock.endpoint(), Some(vocabulary)).unwrap();
    assert!(generator.sends_ids());
    assert_eq!(generator.generate(&requests(1)).unwrap(), ["4 tokens"]);
    assert_eq!(mock.asked().last().unwrap().body["prompt"], json!([[256, 81, 32, 48]]));

    // The server takes 64 tokens, of which 16 are the answer's.
    let long = Request::new("x".repeat(200), vec![], 16);
    assert_eq!(generator.generate(&[long]).unwrap(), ["48 tokens"]);
    assert_eq!(generator.prompts_cut(), 1);
    let error = generator.generate(&[Request::new("x", vec![], 64)]).unwrap_err();
    assert!(matches!(error.downcast_ref::<Error>(), Some(Error::NoRoom { .. })), "{error}");
}

#[test]
fn text_is_sent_where_token_ids_are_not_taken() {
    let refusals = [
        Reply::Status(400, "", r#"{"error": {"message": "prompt must be a string"}}"#.into()),
        Reply::Status(422, "", String::new()),
        Reply::Status(500, "", "Internal Server Error".into()),
        // Taken for several prompts.
        Reply::Json(json!({"choices": [{"text": "a"}, {"text": "b"}]})),
        // Taken for another prompt.
        Reply::Json(json!({"choices": [{"text": "a"}], "usage": {"prompt_tokens": 3}})),
    ];
    for refusal in refusals {
        let shown = format!("{refusal:?}");
        let mock = Mock::new(move |asked| match asked.body["prompt"].is_string() {
            true => backwards(asked),
            false => refusal.clone(),
        });
        let vocabulary = Vocabulary::new(bytes);
        let mut generator = EndpointGenerator::new(mock.endpoint(), Some(vocabulary)).unwrap();
        assert!(!generator.sends_ids(), "{shown}");
        assert_eq!(generator.generate(&requests(2)).unwrap(), answers(2), "{shown}");
        // A 500 may pass, and the call is made again before it is taken for a refusal.
        let tries = if shown.contains("500") { 9 } else { 1 };
        assert_eq!(mock.asked().len(), tries + 2, "{shown}");
    }
}

#[test]
fn a_stop_ends_it_at_once() {
    let mock =
        Mock::new(|asked| Reply::After(Duration::from_millis(200), Box::new(backwards(asked))));
    let endpoint = mock.endpoint();
    let calls = AtomicUsize::new(0);
    let should_stop = || calls.fetch_add(1, Ordering::SeqCst) > 0;
    let mut generator = EndpointGenerator::new_stopped_by(endpoint, None, should_stop).unwrap();
    let error = generator.generate(&requests(20)).unwrap_err();
    assert!(error.downcast_ref::<Error>().unwrap().is_stop(), "{error}");
    assert!(mock.asked().len() <= 8, "{}", mock.asked().len());
}
