//! Finding the server and the model's name.

use moeprune_endpoint::{Endpoint, Error};
use serde_json::{Value, json};

use crate::mock::{Mock, Reply, options, text};

fn connect(models: Reply, wanted: Option<&str>) -> Result<Endpoint, Error> {
    let mock = Mock::with_models(models, |_| text(""));
    let mut options = options();
    options.model = wanted.map(str::to_owned);
    Endpoint::connect(&mock.url(), options)
}

fn list(names: &[&str]) -> Reply {
    let data: Vec<Value> = names.iter().map(|name| json!({"id": name})).collect();
    Reply::Json(json!({"object": "list", "data": data}))
}

#[test]
fn the_model_that_is_served() {
    let check = |models: Reply, wanted: Option<&str>, expected: &str| {
        let endpoint = connect(models, wanted).unwrap();
        assert_eq!(endpoint.model(), expected);
    };
    check(list(&["m"]), None, "m");
    check(list(&["a", "b"]), Some("b"), "b");
    check(Reply::Status(404, "", String::new()), Some("b"), "b");
    check(Reply::Chunked(json!({"data": [{"id": "chunked"}]}), 3), None, "chunked");
}

#[test]
fn what_is_said_where_none_is_found() {
    let check = |models: Reply, wanted: Option<&str>, expected: &[&str]| {
        let shown = format!("{models:?}");
        let said = connect(models, wanted).unwrap_err().to_string();
        for part in expected {
            assert!(said.contains(part), "{shown}: {said}");
        }
    };
    let status = |status, body: &str| Reply::Status(status, "", body.to_owned());
    check(list(&["a", "b"]), None, &["several models", "--endpoint-model", "a, b"]);
    check(list(&["a", "b"]), Some("c"), &["no model `c`", "a, b"]);
    check(list(&[]), None, &["names no model", "--endpoint-model"]);
    check(status(404, ""), None, &["names no model", "--endpoint-model"]);
    check(
        status(401, r#"{"error": "Unauthorized"}"#),
        None,
        &["401", "Unauthorized", "set OPENAI_API_KEY"],
    );
    check(status(503, "loading"), None, &["503", "loading"]);
    check(status(301, ""), None, &["301"]);
    check(
        Reply::Status(308, "location: http://elsewhere/v1\r\n", String::new()),
        None,
        &["308", "http://elsewhere/v1"],
    );
    check(Reply::Json(json!({"models": []})), None, &["no list `data` of models"]);
    check(
        Reply::Raw(b"HTTP/1.1 200 OK\r\n\r\n<html>Welcome".to_vec()),
        None,
        &["not JSON", "<html>Welcome"],
    );
    check(Reply::Raw(b"SSH-2.0-OpenSSH_9.2\r\n".to_vec()), None, &["/v1/models"]);
    check(Reply::Hangup, None, &["/v1/models"]);
}

#[test]
fn a_list_that_fails_in_passing_is_asked_for_again() {
    let busy = Mock::with_models(Reply::Status(503, "", "loading".into()), |_| text(""));
    let error = Endpoint::connect(&busy.url(), options()).unwrap_err();
    assert!(error.is_not_there() && error.to_string().contains("after 9 attempts"), "{error}");
    assert_eq!(busy.all().len(), 9);
    let cut = Mock::with_models(Reply::Cut(json!({"data": [{"id": "m"}]}), 5), |_| text(""));
    Endpoint::connect(&cut.url(), options()).unwrap_err();
    assert_eq!(cut.all().len(), 9);
}

#[test]
fn what_is_there_is_not_what_was_meant() {
    // A server of TLS answers so.
    let said =
        connect(Reply::Raw(b"\x15\x03\x01\0\x02\x02\x0a".to_vec()), None).unwrap_err().to_string();
    assert!(said.contains("is it https"), "{said}");
    let said = connect(Reply::Hangup, None).unwrap_err().to_string();
    assert!(said.contains("is it https"), "{said}");
    let said =
        Endpoint::connect("http://no-such-host.invalid:80", options()).unwrap_err().to_string();
    assert!(said.contains("no host has this name"), "{said}");
    let late = Reply::After(std::time::Duration::from_secs(60), Box::new(list(&["m"])));
    let mock = Mock::with_models(late, |_| text(""));
    let mut hasty = options();
    hasty.timeout = std::time::Duration::from_millis(100);
    let said = Endpoint::connect(&mock.url(), hasty).unwrap_err().to_string();
    assert!(said.contains("still starting") && !said.contains("--concurrency"), "{said}");
}

#[test]
fn a_key_that_a_server_repeats_is_not_shown() {
    let mut with_key = options();
    with_key.key = Some("sk-secret".into());
    let denied = Reply::Status(401, "", r#"{"error": "no such key: sk-s\u0065cret"}"#.into());
    let denied = Mock::with_models(denied, |_| text(""));
    let said = Endpoint::connect(&denied.url(), with_key.clone()).unwrap_err().to_string();
    assert!(said.contains("no such key: …"), "{said}");
    let to = "location: http://me:word@elsewhere/v1?key=sk-secret\r\n";
    let moved = Mock::with_models(Reply::Status(308, to, String::new()), |_| text(""));
    let said = Endpoint::connect(&moved.url(), with_key.clone()).unwrap_err().to_string();
    assert!(said.contains("@elsewhere/v1"), "{said}");
    assert!(!said.contains("secret") && !said.contains("word"), "{said}");
    let mock = Mock::with_models(list(&["sk-secret"]), |_| text(""));
    assert_eq!(mock.endpoint_with(with_key).model(), "…");
    for key in ["schlüssel", "a\u{7}b"] {
        let mut odd = options();
        odd.key = Some(key.into());
        let said = Endpoint::connect(&mock.url(), odd).unwrap_err().to_string();
        assert!(said.contains("OPENAI_API_KEY") && !said.contains(key), "{said}");
    }
}

#[test]
fn names_do_not_reach_the_terminal_raw() {
    let name = format!("m\u{1b}[31m\u{202e}{}", "x".repeat(1 << 20));
    let endpoint = connect(list(&[&name]), None).unwrap();
    assert_eq!(endpoint.model(), name);
    assert_eq!(endpoint.shown_model(), format!("m [31m {}…", "x".repeat(200 - 7)));
}

#[test]
fn a_timeout_without_an_end_has_one() {
    let mock = Mock::new(|_| text(""));
    let mut patient = options();
    patient.timeout = std::time::Duration::from_secs(u64::MAX);
    assert_eq!(mock.endpoint_with(patient).model(), "m");
}

#[test]
fn nothing_listens() {
    let url = Mock::new(|_| text("")).url();
    // The port was free a moment ago and is again.
    let listener =
        std::net::TcpListener::bind(url.trim_start_matches("http://").trim_end_matches("/v1"));
    drop(listener);
    let said = Endpoint::connect("http://127.0.0.1:1/v1", options()).unwrap_err().to_string();
    assert!(said.contains("no server takes a connection there; is it running"), "{said}");
}

#[test]
fn keys_are_sent_and_not_shown() {
    let mock = Mock::new(|_| text(""));
    let mut with_key = options();
    with_key.key = Some(" sk-secret\n".into());
    let endpoint = mock.endpoint_with(with_key);
    assert_eq!(mock.all()[0].header("authorization"), Some("Bearer sk-secret"));
    assert!(!format!("{endpoint:?}").contains("secret"));
    mock.endpoint();
    assert_eq!(mock.all()[1].header("authorization"), None);

    let denied = Mock::with_models(Reply::Status(403, "", String::new()), |_| text(""));
    let mut with_key = options();
    with_key.key = Some("sk-secret".into());
    let said = Endpoint::connect(&denied.url(), with_key).unwrap_err().to_string();
    assert!(said.contains("does not accept the key in OPENAI_API_KEY"), "{said}");
    assert!(!said.contains("secret"), "{said}");
}
