//! Dictionaries.

use std::{collections::BTreeMap, fmt, sync::Arc};

use minijinja::{
    Error, State, Value,
    value::{Enumerator, Object, ObjectExt, ObjectRepr},
};

use super::{budget, list::Shape, text};

/// Methods of dictionaries that a template may call. As attributes they hide keys of the same names.
const METHODS: [&str; 5] = ["copy", "get", "items", "keys", "values"];
/// Methods that change a dictionary: the sandbox hides them, and the keys with them.
const CHANGING: [&str; 5] = ["clear", "pop", "popitem", "setdefault", "update"];

/// A dictionary in the order in which its keys were put in.
#[derive(Default)]
pub(crate) struct Dict {
    entries: Vec<(Value, Value)>,
    places: BTreeMap<Value, usize>,
    /// What a visit counts for.
    weight: usize,
    shape: Shape,
}

impl Dict {
    /// Puts an item under a key, in the place of one that is there.
    pub(super) fn put(&mut self, key: Value, item: Value) {
        self.weight += budget::weight(&key) + budget::weight(&item);
        if let Some(&place) = self.places.get(&key) {
            self.entries[place].1 = item;
            return;
        }
        self.places.insert(key.clone(), self.entries.len());
        self.entries.push((key, item));
    }

    pub(super) fn with_shape(self, shape: Shape) -> Self {
        Self { shape, ..self }
    }

    pub(super) fn shape(&self) -> Shape {
        self.shape
    }

    fn get(&self, key: &Value) -> Option<Value> {
        self.places.get(key).map(|&place| self.entries[place].1.clone())
    }
}

impl fmt::Debug for Dict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dict").field("length", &self.entries.len()).finish_non_exhaustive()
    }
}

impl Object for Dict {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Map
    }

    /// `dict[key]`
    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        self.get(key)
    }

    /// `dict.key`
    fn get_value_by_str(self: &Arc<Self>, key: &str) -> Option<Value> {
        if CHANGING.contains(&key) {
            return None;
        }
        let method = METHODS.into_iter().find(|method| *method == key);
        method.map_or_else(
            || self.get(&Value::from(key)),
            |name| Some(Value::from_object(Method { of: Arc::clone(self), name })),
        )
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        budget::visit(self.weight);
        self.mapped_rev_key_value_enumerator(|dict| Box::new(dict.entries.iter().cloned()))
    }

    fn enumerator_len(self: &Arc<Self>) -> Option<usize> {
        Some(self.entries.len())
    }

    fn render(self: &Arc<Self>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        text::render(f, &Value::from_dyn_object(Arc::clone(self)))
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
