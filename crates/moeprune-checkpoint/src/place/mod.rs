//! Where a part is: which bytes of which tensor, and in what order its elements lie there.
//!
//! | how families store experts | what it is here |
//! |---|---|
//! | a tensor for each matrix of each expert | [`Place::separate`] |
//! | one tensor `[experts, rows, cols]` for all experts of a layer | [`FusedExperts`] |
//! | gate and up in one tensor, one after the other or row by row | [`FusedExperts::matrices`], [`FusedExperts::interleaved`] |
//! | matrices as `[in, out]` | [`FusedExperts::transposed`] |

mod fused;
mod lines;
mod separate;

use std::{borrow::Cow, ops::Range};

use moeprune_core::Dtype;

pub use self::fused::FusedExperts;
use self::lines::Lines;

/// Where a part is: bytes of one tensor, in the part's own order or in another.
///
/// Most parts are a whole tensor, or a range of one. A matrix that is stored transposed, or row by
/// row with another one, has its elements among those of a slab, and is
/// [gathered](Self::gather) from it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    tensor: usize,
    dtype: Dtype,
    /// The part's own.
    shape: Vec<usize>,
    /// Of the tensor.
    bytes: Range<u64>,
    /// Where its rows lie in these bytes; `None` if these bytes are the part.
    lines: Option<Lines>,
}

/// A stored tensor as a place needs to know it:
/// [`StoredTensor::form`](crate::StoredTensor::form).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TensorForm<'a> {
    /// Its number among the tensors of the checkpoint.
    pub(crate) tensor: usize,
    pub(crate) dtype: Dtype,
    pub(crate) shape: &'a [usize],
}

impl Place {
    /// Dimensions of the part, outermost first.
    #[must_use]
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Number of elements of the part.
    #[must_use]
    pub fn elements(&self) -> usize {
        self.shape.iter().product()
    }

    /// The bytes of the tensor that hold the part: the part itself if it
    /// [is contiguous](Self::is_contiguous), else a slab with the part among others.
    #[must_use]
    pub fn bytes(&self) -> Range<u64> {
        self.bytes.clone()
    }

    /// Whether [`bytes`](Self::bytes) are the part, element by element.
    #[must_use]
    pub fn is_contiguous(&self) -> bool {
        self.lines.is_none()
    }

    /// The part's bytes, from those that hold it. Borrowed if they are the same.
    ///
    /// # Panics
    /// If `slab` is not as long as [`bytes`](Self::bytes).
    #[must_use]
    pub fn gather<'a>(&self, slab: Cow<'a, [u8]>) -> Cow<'a, [u8]> {
        self.check_length(slab.len());
        match &self.lines {
            None => slab,
            Some(lines) => Cow::Owned(lines.gather(&slab)),
        }
    }

    /// Writes the part's bytes to where they belong among those that hold it; the others stay. What
    /// [`gather`](Self::gather) then returns is the part.
    ///
    /// # Panics
    /// If `part` is not as long as the part, or `slab` not as long as [`bytes`](Self::bytes).
    pub fn scatter(&self, part: &[u8], slab: &mut [u8]) {
        self.check_length(slab.len());
        match &self.lines {
            None => slab.copy_from_slice(part),
            Some(lines) => lines.scatter(part, slab),
        }
    }

    /// Its tensor's number among those of the checkpoint.
    pub(crate) fn tensor(&self) -> usize {
        self.tensor
    }

    pub(crate) fn dtype(&self) -> Dtype {
        self.dtype
    }

    fn check_length(&self, slab: usize) {
        let bytes = self.bytes.end - self.bytes.start;
        assert!(slab as u64 == bytes, "{slab} bytes for a place of {bytes}");
    }
}

/// Bytes of a tensor; `None` if they cannot be counted or end within a byte or a block.
fn byte_len(dtype: Dtype, shape: &[usize]) -> Option<u64> {
    dtype.bytes_of_shape(shape).map(|bytes| bytes as u64)
}
