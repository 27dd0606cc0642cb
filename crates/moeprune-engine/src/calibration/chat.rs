//! Conversations as text, by a model's chat template.

use std::path::Path;

use moeprune_capture::Content;
use moeprune_chat::{ChatTemplate, TemplateFiles, render_plainly};
use moeprune_core::Rendering;
use moeprune_text::Conversation;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use super::{arguments, files::ChatOptions};
use crate::{Error, Model};

/// No configuration of a tokenizer is near this; a larger file is something else.
const MOST_BYTES: u64 = 64 << 20;

/// The template for conversations with tools, where it has a file of its own.
const TOOL_USE: &str = "additional_chat_templates/tool_use.jinja";

/// How conversations are made text.
#[derive(Debug)]
pub(super) struct Chat {
    template: Option<ChatTemplate>,
    rendering: Rendering,
    system: Option<String>,
    tools: Option<Value>,
}

impl Chat {
    /// By the template of a model, or plainly if it has none.
    pub(super) fn of(model: &dyn Model, options: ChatOptions<'_>) -> Result<Self, Error> {
        let read = |name: &str| model.read_file(Path::new(name), MOST_BYTES);
        let files = ["tokenizer_config.json", "chat_template.jinja", TOOL_USE].map(read);
        let [config, jinja, tool_use] = files;
        let (config, jinja, tool_use) = (config?, jinja?, tool_use?);
        let named = tool_use.as_deref().map(|bytes| ("tool_use".to_owned(), bytes));
        let template = ChatTemplate::of(&TemplateFiles {
            tokenizer_config: config.as_deref(),
            chat_template_jinja: jinja.as_deref(),
            additional: named.into_iter().collect(),
        })
        .map_err(|error| Error::Request(format!("chat template of {}: {error}", model.name())))?;
        let ChatOptions { system, tools } = options;
        if tools.is_some() && !template.as_ref().is_some_and(ChatTemplate::takes_tools) {
            let why = match template {
                Some(_) => "takes none",
                None => {
                    "is missing (neither tokenizer_config.json nor chat_template.jinja has one)"
                }
            };
            return Err(Error::Request(format!(
                "--tools are handed to the model's chat template, and that of {} {why}; leave them out",
                model.name()
            )));
        }
        let hash = |bytes: &[u8]| format!("{:x}", Sha256::digest(bytes));
        let files = [config, jinja, tool_use].map(Option::unwrap_or_default).concat();
        let rendering = Rendering {
            template: template.as_ref().map(|_| hash(&files)),
            system: system.map(str::to_owned),
            tools: tools.map(|tools| hash(tools.to_string().as_bytes())),
        };
        let (system, tools) = (system.map(str::to_owned), tools.cloned());
        Ok(Self { template, rendering, system, tools })
    }

    pub(super) fn rendering(&self) -> Rendering {
        self.rendering.clone()
    }

    /// A conversation as text; `at` says where it is.
    pub(super) fn content(
        &self,
        conversation: Conversation,
        at: impl Fn() -> String,
    ) -> Result<Content, Error> {
        let Conversation { mut messages, tools, .. } = conversation;
        let has_system = messages.iter().any(|message| message["role"] == "system");
        if let (Some(system), false) = (&self.system, has_system) {
            messages.insert(0, json!({ "role": "system", "content": system }));
        }
        let failed = |error: moeprune_chat::Error| Error::Request(format!("{}: {error}", at()));
        let Some(template) = &self.template else {
            return Ok(Content::Text(render_plainly(&messages).map_err(failed)?));
        };
        let (tools, variables) = (tools.as_ref().or(self.tools.as_ref()), Map::new());
        let render = |messages: &[Value]| {
            let add_generation_prompt = false;
            let variables = &variables;
            template.render(&moeprune_chat::Chat {
                messages,
                tools,
                add_generation_prompt,
                variables,
            })
        };
        let rendered = render(&messages).or_else(|error| {
            // Some templates want an object where OpenAI's data has a string.
            arguments::as_objects(&messages).and_then(|other| render(&other).ok()).ok_or(error)
        });
        Ok(Content::Rendered(rendered.map_err(failed)?))
    }
}
