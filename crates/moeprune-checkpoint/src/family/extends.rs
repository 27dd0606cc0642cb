//! `extends`: a descriptor that is another with some values replaced.

use moeprune_files::StandIn;
use toml::{Table, Value};

use super::built_in::BUILT_IN;
use crate::Error;

/// The tables of a descriptor with `extends`, `None` of any other. They are those of the built-in
/// descriptor of that name with what this one gives put over them: a table over a table key by key,
/// anything else in place of what was there.
pub(super) fn resolve(text: &str) -> Result<Option<Table>, Error> {
    let mut over = parse(text)?;
    let Some(base) = over.remove("extends") else { return Ok(None) };
    for text in BUILT_IN {
        let mut table = parse(text)?;
        if table.get("name") == Some(&base) && !table.contains_key("extends") {
            put_over(&mut table, over);
            return Ok(Some(table));
        }
    }
    let reason =
        format!("`extends` is {base}; name a built-in descriptor, one that extends none itself");
    Err(Error::Descriptor { reason })
}

pub(super) fn parse(text: &str) -> Result<Table, Error> {
    if let Some(stand_in) = StandIn::pointer(text.as_bytes()) {
        return Err(Error::Descriptor { reason: format!("the file {stand_in}") });
    }
    toml::from_str(text).map_err(|e| Error::Descriptor { reason: e.to_string() })
}

fn put_over(base: &mut Table, over: Table) {
    for (key, value) in over {
        match (base.get_mut(&key), value) {
            (Some(Value::Table(base)), Value::Table(over)) => put_over(base, over),
            (_, value) => {
                base.insert(key, value);
            }
        }
    }
}
