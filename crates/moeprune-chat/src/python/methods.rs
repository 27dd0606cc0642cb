//! Methods of Python's strings, lists and dictionaries.

use minijinja::{
    Error, ErrorKind, State, Value,
    value::{Kwargs, Tuple, ValueKind, from_args},
};

use super::{refuse, strings};

/// Methods that change a list or a dictionary, which the sandbox refuses.
const CHANGING: [&str; 11] = [
    "append",
    "clear",
    "extend",
    "insert",
    "pop",
    "popitem",
    "remove",
    "reverse",
    "setdefault",
    "sort",
    "update",
];

/// Calls a method that the engine does not know.
pub(crate) fn unknown_method(
    state: &mut State<'_, '_>,
    value: &Value,
    name: &str,
    args: &[Value],
) -> Result<Value, Error> {
    match value.kind() {
        ValueKind::String => strings::call(state, value, name, args),
        ValueKind::Map => on_dict(state, value, name, args),
        ValueKind::Seq | ValueKind::Iterable => on_list(state, value, name, args),
        _ => Err(Error::from(ErrorKind::UnknownMethod)),
    }
}

fn on_dict(
    state: &State<'_, '_>,
    value: &Value,
    name: &str,
    args: &[Value],
) -> Result<Value, Error> {
    let object = value.as_object().ok_or_else(|| Error::from(ErrorKind::UnknownMethod))?;
    match name {
        "get" => {
            let (key, default): (&Value, Option<Value>) = from_args(args)?;
            let found = object.get_value(key);
            Ok(found.or(default).unwrap_or_else(|| Value::from(())))
        }
        "items" => {
            let () = from_args(args)?;
            let pairs = object.try_iter_pairs().into_iter().flatten();
            let pairs: Vec<Value> =
                pairs.map(|(key, item)| Value::from(Tuple::from([key, item]))).collect();
            state.consume_fuel(pairs.len() as u64 / 2)?;
            Ok(Value::from(pairs))
        }
        "keys" | "values" => {
            let () = from_args(args)?;
            let pairs = object.try_iter_pairs().into_iter().flatten();
            let keys = name == "keys";
            let items: Vec<Value> =
                pairs.map(|(key, item)| if keys { key } else { item }).collect();
            state.consume_fuel(items.len() as u64 / 2)?;
            Ok(Value::from(items))
        }
        "copy" => {
            let () = from_args(args)?;
            Ok(value.clone())
        }
        _ if CHANGING.contains(&name) => Err(changing("dict", name)),
        _ => Err(Error::from(ErrorKind::UnknownMethod)),
    }
}

fn on_list(
    state: &mut State<'_, '_>,
    value: &Value,
    name: &str,
    args: &[Value],
) -> Result<Value, Error> {
    match name {
        "index" => {
            let (what, kwargs): (&Value, Kwargs) = from_args(args)?;
            kwargs.assert_all_used()?;
            for (at, item) in value.try_iter()?.checked().enumerate() {
                state.consume_fuel(1)?;
                if item? == *what {
                    return Ok(Value::from(at));
                }
            }
            Err(refuse(format!("{what} is not in the list")))
        }
        "copy" => {
            let () = from_args(args)?;
            Ok(value.clone())
        }
        _ if CHANGING.contains(&name) => Err(changing("list", name)),
        _ => minijinja_contrib::pycompat::unknown_method_callback(state, value, name, args),
    }
}

fn changing(of: &str, name: &str) -> Error {
    refuse(format!("{of}.{name} changes a {of}, which templates may not; build a new one with `+`"))
}
