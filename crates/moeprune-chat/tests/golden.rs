//! What transformers makes of real templates, byte for byte.

use std::{collections::BTreeMap, fs, path::Path};

use moeprune_chat::{Chat, ChatTemplate, SpecialTokens};
use serde_json::{Map, Value};

fn tests() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests"))
}

fn json(path: &Path) -> Value {
    serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

/// The tokens that scripts/chat-templates.py has.
fn tokens() -> SpecialTokens {
    let config =
        br#"{"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}"#;
    SpecialTokens::of_config(config).unwrap()
}

fn rendered(template: &str, chat: &Value) -> Result<String, String> {
    let template = ChatTemplate::new(template, &tokens()).map_err(|error| error.to_string())?;
    let none = Map::new();
    let chat = Chat {
        messages: chat["messages"].as_array().unwrap(),
        tools: chat.get("tools"),
        add_generation_prompt: chat.get("add_generation_prompt") == Some(&Value::Bool(true)),
        variables: chat.get("variables").and_then(Value::as_object).unwrap_or(&none),
    };
    template.render(&chat).map_err(|error| error.to_string())
}

/// Where the two texts part, if they do.
fn difference(got: &Result<String, String>, expected: &Value) -> Option<String> {
    match (got, expected.as_str()) {
        (Err(_), None) => None,
        (Ok(text), Some(expected)) if text == expected => None,
        (Ok(text), Some(expected)) => {
            let same = text.chars().zip(expected.chars()).take_while(|(a, b)| a == b).count();
            let near = |text: &str| -> String {
                text.chars().skip(same.saturating_sub(30)).take(100).collect()
            };
            Some(format!("got      {:?}\n  expected {:?}", near(text), near(expected)))
        }
        (Ok(text), None) => Some(format!("refused by transformers, got {text:?}")),
        (Err(error), Some(_)) => Some(format!("rendered by transformers, got {error}")),
    }
}

/// All conversations with a template.
fn check_all(templates: &Path, golden: &Path) -> Vec<String> {
    let chats = json(&tests().join("conversations.json"));
    let mut files: Vec<_> =
        fs::read_dir(templates).unwrap().map(|file| file.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "jinja"));
    files.sort();
    let mut wrong = Vec::new();
    for path in files {
        let name = path.file_stem().unwrap().to_str().unwrap();
        let template = fs::read_to_string(&path).unwrap();
        let expected = json(&golden.join(format!("{name}.json")));
        for chat in chats.as_array().unwrap() {
            let of = chat["name"].as_str().unwrap();
            if let Some(difference) = difference(&rendered(&template, chat), &expected[of]) {
                wrong.push(format!("{name}, {of}:\n  {difference}"));
            }
        }
    }
    wrong
}

#[test]
fn real_templates() {
    let wrong = check_all(&tests().join("templates"), &tests().join("golden"));
    assert!(wrong.is_empty(), "{} differ\n{}", wrong.len(), wrong.join("\n"));
}

/// Small templates with the text that transformers makes of each, and whether it is known to differ here.
#[test]
fn expressions() {
    let cases = json(&tests().join("expressions.json"));
    let known: Vec<&str> =
        cases["different"].as_array().unwrap().iter().map(|case| case.as_str().unwrap()).collect();
    let mut wrong = Vec::new();
    for case in json(&tests().join("golden/expressions.json")).as_array().unwrap() {
        let template = case[0].as_str().unwrap();
        let difference = difference(&rendered(template, &cases["chat"]), &case[1]);
        match (difference, known.contains(&template)) {
            (Some(difference), false) => wrong.push(format!("{template}\n  {difference}")),
            (None, true) => {
                wrong.push(format!("{template}\n  is the same: take it out of the list"))
            }
            _ => {}
        }
    }
    assert!(wrong.is_empty(), "{} are wrong\n{}", wrong.len(), wrong.join("\n"));
}

/// Templates that are not in the repository: a folder of them with references beside them, as
/// `scripts/chat-templates.py other` writes it.
#[test]
#[ignore = "wants a folder of templates in MOEPRUNE_CHAT_TEMPLATES"]
fn others() {
    let folder = std::env::var_os("MOEPRUNE_CHAT_TEMPLATES").expect("names a folder");
    let wrong = check_all(Path::new(&folder), Path::new(&folder));
    assert!(wrong.is_empty(), "{} differ\n{}", wrong.len(), wrong.join("\n"));
}

/// Every template is rendered in some conversations and refused in none without reason.
#[test]
fn references_are_of_use() {
    let mut rendered = BTreeMap::new();
    for file in fs::read_dir(tests().join("templates")).unwrap() {
        let path = file.unwrap().path();
        let Some(name) =
            path.file_stem().filter(|_| path.extension().is_some_and(|e| e == "jinja"))
        else {
            continue;
        };
        let golden = json(&tests().join("golden").join(name).with_extension("json"));
        let texts = golden.as_object().unwrap().values().filter(|text| text.is_string()).count();
        rendered.insert(name.to_owned(), texts);
    }
    assert!(rendered.len() >= 10);
    assert!(rendered.values().all(|&texts| texts >= 15), "{rendered:?}");
}
