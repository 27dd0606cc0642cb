//! What a template is rendered with.

use serde_json::{Map, Value};

/// What a template is rendered with.
///
/// ```
/// use moeprune_chat::Chat;
/// use serde_json::json;
///
/// let messages = [json!({"role": "user", "content": "Hello"})];
/// let chat = Chat { add_generation_prompt: true, ..Chat::of(&messages) };
/// assert!(chat.tools.is_none());
/// ```
#[derive(Debug, Clone, Copy)]
pub struct Chat<'a> {
    /// The messages: objects with `role`, `content` and what else the template knows
    /// (`tool_calls`, `reasoning_content`). They are handed over as transformers does it: keys
    /// of a message that are `null` are left out, and reasoning is there under each of its names.
    pub messages: &'a [Value],
    /// Tools as JSON schemas. Where a template named `tool_use` is there, it is used for them.
    pub tools: Option<&'a Value>,
    /// Whether the text is to end where an answer begins.
    pub add_generation_prompt: bool,
    /// Further variables (`enable_thinking`, `documents`, …). One with the name of a special token
    /// takes its place.
    pub variables: &'a Map<String, Value>,
}

static NO_VARIABLES: std::sync::LazyLock<Map<String, Value>> = std::sync::LazyLock::new(Map::new);

impl<'a> Chat<'a> {
    /// Messages, without tools, generation prompt and variables.
    pub fn of(messages: &'a [Value]) -> Self {
        Self { messages, tools: None, add_generation_prompt: false, variables: &NO_VARIABLES }
    }
}
