//! Conversations, by a chat template and without one.

use moeprune_engine::Model as _;
use moeprune_engine::{ChatOptions, TextFiles, warnings_of_text};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::model::{Folder, Reader};

#[derive(Deserialize)]
struct Golden {
    cases: Vec<Case>,
}

/// What transformers makes of a conversation.
#[derive(Deserialize)]
struct Case {
    template: String,
    messages: Value,
    tools: Option<Value>,
    ids: Vec<u32>,
}

#[test]
fn ids_are_those_of_transformers() {
    let golden: Golden = serde_json::from_str(include_str!("conversations.json")).unwrap();
    assert!(golden.cases.len() >= 6);
    for case in golden.cases {
        let model = Reader::new().with_template(&case.template);
        // Tools beside the messages, and tools that are given to all conversations.
        let own = json!({ "messages": case.messages, "tools": case.tools }).to_string();
        let bare = json!({ "messages": case.messages }).to_string();
        let folder = Folder::new([("own", &own), ("bare", &bare)]);
        let own = folder.path("own");
        assert_eq!(model.row(TextFiles::from(&own)).unwrap(), case.ids, "{}", case.template);
        let bare = folder.path("bare");
        let chat = ChatOptions { system: None, tools: case.tools.as_ref() };
        assert_eq!(model.row(TextFiles::from(&bare).with_chat(chat)).unwrap(), case.ids);
    }
}

const ROLES: &str =
    "{{ bos_token }}{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}";

/// The text of a file of one conversation, by its tokens.
fn text(model: &Reader, file: &str, chat: ChatOptions<'_>) -> Result<String, String> {
    let folder = Folder::new([("c.jsonl", file)]);
    let path = folder.path("c.jsonl");
    let ids = model.row(TextFiles::from(&path).with_chat(chat));
    let ids = ids.map_err(|e| e.replace(&path.display().to_string(), "c.jsonl"))?;
    let tokenizer = moeprune_engine::load_tokenizer(model).unwrap();
    Ok(tokenizer.decode(&ids, false).unwrap())
}

#[test]
fn all_dialects_are_conversations() {
    let model = Reader::new().with_template(ROLES);
    let check = |file: &str, expected: &str| {
        assert_eq!(text(&model, file, ChatOptions::default()).unwrap(), expected, "{file}");
    };
    let turns = "<s>user: a\nassistant: b\n";
    check(
        r#"{"messages":[{"role":"user","content":"a"},{"role":"assistant","content":"b"}]}"#,
        turns,
    );
    check(r#"{"conversations":[{"from":"human","value":"a"},{"from":"gpt","value":"b"}]}"#, turns);
    check(r#"{"instruction":"a","input":"","output":"b"}"#, turns);
    check(r#"{"prompt":"a","completion":"b"}"#, turns);
}

#[test]
fn a_system_message_is_put_in_where_there_is_none() {
    let model = Reader::new().with_template(ROLES);
    let chat = ChatOptions { system: Some("be brief"), tools: None };
    let without = r#"{"messages":[{"role":"user","content":"a"}]}"#;
    assert_eq!(text(&model, without, chat).unwrap(), "<s>system: be brief\nuser: a\n");
    let with = r#"{"messages":[{"role":"system","content":"x"},{"role":"user","content":"a"}]}"#;
    assert_eq!(text(&model, with, chat).unwrap(), "<s>system: x\nuser: a\n");
}

#[test]
fn without_a_template_they_are_put_plainly_and_it_is_said() {
    let model = Reader::new();
    let file = r#"{"messages":[{"role":"user","content":"How are you?"},{"role":"assistant","content":"Well."}]}"#;
    let plain = text(&model, file, ChatOptions::default()).unwrap();
    assert!(plain.starts_with("<s>") && plain.contains("How are you?"), "{plain}");
    let folder = Folder::new([("c.jsonl", file)]);
    let path = folder.path("c.jsonl");
    let calibration = model.calibration(TextFiles::from(&path), 4);
    let notes = warnings_of_text(&calibration.tag, model.spec());
    assert!(notes[0].starts_with("note: the model has no chat template"), "{notes:?}");
    let by_template = Reader::new().with_template(ROLES);
    let calibration = by_template.calibration(TextFiles::from(&path), 4);
    assert_eq!(warnings_of_text(&calibration.tag, model.spec()), Vec::<String>::new());
}

#[test]
fn the_file_of_a_template_wins() {
    let mut model = Reader::new().with_template(ROLES);
    let jinja = b"{% for m in messages %}{{ m.content }}!{% endfor %}".to_vec();
    model.files.insert("chat_template.jinja".into(), jinja);
    let file = r#"{"messages":[{"role":"user","content":"a"}]}"#;
    assert_eq!(text(&model, file, ChatOptions::default()).unwrap(), "a!");
}

#[test]
fn arguments_of_calls_are_what_the_template_takes() {
    let call = |arguments: &str| {
        format!(
            r#"{{"messages":[{{"role":"assistant","content":"","tool_calls":[{{"type":"function","function":{{"name":"f","arguments":{arguments}}}}}]}}]}}"#
        )
    };
    let each = "{% for m in messages %}{% for c in m.tool_calls %}";
    let (string, object) = (call(r#""{\"a\": 1}""#), call(r#"{"a": 1}"#));
    let check = |template: &str, file: &str, expected: &str| {
        let template = format!("{each}{template}{{% endfor %}}{{% endfor %}}");
        let model = Reader::new().with_template(&template);
        assert_eq!(text(&model, file, ChatOptions::default()).unwrap(), expected, "{template}");
    };
    // What is there is handed over, as transformers does.
    check("{{ c.function.arguments | tojson }}", &object, r#"{"a": 1}"#);
    check("{{ c.function.arguments | tojson }}", &string, r#""{\"a\": 1}""#);
    check("{{ 'f' + c.function.arguments }}", &string, r#"f{"a": 1}"#);
    // A template that refuses the string receives the object.
    let items = "{% for k, v in c.function.arguments | items %}key {{ k }}{% endfor %}";
    check(items, &object, "key a");
    check(items, &string, "key a");
}

#[test]
fn what_cannot_be_given_is_refused() {
    let tools = json!([{ "type": "function", "function": { "name": "add" } }]);
    let with_tools = ChatOptions { system: None, tools: Some(&tools) };
    let chat = r#"{"messages":[{"role":"user","content":"a"}]}"#;
    let check = |model: &Reader, file: &str, options, expected: &str| {
        let error = text(model, file, options).unwrap_err();
        assert!(error.contains(expected), "{error}");
    };
    check(&Reader::new(), chat, with_tools, "is missing");
    check(&Reader::new().with_template(ROLES), chat, with_tools, "takes none");
    let refuses = "{{ raise_exception('roles must alternate') }}";
    let default = ChatOptions::default();
    check(&Reader::new().with_template(refuses), chat, default, "roles must alternate");
    check(&Reader::new().with_template(refuses), chat, default, "c.jsonl line 1: ");
    check(&Reader::new().with_template("{% for"), chat, default, "chat template of reader");
}
