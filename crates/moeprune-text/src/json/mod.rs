//! JSON as people write it: lines, arrays, and numbers that JSON does not have.

mod document;
mod stream;

pub(crate) use document::{Document, Kind, Node, Origin, Wrong};
pub(crate) use stream::Stream;
