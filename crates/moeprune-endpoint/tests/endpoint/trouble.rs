//! Servers that are slow, overloaded, restarted or wrong.

use std::{
    sync::Mutex,
    time::{Duration, Instant},
};

use moeprune_endpoint::{
    Endpoint, EndpointGenerator, EndpointOptions, EndpointScorer, Error, Vocabulary,
};
use moeprune_eval::{Generator as _, Request};
use serde_json::{Value, json};

use crate::{
    generating::bytes,
    mock::{Asked, Mock, Reply, options, text},
};

fn ask_with(
    options: EndpointOptions,
    answer: impl Fn(&Asked) -> Reply + Send + Sync + 'static,
) -> (Result<Vec<String>, String>, Mock, u64) {
    let mock = Mock::new(answer);
    let endpoint = mock.endpoint_with(options);
    let mut generator = EndpointGenerator::new(endpoint.clone(), None).unwrap();
    let found = generator.generate(&[Request::new("Q", vec![], 16)]);
    let found = found.map_err(|error| error.downcast::<Error>().unwrap().to_string());
    (found, mock, endpoint.repeated())
}

/// The first answers are these, the ones after them right.
fn first(replies: Vec<Reply>) -> impl Fn(&Asked) -> Reply + Send + Sync + 'static {
    move |asked| replies.get(asked.number).cloned().unwrap_or_else(|| text(" 42"))
}

fn good() -> Value {
    json!({"choices": [{"index": 0, "text": " 42"}]})
}

#[test]
fn what_passes_is_asked_again() {
    let status = |status, more| Reply::Status(status, more, "busy".into());
    let check = |replies: Vec<Reply>| {
        let (shown, count) = (format!("{replies:?}"), replies.len());
        let (found, mock, repeated) = ask_with(options(), first(replies));
        assert_eq!(found, Ok(vec![" 42".to_owned()]), "{shown}");
        assert_eq!((mock.asked().len(), repeated), (count + 1, count as u64), "{shown}");
    };
    check(vec![]);
    check(vec![status(429, "")]);
    check(vec![status(429, "retry-after: 0\r\n")]);
    check(vec![status(429, "retry-after: Wed, 21 Oct 2015 07:28:00 GMT\r\n")]);
    check(vec![status(500, ""), status(502, ""), status(503, ""), status(504, "")]);
    check(vec![Reply::Hangup]);
    check(vec![Reply::Hangup, Reply::Hangup, status(503, "")]);
    for at in [0, 1, 10, 30] {
        check(vec![Reply::Cut(good(), at)]);
        check(vec![Reply::CutWithoutLength(good(), at)]);
    }
    check(vec![Reply::Raw(
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\n{\"cho".to_vec(),
    )]);
    check(vec![Reply::Raw(b"HTTP/1.1 20".to_vec())]);
}

fn finished(reason: Value) -> Reply {
    Reply::Json(json!({"choices": [{"index": 0, "text": " 4", "finish_reason": reason}]}))
}

#[test]
fn an_answer_that_was_given_up_is_no_answer() {
    for reason in ["abort", "error"] {
        let (found, mock, _) = ask_with(options(), first(vec![finished(json!(reason))]));
        assert_eq!((found, mock.asked().len()), (Ok(vec![" 42".to_owned()]), 2), "{reason}");
        let mut once = options();
        once.retries = 1;
        let said = ask_with(once, move |_| finished(json!(reason))).0.unwrap_err();
        assert!(said.contains("given up by the server") && said.contains(reason), "{said}");
    }
    for reason in [json!("content_filter"), json!("tool_calls"), json!(3), json!("")] {
        let (shown, reply) = (reason.to_string(), finished(reason));
        let (found, mock, _) = ask_with(options(), move |_| reply.clone());
        let said = found.unwrap_err();
        assert!(said.contains("finish_reason") && said.contains(&shown), "{said}");
        assert_eq!(mock.asked().len(), 1, "{shown}");
    }
    for reason in [json!("stop"), json!("length"), Value::Null] {
        let reply = finished(reason);
        assert_eq!(ask_with(options(), move |_| reply.clone()).0, Ok(vec![" 4".to_owned()]));
    }
}

#[test]
fn a_first_call_that_fails_in_passing_says_nothing_of_the_server() {
    let status = |status| Reply::Status(status, "", "busy".into());
    let vocabulary = || Vocabulary::new(bytes);
    for reply in
        [status(429), status(408), status(500), status(503), Reply::Hangup, Reply::Cut(good(), 9)]
    {
        let (shown, first) = (format!("{reply:?}"), reply.clone());
        let mock = Mock::new(move |asked| match asked.number {
            0 => first.clone(),
            _ => text(" 42"),
        });
        let generator = EndpointGenerator::new(mock.endpoint(), Some(vocabulary())).unwrap();
        assert!(generator.sends_ids(), "{shown}");
        // Those that stay are no statement about token ids either, but for a 500.
        let is_500 = shown.contains("500");
        let mock = Mock::new(move |_| reply.clone());
        let found = EndpointGenerator::new(mock.endpoint(), Some(vocabulary()));
        assert_eq!(found.is_ok_and(|found| !found.sends_ids()), is_500, "{shown}");
        assert_eq!(mock.asked().len(), 9, "{shown}");
    }
}

#[test]
fn a_stop_ends_the_first_calls_too() {
    let never = || Reply::After(Duration::from_secs(60), Box::new(text("late")));
    let stopped = |error: Error| assert!(error.is_stop(), "{error}");
    let mock = Mock::with_models(never(), |_| text(""));
    stopped(Endpoint::connect_unless(&mock.url(), options(), &|| true).unwrap_err());
    let mock = Mock::new(move |_| never());
    let vocabulary = || Some(Vocabulary::new(bytes));
    let found = EndpointGenerator::new_stopped_by(mock.endpoint(), vocabulary(), || true);
    stopped(found.unwrap_err());
    for vocabulary in [None, vocabulary()] {
        let mut scorer = EndpointScorer::new(mock.endpoint(), vocabulary).stopped_by(|| true);
        stopped(scorer.probe().unwrap_err());
    }
}

#[test]
fn a_wait_of_none_is_the_clients_own() {
    let mut slow = options();
    slow.first_wait = Duration::from_millis(200);
    let began = Instant::now();
    let (found, ..) =
        ask_with(slow, first(vec![Reply::Status(429, "retry-after: 0\r\n", String::new())]));
    assert_eq!(found, Ok(vec![" 42".to_owned()]));
    // A wait can only be longer, so this holds on any machine.
    assert!(began.elapsed() >= Duration::from_millis(200));
}

#[test]
fn a_long_wait_is_said_once() {
    let mock = Mock::new(|_| Reply::Status(429, "retry-after: 60\r\n", "busy".into()));
    let endpoint = mock.endpoint();
    let said = Mutex::new(Vec::new());
    let should_stop = || {
        let mut said = said.lock().unwrap();
        said.extend(endpoint.news());
        !said.is_empty()
    };
    let mut generator =
        EndpointGenerator::new_stopped_by(endpoint.clone(), None, should_stop).unwrap();
    generator.generate(&[Request::new("Q", vec![], 16)]).unwrap_err();
    let said = said.lock().unwrap();
    assert_eq!(said.len(), 1);
    assert!(said[0].contains("waiting 60 s") && said[0].contains("429: busy"), "{said:?}");
}

#[test]
fn chunks_of_any_size_are_one_answer() {
    for size in [1, 2, 7, 1000] {
        let (found, ..) = ask_with(options(), move |_| Reply::Chunked(good(), size));
        assert_eq!(found, Ok(vec![" 42".to_owned()]), "{size}");
    }
}

#[test]
fn the_wait_that_a_server_asks_for_is_made() {
    let began = Instant::now();
    let busy = Reply::Status(429, "Retry-After: 0.3\r\n", String::new());
    let (found, ..) = ask_with(options(), first(vec![busy]));
    assert_eq!(found, Ok(vec![" 42".to_owned()]));
    // A wait can only be longer than asked for, so this holds on any machine.
    assert!(began.elapsed() >= Duration::from_millis(300));
    let busy = Reply::Status(429, "Retry-After: 86400\r\n", String::new());
    let said = ask_with(options(), first(vec![busy])).0.unwrap_err();
    assert!(said.contains("429 and asks to wait 86400 s"), "{said}");
}

#[test]
fn what_does_not_pass_is_given_up() {
    let (found, mock, _) = ask_with(options(), |_| Reply::Status(503, "", "overloaded".into()));
    let said = found.unwrap_err();
    assert!(
        said.contains("gave up after 9 attempts") && said.contains("503: overloaded"),
        "{said}"
    );
    assert_eq!(mock.asked().len(), 9);
    let mut never = options();
    never.retries = 0;
    let (found, mock, _) = ask_with(never, |_| Reply::Hangup);
    assert!(!found.as_ref().unwrap_err().contains("gave up"), "{found:?}");
    assert_eq!(mock.asked().len(), 1);
}

#[test]
fn refusals_are_not_asked_again() {
    let check = |reply: Reply, expected: &[&str]| {
        let shown = format!("{reply:?}");
        let (found, mock, _) = ask_with(options(), move |_| reply.clone());
        let said = found.unwrap_err();
        for part in expected {
            assert!(said.contains(part), "{shown}: {said}");
        }
        assert_eq!(mock.asked().len(), 1, "{shown}");
    };
    let status = |status, body: &str| Reply::Status(status, "", body.to_owned());
    check(status(400, r#"{"error": {"message": "bad prompt"}}"#), &["answers 400: bad prompt"]);
    check(
        status(400, r#"{"message": "This model's maximum context length is 64 tokens"}"#),
        &["maximum context length", "pass MODEL"],
    );
    check(status(401, ""), &["401", "set OPENAI_API_KEY"]);
    check(status(404, "no such model"), &["404: no such model", "--endpoint-model"]);
    check(status(501, ""), &["501"]);
    check(Reply::Json(json!([])), &["no list `choices`"]);
    check(Reply::Json(json!({"choices": []})), &["0 choices for 1 prompt"]);
    check(
        Reply::Json(json!({"choices": [{"text": "a"}, {"text": "b"}]})),
        &["2 choices for 1 prompt"],
    );
    check(Reply::Json(json!({"choices": [{"text": "a", "index": 7}]})), &["numbered 7"]);
    check(Reply::Json(json!({"choices": [{"message": {"content": "a"}}]})), &["no `text`"]);
    check(Reply::Json(json!({"error": {"message": "out of memory"}})), &["out of memory"]);
    check(
        Reply::Raw(b"HTTP/1.1 200 OK\r\n\r\n<html>nginx</html>".to_vec()),
        &["not JSON", "<html>nginx"],
    );
}

#[test]
fn a_body_without_an_end_is_not_read_to_it() {
    let mut bytes = b"HTTP/1.1 200 OK\r\n\r\n".to_vec();
    bytes.resize((64 << 20) + 4096, b' ');
    let (found, mock, _) = ask_with(options(), move |_| Reply::Raw(bytes.clone()));
    let said = found.unwrap_err();
    assert!(said.contains("more than 67108864 bytes"), "{said}");
    assert_eq!(mock.asked().len(), 1);
}

#[test]
fn a_slow_server_is_given_up_and_asked_again() {
    let mut hasty = options();
    hasty.timeout = Duration::from_millis(150);
    let slow = || Reply::After(Duration::from_secs(2), Box::new(text(" late")));
    let (found, ..) = ask_with(hasty.clone(), first(vec![slow()]));
    assert_eq!(found, Ok(vec![" 42".to_owned()]));
    hasty.retries = 1;
    let said = ask_with(hasty, first(vec![slow(), slow()])).0.unwrap_err();
    assert!(said.contains("no answer in time; raise --timeout or lower --concurrency"), "{said}");
}
