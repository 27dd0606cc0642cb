//! What a header says of a tensor.

use std::ops::Range;

use moeprune_core::Dtype;

use crate::Error;

/// The most dimensions that a tensor has.
pub(super) const MOST_DIMS: usize = 4;

/// A tensor of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct TensorInfo {
    /// Its name.
    pub name: String,
    /// Element type.
    pub dtype: Dtype,
    /// Dimensions, outermost first: ggml's in reverse.
    pub shape: Vec<usize>,
    /// Its bytes, from the beginning of the file.
    pub range: Range<u64>,
}

/// A tensor of a file that is to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "plain data, made by the caller")]
pub struct NewTensor {
    /// Its name.
    pub name: String,
    /// Element type: one that ggml has.
    pub dtype: Dtype,
    /// Dimensions, outermost first; up to four.
    pub shape: Vec<usize>,
}

impl TensorInfo {
    /// A tensor whose bytes begin at `start`.
    pub(super) fn at(tensor: NewTensor, start: u64) -> Result<Self, Error> {
        let NewTensor { name, dtype, shape } = tensor;
        let bad = |reason: String| Err(Error::tensor(&name, reason));
        if shape.len() > MOST_DIMS {
            return bad(format!("has {} dimensions, expected up to {MOST_DIMS}", shape.len()));
        }
        if dtype.ggml_id().is_none() {
            return bad(format!("is {dtype}, which ggml lacks"));
        }
        let row = shape.last().copied().unwrap_or(1);
        if let Dtype::Ggml(blocks) = dtype
            && !row.is_multiple_of(blocks.block_elements())
        {
            let block = blocks.block_elements();
            return bad(format!(
                "has rows of {row} elements, expected a multiple of the {block} of {dtype}"
            ));
        }
        let end = dtype.bytes_of_shape(&shape).and_then(|bytes| start.checked_add(bytes as u64));
        match end {
            Some(end) => Ok(Self { name, dtype, shape, range: start..end }),
            None => bad(format!("of {dtype} {shape:?} has more bytes than can be counted")),
        }
    }
}
