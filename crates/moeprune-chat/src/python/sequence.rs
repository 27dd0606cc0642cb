//! Lists and tuples as the engine sees them.

use std::{cmp::Ordering, fmt, sync::Arc};

use minijinja::{
    Value,
    value::{DynObject, Enumerator, Object, ObjectExt, ObjectRepr},
};

use super::{
    budget,
    list::{Kind, List},
    text,
};

impl Object for List {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Seq
    }

    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        self.items.get(key.as_usize()?).cloned()
    }

    fn get_value_by_str(self: &Arc<Self>, key: &str) -> Option<Value> {
        match key {
            "grouper" if self.kind == Kind::Group => self.items.first().cloned(),
            "list" if self.kind == Kind::Group => self.items.get(1).cloned(),
            _ => None,
        }
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        budget::visit(self.weight);
        self.mapped_rev_enumerator(|list| Box::new(list.items.iter().cloned()))
    }

    fn enumerator_len(self: &Arc<Self>) -> Option<usize> {
        Some(self.items.len())
    }

    fn custom_cmp(self: &Arc<Self>, other: &DynObject) -> Option<Ordering> {
        let other = other.downcast_ref::<Self>()?;
        budget::visit(self.weight.min(other.weight));
        Some(self.is_tuple().cmp(&other.is_tuple()).then_with(|| self.items.cmp(&other.items)))
    }

    fn render(self: &Arc<Self>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        text::render(f, &Value::from_dyn_object(Arc::clone(self)))
    }
}
