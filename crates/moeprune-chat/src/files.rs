//! Templates in the files of a tokenizer.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::{
    Error, SpecialTokens,
    special::{CONFIG, kind, object},
};

const JINJA: &str = "chat_template.jinja";

/// What a model's folder has of chat templates, as bytes. Leave out what is not there.
#[derive(Debug, Clone, Default)]
pub struct TemplateFiles<'a> {
    /// `tokenizer_config.json`: the special tokens, and under `chat_template` a template or a list
    /// of named ones.
    pub tokenizer_config: Option<&'a [u8]>,
    /// `chat_template.jinja`: the template named `default`. Where it is there, templates in
    /// `tokenizer_config.json` do not count.
    pub chat_template_jinja: Option<&'a [u8]>,
    /// `additional_chat_templates/NAME.jinja` by NAME. These too take the place of those in
    /// `tokenizer_config.json`.
    pub additional: BTreeMap<String, &'a [u8]>,
}

/// A template's source, and what messages call it.
pub(crate) struct Source {
    pub(crate) title: String,
    pub(crate) text: String,
}

/// All templates by name, and the special tokens.
pub(crate) fn read(
    files: &TemplateFiles<'_>,
) -> Result<(BTreeMap<String, Source>, SpecialTokens), Error> {
    let config = match files.tokenizer_config {
        Some(bytes) => object(CONFIG, bytes)?,
        None => serde_json::Map::new(),
    };
    let special = SpecialTokens::of_object(&config)?;
    let mut sources = BTreeMap::new();
    if let Some(bytes) = files.chat_template_jinja {
        sources.insert(DEFAULT.to_owned(), decoded(JINJA.to_owned(), bytes)?);
    }
    for (name, bytes) in &files.additional {
        let title = format!("additional_chat_templates/{name}.jinja");
        sources.insert(name.clone(), decoded(title, bytes)?);
    }
    if sources.is_empty() {
        sources = in_config(config.get("chat_template"))?;
    }
    Ok((sources, special))
}

pub(crate) const DEFAULT: &str = "default";
pub(crate) const TOOL_USE: &str = "tool_use";

fn decoded(title: String, bytes: &[u8]) -> Result<Source, Error> {
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    match std::str::from_utf8(bytes) {
        // Python reads lines of any system as its own.
        Ok(text) => Ok(Source { title, text: text.replace("\r\n", "\n").replace('\r', "\n") }),
        Err(error) => Err(Error::NotUtf8 { template: title, at: error.valid_up_to() }),
    }
}

fn in_config(value: Option<&Value>) -> Result<BTreeMap<String, Source>, Error> {
    let mut sources = BTreeMap::new();
    match value {
        None | Some(Value::Null) => {}
        Some(Value::String(text)) => {
            let title = format!("the chat template of {CONFIG}");
            sources.insert(DEFAULT.to_owned(), Source { title, text: text.clone() });
        }
        Some(Value::Array(list)) => {
            for (at, entry) in list.iter().enumerate() {
                let (name, source) = named(at, entry)?;
                if sources.insert(name.to_owned(), source).is_some() {
                    return Err(Error::Twice { file: CONFIG.to_owned(), name: name.to_owned() });
                }
            }
        }
        Some(Value::Object(map)) => {
            for (name, text) in map {
                let key = format!("chat_template.{name}");
                let text = text.as_str().ok_or_else(|| wrong(key, "a string", text))?;
                let title = format!("the chat template `{name}` of {CONFIG}");
                sources.insert(name.clone(), Source { title, text: text.to_owned() });
            }
        }
        Some(other) => {
            let expected = "a string or a list of {name, template}";
            return Err(wrong("chat_template".to_owned(), expected, other));
        }
    }
    Ok(sources)
}

fn named(at: usize, entry: &Value) -> Result<(&str, Source), Error> {
    let text_of = |key: &str| {
        let value = entry.get(key).unwrap_or(&Value::Null);
        value.as_str().ok_or_else(|| wrong(format!("chat_template[{at}].{key}"), "a string", value))
    };
    let (name, text) = (text_of("name")?, text_of("template")?);
    let title = format!("the chat template `{name}` of {CONFIG}");
    Ok((name, Source { title, text: text.to_owned() }))
}

fn wrong(key: String, expected: &'static str, got: &Value) -> Error {
    Error::Key { file: CONFIG.to_owned(), key, expected, got: kind(got).to_owned() }
}
