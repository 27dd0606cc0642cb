//! The entries of a record, by key.

use crate::json::{Kind, Node, Wrong};

/// The entries of an object.
pub(crate) struct Fields<'a> {
    node: Node<'a>,
    entries: Vec<(String, Node<'a>)>,
}

impl<'a> Fields<'a> {
    pub(crate) fn of(node: Node<'a>) -> Result<Self, Wrong> {
        Ok(Self { node, entries: node.object()? })
    }

    /// The entries in order, those that are null included.
    pub(crate) fn entries(&self) -> impl Iterator<Item = (&str, Node<'a>)> {
        self.entries.iter().map(|(key, value)| (key.as_str(), *value))
    }

    /// The value of a key unless it is missing or null.
    pub(crate) fn get(&self, key: &str) -> Option<Node<'a>> {
        let mut found = self.entries().filter(|(name, _)| *name == key).map(|(_, value)| value);
        found.find(|value| !value.is_null())
    }

    pub(crate) fn has(&self, key: &str) -> bool {
        self.get(key).is_some()
    }

    pub(crate) fn is(&self, key: &str, kind: Kind) -> bool {
        self.get(key).is_some_and(|value| value.kind() == kind)
    }

    /// The value of a key, which may be null.
    pub(crate) fn required(&self, key: &str) -> Result<Node<'a>, Wrong> {
        let mut found = self.entries().filter(|(name, _)| *name == key).map(|(_, value)| value);
        let missing = || self.node.wrong_at_end(format_args!("missing field `{key}`"));
        let value = found.next().ok_or_else(missing)?;
        match found.next() {
            Some(again) => Err(again.wrong(format_args!("duplicate field `{key}`"))),
            None => Ok(value),
        }
    }

    /// The string under a key.
    pub(crate) fn string(&self, key: &str) -> Result<String, Wrong> {
        named(key, self.required(key)?.string())
    }

    /// The string under a key; empty if it is missing or null.
    pub(crate) fn string_or_empty(&self, key: &str) -> Result<String, Wrong> {
        self.get(key).map_or(Ok(String::new()), |value| named(key, value.string()))
    }

    /// The keys that are there, in words.
    pub(crate) fn names(&self) -> String {
        let name = |(key, value): &(String, Node<'a>)| match value.is_null() {
            true => format!("`{key:.40}` (null)"),
            false => format!("`{key:.40}`"),
        };
        let keys: Vec<_> = self.entries.iter().take(8).map(name).collect();
        match self.entries.len() {
            0 => "no keys".to_owned(),
            1..=8 => keys.join(", "),
            more => format!("{} and {} more", keys.join(", "), more - 8),
        }
    }
}

/// Says which key is wrong where that is not `text`, whose file has no other that is read.
fn named<T>(key: &str, value: Result<T, Wrong>) -> Result<T, Wrong> {
    value.map_err(|Wrong(what)| Wrong(format!("`{key}`: {what}")))
}
