//! Conversations in the forms that people keep them in, as the messages that chat templates are written for.

use serde_json::{Map, Value, json};

use super::fields::Fields;
use crate::{
    json::{Document, Kind, Node, Origin, Wrong},
    record::Conversation,
};

pub(crate) const CONVERSATIONS: [&str; 2] = ["conversations", "conversation"];
pub(crate) const OUTPUTS: [&str; 2] = ["output", "response"];
pub(crate) const COMPLETIONS: [&str; 2] = ["completion", "response"];

/// Keys of a message of which all is read.
const READ: [&str; 8] =
    ["role", "from", "content", "value", "tool_calls", "function_call", "name", "tool_call_id"];

/// Who speaks, in the words of ShareGPT and kin, and the role that stands for it.
const SPEAKERS: [(&str, &str); 16] = [
    ("human", "user"),
    ("user", "user"),
    ("gpt", "assistant"),
    ("assistant", "assistant"),
    ("chatgpt", "assistant"),
    ("bing", "assistant"),
    ("bard", "assistant"),
    ("model", "assistant"),
    ("function_call", "assistant"),
    ("function-call", "assistant"),
    ("system", "system"),
    ("tool", "tool"),
    ("function", "tool"),
    ("function_response", "tool"),
    ("function-response", "tool"),
    ("observation", "tool"),
];

pub(crate) fn of_list(node: Node<'_>) -> Result<Conversation, Wrong> {
    Ok(Conversation { messages: messages(node)?, tools: None })
}

pub(crate) fn of_messages(fields: &Fields<'_>) -> Result<Conversation, Wrong> {
    let messages = messages(fields.required("messages")?)?;
    Ok(Conversation { messages, tools: tools(fields)? })
}

pub(crate) fn of_share_gpt(fields: &Fields<'_>) -> Result<Conversation, Wrong> {
    let mut messages = messages(fields.required(first_of(fields, &CONVERSATIONS))?)?;
    let system = fields.string_or_empty("system")?;
    if !system.is_empty() && messages[0]["role"] != "system" {
        messages.insert(0, said("system", system));
    }
    Ok(Conversation { messages, tools: tools(fields)? })
}

pub(crate) fn of_alpaca(fields: &Fields<'_>) -> Result<Conversation, Wrong> {
    let mut messages = Vec::new();
    let system = fields.string_or_empty("system")?;
    if !system.is_empty() {
        messages.push(said("system", system));
    }
    let turns = fields.get("history").map_or(Ok(Vec::new()), Node::array)?;
    for turn in turns {
        let [user, assistant] = turn.array()?[..] else {
            return Err(turn.wrong("an entry of `history` that is no pair of strings"));
        };
        messages.push(said("user", user.string()?));
        messages.push(said("assistant", assistant.string()?));
    }
    let mut asked = fields.string("instruction")?;
    let input = fields.string_or_empty(first_of(fields, &["input", "context"]))?;
    if !input.is_empty() {
        asked = if asked.is_empty() { input } else { format!("{asked}\n{input}") };
    }
    messages.push(said("user", asked));
    messages.push(said("assistant", fields.string(first_of(fields, &OUTPUTS))?));
    Ok(Conversation { messages, tools: tools(fields)? })
}

pub(crate) fn of_completion(fields: &Fields<'_>) -> Result<Conversation, Wrong> {
    let mut all = Vec::new();
    for (key, role) in [("prompt", "user"), (first_of(fields, &COMPLETIONS), "assistant")] {
        let value = fields.required(key)?;
        match value.kind() {
            Kind::Array => all.extend(messages(value)?),
            _ => all.push(said(role, fields.string(key)?)),
        }
    }
    Ok(Conversation { messages: all, tools: tools(fields)? })
}

/// The first of `keys` that is there.
fn first_of<'k>(fields: &Fields<'_>, keys: &[&'k str]) -> &'k str {
    keys.iter().find(|key| fields.has(key)).unwrap_or(&keys[0])
}

fn said(role: &str, content: String) -> Value {
    json!({"role": role, "content": content})
}

/// A list of messages, or a string that holds one as JSON.
fn messages(node: Node<'_>) -> Result<Vec<Value>, Wrong> {
    if node.kind() == Kind::String {
        return within(node, messages);
    }
    let items = node.array()?;
    if items.is_empty() {
        return Err(node.wrong("no messages"));
    }
    let numbered = items.into_iter().enumerate().map(|(n, item)| {
        message(item).map_err(|Wrong(what)| Wrong(format!("message {}: {what}", n + 1)))
    });
    numbered.collect()
}

/// Reads what a string holds as JSON.
fn within<T>(node: Node<'_>, read: impl FnOnce(Node<'_>) -> Result<T, Wrong>) -> Result<T, Wrong> {
    let text = node.string()?;
    let inner = Document::new(text.as_bytes(), Origin::Nowhere)
        .map_err(|Wrong(what)| node.wrong(format_args!("a string that is no JSON ({what})")))?;
    match inner.root().kind() {
        Kind::String => Err(node.wrong("a string within a string")),
        _ => read(inner.root()),
    }
}

fn tools(fields: &Fields<'_>) -> Result<Option<Value>, Wrong> {
    let Some(node) = fields.get("tools") else { return Ok(None) };
    let value = match node.kind() {
        Kind::String if node.string()?.trim_ascii().is_empty() => return Ok(None),
        Kind::String => within(node, |inner| inner.value())?,
        _ => node.value()?,
    };
    match value {
        Value::Null => Ok(None),
        Value::Array(tools) if tools.is_empty() => Ok(None),
        Value::Array(_) => Ok(Some(value)),
        _ => Err(node.wrong("`tools` that are no list")),
    }
}

fn message(node: Node<'_>) -> Result<Value, Wrong> {
    if node.kind() != Kind::Object {
        return Err(node.wrong(format_args!("{}, expected an object", node.kind())));
    }
    let fields = Fields::of(node)?;
    let (role, is_call) = role(&fields)?;
    let mut message = Map::new();
    message.insert("role".to_owned(), role.into());
    if let Some(content) = content(&fields)? {
        message.insert("content".to_owned(), content);
    }
    for (key, value) in fields.entries() {
        let is_taken = ["role", "from", "content", "value"].contains(&key);
        match value.special() {
            Some(word) if READ.contains(&key) => {
                return Err(value.wrong(format_args!("{word} in `{key}`")));
            }
            None if !is_taken && !value.is_null() => {
                message.insert(key.to_owned(), value.value()?);
            }
            _ => {}
        }
    }
    if is_call {
        spoken_call(&mut message);
    }
    settle_calls(&mut message);
    let calls = message.contains_key("tool_calls");
    match message.get("content") {
        None | Some(Value::Null) if !calls => {
            Err(node.wrong_at_end("missing field `content`, and no tool is called"))
        }
        _ => Ok(Value::Object(message)),
    }
}

/// The role, and whether what is said is a call of a tool.
fn role(fields: &Fields<'_>) -> Result<(String, bool), Wrong> {
    if fields.has("role") || !fields.has("from") {
        let role = fields.string("role")?;
        // Any other role is for the template to judge: models have roles of their own.
        return Ok(match role.as_str() {
            "human" => ("user".to_owned(), false),
            "gpt" => ("assistant".to_owned(), false),
            "" => return Err(fields.required("role")?.wrong("an empty `role`")),
            _ => (role, false),
        });
    }
    let from = fields.string("from")?;
    let speaker = SPEAKERS.iter().find(|(name, _)| from.eq_ignore_ascii_case(name));
    match speaker {
        Some((name, role)) => Ok(((*role).to_owned(), name.ends_with("call"))),
        None => Err(fields.required("from")?.wrong(format_args!(
            "`from` is `{from:.40}`, expected human, gpt, system, function_call or tool"
        ))),
    }
}

fn content(fields: &Fields<'_>) -> Result<Option<Value>, Wrong> {
    let found = fields.entries().find(|(key, _)| *key == "content");
    let found = found.or_else(|| fields.entries().find(|(key, _)| *key == "value"));
    let Some((key, node)) = found else { return Ok(None) };
    if let Some(word) = node.special() {
        return Err(node.wrong(format_args!("{word} in `{key}`")));
    }
    match node.kind() {
        Kind::String | Kind::Null => node.value().map(Some),
        Kind::Array if node.first().is_none_or(|part| part.kind() == Kind::Object) => {
            node.value().map(Some)
        }
        kind => {
            Err(node.wrong(format_args!("`{key}` is {kind}, expected a string or a list of parts")))
        }
    }
}

/// What a message of ShareGPT's speaker `function_call` says is the call, as JSON.
fn spoken_call(message: &mut Map<String, Value>) {
    let Some(Value::String(text)) = message.get("content") else { return };
    let calls = match serde_json::from_str(text) {
        Ok(Value::Array(calls)) => calls,
        Ok(call @ Value::Object(_)) => vec![call],
        _ => return,
    };
    if calls.iter().all(|call| call["name"].is_string()) {
        let calls = calls.into_iter().map(|call| json!({"type": "function", "function": call}));
        message.insert("tool_calls".to_owned(), calls.collect());
        message.insert("content".to_owned(), "".into());
    }
}

/// Brings calls of tools into one form, a list. Their arguments stay as they are: templates differ in what they take.
fn settle_calls(message: &mut Map<String, Value>) {
    if let Some(function) = message.remove("function_call")
        && !message.contains_key("tool_calls")
    {
        message
            .insert("tool_calls".to_owned(), json!([{"type": "function", "function": function}]));
    }
    let Some(calls) = message.get_mut("tool_calls") else { return };
    unpack(calls);
    match calls {
        Value::Array(list) if list.is_empty() => {
            message.remove("tool_calls");
        }
        _ => {}
    }
}

/// Makes of a string what it holds, if that is a JSON object or list.
fn unpack(value: &mut Value) {
    if let Value::String(text) = value
        && let Ok(inner @ (Value::Object(_) | Value::Array(_))) = serde_json::from_str(text)
    {
        *value = inner;
    }
}
