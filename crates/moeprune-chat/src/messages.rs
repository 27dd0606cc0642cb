//! What transformers does to messages before a template sees them.

use minijinja::Value as Seen;
use serde_json::{Map, Value};

use crate::{Chat, Error, SpecialTokens, compiled::Variables, python, special::kind};

/// How deep messages, tools and variables may be nested: as deep as JSON is read.
const MOST_DEEP: usize = 128;
/// The names of reasoning, the first of which counts.
const REASONING: [&str; 3] = ["reasoning_content", "thinking", "reasoning"];

/// The variables of a template.
pub(crate) fn variables(chat: &Chat<'_>, special: &SpecialTokens) -> Result<Variables, Error> {
    if chat.messages.is_empty() {
        return Err(Error::NoMessages);
    }
    let messages = chat.messages.iter().enumerate();
    let messages: Result<Vec<Value>, Error> =
        messages.map(|(at, message)| normalised(at, message)).collect();
    let null = Value::Null;
    let given = [
        ("messages", &Value::Array(messages?)),
        ("tools", chat.tools.unwrap_or(&null)),
        ("documents", &null),
        ("add_generation_prompt", &Value::Bool(chat.add_generation_prompt)),
    ];
    let mut values: Vec<(String, Seen)> =
        special.iter().map(|(key, token)| (key.to_owned(), Seen::from(token))).collect();
    let mut bytes = 0;
    let further = chat.variables.iter().map(|(name, value)| (name.as_str(), value));
    for (name, value) in given.into_iter().chain(further) {
        bytes += size(value);
        let too_deep = || Error::TooDeep { of: name.to_owned(), most: MOST_DEEP };
        let seen = python::from_json(value, MOST_DEEP).ok_or_else(too_deep)?;
        values.retain(|(known, _)| known != name);
        values.push((name.to_owned(), seen));
    }
    Ok(Variables { values, bytes })
}

/// A message without keys that are `null`, with its reasoning under the names that templates know.
fn normalised(at: usize, message: &Value) -> Result<Value, Error> {
    let Value::Object(message) = message else {
        let reason =
            format!("it is {}, expected an object with `role` and `content`", kind(message));
        return Err(Error::Message { number: at + 1, reason });
    };
    let mut kept = Map::new();
    let reasoning = REASONING.iter().find_map(|name| message.get(*name).filter(|v| !v.is_null()));
    if let Some(reasoning) = reasoning {
        kept.insert("thinking".to_owned(), reasoning.clone());
    }
    for (key, value) in message.iter().filter(|(_, value)| !value.is_null()) {
        kept.insert(key.clone(), value.clone());
    }
    if let Some(reasoning) = reasoning {
        kept.insert(REASONING[0].to_owned(), reasoning.clone());
    }
    Ok(Value::Object(kept))
}

/// About how many bytes a value is.
fn size(value: &Value) -> u64 {
    match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => 8,
        Value::String(text) => 8 + text.len() as u64,
        Value::Array(items) => 8 + items.iter().map(size).sum::<u64>(),
        Value::Object(map) => {
            8 + map.iter().map(|(key, value)| key.len() as u64 + size(value)).sum::<u64>()
        }
    }
}
