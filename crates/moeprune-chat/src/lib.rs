/*!
Conversations as the text that a model was trained on: its chat template, rendered as transformers
renders it.

# Brief overview

A [`ChatTemplate`] is read from a model's files ([`ChatTemplate::of_files`]) or from a string
([`ChatTemplate::new`]). [`ChatTemplate::render`] makes text of a [`Chat`]: messages, tools, whether
an answer is to follow, and further variables. [`render_plainly`] is for models that have no template.

# Example

```
use moeprune_chat::{Chat, ChatTemplate};
use serde_json::json;

let config = br#"{
    "eos_token": "</s>",
    "chat_template": "{% for message in messages %}[{{ message.role }}] {{ message.content }}{{ eos_token }}{% endfor %}{% if add_generation_prompt %}[assistant]{% endif %}"
}"#;
let template = ChatTemplate::of_files(Some(config), None)?.expect("it has one");
let messages = [json!({"role": "user", "content": "Hello"})];
let chat = Chat { add_generation_prompt: true, ..Chat::of(&messages) };
assert_eq!(template.render(&chat)?, "[user] Hello</s>[assistant]");
# Ok::<(), moeprune_chat::Error>(())
```

# What is as in transformers

Which template is chosen (that of `chat_template.jinja` before those of `tokenizer_config.json`; for
tools the one named `tool_use`), what is done to messages before (keys that are `null` go, reasoning
has all its names), the special tokens as variables, and Jinja as transformers sets it up: blocks
trimmed, loop controls, `raise_exception`, `strftime_now`, `tojson` as `json.dumps`, `{% generation %}`
without effect, and values written as Python writes them. Lists and dictionaries cannot be changed in place.
Tests hold all this to what transformers makes of real templates.

# What is not

* `strftime_now` gives a fixed moment, [`Moment::FIXED`] or the one of [`ChatTemplate::at`], so that the same
  messages give the same text on any day.
* Values of any two types can be compared, where Python refuses some. `%` formats no strings, macros have no `varargs` and
  `kwargs`, and templates neither blocks nor includes. Integers beyond 128 bits are floating-point numbers. Filters for web pages
  (`urlencode`, `xmlattr`, `striptags`, …) are unknown. Each is an error that names it; `tests/expressions.json` lists what differs.

# A template is a foreign program

It comes with the model's files, so it has [`Limits`] of its length, its steps and its text, and of how deep it calls
itself and nests values. Steps are the engine's fuel. What fuel does not count is counted here: a few steps can make a list whose items are
shared so often that to compare or print it would take for ever. A rendering that visits too many items is stopped by unwinding the stack
up to [`ChatTemplate::render`], which returns [`Error::OutOfFuel`]; with `panic = "abort"` the process ends instead.
*/

mod chat;
mod compiled;
mod error;
mod files;
mod limits;
mod messages;
mod plain;
mod python;
mod source;
mod special;
mod template;

pub use self::{
    chat::Chat, error::Error, files::TemplateFiles, limits::Limits, plain::render_plainly,
    python::Moment, special::SpecialTokens, template::ChatTemplate,
};
