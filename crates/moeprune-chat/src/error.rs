//! What can be wrong with a chat template, and with what it is rendered with.

/// Why there is no template, or no text of it.
///
/// Templates are named by their file, and by their key in it (`chat template \`tool_use\` of
/// tokenizer_config.json`); which model the files belong to the caller knows.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file that should be a JSON object is none.
    #[error("{file} is no JSON object: {reason}; download it again")]
    Json {
        /// Which file.
        file: String,
        /// What the parser says.
        reason: String,
    },
    /// A template in a file is no UTF-8.
    #[error("{template} is no UTF-8 at byte {at}; save it as UTF-8")]
    NotUtf8 {
        /// Which template.
        template: String,
        /// The first byte that is wrong.
        at: usize,
    },
    /// A key of `tokenizer_config.json` has another type than it should.
    #[error("{file}: `{key}` is {got}, expected {expected}")]
    Key {
        /// Which file.
        file: String,
        /// Where in it.
        key: String,
        /// What would be right.
        expected: &'static str,
        /// What is there.
        got: String,
    },
    /// Two templates have one name.
    #[error("{file}: two templates are named `{name}`; remove one")]
    Twice {
        /// Which file.
        file: String,
        /// The name.
        name: String,
    },
    /// There are several templates, and none of them is for this conversation.
    #[error("there is no template named `default`, only {}; name one of them", list(names))]
    NoDefault {
        /// The names of those that there are.
        names: Vec<String>,
    },
    /// A template was asked for by a name that none has.
    #[error("there is no template named `{name}`, only {}", list(names))]
    NoSuchTemplate {
        /// What was asked for.
        name: String,
        /// The names of those that there are.
        names: Vec<String>,
    },
    /// A template is longer than any that is known.
    #[error("{template} has {bytes} bytes, the most that is read are {most}")]
    TooLong {
        /// Which template.
        template: String,
        /// Its length.
        bytes: usize,
        /// The most that is allowed.
        most: usize,
    },
    /// A template that is none.
    #[error("{template}, line {line}: {reason}; correct the template, or render without it")]
    Syntax {
        /// Which template.
        template: String,
        /// The line in it, from 1.
        line: usize,
        /// What is wrong.
        reason: String,
    },
    /// The template itself refuses the conversation (`raise_exception`).
    #[error("{template}, line {line}, refuses the conversation: {message}")]
    Refused {
        /// Which template.
        template: String,
        /// The line in it, from 1.
        line: usize,
        /// Its own words.
        message: String,
    },
    /// The template does something that cannot be done with these messages.
    #[error("{template}, line {line}: {reason}; correct the message or the template")]
    Render {
        /// Which template.
        template: String,
        /// The line in it, from 1.
        line: usize,
        /// What is wrong.
        reason: String,
    },
    /// The template takes more steps than any that is known.
    #[error(
        "{template}, line {line}: stopped after {fuel} steps; a template that ends takes fewer, \
         so look for a loop in it, or cut the conversation"
    )]
    OutOfFuel {
        /// Which template.
        template: String,
        /// The line in it that was reached, from 1.
        line: usize,
        /// How many steps it had.
        fuel: u64,
    },
    /// The template writes more than it may.
    #[error("{template} writes more than {most} bytes; cut the conversation")]
    OutputTooLong {
        /// Which template.
        template: String,
        /// The most that is allowed.
        most: usize,
    },
    /// There is nothing to render.
    #[error("the conversation has no messages; leave it out")]
    NoMessages,
    /// A message is none.
    #[error("message {number}: {reason}")]
    Message {
        /// Which one, from 1.
        number: usize,
        /// What is wrong, what was expected and what is there.
        reason: String,
    },
    /// What the template is rendered with is nested too deeply.
    #[error("`{of}` is nested more than {most} deep")]
    TooDeep {
        /// What it is: `messages`, `tools`, or a variable.
        of: String,
        /// The most that is read.
        most: usize,
    },
    /// A template runs on a thread with a stack of its own, which could not be started.
    #[error("no thread with a stack of {stack} bytes can be started: {source}")]
    Thread {
        /// How large its stack was to be.
        stack: usize,
        /// Why.
        source: std::io::Error,
    },
}

fn list(names: &[String]) -> String {
    let quoted: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
    if quoted.is_empty() { "none".to_owned() } else { quoted.join(", ") }
}
