//! Config keys that a descriptor names.

use std::collections::BTreeSet;

use toml::{Table, Value};

/// Where keys of rotary positions stand unless `within` says otherwise.
const OF_ROTARY: [&str; 4] =
    ["rope_theta", "rope_scaling", "rope_parameters", "partial_rotary_factor"];

/// The config keys that a descriptor reads or has a requirement for; a dot descends into an object. Those
/// that no table names, since most families call them the same, are not among them.
#[derive(Debug, Clone, Default)]
pub(crate) struct ReadKeys {
    keys: BTreeSet<String>,
    /// Objects with positions of one kind of layer, `rope_parameters.full_attention`.
    within: BTreeSet<String>,
}

impl ReadKeys {
    pub(super) fn of(descriptor: &Table) -> Self {
        let mut read = Self::default();
        read.collect(descriptor);
        read
    }

    /// Whether this key, or one inside its object, is read.
    pub(crate) fn has(&self, key: &str) -> bool {
        let is_or_holds = |read: &String| {
            read.strip_prefix(key).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        };
        self.keys.iter().chain(&self.within).any(is_or_holds)
    }

    /// The objects that hold positions for each kind of layer, ascending.
    pub(crate) fn holders_by_kind(&self) -> BTreeSet<&str> {
        self.within.iter().filter_map(|path| Some(path.rsplit_once('.')?.0)).collect()
    }

    fn collect(&mut self, table: &Table) {
        for (name, value) in table {
            match (name.as_str(), value) {
                ("keys", Value::Array(keys)) => {
                    self.keys.extend(keys.iter().filter_map(|key| Some(key.as_str()?.to_owned())));
                }
                ("key", Value::String(key)) => {
                    self.keys.insert(key.clone());
                }
                ("rotary", Value::Table(rotary)) => {
                    self.collect(rotary);
                    match rotary.get("within").and_then(Value::as_str) {
                        Some(within) => {
                            self.within.insert(within.to_owned());
                        }
                        None => self.keys.extend(OF_ROTARY.map(str::to_owned)),
                    }
                }
                (_, Value::Table(inner)) => self.collect(inner),
                (_, Value::Array(items)) => {
                    items.iter().filter_map(Value::as_table).for_each(|item| self.collect(item));
                }
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_read() {
        let table: Table = toml::from_str(
            r#"
            [attention.kinds.full.rotary]
            within = "rope_parameters.full"
            dims = { keys = ["rotary_dim"] }
            [[require]]
            key = "rope_foo"
            "#,
        )
        .expect("a table");
        let read = ReadKeys::of(&table);
        for (key, expected) in [
            ("rotary_dim", true),
            ("rope_foo", true),
            ("rope_parameters", true),
            ("rope_parameters.full", true),
            ("rope_parameters.other", false),
            ("rope_param", false),
            ("rope_theta", false),
        ] {
            assert_eq!(read.has(key), expected, "{key}");
        }
        assert_eq!(read.holders_by_kind(), BTreeSet::from(["rope_parameters"]));
        let plain: Table = toml::from_str("[attention.rotary]").expect("a table");
        assert!(ReadKeys::of(&plain).has("rope_theta"));
    }
}
