//! Arguments of tool calls, which some data and some templates have as JSON in a string, and others as an object.

use serde_json::Value;

/// The messages with arguments as the objects that their strings stand for; `None` if there is no such string.
pub(super) fn as_objects(messages: &[Value]) -> Option<Vec<Value>> {
    let mut messages = messages.to_vec();
    let calls = messages.iter_mut().filter_map(|message| message.get_mut("tool_calls"));
    let calls = calls.filter_map(Value::as_array_mut).flatten();
    let mut changed = false;
    for call in calls {
        let function = if call["function"].is_object() { &mut call["function"] } else { call };
        if let Some(arguments) = function.get_mut("arguments")
            && let Value::String(text) = arguments
            && let Ok(object @ Value::Object(_)) = serde_json::from_str(text)
        {
            *arguments = object;
            changed = true;
        }
    }
    changed.then_some(messages)
}
