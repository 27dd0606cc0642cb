//! Lists and tuples.

use std::fmt;

use minijinja::Value;

use super::budget;

/// A list or a tuple whose depth is known, and whose items are counted when they are visited.
pub(crate) struct List {
    pub(super) items: Vec<Value>,
    pub(super) kind: Kind,
    /// What a visit counts for.
    pub(super) weight: usize,
    /// How deep it is nested, and whether a namespace is in it.
    shape: Shape,
}

/// What a list is in Python.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// A list.
    List,
    /// A tuple.
    Tuple,
    /// A tuple of a key and a list, which `groupby` makes.
    Group,
}

/// What has to be known of a container before it goes into another.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Shape {
    /// 1 for a container without containers.
    pub(crate) depth: usize,
    /// Whether a namespace is in it: putting that into a namespace could make a circle.
    pub(crate) has_namespace: bool,
}

impl List {
    pub(super) fn new(items: Vec<Value>, kind: Kind, shape: Shape) -> Self {
        let weight = items.iter().map(budget::weight).sum();
        Self { items, kind, weight, shape }
    }

    pub(super) fn shape(&self) -> Shape {
        self.shape
    }

    pub(super) fn is_tuple(&self) -> bool {
        self.kind != Kind::List
    }
}

impl fmt::Debug for List {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("List").field("length", &self.items.len()).finish_non_exhaustive()
    }
}
