//! Conversations without a template.

use serde_json::Value;

use crate::{Error, special::kind};

/// A conversation as plain text, for models that have no template: each message is a paragraph, its
/// role with a capital, a colon, and what it says.
///
/// This is no format that any model was trained on. Parts of a content are joined by line breaks,
/// a part that is no text is its JSON; reasoning comes before what is said, tool calls after it, as
/// JSON.
///
/// ```
/// use serde_json::json;
///
/// let text = moeprune_chat::render_plainly(&[
///     json!({"role": "user", "content": "What is 2 + 3?"}),
///     json!({"role": "assistant", "content": "5"}),
/// ])?;
/// assert_eq!(text, "User: What is 2 + 3?\n\nAssistant: 5");
/// # Ok::<(), moeprune_chat::Error>(())
/// ```
///
/// # Errors
/// No messages, a message that is no object with a `role`, and one whose content is neither text,
/// a list nor absent.
pub fn render_plainly(messages: &[Value]) -> Result<String, Error> {
    if messages.is_empty() {
        return Err(Error::NoMessages);
    }
    let paragraphs: Result<Vec<String>, Error> = messages
        .iter()
        .enumerate()
        .map(|(at, message)| {
            paragraph(message).map_err(|reason| Error::Message { number: at + 1, reason })
        })
        .collect();
    Ok(paragraphs?.join("\n\n"))
}

fn paragraph(message: &Value) -> Result<String, String> {
    let Value::Object(fields) = message else {
        return Err(format!("it is {}, expected an object", kind(message)));
    };
    let role = match fields.get("role") {
        Some(Value::String(role)) => role,
        Some(other) => return Err(format!("`role` is {}, expected a string", kind(other))),
        None => return Err("it has no `role`".to_owned()),
    };
    let said = ["reasoning_content", "content"].iter().map(|key| content(key, fields.get(*key)));
    let mut lines: Vec<String> = said.collect::<Result<Vec<_>, _>>()?;
    lines.extend(fields.get("tool_calls").filter(|calls| !calls.is_null()).map(Value::to_string));
    lines.retain(|line| !line.is_empty());
    let mut letters = role.chars();
    let capital: String = letters.next().into_iter().flat_map(char::to_uppercase).collect();
    Ok(format!("{capital}{}: {}", letters.as_str(), lines.join("\n")))
}

fn content(key: &str, value: Option<&Value>) -> Result<String, String> {
    match value {
        None | Some(Value::Null) => Ok(String::new()),
        Some(Value::String(text)) => Ok(text.clone()),
        Some(Value::Array(parts)) => Ok(parts.iter().map(part).collect::<Vec<_>>().join("\n")),
        Some(other) => {
            Err(format!("`{key}` is {}, expected a string or a list of parts", kind(other)))
        }
    }
}

fn part(part: &Value) -> String {
    let text = part.as_str().or_else(|| part.get("text").and_then(Value::as_str));
    text.map_or_else(|| part.to_string(), str::to_owned)
}
