/*!
Values that are put into containers and variables.

The engine's own lists may be lazy, shared and of any depth. What is kept is a [`List`], a [`Dict`], or no container; so
a value is nested no deeper than [`MOST_DEEP`], and each visit of a container is counted.
*/

use minijinja::{
    Environment, Error, State, Value,
    value::{Kwargs, Rest, ValueKind, ValueOrKwargs},
};

use super::{
    MOST_DEEP,
    dict::Dict,
    list::{Kind, List, Shape},
    refuse,
};
use crate::source::names;

/// Puts the functions that templates are made to call into an environment, and Jinja's own that make
/// containers.
pub(super) fn add_to(environment: &mut Environment<'static>) {
    environment.add_function(names::LIST, |state: &State<'_, '_>, items: Rest<Value>| {
        list(state, items.0, Kind::List)
    });
    environment.add_function(names::TUPLE, |state: &State<'_, '_>, items: Rest<Value>| {
        list(state, items.0, Kind::Tuple)
    });
    environment.add_function(names::DICT, |state: &State<'_, '_>, both: Rest<Value>| {
        let keys = both.iter().step_by(2).cloned();
        dict(state, keys.zip(both.iter().skip(1).step_by(2).cloned()))
    });
    environment.add_function(names::HELD, |state: &State<'_, '_>, value: Value| held(state, value));
    environment.add_function(names::KEPT, kept);
    environment.add_function(names::EACH, each);
    environment.add_function("cycler", cycler);
    environment.add_function("joiner", joiner);
    environment.add_function("dict", dict_function);
    environment.add_function("namespace", namespace);
}

/// A JSON value for a template, if it is nested no deeper than `most`.
pub(crate) fn from_json(json: &serde_json::Value, most: usize) -> Option<Value> {
    shaped(json, most).map(|(value, _)| value)
}

fn shaped(json: &serde_json::Value, most: usize) -> Option<(Value, usize)> {
    let most = most.checked_sub(1)?;
    let scalar = |value: Value| Some((value, 0));
    match json {
        serde_json::Value::Null => scalar(Value::from(())),
        serde_json::Value::Bool(value) => scalar(Value::from(*value)),
        serde_json::Value::String(value) => scalar(Value::from(value.as_str())),
        serde_json::Value::Number(number) => scalar(match (number.as_i64(), number.as_u64()) {
            (Some(value), _) => Value::from(value),
            (_, Some(value)) => Value::from(value),
            _ => Value::from(number.as_f64().unwrap_or(f64::NAN)),
        }),
        serde_json::Value::Array(items) => {
            let mut depth = 0;
            let mut values = Vec::with_capacity(items.len());
            for item in items {
                let (value, of) = shaped(item, most)?;
                depth = depth.max(of);
                values.push(value);
            }
            let shape = Shape { depth: depth + 1, has_namespace: false };
            Some((Value::from_object(List::new(values, Kind::List, shape)), depth + 1))
        }
        serde_json::Value::Object(map) => {
            let (mut dict, mut depth) = (Dict::default(), 0);
            for (key, item) in map {
                let (value, of) = shaped(item, most)?;
                depth = depth.max(of);
                dict.put(Value::from(key.as_str()), value);
            }
            let shape = Shape { depth: depth + 1, has_namespace: false };
            Some((Value::from_object(dict.with_shape(shape)), depth + 1))
        }
    }
}

/// A list or tuple of items.
pub(super) fn list(state: &State<'_, '_>, items: Vec<Value>, kind: Kind) -> Result<Value, Error> {
    state.consume_fuel(items.len() as u64 / 8)?;
    let mut shape = Shape::default();
    let mut values = Vec::with_capacity(items.len());
    for item in items {
        values.push(within(state, item, &mut shape)?);
    }
    let shape = outer(shape)?;
    Ok(Value::from_object(List::new(values, kind, shape)))
}

fn dict(
    state: &State<'_, '_>,
    pairs: impl Iterator<Item = (Value, Value)>,
) -> Result<Value, Error> {
    let mut shape = Shape::default();
    let mut dict = Dict::default();
    for (key, item) in pairs {
        state.consume_fuel(1)?;
        let key = within(state, key, &mut shape)?;
        let is_tuple = key.downcast_object_ref::<List>().is_some_and(List::is_tuple);
        if !is_tuple && matches!(key.kind(), ValueKind::Map | ValueKind::Seq) {
            return Err(refuse(format!("a key of type {}", key.kind())));
        }
        dict.put(key, within(state, item, &mut shape)?);
    }
    Ok(Value::from_object(dict.with_shape(outer(shape)?)))
}

/// A value that goes into a container, whose shape it adds to.
fn within(state: &State<'_, '_>, value: Value, shape: &mut Shape) -> Result<Value, Error> {
    let value = held(state, value)?;
    let of = shape_of(&value);
    shape.depth = shape.depth.max(of.depth);
    shape.has_namespace |= of.has_namespace;
    Ok(value)
}

/// The shape of a container of what has this one.
fn outer(shape: Shape) -> Result<Shape, Error> {
    if shape.depth >= MOST_DEEP {
        return Err(refuse(format!("a value is nested more than {MOST_DEEP} deep")));
    }
    Ok(Shape { depth: shape.depth + 1, ..shape })
}

/// The shape of what is held.
fn shape_of(value: &Value) -> Shape {
    let list = value.downcast_object_ref::<List>().map(List::shape);
    let shape = list.or_else(|| value.downcast_object_ref::<Dict>().map(Dict::shape));
    shape.unwrap_or_else(|| Shape { depth: 0, has_namespace: is_namespace(value) })
}

/// The engine's namespaces have a type that is not public.
fn is_namespace(value: &Value) -> bool {
    value.as_object().is_some_and(|object| object.type_name().ends_with("::Namespace"))
}

/// A value that is put into a variable: the engine's own lists become ours.
pub(super) fn held(state: &State<'_, '_>, value: Value) -> Result<Value, Error> {
    let is_list = matches!(value.kind(), ValueKind::Seq | ValueKind::Iterable);
    if !is_list || value.downcast_object_ref::<List>().is_some() {
        return Ok(value);
    }
    let mut items = Vec::new();
    for item in value.try_iter()?.checked() {
        if items.len() % 4 == 0 {
            state.consume_fuel(1)?;
        }
        items.push(item?);
    }
    let is_group = || value.as_object().is_some_and(|of| of.get_value_by_str("grouper").is_some());
    let kind = match value.is_tuple() {
        true => Kind::Tuple,
        false if is_group() => Kind::Group,
        false => Kind::List,
    };
    list(state, items, kind)
}

/// A value that is put into a namespace, which may hold no other one.
fn kept(state: &State<'_, '_>, value: Value) -> Result<Value, Error> {
    let value = held(state, value)?;
    if shape_of(&value).has_namespace {
        return Err(refuse("a namespace within a namespace"));
    }
    Ok(value)
}

/// What a `for` iterates over: its items are put into variables.
fn each(state: &State<'_, '_>, value: Value) -> Result<Value, Error> {
    if value.is_none() {
        return Err(refuse("none cannot be iterated over"));
    }
    held(state, value)
}

fn cycler(state: &State<'_, '_>, items: Rest<Value>) -> Result<Value, Error> {
    let items: Result<Vec<Value>, Error> =
        items.0.into_iter().map(|item| held(state, item)).collect();
    minijinja_contrib::globals::cycler(items?)
}

fn joiner(state: &State<'_, '_>, separator: Option<Value>) -> Result<Value, Error> {
    let separator = separator.map(|separator| held(state, separator)).transpose()?;
    Ok(minijinja_contrib::globals::joiner(separator))
}

/// `dict(pairs, key=item)`
fn dict_function(
    state: &State<'_, '_>,
    pairs: Option<Value>,
    named: Kwargs,
) -> Result<Value, Error> {
    let mut both = Vec::new();
    if let Some(pairs) = pairs {
        both = pairs_of(state, &pairs)?;
    }
    for name in named.args() {
        both.push((Value::from(name), named.get(name)?));
    }
    dict(state, both.into_iter())
}

/// What a dictionary, or a list of pairs, has of keys and items.
fn pairs_of(state: &State<'_, '_>, value: &Value) -> Result<Vec<(Value, Value)>, Error> {
    let mut both = Vec::new();
    if value.kind() == ValueKind::Map {
        let pairs = value.as_object().and_then(minijinja::value::DynObject::try_iter_pairs);
        for pair in pairs.into_iter().flatten() {
            state.consume_fuel(1)?;
            both.push(pair);
        }
        return Ok(both);
    }
    for pair in value.try_iter()?.checked() {
        state.consume_fuel(1)?;
        let parts: Vec<Value> = pair?.try_iter()?.checked().take(3).collect::<Result<_, _>>()?;
        let [key, item] = <[Value; 2]>::try_from(parts)
            .map_err(|_| refuse("dict: expected pairs of a key and an item"))?;
        both.push((key, item));
    }
    Ok(both)
}

/// `namespace(dict, key=item)`
fn namespace(state: &State<'_, '_>, pairs: Option<Value>, named: Kwargs) -> Result<Value, Error> {
    let both = dict_function(state, pairs, named)?;
    if shape_of(&both).has_namespace {
        return Err(refuse("a namespace within a namespace"));
    }
    let keys: Vec<Value> = both.try_iter()?.collect();
    if keys.iter().any(|key| key.as_str().is_none_or(|key| key.starts_with('_'))) {
        return Err(refuse("the names in a namespace are strings that begin with no underscore"));
    }
    minijinja::functions::namespace(Some(ValueOrKwargs::from(both)))
}
