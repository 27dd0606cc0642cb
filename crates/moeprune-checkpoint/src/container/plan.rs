//! Weight files that will be written.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
};

use moeprune_core::Dtype;

use super::Metadata;
use crate::Error;

/// A tensor that will be written.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "plain data, made by the caller")]
pub struct PlannedTensor {
    /// Name on disk.
    pub name: String,
    /// Element type.
    pub dtype: Dtype,
    /// Dimensions, outermost first.
    pub shape: Vec<usize>,
}

/// Tensors that are to be written, and how they are to be spread over files.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct WeightRequest {
    /// The tensors in the order in which they are to lie.
    pub tensors: Vec<PlannedTensor>,
    /// A file takes tensors in the given order until the next would bring its data above this; a
    /// larger tensor has a file of its own.
    pub max_file_bytes: u64,
    /// Facts to store with them, as [`Contents::metadata`](super::Contents::metadata) has them.
    pub metadata: Metadata,
    /// Tensors that lie apart, with the name of their file: one beside the others, as large as it
    /// becomes. A container that keeps everything in one file may pass over this.
    pub own_files: BTreeMap<String, String>,
}

impl WeightRequest {
    /// A request without metadata.
    #[must_use]
    pub fn new(tensors: Vec<PlannedTensor>, max_file_bytes: u64) -> Self {
        Self { tensors, max_file_bytes, metadata: Metadata::default(), own_files: BTreeMap::new() }
    }

    /// Checks the tensors' names and sizes, and spreads them over files: of each file the tensors
    /// and the bytes of their data, end to end. Files with a name of their own come last.
    pub(super) fn groups(self) -> Result<Vec<Group>, Error> {
        let bad = |reason: String| Err(Error::Order { reason });
        let mut names = BTreeSet::new();
        let mut groups: Vec<Group> = Vec::new();
        let mut own: BTreeMap<String, Group> = BTreeMap::new();
        let limit = self.max_file_bytes;
        for tensor in self.tensors {
            let PlannedTensor { name, dtype, shape } = &tensor;
            if name == "__metadata__" || !names.insert(name.clone()) {
                return bad(format!("`{name}` is announced twice or is no tensor's name"));
            }
            let Some(bytes) = dtype.bytes_of_shape(shape) else {
                return bad(format!("`{name}`: {dtype} {shape:?} has no whole number of bytes"));
            };
            let bytes = bytes as u64;
            if let Some(file) = self.own_files.get(name) {
                let group = own.entry(file.clone()).or_insert_with(|| Group::named(file.clone()));
                group.add(tensor, bytes);
                continue;
            }
            match groups.last_mut() {
                Some(group) if group.end().checked_add(bytes).is_some_and(|sum| sum <= limit) => {
                    group.add(tensor, bytes);
                }
                _ => {
                    let mut group = Group::default();
                    group.add(tensor, bytes);
                    groups.push(group);
                }
            }
        }
        groups.extend(own.into_values());
        if groups.is_empty() {
            return bad("no tensors were announced".to_owned());
        }
        Ok(groups)
    }
}

/// Tensors that share a file.
#[derive(Default)]
pub(super) struct Group {
    /// The file, if they are to lie apart.
    pub(super) name: Option<String>,
    pub(super) tensors: Vec<PlannedTensor>,
    /// Their bytes, from the beginning of the data.
    pub(super) ranges: Vec<Range<u64>>,
}

impl Group {
    fn named(name: String) -> Self {
        Self { name: Some(name), ..Self::default() }
    }

    fn add(&mut self, tensor: PlannedTensor, bytes: u64) {
        let start = self.end();
        self.ranges.push(start..start + bytes);
        self.tensors.push(tensor);
    }

    pub(super) fn end(&self) -> u64 {
        self.ranges.last().map_or(0, |range| range.end)
    }
}

/// The files that hold the tensors of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "plain data, made by implementations")]
pub struct PlannedWeights {
    /// The weight files.
    pub files: Vec<PlannedFile>,
    /// The index beside them, if they need one; written when they are complete.
    pub index: Option<PlannedIndex>,
}

/// A weight file that will be written.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "plain data, made by implementations")]
pub struct PlannedFile {
    /// Its name.
    pub name: String,
    /// Its first bytes, which say what is in it.
    pub header: Vec<u8>,
    /// The tensors in it.
    pub tensors: Vec<PlannedTensor>,
    /// The bytes of each tensor, from the beginning of the file; ascending. What is between them
    /// is zero.
    pub ranges: Vec<Range<u64>>,
    /// Its length.
    pub bytes: u64,
}

/// An index that will be written.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "plain data, made by implementations")]
pub struct PlannedIndex {
    /// The name of its file.
    pub name: String,
    /// All of its bytes.
    pub text: String,
}
