//! Where a part is: which bytes of which tensor.

use std::{borrow::Cow, ops::Range};

/// Where a part is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    tensor: usize,
    bytes: Range<u64>,
    shape: Vec<usize>,
}

impl Place {
    /// A tensor that holds the part and nothing else.
    pub(crate) fn separate(tensor: usize, shape: Vec<usize>, bytes: u64) -> Self {
        Self { tensor, bytes: 0..bytes, shape }
    }
    pub(crate) fn tensor(&self) -> usize {
        self.tensor
    }
    pub(crate) fn bytes(&self) -> Range<u64> {
        self.bytes.clone()
    }
    pub(crate) fn shape(&self) -> Vec<usize> {
        self.shape.clone()
    }
    pub(crate) fn elements(&self) -> usize {
        self.shape.iter().product()
    }
    pub(crate) fn is_contiguous(&self) -> bool {
        true
    }
    pub(crate) fn gather<'a>(&self, b: Cow<'a, [u8]>) -> Cow<'a, [u8]> {
        b
    }
}
