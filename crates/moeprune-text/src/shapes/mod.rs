//! Which keys of a record say what, and what they hold.

mod fields;
mod messages;

use serde_json::Value;

use crate::{
    format::Shape,
    json::{Kind, Node, Wrong},
    record::Content,
};
use fields::Fields;

/// Which shapes are read, in the words of messages.
pub(crate) const KNOWN: &str = "a JSON object with `text`, `question` and `answer`, `tokens`, `messages`, \
     `conversations`, `instruction` and `output`, or `prompt` and `completion`";

/// Where people keep rows within one object.
const ROWS: [&str; 6] = ["data", "rows", "examples", "train", "instances", "items"];

/// Finds out the shape of a record. The string under `text_key`, if there is one, is all that is then read.
pub(crate) fn detect(node: Node<'_>, text_key: Option<&str>) -> Result<Shape, Wrong> {
    match (node.kind(), text_key) {
        (Kind::Object, Some(key)) => Ok(Shape::Text { key: key.to_owned() }),
        (Kind::Object, None) => of_object(&Fields::of(node)?),
        (Kind::String, None) => Ok(Shape::Strings),
        (Kind::Array, None) => match node.first().map(Node::kind) {
            Some(Kind::Object) => of_list(node),
            Some(Kind::Number) => Ok(Shape::Tokens),
            None => Err(node.wrong("an empty array")),
            Some(kind) => Err(node.wrong(format_args!("an array that begins with {kind}"))),
        },
        (kind, _) => Err(node.wrong(kind)),
    }
}

/// Of a list that begins with an object: messages, if that is one.
fn of_list(node: Node<'_>) -> Result<Shape, Wrong> {
    let Some(first) = node.first() else { return Err(node.wrong("an empty array")) };
    let fields = Fields::of(first)?;
    match fields.has("role") || fields.has("from") {
        true => Ok(Shape::Messages),
        false => Err(Wrong(format!("an array of objects with {}", fields.names()))),
    }
}

fn of_object(fields: &Fields<'_>) -> Result<Shape, Wrong> {
    let text = || Shape::Text { key: "text".to_owned() };
    let has = |key| fields.has(key);
    let first_of = |key| fields.get(key).and_then(Node::first).map(Node::kind);
    let any = |keys: &[&str]| keys.iter().any(|key| fields.has(key));
    Ok(if first_of("tokens") == Some(Kind::Number) {
        Shape::Tokens
    } else if fields.is("text", Kind::String) {
        text()
    } else if has("question") && has("answer") {
        Shape::QuestionAnswer
    } else if has("messages") {
        Shape::Messages
    } else if any(&messages::CONVERSATIONS) {
        Shape::ShareGpt
    } else if has("instruction") && any(&messages::OUTPUTS) {
        Shape::Alpaca
    } else if has("prompt") && any(&messages::COMPLETIONS) {
        Shape::PromptCompletion
    } else if fields.is("tokens", Kind::Array) {
        Shape::Tokens
    } else if has("text") {
        text()
    } else if has("chosen") && has("rejected") {
        return Err(Wrong(format!(
            "preference data with {}; write the side to read as `messages` or `text`",
            fields.names()
        )));
    } else if let Some(key) = ROWS.iter().find(|key| fields.is(key, Kind::Array)) {
        return Err(Wrong(format!(
            "one with {}; if `{key}` has the rows, write each on a line of its own",
            fields.names()
        )));
    } else {
        return Err(Wrong(format!("one with {}", fields.names())));
    })
}

/// Reads a record that must have `shape`.
pub(crate) fn read(shape: &Shape, node: Node<'_>) -> Result<Content, Wrong> {
    read_as(shape, node).map_err(|wrong| match detect(node, None) {
        Ok(other) if other != *shape => Wrong(format!("a record of {other}")),
        _ => wrong,
    })
}

fn read_as(shape: &Shape, node: Node<'_>) -> Result<Content, Wrong> {
    let fields = || Fields::of(node);
    Ok(match shape {
        Shape::Strings | Shape::Pieces => Content::Text(node.string()?),
        Shape::Text { key } => Content::Text(fields()?.required(key)?.string()?),
        Shape::QuestionAnswer => {
            let fields = fields()?;
            let (question, answer) = (fields.string("question")?, fields.string("answer")?);
            Content::Question { question, answer }
        }
        Shape::Row => match node.value()? {
            Value::Object(row) => Content::Row(row),
            _ => return Err(node.wrong(node.kind())),
        },
        Shape::Tokens if node.kind() == Kind::Array => Content::Tokens(node.ids()?),
        Shape::Tokens => Content::Tokens(fields()?.required("tokens")?.ids()?),
        Shape::Messages if node.kind() == Kind::Array => {
            Content::Conversation(messages::of_list(node)?)
        }
        Shape::Messages => Content::Conversation(messages::of_messages(&fields()?)?),
        Shape::ShareGpt => Content::Conversation(messages::of_share_gpt(&fields()?)?),
        Shape::Alpaca => Content::Conversation(messages::of_alpaca(&fields()?)?),
        Shape::PromptCompletion => Content::Conversation(messages::of_completion(&fields()?)?),
    })
}

/// Keys without which a record is not of this shape, where there is no choice.
pub(crate) fn keys(shape: &Shape) -> Vec<String> {
    let keys: &[&str] = match shape {
        Shape::Text { key } => return vec![key.clone()],
        Shape::QuestionAnswer => &["question", "answer"],
        _ => &[],
    };
    keys.iter().map(|&key| key.to_owned()).collect()
}

/// Columns that records of any shape are made of.
pub(crate) fn is_known(name: &str) -> bool {
    let shapes = [
        Shape::Text { key: "text".to_owned() },
        Shape::QuestionAnswer,
        Shape::Tokens,
        Shape::Messages,
        Shape::ShareGpt,
        Shape::Alpaca,
        Shape::PromptCompletion,
    ];
    shapes.iter().any(|shape| is_read(shape, name))
}

/// Whether records of a shape are made of a column, among others.
pub(crate) fn is_read(shape: &Shape, name: &str) -> bool {
    let names: &[&str] = match shape {
        Shape::Pieces | Shape::Strings => &[],
        Shape::Text { key } => return key == name,
        Shape::Row => return true,
        Shape::QuestionAnswer => &["question", "answer"],
        Shape::Tokens => &["tokens"],
        Shape::Messages => &["messages", "tools"],
        Shape::ShareGpt => &["conversations", "conversation", "system", "tools"],
        Shape::Alpaca => {
            &["instruction", "input", "context", "output", "response", "system", "history", "tools"]
        }
        Shape::PromptCompletion => &["prompt", "completion", "response", "tools"],
    };
    names.contains(&name)
}

/// What each record of a file must be, in the words of messages.
pub(crate) fn expected(shape: &Shape) -> String {
    match shape {
        Shape::Pieces => "text".to_owned(),
        Shape::Strings => "a string".to_owned(),
        Shape::Text { key } => format!("`{{\"{key}\": \"...\"}}`"),
        Shape::QuestionAnswer => "`{\"question\": \"...\", \"answer\": \"...\"}`".to_owned(),
        Shape::Row => "a JSON object".to_owned(),
        Shape::Tokens => "`{\"tokens\": [...]}`".to_owned(),
        Shape::Messages => "`{\"messages\": [{\"role\": ..., \"content\": ...}, ...]}`".to_owned(),
        Shape::ShareGpt => {
            "`{\"conversations\": [{\"from\": ..., \"value\": ...}, ...]}`".to_owned()
        }
        Shape::Alpaca => "`{\"instruction\": \"...\", \"output\": \"...\"}`".to_owned(),
        Shape::PromptCompletion => "`{\"prompt\": ..., \"completion\": ...}`".to_owned(),
    }
}
