//! Which template is taken from a model's files, and what it sees.

use std::collections::BTreeMap;

use moeprune_chat::{
    Chat, ChatTemplate, Error, Moment, SpecialTokens, TemplateFiles, render_plainly,
};
use serde_json::{Map, Value, json};

fn user() -> Vec<Value> {
    vec![json!({"role": "user", "content": "Hi"})]
}

#[track_caller]
fn check(config: Option<&str>, jinja: Option<&str>, expected: Option<&str>) {
    let template = ChatTemplate::of_files(config.map(str::as_bytes), jinja.map(str::as_bytes));
    let text = template.unwrap().map(|template| template.render(&Chat::of(&user())).unwrap());
    assert_eq!(text.as_deref(), expected);
}

#[test]
fn which_template() {
    check(None, None, None);
    check(Some("{}"), None, None);
    check(Some(r#"{"chat_template": null}"#), None, None);
    check(Some(r#"{"chat_template": []}"#), None, None);
    check(Some(r#"{"chat_template": "a{{ messages[0].content }}"}"#), None, Some("aHi"));
    check(Some("\u{feff}{\"chat_template\": \"a\"}"), None, Some("a"));
    check(Some(r#"{"chat_template": "a"}"#), Some("b"), Some("b"));
    check(None, Some("\u{feff}b\r\nc"), Some("b\nc"));
    check(Some(r#"{"bos_token": "<s>"}"#), Some("{{ bos_token }}"), Some("<s>"));
    let list = r#"{"chat_template": [{"name": "rag", "template": "r"}, {"name": "default", "template": "d"}]}"#;
    check(Some(list), None, Some("d"));
    check(Some(r#"{"chat_template": {"default": "d", "tool_use": "t"}}"#), None, Some("d"));
}

#[test]
fn templates_by_name() {
    let config = br#"{"chat_template": [{"name": "default", "template": "d"}, {"name": "tool_use", "template": "t{{ tools|length }}"}, {"name": "rag", "template": "r"}]}"#;
    let template = ChatTemplate::of_files(Some(config), None).unwrap().unwrap();
    assert_eq!(template.names().collect::<Vec<_>>(), ["default", "rag", "tool_use"]);
    let (messages, tools) = (user(), json!([]));
    let chat = Chat::of(&messages);
    let with_tools = Chat { tools: Some(&tools), ..chat };
    assert_eq!(template.render(&chat).unwrap(), "d");
    assert_eq!(template.render(&with_tools).unwrap(), "t0");
    assert_eq!(template.render_named("rag", &chat).unwrap(), "r");
    assert!(template.takes_tools());
    let error = template.render_named("x", &chat).unwrap_err().to_string();
    assert_eq!(error, "there is no template named `x`, only `default`, `rag`, `tool_use`");
}

#[test]
fn further_files() {
    let additional = BTreeMap::from([("tool_use".to_owned(), &b"t"[..])]);
    let config = &br#"{"chat_template": "c"}"#[..];
    let of = |jinja: Option<&'static [u8]>| TemplateFiles {
        tokenizer_config: Some(config),
        chat_template_jinja: jinja,
        additional: additional.clone(),
    };
    let template = ChatTemplate::of(&of(Some(b"j"))).unwrap().unwrap();
    assert_eq!(template.names().collect::<Vec<_>>(), ["default", "tool_use"]);
    let template = ChatTemplate::of(&of(None)).unwrap().unwrap();
    let error = template.render(&Chat::of(&user())).unwrap_err();
    assert!(matches!(error, Error::NoDefault { .. }), "{error}");
    assert!(!ChatTemplate::new("x", &SpecialTokens::default()).unwrap().takes_tools());
}

#[test]
fn wrong_files() {
    #[track_caller]
    fn check(config: Option<&[u8]>, jinja: Option<&[u8]>, expected: &str) {
        let error = ChatTemplate::of_files(config, jinja).unwrap_err().to_string();
        assert!(error.starts_with(expected), "{error}");
    }
    check(Some(b"[]"), None, "tokenizer_config.json is no JSON object: invalid type: sequence");
    check(Some(b"{"), None, "tokenizer_config.json is no JSON object: EOF");
    check(
        Some(b"{\"chat_template\": 5}"),
        None,
        "tokenizer_config.json: `chat_template` is a number, expected a string or a list",
    );
    check(
        Some(b"{\"chat_template\": [{\"name\": \"a\"}]}"),
        None,
        "tokenizer_config.json: `chat_template[0].template` is null, expected a string",
    );
    check(
        Some(b"{\"chat_template\": [5]}"),
        None,
        "tokenizer_config.json: `chat_template[0].name` is null",
    );
    check(
        Some(b"{\"chat_template\": [{\"name\": \"a\", \"template\": \"\"}, {\"name\": \"a\", \"template\": \"\"}]}"),
        None,
        "tokenizer_config.json: two templates are named `a`",
    );
    check(
        Some(b"{\"bos_token\": 5}"),
        None,
        "tokenizer_config.json: `bos_token` is a number, expected a string or an object",
    );
    check(
        Some(b"{\"bos_token\": {\"content\": 1}}"),
        None,
        "tokenizer_config.json: `bos_token` is an object",
    );
    check(None, Some(b"a\xff"), "chat_template.jinja is no UTF-8 at byte 1");
    check(None, Some(b"a\n{% if %}"), "chat_template.jinja, line 2: unexpected");
    check(
        None,
        Some(b"a\n\n{{ x"),
        "chat_template.jinja, line 3: what begins with `{{ x` does not end",
    );
    check(None, Some(b"{{ x|nosuch(1 }}"), "chat_template.jinja, line 1: ");
}

#[test]
fn what_fails_names_the_line() {
    #[track_caller]
    fn check(template: &str, expected: &str) {
        let template = ChatTemplate::new(template, &SpecialTokens::default()).unwrap();
        assert_eq!(template.render(&Chat::of(&user())).unwrap_err().to_string(), expected);
    }
    check(
        "\n{{ raise_exception('Only \\'user\\' ' ~ 5) }}",
        "the chat template, line 2, refuses the conversation: Only 'user' 5",
    );
    check(
        "{% macro m() %}\n{{ raise_exception('no') }}{% endmacro %}\n{{ m() }}",
        "the chat template, line 2, refuses the conversation: no",
    );
    check(
        "\n\n{{ a.b }}",
        "the chat template, line 3: undefined value; correct the message or the template",
    );
    check(
        "{{ [].append(1) }}",
        "the chat template, line 1: list.append changes a list, which templates may not; build a new one with `+`; correct the message or the template",
    );
}

#[test]
fn messages_are_prepared() {
    let template = "{% for m in messages %}{{ m|tojson }}{% endfor %}";
    let template = ChatTemplate::new(template, &SpecialTokens::default()).unwrap();
    let render = |messages: &[Value]| {
        template.render(&Chat::of(messages)).map_err(|error| error.to_string())
    };
    let text = render(&[json!({"role": "a", "content": null, "x": {"y": null}})]);
    assert_eq!(text.unwrap(), r#"{"role": "a", "x": {"y": null}}"#);
    let text = render(&[json!({"reasoning": "r", "thinking": "t"})]);
    assert_eq!(text.unwrap(), r#"{"thinking": "t", "reasoning": "r", "reasoning_content": "t"}"#);
    assert_eq!(render(&[]).unwrap_err(), "the conversation has no messages; leave it out");
    let wrong = "message 2: it is a string, expected an object with `role` and `content`";
    assert_eq!(render(&[json!({}), json!("x")]).unwrap_err(), wrong);
}

#[test]
fn variables_and_moments() {
    let mut special = SpecialTokens::default();
    special.insert("bos_token", "<s>");
    let template =
        ChatTemplate::new("{{ bos_token }}{{ x }}{{ strftime_now('%d %B %Y') }}", &special)
            .unwrap();
    let variables: Map<String, Value> =
        json!({"x": 1, "bos_token": "<t>"}).as_object().unwrap().clone();
    let messages = user();
    let chat = Chat { variables: &variables, ..Chat::of(&messages) };
    assert_eq!(template.render(&chat).unwrap(), "<t>101 January 2025");
    let moment = Moment::new(2024, 2, 29, [23, 59, 59]).unwrap();
    assert_eq!(template.at(moment).render(&Chat::of(&messages)).unwrap(), "<s>29 February 2024");
    assert!(
        Moment::new(2023, 2, 29, [0, 0, 0]).is_none()
            && Moment::new(2023, 2, 9, [24, 0, 0]).is_none()
    );
}

#[test]
fn plainly() {
    #[track_caller]
    fn check(messages: Value, expected: &str) {
        let text = render_plainly(messages.as_array().unwrap());
        assert_eq!(text.unwrap_or_else(|error| format!("error: {error}")), expected);
    }
    check(
        json!([{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]),
        "User: a\n\nAssistant: b",
    );
    check(
        json!([{"role": "user", "content": ["a", {"type": "text", "text": "b"}, {"type": "image"}]}]),
        "User: a\nb\n{\"type\":\"image\"}",
    );
    check(
        json!([{"role": "assistant", "content": null, "reasoning_content": "r", "tool_calls": [{"name": "f"}]}]),
        "Assistant: r\n[{\"name\":\"f\"}]",
    );
    check(json!([{"role": "über"}]), "Über: ");
    check(json!([]), "error: the conversation has no messages; leave it out");
    check(json!([{"content": "a"}]), "error: message 1: it has no `role`");
    check(json!([{"role": 5}]), "error: message 1: `role` is a number, expected a string");
    check(
        json!([{"role": "a", "content": 5}]),
        "error: message 1: `content` is a number, expected a string or a list of parts",
    );
    check(json!(["a"]), "error: message 1: it is a string, expected an object");
}
