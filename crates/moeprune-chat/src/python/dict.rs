//! JSON as templates see it.

use std::{collections::BTreeMap, fmt, sync::Arc};

use minijinja::{
    Error, State, Value,
    value::{Enumerator, Object, ObjectExt, ObjectRepr},
};

use super::text;

/// Methods of dictionaries that a template may call. As attributes they hide keys of the same names.
const METHODS: [&str; 5] = ["copy", "get", "items", "keys", "values"];
/// Methods that change a dictionary: the sandbox hides them, and the keys with them.
const CHANGING: [&str; 5] = ["clear", "pop", "popitem", "setdefault", "update"];

/// A JSON value for a template, if it is nested no deeper than `most`.
pub(crate) fn from_json(json: &serde_json::Value, most: usize) -> Option<Value> {
    let most = most.checked_sub(1)?;
    Some(match json {
        serde_json::Value::Null => Value::from(()),
        serde_json::Value::Bool(value) => Value::from(*value),
        serde_json::Value::String(value) => Value::from(value.as_str()),
        serde_json::Value::Number(number) => match (number.as_i64(), number.as_u64()) {
            (Some(value), _) => Value::from(value),
            (_, Some(value)) => Value::from(value),
            _ => Value::from(number.as_f64().unwrap_or(f64::NAN)),
        },
        serde_json::Value::Array(items) => {
            let items: Option<Vec<Value>> =
                items.iter().map(|item| from_json(item, most)).collect();
            Value::from(items?)
        }
        serde_json::Value::Object(map) => {
            let mut dict = Dict::default();
            for (key, item) in map {
                dict.push(key, from_json(item, most)?);
            }
            Value::from_object(dict)
        }
    })
}

/// A dictionary in the order of its keys in the file.
#[derive(Default)]
struct Dict {
    entries: Vec<(Value, Value)>,
    places: BTreeMap<String, usize>,
}

impl Dict {
    /// Adds a key that is not there.
    fn push(&mut self, key: &str, item: Value) {
        self.places.insert(key.to_owned(), self.entries.len());
        self.entries.push((Value::from(key), item));
    }

    fn get(&self, key: &str) -> Option<Value> {
        self.places.get(key).map(|&place| self.entries[place].1.clone())
    }
}

impl fmt::Debug for Dict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.entries.iter().map(|(key, item)| (key, item))).finish()
    }
}

impl Object for Dict {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Map
    }

    /// `dict[key]`
    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        self.get(key.as_str()?)
    }

    /// `dict.key`
    fn get_value_by_str(self: &Arc<Self>, key: &str) -> Option<Value> {
        if CHANGING.contains(&key) {
            return None;
        }
        let method = METHODS.into_iter().find(|method| *method == key);
        method.map_or_else(
            || self.get(key),
            |name| Some(Value::from_object(Method { of: Arc::clone(self), name })),
        )
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        self.mapped_rev_key_value_enumerator(|dict| Box::new(dict.entries.iter().cloned()))
    }

    fn enumerator_len(self: &Arc<Self>) -> Option<usize> {
        Some(self.entries.len())
    }

    fn render(self: &Arc<Self>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = text::display(&Value::from_dyn_object(Arc::clone(self)));
        f.write_str(&text.map_err(|_| fmt::Error)?)
    }
}

/// A method of a dictionary as a value.
#[derive(Debug)]
struct Method {
    of: Arc<Dict>,
    name: &'static str,
}

impl Object for Method {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Plain
    }

    fn call(self: &Arc<Self>, state: &mut State<'_, '_>, args: &[Value]) -> Result<Value, Error> {
        Value::from_dyn_object(Arc::clone(&self.of)).call_method(state, self.name, args)
    }

    fn render(self: &Arc<Self>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<built-in method {} of dict object>", self.name)
    }
}
