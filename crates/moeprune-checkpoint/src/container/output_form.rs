//! In what form weights are written.

use std::collections::BTreeMap;

use super::{Container, Metadata, Safetensors};

/// In what form weights are written: which container, and how large a file may be.
///
/// [`Checkpoint::output_form`](crate::Checkpoint::output_form) is that of a model; a number is a
/// limit for safetensors files.
#[derive(Debug, Clone)]
#[expect(clippy::exhaustive_structs, reason = "plain data, made by the caller")]
pub struct OutputForm<'a> {
    /// The format of the files.
    pub container: &'a dyn Container,
    /// As [`WeightRequest::max_file_bytes`](crate::WeightRequest::max_file_bytes).
    pub max_file_bytes: u64,
    /// As [`WeightRequest::metadata`](crate::WeightRequest::metadata).
    pub metadata: Metadata,
    /// As [`WeightRequest::own_files`](crate::WeightRequest::own_files).
    pub own_files: BTreeMap<String, String>,
}

impl From<u64> for OutputForm<'_> {
    fn from(max_file_bytes: u64) -> Self {
        Self {
            container: &Safetensors,
            max_file_bytes,
            metadata: Metadata::default(),
            own_files: BTreeMap::new(),
        }
    }
}
